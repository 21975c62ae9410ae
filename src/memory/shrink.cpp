// The half of the heap that becomes smaller: the ceiling falls, what is free at the end is cut off,
// and its memory is given back (heap.hpp: H6 and "Shrinking"). Who empties the end first is
// store/resize.hpp.
#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "memory/heap.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kLockPatience = 2 * kSecond;
constexpr std::uint64_t kAtOnce = 64ULL << 20U;    // how much to give back under the mutex
constexpr std::uint64_t kLeastHeap = 1ULL << 20U;  // what stays however little is in use

std::string mebibytes(std::uint64_t bytes) {
  return std::to_string((bytes + (1ULL << 20U) - 1) >> 20U) + " MiB";
}

Status locked() {
  return {Code::kLockTimeout, "the heap's mutex is held by a process that doesn't run"};
}

}  // namespace

// Makes two of a free block that is in no list. REQUIRES: both are large enough.
void Heap::split(std::uint64_t offset, std::uint64_t middle) {
  BlockSizes low = sizes(offset);
  BlockSizes high = low;
  low.own = (middle - offset) / 16;
  high.own -= low.own;
  high.previous = low.own;
  if (high.side == Side::kNestFirst) high.side = Side::kNestInner;
  layout::BlockHeader* c = block(middle);
  if (c == nullptr) return;
  c->word.store(TaggedWord::make(kBlockFree, {}, 0).bits, std::memory_order_relaxed);
  resize(middle, high);
  CELERIAC_CRASH_POINT("heap.split.written");
  resize(offset, low);  // H1
  CELERIAC_CRASH_POINT("heap.split.done");
  set_previous(middle + high.own * 16, high.own);
  if (middle + high.own * 16 == arena_.size()) {
    control_.last_block.store(middle, std::memory_order_relaxed);
  }
}

Status Heap::lower(std::uint64_t capacity, const std::function<bool(std::uint64_t offset)>& leaves,
                   OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) return locked();
  if (guard.recovered() || dirty()) sweep_locked();
  std::uint64_t needed = layout::kBlocks;  // where the highest block ends that has to stay
  std::uint64_t staying = 0;               // bytes of all that has to stay
  const std::uint64_t end = arena_.size();
  for (std::uint64_t offset = layout::kBlocks, own = 0; offset < end; offset += own * 16) {
    const layout::BlockHeader* b = block(offset);
    const BlockSizes sizes = b == nullptr ? BlockSizes{} : sizes_of(*b);
    own = sizes.own;
    if (own < kMinimumBlockUnits) return {Code::kCorrupt, "the heap can't be walked"};
    const unsigned state = load(b->word).state();
    if (state == kBlockFree || state == kBlockGarbage || sizes.side == Side::kCache) continue;
    staying += own * 16;
    const std::uint64_t behind = offset + own * 16;
    if (behind > needed && (behind <= capacity || !leaves(offset))) needed = behind;
  }
  if (needed > capacity) {
    return {Code::kNotEnoughMemory,
            "memory can't be lowered to " + mebibytes(capacity) + ": need " + mebibytes(needed) +
                ", since messages, tables and what leads to them are never evicted and can't be "
                "moved; of those there are " +
                mebibytes(staying) + ", the last of them ends there. Have queues worked off or " +
                "purged, or resize to " + std::to_string((needed + (1ULL << 20U) - 1) >> 20U) +
                "M or more"};
  }
  arena_.header().capacity.store(capacity, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("heap.lower.stored");
  control_.push_line.store(0, std::memory_order_relaxed);
  if (end > capacity) sweep_locked();  // H6
  return Status::ok();
}

// The block that ends where the arena does, 0 if there is none.
std::uint64_t Heap::last_block() {
  const std::uint64_t end = arena_.size();
  const std::uint64_t hint = control_.last_block.load(std::memory_order_relaxed);
  if (block(hint) != nullptr && hint + sizes(hint).own * 16 == end) return hint;
  std::uint64_t last = 0;
  for (std::uint64_t offset = layout::kBlocks; offset < end; offset += sizes(last).own * 16) {
    last = offset;
    if (sizes(last).own < kMinimumBlockUnits) return 0;
  }
  return last;
}

std::uint64_t Heap::trim(OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) return arena_.size();
  if (guard.recovered() || dirty()) sweep_locked();
  const std::uint64_t page = arena_.header().fixed.page_size;
  for (;;) {
    const std::uint64_t last = last_block();
    const std::uint64_t end = arena_.size();
    if (last == 0 || load(block(last)->word).state() != kBlockFree) return end;
    std::uint64_t cut = layout::align_up(std::max(last, layout::kBlocks + kLeastHeap), page);
    if (cut != last && cut - last < kMinimumBlockUnits * 16) cut += page;
    if (cut >= end) return end;
    remove(last);
    const BlockSizes sizes = this->sizes(last);
    const std::uint64_t units = (end - cut) / 16;
    if (cut != last) split(last, cut);
    arena_.publish_shrinking(cut);
    if (in_nest(sizes.side)) count_other(units, -1);
    control_.low_hand.store(0, std::memory_order_relaxed);  // it may lie behind the end
    if (cut != last) {
      control_.last_block.store(last, std::memory_order_relaxed);
      insert(last);
    }
    CELERIAC_CRASH_POINT("heap.trim.cut");
  }
}

void Heap::give_back(OwnerTag me) {
  for (std::uint64_t from = 1; from != 0;) {
    OwnerMutex mutex(control_.mutex, owners_);
    const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
    if (!guard.held()) return;
    if (guard.recovered()) sweep_locked();
    from = arena_.give_back(from, kAtOnce);
  }
}

}  // namespace celeriac
