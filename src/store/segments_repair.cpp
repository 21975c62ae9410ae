// What is done with segments after a death, or when memory was damaged.
#include <algorithm>
#include <utility>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "store/segments.hpp"

namespace celeriac {
namespace {

unsigned state_of(std::uint64_t word) { return TaggedWord{word}.state(); }

}  // namespace

bool Segments::claimed(std::uint64_t block) {
  for (const layout::Word& chunk : directory().offsets) {
    if (chunk.load(std::memory_order_relaxed) == block) return true;
  }
  for (const layout::Word& spare : directory().spare) {
    if (spare.load(std::memory_order_relaxed) == block) return true;
  }
  for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
    if (log(i).ghosts.load(std::memory_order_relaxed) == block) return true;
  }
  const char* payload = base_.heap.payload(block, sizeof(layout::BlockHead));
  if (payload == nullptr) return false;
  const std::uint64_t mark =
      reinterpret_cast<const layout::BlockHead*>(payload)->mark.load(std::memory_order_relaxed);
  const layout::SegmentRecord* r =
      mark < high() ? record(static_cast<std::uint32_t>(mark)) : nullptr;
  return r != nullptr && r->block.load(std::memory_order_relaxed) == block &&
         state_of(r->word.load(std::memory_order_relaxed)) != kFree;
}

void Segments::blank_records(std::uint64_t block) {
  const std::uint64_t end = block + sizeof(layout::BlockHeader) + base_.heap.room(block);
  const std::uint64_t n = std::min<std::uint64_t>(
      (end - std::min(end, aligned_object(block))) / sizeof(layout::SegmentRecord),
      layout::kSegmentsPerChunk);
  auto* r = base_.arena.at<layout::SegmentRecord>(aligned_object(block),
                                                  n * sizeof(layout::SegmentRecord));
  for (std::uint64_t i = 0; r != nullptr && i < n; ++i) {
    r[i].word.store(0, std::memory_order_release);
  }
  CELERIAC_CRASH_POINT("segments.records.blanked");
}

void Segments::repair(OwnerTag me) {
  layout::SegmentDirectory& d = directory();
  for (layout::Word& pending : d.mutex.pending) {
    const std::uint64_t block = base_.heap.still_live(pending.load(std::memory_order_acquire));
    const bool ours = block != 0 && !claimed(block) && base_.heap.condemn(block, me);
    if (ours) blank_records(block);  // it may have been a chunk that was moving (store/resize.hpp)
    CELERIAC_CRASH_POINT("segments.repair.condemned");
    pending.store(0, std::memory_order_release);
    if (ours) base_.heap.free(block, me);
  }
  relink();
}

// Chains, free list and open segments, from the records.
void Segments::relink() {
  layout::SegmentDirectory& d = directory();
  // A record whose maker died before counting it may be the next one already.
  for (layout::SegmentRecord* r = record(std::max(high(), 1U));
       r != nullptr && state_of(r->word.load(std::memory_order_relaxed)) != kFree;
       r = record(high())) {
    d.high.store(std::max(high(), 1U) + 1, std::memory_order_relaxed);
  }
  for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
    for (layout::SegmentQueue& q : log(i).queues) {
      q.head.store(0, std::memory_order_relaxed);
      q.tail.store(0, std::memory_order_relaxed);
      for (layout::HalfWord& open : q.open) open.store(0, std::memory_order_relaxed);
      q.live.store(0, std::memory_order_relaxed);
    }
  }
  d.free.store(0, std::memory_order_relaxed);
  d.victim.store(0, std::memory_order_relaxed);
  std::vector<std::pair<std::uint64_t, std::uint32_t>> used;  // by age
  for (std::uint32_t number = 1; number < high(); ++number) {
    layout::SegmentRecord* r = record(number);
    if (r == nullptr) break;
    if (state_of(r->word.load(std::memory_order_relaxed)) != kFree) {
      used.emplace_back(r->base.load(std::memory_order_relaxed), number);
      continue;
    }
    r->next.store(d.free.load(std::memory_order_relaxed), std::memory_order_relaxed);
    d.free.store(number, std::memory_order_relaxed);
  }
  std::sort(used.begin(), used.end());
  for (const auto& [age, number] : used) {
    layout::SegmentRecord* r = record(number);
    chain(number);
    const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
    layout::SegmentQueue& q = log(at.log).queues[at.queue];
    add_live(q.live, load_live(r->live));
    if (!at.single && state_of(r->word.load(std::memory_order_relaxed)) == kWritable) {
      q.open[at.life].store(number, std::memory_order_relaxed);
    }
  }
  CELERIAC_CRASH_POINT("segments.repair.done");
}

void Segments::forget(const LiveBlocks& live) {
  layout::SegmentDirectory& d = directory();
  std::uint64_t lost = 0;
  const auto forgotten = [&](layout::Word& leads_there) {
    const std::uint64_t block = leads_there.load(std::memory_order_relaxed);
    if (block == 0 || live.has(block)) return false;
    leads_there.store(0, std::memory_order_release);
    ++lost;
    return true;
  };
  for (std::uint32_t c = 0; c < layout::kMaxSegmentChunks; ++c) {
    if (!forgotten(d.offsets[c])) continue;
    // What is behind it can't be walked any more.
    d.high.store(std::min(high(), c * layout::kSegmentsPerChunk), std::memory_order_relaxed);
    while (++c < layout::kMaxSegmentChunks) d.offsets[c].store(0, std::memory_order_relaxed);
  }
  for (layout::Word& spare : d.spare) forgotten(spare);
  for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
    if (!forgotten(log(i).ghosts)) continue;
    for (layout::HalfWord& n : log(i).ghost_entries) n.store(0, std::memory_order_relaxed);
  }
  for (std::uint32_t number = 1; number < high(); ++number) {
    layout::SegmentRecord* r = record(number);
    if (r == nullptr) break;
    const TaggedWord w{r->word.load(std::memory_order_relaxed)};
    if (w.state() == kFree || live.has(r->block.load(std::memory_order_relaxed))) continue;
    r->word.store(TaggedWord::make(kFree, {}, w.generation() + 1).bits, std::memory_order_release);
    ++lost;
  }
  base_.arena.header().corrupt.fetch_add(lost, std::memory_order_relaxed);
  relink();
}

}  // namespace celeriac
