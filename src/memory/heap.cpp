#include "memory/heap.hpp"

#include <algorithm>
#include <bit>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "platform/clock.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kLockPatience = kSecond;
constexpr std::uint64_t kFreePatience = 20 * kMillisecond;

constexpr std::uint64_t pack(std::uint64_t previous, std::uint64_t own) {
  return previous << 32U | own;
}
constexpr std::uint64_t own_units(std::uint64_t sizes) { return sizes & 0xFFFFFFFFU; }
constexpr std::uint64_t previous_units(std::uint64_t sizes) { return sizes >> 32U; }

constexpr std::uint64_t units_for(std::uint64_t bytes) {
  return std::max<std::uint64_t>((bytes + sizeof(layout::BlockHeader) + 15) / 16,
                                 kMinimumBlockUnits);
}

}  // namespace

std::uint64_t Heap::cost(std::uint64_t bytes) { return units_for(bytes) * 16; }

layout::Word* Heap::word(std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  return b == nullptr ? nullptr : &b->word;
}

char* Heap::payload(std::uint64_t offset, std::uint64_t bytes) {
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return nullptr;
  const std::uint64_t room = own_units(b->sizes.load(std::memory_order_relaxed)) * 16;
  if (room < sizeof(layout::BlockHeader) || bytes > room - sizeof(layout::BlockHeader)) {
    return nullptr;
  }
  return arena_.at<char>(offset + sizeof(layout::BlockHeader), room - sizeof(layout::BlockHeader));
}

std::uint64_t Heap::room(std::uint64_t offset) {
  const layout::BlockHeader* b = block(offset);
  if (b == nullptr) return 0;
  const std::uint64_t bytes = own_units(b->sizes.load(std::memory_order_relaxed)) * 16;
  return bytes < sizeof(layout::BlockHeader) ? 0 : bytes - sizeof(layout::BlockHeader);
}

std::uint64_t Heap::ticket(std::uint64_t offset) {
  const layout::BlockHeader* b = offset == 0 ? nullptr : block(offset);
  if (b == nullptr) return 0;
  return static_cast<std::uint64_t>(load(b->word).generation()) << 36U | offset / 16;
}

std::uint64_t Heap::still_live(std::uint64_t ticket) {
  const std::uint64_t offset = (ticket & 0xFFFFFFFFFULL) * 16;
  const layout::BlockHeader* b = ticket == 0 ? nullptr : block(offset);
  if (b == nullptr) return 0;
  const TaggedWord w = load(b->word);
  const bool same = (w.generation() & 0xFFFFFFFU) == ticket >> 36U;
  return same && w.state() == kBlockLive ? offset : 0;
}

Result<std::uint64_t> Heap::allocate(std::uint64_t bytes, OwnerTag me, std::uint64_t ceiling) {
  if (bytes > arena_.capacity()) {
    return Status(Code::kNotEnoughMemory,
                  "a block of " + std::to_string(bytes) +
                      " bytes can't fit into memory=" + std::to_string(arena_.capacity()));
  }
  const std::uint64_t units = units_for(bytes);
  OwnerMutex mutex(control_.mutex, owners_);
  MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) {
    return Status(Code::kLockTimeout, "the heap's mutex is held by a process that doesn't run");
  }
  if (guard.recovered()) sweep_locked();
  std::uint64_t offset = take(units);
  if (offset == 0 && dirty()) {
    sweep_locked();
    offset = take(units);
  }
  if (offset == 0) {
    Status grown = grow(units, ceiling);
    if (!grown) return grown;
    offset = take(units);
    if (offset == 0) return Status(Code::kCorrupt, "the arena's free lists are damaged");
  }
  layout::BlockHeader* b = block(offset);
  // One count for the whole arena: a header may be cut where payload was, and would begin anew.
  const std::uint32_t generation = control_.generation.fetch_add(1, std::memory_order_relaxed) + 1;
  CELERIAC_CRASH_POINT("heap.allocate.taken");
  // release: the split is complete before the block is somebody's
  b->word.store(TaggedWord::make(kBlockWriting, me, generation).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("heap.allocate.tagged");
  control_.live_blocks.fetch_add(1, std::memory_order_relaxed);
  return offset;
}

bool Heap::make_live(std::uint64_t offset, OwnerTag me) {
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return false;
  const TaggedWord w = load(b->word);
  if (w.state() != kBlockWriting || w.owner() != me) return false;
  const bool ok = change(b->word, w, TaggedWord::make(kBlockLive, {}, w.generation()));
  CELERIAC_CRASH_POINT("heap.make_live.done");
  return ok;
}

bool Heap::condemn(std::uint64_t offset, OwnerTag owner) {
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return false;
  const TaggedWord w = load(b->word);
  const bool mine = w.state() == kBlockWriting && w.owner() == owner;
  if (w.state() != kBlockLive && !mine) return false;
  const bool ok = change(b->word, w, TaggedWord::make(kBlockGarbage, owner, w.generation()));
  CELERIAC_CRASH_POINT("heap.condemn.done");
  return ok;
}

void Heap::free(std::uint64_t offset, OwnerTag me) {
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return;
  const TaggedWord w = load(b->word);
  if (w.state() != kBlockGarbage || w.owner() != me) return;
  OwnerMutex mutex(control_.mutex, owners_);
  MutexGuard guard(mutex, mutex.lock_within(me, kFreePatience));
  if (!guard.held()) {
    // Whoever holds the mutex is stopped. Give the block to whoever sweeps next.
    change(b->word, w, TaggedWord::make(kBlockGarbage, {}, w.generation()));
    mark_dirty();
    return;
  }
  if (guard.recovered()) sweep_locked();
  free_locked(offset);
}

void Heap::free_locked(std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  const TaggedWord w = load(b->word);
  b->word.store(TaggedWord::make(kBlockFree, {}, w.generation()).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("heap.free.untagged");
  control_.live_blocks.fetch_sub(1, std::memory_order_relaxed);
  std::uint64_t sizes = b->sizes.load(std::memory_order_relaxed);
  const std::uint64_t next = offset + own_units(sizes) * 16;
  if (layout::BlockHeader* n = next < arena_.size() ? block(next) : nullptr;
      n != nullptr && load(n->word).state() == kBlockFree) {
    remove(next);
    sizes = pack(previous_units(sizes),
                 own_units(sizes) + own_units(n->sizes.load(std::memory_order_relaxed)));
    b->sizes.store(sizes, std::memory_order_release);  // H1
    CELERIAC_CRASH_POINT("heap.free.merged");
  }
  if (previous_units(sizes) != 0) {
    const std::uint64_t before = offset - previous_units(sizes) * 16;
    layout::BlockHeader* p = block(before);
    if (p != nullptr && load(p->word).state() == kBlockFree &&
        own_units(p->sizes.load(std::memory_order_relaxed)) == previous_units(sizes)) {
      remove(before);
      const std::uint64_t theirs = p->sizes.load(std::memory_order_relaxed);
      sizes = pack(previous_units(theirs), own_units(theirs) + own_units(sizes));
      p->sizes.store(sizes, std::memory_order_release);  // H1
      CELERIAC_CRASH_POINT("heap.free.merged_back");
      offset = before;
    }
  }
  set_previous(offset + own_units(sizes) * 16, own_units(sizes));
  if (offset + own_units(sizes) * 16 == arena_.size()) {
    control_.last_block.store(offset, std::memory_order_relaxed);
  }
  insert(offset);
}

void Heap::set_previous(std::uint64_t offset, std::uint64_t units) {
  if (offset >= arena_.size()) return;
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return;
  b->sizes.store(pack(units, own_units(b->sizes.load(std::memory_order_relaxed))),
                 std::memory_order_release);
}

// Cuts `units` off a free block that is no longer in a list; returns its offset, 0 if none fits.
std::uint64_t Heap::take(std::uint64_t units) {
  const std::uint64_t offset = find(units);
  if (offset == 0) return 0;
  layout::BlockHeader* b = block(offset);
  const std::uint64_t sizes = b->sizes.load(std::memory_order_relaxed);
  const std::uint64_t rest = own_units(sizes) - units;
  if (rest >= kMinimumBlockUnits) {
    const std::uint64_t cut = offset + units * 16;
    layout::BlockHeader* c = block(cut);
    if (c == nullptr) return 0;
    c->word.store(TaggedWord::make(kBlockFree, {}, 0).bits, std::memory_order_relaxed);
    c->sizes.store(pack(units, rest), std::memory_order_release);
    CELERIAC_CRASH_POINT("heap.allocate.cut");
    b->sizes.store(pack(previous_units(sizes), units), std::memory_order_release);  // H1
    CELERIAC_CRASH_POINT("heap.allocate.split");
    set_previous(cut + rest * 16, rest);
    if (cut + rest * 16 == arena_.size()) {
      control_.last_block.store(cut, std::memory_order_relaxed);
    }
    insert(cut);
  }
  return offset;
}

Status Heap::grow(std::uint64_t units, std::uint64_t ceiling) {
  const std::uint64_t end = arena_.size();
  const std::uint64_t last = control_.last_block.load(std::memory_order_relaxed);
  layout::BlockHeader* l = block(last);
  std::uint64_t last_units = l == nullptr ? 0 : own_units(l->sizes.load(std::memory_order_relaxed));
  if (last + last_units * 16 != end) last_units = 0;  // the hint is stale
  const bool enlarge = last_units != 0 && load(l->word).state() == kBlockFree;
  // With some rounding, so that find() meets it by its bin.
  const std::uint64_t wanted = units + units / layout::kSecondLevels + 2;
  const std::uint64_t have = enlarge ? last_units : 0;
  Result<std::uint64_t> length =
      arena_.prepare_growth((wanted > have ? wanted - have : 2) * 16, ceiling);
  if (!length) return length.status();
  layout::BlockHeader* b = arena_.at<layout::BlockHeader>(end);
  if (b == nullptr) return {Code::kNotEnoughMemory, "the new extent isn't mapped"};
  const std::uint64_t extent = length.value() / 16;
  b->word.store(TaggedWord::make(kBlockFree, {}, 0).bits, std::memory_order_relaxed);
  b->sizes.store(pack(last_units, extent), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("heap.grow.written");
  arena_.publish_growth(length.value());
  if (!enlarge) {
    control_.last_block.store(end, std::memory_order_relaxed);
    insert(end);
    return Status::ok();
  }
  remove(last);
  const std::uint64_t sizes = l->sizes.load(std::memory_order_relaxed);
  l->sizes.store(pack(previous_units(sizes), last_units + extent),
                 std::memory_order_release);  // H1
  CELERIAC_CRASH_POINT("heap.grow.merged");
  insert(last);
  return Status::ok();
}

bool Heap::sweepable(TaggedWord w) const {
  if (w.state() != kBlockWriting && w.state() != kBlockGarbage) return false;
  const OwnerTag o = w.owner();
  return !o.valid() || owners_.reaped(o);  // H3
}

bool Heap::left_by_the_dead(TaggedWord w) const {
  if (w.state() != kBlockWriting && w.state() != kBlockGarbage) return false;
  const OwnerTag o = w.owner();
  return o.valid() && !owners_.reaped(o) && !owners_.alive(o);
}

void Heap::sweep(OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (guard.held()) sweep_locked();
}

void Heap::sweep_locked() {
  // Cleared first: who dies from here on sets it again, or holds the mutex and makes us sweep.
  control_.dirty.store(0, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("heap.sweep.begun");
  control_.first_bitmap.store(0, std::memory_order_relaxed);
  for (std::uint32_t f = 0; f < layout::kFirstLevels; ++f) {
    control_.second_bitmap[f].store(0, std::memory_order_relaxed);
    for (layout::Word& head : control_.heads[f]) head.store(0, std::memory_order_relaxed);
  }
  control_.free_bytes.store(0, std::memory_order_relaxed);
  std::uint64_t live = 0;
  bool unreaped = false;       // somebody is dead, but not reaped yet: sweep again then
  std::uint64_t run = 0;       // free block being enlarged, 0 = none
  std::uint64_t previous = 0;  // units of the block before
  const std::uint64_t end = arena_.size();
  std::uint64_t offset = layout::kBlocks;
  while (offset < end) {
    layout::BlockHeader* b = block(offset);
    if (b == nullptr) break;
    std::uint64_t units = own_units(b->sizes.load(std::memory_order_relaxed));
    if (units < kMinimumBlockUnits || units * 16 > end - offset) {
      // Damaged by a stray write. What lies behind can't be walked any more: keep it out of use.
      arena_.header().corrupt.fetch_add(1, std::memory_order_relaxed);
      units = (end - offset) / 16;
      b->word.store(TaggedWord::make(kBlockLive, {}, 0).bits, std::memory_order_relaxed);
    }
    TaggedWord w = load(b->word);
    if (left_by_the_dead(w)) unreaped = true;
    if (sweepable(w)) {
      w = TaggedWord::make(kBlockFree, {}, w.generation());
      b->word.store(w.bits, std::memory_order_release);
      CELERIAC_CRASH_POINT("heap.sweep.freed");
    }
    if (w.state() == kBlockFree && run != 0) {
      layout::BlockHeader* r = block(run);
      const std::uint64_t sizes = r->sizes.load(std::memory_order_relaxed);
      r->sizes.store(pack(previous_units(sizes), own_units(sizes) + units),
                     std::memory_order_release);  // H1
      CELERIAC_CRASH_POINT("heap.sweep.merged");
      previous = own_units(sizes) + units;
    } else {
      b->sizes.store(pack(previous, units), std::memory_order_release);
      if (run != 0) insert(run);
      run = w.state() == kBlockFree ? offset : 0;
      if (run == 0) ++live;
      previous = units;
      control_.last_block.store(offset, std::memory_order_relaxed);
    }
    offset += units * 16;
  }
  if (run != 0) insert(run);
  control_.live_blocks.store(live, std::memory_order_relaxed);
  if (unreaped) mark_dirty();
}

std::vector<std::uint64_t> Heap::window(std::uint64_t bytes,
                                        const std::function<bool(std::uint64_t offset)>& gives_way,
                                        OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) return {};
  if (guard.recovered()) sweep_locked();
  const std::uint64_t wanted = (bytes + 15) / 16;  // find() meets exact fits too
  const std::uint64_t end = arena_.size();
  const std::uint64_t hand = control_.window_hand.load(std::memory_order_relaxed);
  std::vector<std::uint64_t> run;
  std::uint64_t units = 0;
  // The hand is the end of the last window, which may be inside of a block by now: so walk from the
  // start, and look for a run beyond the hand first, anywhere then.
  for (const std::uint64_t from : {hand, layout::kBlocks}) {
    run.clear();
    units = 0;
    for (std::uint64_t offset = layout::kBlocks; offset < end;) {
      layout::BlockHeader* b = block(offset);
      if (b == nullptr) return {};
      const std::uint64_t own = own_units(b->sizes.load(std::memory_order_relaxed));
      if (own < kMinimumBlockUnits) return {};
      if (offset >= from) {
        const unsigned state = load(b->word).state();
        const bool leaves = state == kBlockLive && gives_way(offset);
        if (state == kBlockFree || leaves) {
          if (leaves) run.push_back(offset);
          units += own;
        } else {
          run.clear();
          units = 0;
        }
      }
      offset += own * 16;
      if (units >= wanted) {
        control_.window_hand.store(offset, std::memory_order_relaxed);
        CELERIAC_CRASH_POINT("heap.window.found");
        return run;
      }
    }
  }
  return {};
}

HeapStats Heap::stats() const {
  return {arena_.capacity(), arena_.size(), control_.free_bytes.load(std::memory_order_relaxed),
          control_.live_blocks.load(std::memory_order_relaxed)};
}

}  // namespace celeriac
