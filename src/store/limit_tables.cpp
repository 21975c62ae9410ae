// The half of Limits that gives slots to keys: claiming, growing, and what a death leaves.
#include <algorithm>
#include <new>

#include "arena/crash_point.hpp"
#include "store/limits.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t bytes_of(std::uint32_t level) {
  return Limits::kBuckets[level] * sizeof(layout::LimitBucket);
}

}  // namespace

// A slot for the tag, nobody's still: its state is the caller's to store. Crash-safe: as it is
// nobody's, it is given to the next.
Result<layout::LimitSlot*> Limits::give_slot(Shard& shard, std::uint64_t tag, std::uint64_t now,
                                             const Changes& taken, OwnerTag me) {
  Slot* slot = claim(shard, now, tag, taken);
  if (slot == nullptr) {
    Status added = add_level(shard, me);
    if (!added) return added;
    slot = claim(shard, now, tag, taken);
    if (slot == nullptr) return Status(Code::kCorrupt, "a level of the rate limits isn't empty");
  }
  CELERIAC_CRASH_POINT("limits.give.claimed");
  // release pairs with find() and with the second look at the tag: the state was 0 before
  slot->tag.store(tag, std::memory_order_release);
  CELERIAC_CRASH_POINT("limits.give.tagged");
  // release pairs with the first load of hit_one()
  shard.inserts.fetch_add(1, std::memory_order_release);
  return slot;
}

// From the smallest level up, so that the older ones fill. L2: in the order of find().
layout::LimitSlot* Limits::claim(Shard& shard, std::uint64_t now, std::uint64_t tag,
                                 const Changes& taken) {
  for (std::uint32_t i = 0; i < layout::kLimitLevels; ++i) {
    layout::LimitBucket* first = level(shard, i);
    if (first == nullptr) continue;
    std::uint64_t at = place_of(tag, i);
    for (std::uint32_t n = 0; n < kProbe; ++n) {
      for (Slot& s : first[at].slots) {
        const auto is_s = [&](const Change& c) { return c.slot == &s; };
        if (std::any_of(taken.begin(), taken.end(), is_s)) continue;
        std::uint64_t state = s.state.load(std::memory_order_relaxed);
        if (state == 0) return &s;
        const std::uint64_t period = period_of(s.tag.load(std::memory_order_relaxed));
        // acq_rel: it comes before the new tag, and a hit that lost to it reads the tag again
        if (idle(state, period, now) &&
            s.state.compare_exchange_strong(state, 0, std::memory_order_acq_rel)) {
          return &s;
        }
      }
      at = at + 1 == kBuckets[i] ? 0 : at + 1;
    }
  }
  return nullptr;
}

Status Limits::add_level(Shard& shard, OwnerTag me) {
  std::uint32_t i = 0;
  while (i < layout::kLimitLevels && shard.levels[i].load(std::memory_order_relaxed) != 0) ++i;
  if (i == layout::kLimitLevels) {
    return {Code::kNotEnoughMemory, "a shard of the rate limits has all of its " +
                                        std::to_string(i) +
                                        " tables, and each key in them is in use"};
  }
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(bytes_of(i)), me);
  if (!block) {
    return {block.status().code(),
            "rate limits need a table for more keys, and there is " + block.status().message()};
  }
  auto* first = base_.arena.at<layout::LimitBucket>(aligned_object(block.value()), bytes_of(i));
  if (first == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
  for (std::uint64_t n = 0; n < kBuckets[i]; ++n) new (first + n) layout::LimitBucket{};
  shard.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("limits.grow.live");
  shard.levels[i].store(block.value(), std::memory_order_release);  // pairs with level()
  CELERIAC_CRASH_POINT("limits.grow.linked");
  shard.height.store(std::max(i + 1, shard.height.load(std::memory_order_relaxed)),
                     std::memory_order_release);
  shard.mutex.pending[0].store(0, std::memory_order_release);
  return Status::ok();
}

// What a dead holder of the mutex left. Crash-safe: idempotent.
void Limits::settle(Shard& shard, OwnerTag me) {
  layout::Word& pending = shard.mutex.pending[0];
  std::uint32_t height = 0;
  bool linked = false;
  const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
  for (std::uint32_t i = 0; i < layout::kLimitLevels; ++i) {
    const std::uint64_t block = shard.levels[i].load(std::memory_order_acquire);
    if (block != 0) height = i + 1;
    linked = linked || block == left;
  }
  if (left != 0 && !linked) base_.heap.release(left, me);
  pending.store(0, std::memory_order_release);
  shard.height.store(height, std::memory_order_release);
  const std::uint64_t n =
      std::min<std::uint64_t>(shard.changing.load(std::memory_order_acquire), layout::kMostRates);
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint64_t place = shard.places[i].load(std::memory_order_relaxed);
    auto* slot = is_slot(shard, place) ? base_.arena.at<Slot>(place) : nullptr;
    if (slot != nullptr) {
      slot->state.store(shard.before[i].load(std::memory_order_relaxed),
                        std::memory_order_release);  // before `changing`, as it was
    }
    CELERIAC_CRASH_POINT("limits.settle.undone");
  }
  shard.changing.store(0, std::memory_order_release);
  shard.inserts.fetch_add(1, std::memory_order_release);  // L1
}

bool Limits::is_slot(Shard& shard, std::uint64_t place) {
  for (std::uint32_t i = 0; i < layout::kLimitLevels; ++i) {
    const std::uint64_t block = shard.levels[i].load(std::memory_order_acquire);
    if (block == 0) continue;
    const std::uint64_t begin = aligned_object(block);
    if (place >= begin && place < begin + bytes_of(i)) return place % sizeof(Slot) == 0;
  }
  return false;
}

LimitCounts Limits::counts(std::uint64_t now) {
  LimitCounts c;
  for (Shard& shard : directory_.shards) {
    for (std::uint32_t i = 0; i < layout::kLimitLevels; ++i) {
      const layout::LimitBucket* first = level(shard, i);
      if (first == nullptr) continue;
      c.bytes += Heap::cost(aligned_bytes(bytes_of(i)));
      c.slots += kBuckets[i] * std::size(first->slots);
      for (std::uint64_t n = 0; n < kBuckets[i]; ++n) {
        for (const Slot& s : first[n].slots) {
          const std::uint64_t state = s.state.load(std::memory_order_relaxed);
          const std::uint64_t period = period_of(s.tag.load(std::memory_order_relaxed));
          if (state != 0 && !idle(state, period, now)) ++c.used;
        }
      }
    }
  }
  return c;
}

void Limits::forget(const LiveBlocks& live) {
  for (Shard& shard : directory_.shards) {
    for (layout::Word& l : shard.levels) {
      const std::uint64_t block = l.load(std::memory_order_relaxed);
      if (block != 0 && !live.has(block)) l.store(0, std::memory_order_relaxed);
    }
  }
}

}  // namespace celeriac
