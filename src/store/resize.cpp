#include "store/resize.hpp"

#include <algorithm>
#include <deque>
#include <utility>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "platform/blocking.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kPatience = 2 * kMutexPatience;  // without progress
constexpr int kMostStuck = 2;                            // each has waited for kMutexPatience
constexpr int kAtOnce = 16;                              // segments without a look at signals
constexpr std::uint64_t kChunkBytes =
    aligned_bytes(sizeof(layout::SegmentRecord) * layout::kSegmentsPerChunk);

}  // namespace

Result<std::uint64_t> Resize::to(std::uint64_t memory, OwnerTag me) {
  const Status possible = base_.arena.check_ceiling(memory);
  if (!possible) return possible;
  const std::uint64_t page = base_.arena.header().fixed.page_size;
  const std::uint64_t wanted = memory / page * page;
  const std::uint64_t before = base_.arena.capacity();
  base_.arena.raise(wanted);
  CELERIAC_CRASH_POINT("resize.to.raised");
  if (wanted <= before || base_.arena.size() > wanted) {  // or what a dead resizer has left
    const Status lowered = lower(wanted, me);
    if (!lowered) return lowered;
    const Status emptied = empty_end(wanted, me);
    if (!emptied) {
      if (base_.arena.capacity() == wanted) base_.arena.raise(before);
      return emptied;
    }
  }
  CELERIAC_CRASH_POINT("resize.to.emptied");
  if (base_.arena.takes_more_than_its_size()) {
    const BlockingRegion away;
    pause_ms(kGrace);
    base_.heap.give_back(me);
  }
  return base_.arena.capacity();
}

Status Resize::lower(std::uint64_t ceiling, OwnerTag me) {
  Status lowered;
  for (int i = 0; i < 3; ++i) {  // a message may just be on its way from there
    if (i > 0) pause_ms(5);
    base_.recovery.run();
    const OperationScope operation(base_.owners.record(me.slot));
    lowered = base_.heap.lower(
        ceiling, [this](std::uint64_t block) { return movable(block); }, me);
    if (lowered.code() != Code::kNotEnoughMemory) break;
  }
  return lowered;
}

// What isn't the cache's for the heap, and leaves nevertheless.
bool Resize::movable(std::uint64_t block) {
  for (const layout::Word& chunk : segments_.directory().offsets) {
    if (chunk.load(std::memory_order_relaxed) == block) return true;
  }
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
    if (TableWord{index_.shard(i).table.load(std::memory_order_relaxed)}.block() == block) {
      return true;
    }
  }
  for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
    if (segments_.log(i).ghosts.load(std::memory_order_relaxed) == block) return true;
  }
  return false;
}

// The segments above the ceiling, the oldest first.
std::vector<std::uint32_t> Resize::beyond(OwnerTag me) {
  std::vector<std::pair<std::uint64_t, std::uint32_t>> found;
  const LogGuard guard(base_, segments_, me);
  for (std::uint32_t number = 1; guard.held() && number < segments_.high(); ++number) {
    const layout::SegmentRecord* r = segments_.record(number);
    if (r == nullptr) break;
    if (TaggedWord{r->word.load(std::memory_order_relaxed)}.state() == Segments::kFree) continue;
    if (!base_.heap.beyond(r->block.load(std::memory_order_relaxed))) continue;
    found.emplace_back(r->base.load(std::memory_order_relaxed), number);
  }
  std::sort(found.begin(), found.end());
  std::vector<std::uint32_t> numbers;
  numbers.reserve(found.size());
  for (const auto& [age, number] : found) numbers.push_back(number);
  return numbers;
}

// Step 2. What others take meanwhile they evict for themselves, so it ends.
void Resize::evict_to(std::uint64_t ceiling, OwnerTag me) {
  const std::uint64_t slack = 2 * segments_.ordinary() + ceiling / 64;
  const auto fits = [&] {
    const HeapStats s = base_.heap.stats();
    return s.size - std::min(s.free, s.size) + slack <= ceiling;
  };
  for (std::uint64_t i = 1; !fits() && i < 2ULL * segments_.high() + 64; ++i) {
    if (base_.arena.capacity() != ceiling || eviction_.evict(me) == 0) return;
    CELERIAC_CRASH_POINT("resize.evict.one");
    if (i % 64 == 0) shrink_tables(me);
  }
}

// Tables of the index that are too large, or above the ceiling. False when one is left there.
bool Resize::shrink_tables(OwnerTag me) {
  bool all = true;
  const OperationScope operation(base_.owners.record(me.slot));
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const auto block = [&] {
      return TableWord{index_.shard(shard).table.load(std::memory_order_relaxed)}.block();
    };
    bool done = false;
    for (int i = 0; !done && i < 3; ++i) {
      // The cache gives way to a table that has to move: were it put where there is room, it would
      // open a nest there, and what comes into that nest may have to stay.
      if (i > 0) eviction_.push(index_.next_table(shard), me);
      const Fit fit = i < 2 ? Fit::kProper : Fit::kAnyHole;
      const ShardGuard guard(base_, index_, shard, me);
      if (!guard.held()) break;
      const bool moves = block() != 0 && base_.heap.beyond(block());
      done = index_.shrink(shard, moves, fit, me) || !moves;
    }
    CELERIAC_CRASH_POINT("resize.tables.one");
    all = all && done;
  }
  return all;
}

// Chunks of segment records that lie above the ceiling. False when one is left there.
bool Resize::move_records(OwnerTag me) {
  bool all = true;
  const OperationScope operation(base_.owners.record(me.slot));
  for (layout::Word& chunk : segments_.directory().offsets) {
    const auto above = [&] {
      const std::uint64_t block = chunk.load(std::memory_order_relaxed);
      return block != 0 && base_.heap.beyond(block);
    };
    if (!above()) continue;
    if (move_chunk(chunk, Fit::kProper, me)) continue;
    eviction_.push(base_.heap.piece(kChunkBytes), me);
    all = (!above() || move_chunk(chunk, Fit::kAnyHole, me)) && all;
  }
  return all;
}

bool Resize::move_chunk(layout::Word& chunk, Fit fit, OwnerTag me) {
  const LogGuard guard(base_, segments_, me);
  const std::uint64_t old = chunk.load(std::memory_order_relaxed);
  if (!guard.held() || old == 0) return false;
  const Result<std::uint64_t> block = base_.heap.allocate(kChunkBytes, me, fit);
  if (!block) return false;
  const auto records = [&](std::uint64_t in) {
    return base_.arena.at<layout::SegmentRecord>(
        aligned_object(in), sizeof(layout::SegmentRecord) * layout::kSegmentsPerChunk);
  };
  layout::SegmentRecord* from = records(old);
  layout::SegmentRecord* to = records(block.value());
  std::deque<ShardGuard> shards;  // R4
  bool held = from != nullptr && to != nullptr;
  for (std::uint32_t i = 0; held && i < layout::kShardCount; ++i) {
    held = shards.emplace_back(base_, index_, i, me).held();
  }
  if (!held) {
    base_.heap.release(block.value(), me);
    return false;
  }
  std::uint64_t words[sizeof(layout::SegmentRecord) / 8 * layout::kSegmentsPerChunk];
  copy_out(words, from, sizeof words);
  copy_in(to, words, sizeof words);
  layout::Word(&pending)[2] = segments_.directory().mutex.pending;
  pending[0].store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
  pending[1].store(base_.heap.ticket(old), std::memory_order_release);
  CELERIAC_CRASH_POINT("resize.records.pending");
  base_.heap.make_live(block.value(), me);
  // release pairs with the acquire in Segments::record()
  chunk.store(block.value(), std::memory_order_release);
  CELERIAC_CRASH_POINT("resize.records.linked");
  segments_.blank_records(old);
  const bool ours = base_.heap.condemn(old, me);
  pending[0].store(0, std::memory_order_release);
  pending[1].store(0, std::memory_order_release);
  shards.clear();
  if (ours) base_.heap.free(old, me);
  return true;
}

// Steps 2 to 4.
Status Resize::empty_end(std::uint64_t ceiling, OwnerTag me) {
  std::uint64_t deadline = now_ns() + kPatience;
  std::uint64_t best = kNever;  // bytes in use above the ceiling, segments of the cache counted
  int stuck = 0;
  bool room = true;  // for what isn't evicted, but moved
  for (bool first = true;; first = false) {
    {
      const BlockingRegion away;
      if (first) {
        const OperationScope operation(base_.owners.record(me.slot));
        const LogGuard guard(base_, segments_, me);
        if (guard.held()) segments_.give_up_spares(me);
      }
      if (base_.heap.trim(me) > ceiling) {
        if (first) {
          shrink_tables(me);  // what was cleared still has its table
          evict_to(ceiling, me);
        }
        room = shrink_tables(me);
        room = move_records(me) && room;
        eviction_.vacate_ghosts(me);
      }
    }
    std::vector<std::uint32_t> segments = beyond(me);
    while (!segments.empty() && base_.arena.capacity() == ceiling) {
      if (blocking_interrupted()) return {Code::kInterrupted, "interrupted by a signal"};
      const BlockingRegion away;
      const std::size_t n = std::min<std::size_t>(segments.size(), kAtOnce);
      for (std::size_t i = 0; i < n; ++i) {
        if (eviction_.vacate(segments[i], me) != Eviction::Vacated::kStuck) continue;
        if (++stuck == kMostStuck) return mutex_timeout("a part of the cache");
      }
      segments.erase(segments.begin(), segments.begin() + static_cast<std::ptrdiff_t>(n));
    }
    const std::uint64_t size = base_.heap.trim(me);
    CELERIAC_CRASH_POINT("resize.empty.trimmed");
    if (size <= ceiling || base_.arena.capacity() != ceiling) return Status::ok();
    const std::uint64_t left = beyond(me).size() + size;
    if (left < best) deadline = now_ns() + kPatience;
    best = std::min(best, left);
    if (now_ns() > deadline) break;
    if (blocking_interrupted()) return {Code::kInterrupted, "interrupted by a signal"};
    base_.recovery.run();
    if (base_.heap.dirty()) base_.heap.sweep(me);
    const BlockingRegion away;
    pause_ms(2);
  }
  if (!room) {
    return {Code::kNotEnoughMemory,
            "the tables of the cache's index find no room below " + std::to_string(ceiling >> 20U) +
                " MiB: messages and tables have taken it; have queues worked off or purged, or "
                "resize to more"};
  }
  return mutex_timeout("a part of the memory that has to be given back");
}

}  // namespace celeriac
