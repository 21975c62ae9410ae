#include "memory/heap.hpp"

#include <algorithm>
#include <bit>
#include <deque>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "platform/clock.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kLockPatience = kSecond;
constexpr std::uint64_t kFreePatience = 20 * kMillisecond;
constexpr std::uint64_t kGrowthUnits = (64ULL << 20U) / 16;  // the largest extent

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
  const std::uint64_t room = sizes_of(*b).own * 16;
  if (room < sizeof(layout::BlockHeader) || bytes > room - sizeof(layout::BlockHeader)) {
    return nullptr;
  }
  return arena_.at<char>(offset + sizeof(layout::BlockHeader), room - sizeof(layout::BlockHeader));
}

std::uint64_t Heap::room(std::uint64_t offset) {
  const layout::BlockHeader* b = block(offset);
  if (b == nullptr) return 0;
  const std::uint64_t bytes = sizes_of(*b).own * 16;
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

Result<std::uint64_t> Heap::allocate(std::uint64_t bytes, OwnerTag me, Fit fit) {
  if (bytes > arena_.capacity() || units_for(bytes) > kMaximumBlockUnits) {
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
  std::uint64_t offset = 0;
  const Status placed = place_or_grow(units, bytes, fit, &offset);
  if (offset == 0) return placed;
  layout::BlockHeader* b = block(offset);
  BlockSizes sizes = sizes_of(*b);
  if (!in_nest(sizes.side)) {
    sizes.side = fit == Fit::kCache || fit == Fit::kMoved ? Side::kCache : Side::kOpen;
    resize(offset, sizes);
    if (sizes.side == Side::kOpen) {
      count_other(sizes.own, +1);
    } else if (offset < control_.low_hand.load(std::memory_order_relaxed)) {
      control_.low_hand.store(offset, std::memory_order_relaxed);
    }
  }
  // One count for the whole arena: a header may be cut where payload was, and would begin anew.
  const std::uint32_t generation = control_.generation.fetch_add(1, std::memory_order_relaxed) + 1;
  CELERIAC_CRASH_POINT("heap.allocate.taken");
  // release: the split is complete before the block is somebody's
  b->word.store(TaggedWord::make(kBlockWriting, me, generation).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("heap.allocate.tagged");
  control_.live_blocks.fetch_add(1, std::memory_order_relaxed);
  return offset;
}

Status Heap::place_or_grow(std::uint64_t units, std::uint64_t bytes, Fit fit,
                           std::uint64_t* offset) {
  const bool cache = fit == Fit::kCache || fit == Fit::kMoved;
  const auto look = [&] {
    const std::uint64_t pushed = control_.push_line.load(std::memory_order_relaxed);
    *offset = place(units, fit, fit == Fit::kMoved ? std::max(pushed, line(units)) : line(units));
    if (*offset == 0 && fit == Fit::kAnyHole) *offset = place(units, fit, kNever);
    return *offset != 0;
  };
  if (look()) return Status::ok();
  if (dirty()) {
    sweep_locked();
    if (look()) return Status::ok();
  }
  Status grown(Code::kNotEnoughMemory, "there is no room below the line");
  if (fit != Fit::kProper || arena_.size() < line(units)) {
    grown = grow(cache ? units : piece(bytes) / 16, ceiling_for(fit));
  }
  if (grown) look();
  if (*offset == 0 && cache) {
    const std::uint64_t pushed = control_.push_line.load(std::memory_order_relaxed);
    *offset = place(units, fit, fit == Fit::kMoved ? pushed : 0);
  }
  for (layout::FreeLists& lists : control_.lists) {
    if (*offset == 0 && fit == Fit::kAnyHole) *offset = cut(find(lists, units), units, false);
  }
  if (*offset == 0 && grown) grown = {Code::kNotEnoughMemory, "there is no room below the line"};
  return grown;
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
  BlockSizes sizes = this->sizes(offset);
  if (sizes.side == Side::kOpen) count_other(sizes.own, -1);
  if (sizes.side == Side::kCache) {
    sizes.side = Side::kOpen;
    resize(offset, sizes);
  }
  offset = merge(offset);
  if (open_if_empty(offset)) offset = merge(offset);
  insert(offset);
}

// Makes one block of a free one that is in no list and its free neighbours; returns its offset.
std::uint64_t Heap::merge(std::uint64_t offset) {
  BlockSizes sizes = this->sizes(offset);
  const std::uint64_t next = offset + sizes.own * 16;
  const auto joins = [](const layout::BlockHeader* left, BlockSizes l, BlockSizes r) {
    return load(left->word).state() == kBlockFree && lie_together(l.side, r.side) &&
           l.own + r.own <= kMaximumBlockUnits;
  };
  if (layout::BlockHeader* n = next < arena_.size() ? block(next) : nullptr;
      n != nullptr && joins(n, sizes, sizes_of(*n))) {
    remove(next);
    sizes.own += sizes_of(*n).own;
    resize(offset, sizes);  // H1
    CELERIAC_CRASH_POINT("heap.free.merged");
  }
  if (sizes.previous != 0 && sizes.previous * 16 <= offset) {
    const std::uint64_t before = offset - sizes.previous * 16;
    layout::BlockHeader* p = block(before);
    if (p != nullptr && sizes_of(*p).own == sizes.previous && joins(p, sizes_of(*p), sizes)) {
      remove(before);
      BlockSizes theirs = sizes_of(*p);
      theirs.own += sizes.own;
      sizes = theirs;
      resize(before, sizes);  // H1
      CELERIAC_CRASH_POINT("heap.free.merged_back");
      offset = before;
    }
  }
  set_previous(offset + sizes.own * 16, sizes.own);
  if (offset + sizes.own * 16 == arena_.size()) {
    control_.last_block.store(offset, std::memory_order_relaxed);
  }
  if (!in_nest(sizes.side) && offset < control_.low_hand.load(std::memory_order_relaxed)) {
    control_.low_hand.store(offset, std::memory_order_relaxed);
  }
  return offset;
}

void Heap::count_other(std::uint64_t units, int direction) {
  if (direction > 0) {
    control_.other_bytes.fetch_add(units * 16, std::memory_order_relaxed);
  } else {
    control_.other_bytes.fetch_sub(units * 16, std::memory_order_relaxed);
  }
}

// A free block, in no list, that is a whole nest becomes a block of the open heap.
bool Heap::open_if_empty(std::uint64_t offset) {
  BlockSizes sizes = this->sizes(offset);
  const std::uint64_t next = offset + sizes.own * 16;
  if (sizes.side != Side::kNestFirst) return false;
  if (next < arena_.size() && this->sizes(next).side == Side::kNestInner) return false;
  sizes.side = Side::kOpen;
  resize(offset, sizes);
  CELERIAC_CRASH_POINT("heap.free.opened");
  count_other(sizes.own, -1);
  return true;
}

void Heap::set_previous(std::uint64_t offset, std::uint64_t units) {
  if (offset >= arena_.size()) return;
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return;
  BlockSizes sizes = sizes_of(*b);
  sizes.previous = units;
  b->sizes.store(sizes.pack(), std::memory_order_release);
}

Status Heap::grow(std::uint64_t units, std::uint64_t ceiling) {
  const std::uint64_t end = arena_.size();
  const std::uint64_t last = control_.last_block.load(std::memory_order_relaxed);
  layout::BlockHeader* l = block(last);
  std::uint64_t last_units = l == nullptr ? 0 : sizes_of(*l).own;
  if (last + last_units * 16 != end) last_units = 0;  // the hint is stale
  const bool enlarge = last_units != 0 && load(l->word).state() == kBlockFree &&
                       sizes_of(*l).side == Side::kOpen &&
                       last_units + 2 * units + kGrowthUnits <= kMaximumBlockUnits;
  // With some rounding, so that find() meets it by its bin.
  const std::uint64_t wanted = units + units / layout::kSecondLevels + 2;
  const std::uint64_t have = enlarge ? last_units : 0;
  Result<std::uint64_t> length(Status::ok());
  for (const std::uint64_t all : {wanted, units}) {
    length = arena_.prepare_growth((all > have + 2 ? all - have : 2) * 16, ceiling);
    if (length) break;
  }
  if (!length) return length.status();
  auto* b = arena_.fixed<layout::BlockHeader>(end);  // mapped, but not yet inside of the arena
  const std::uint64_t extent = length.value() / 16;
  b->word.store(TaggedWord::make(kBlockFree, {}, 0).bits, std::memory_order_relaxed);
  b->sizes.store(BlockSizes{last_units, Side::kOpen, extent}.pack(), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("heap.grow.written");
  arena_.publish_growth(length.value());
  if (!enlarge) {
    control_.last_block.store(end, std::memory_order_relaxed);
    insert(end);
    return Status::ok();
  }
  remove(last);
  BlockSizes sizes = this->sizes(last);
  sizes.own = last_units + extent;
  resize(last, sizes);  // H1
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

LiveBlocks Heap::rebuild() {
  strange_ = 0;
  sweep_locked();  // nobody else: no mutex
  LiveBlocks found(strange_ != 0);
  for (std::uint64_t offset = layout::kBlocks; offset < arena_.size();) {
    const layout::BlockHeader* b = block(offset);
    const std::uint64_t bytes = b == nullptr ? 0 : sizes_of(*b).own * 16;
    if (bytes < kMinimumBlockUnits * 16) break;
    if (load(b->word).state() == kBlockLive) found.add(offset, offset + bytes);
    offset += bytes;
  }
  return found;
}

void Heap::sweep_locked() {
  // Cleared first: who dies from here on sets it again, or holds the mutex and makes us sweep.
  control_.dirty.store(0, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("heap.sweep.begun");
  for (layout::FreeLists& lists : control_.lists) {
    lists.first_bitmap.store(0, std::memory_order_relaxed);
    for (std::uint32_t f = 0; f < layout::kFirstLevels; ++f) {
      lists.second_bitmap[f].store(0, std::memory_order_relaxed);
      for (layout::Word& head : lists.heads[f]) head.store(0, std::memory_order_relaxed);
    }
  }
  control_.free_bytes.store(0, std::memory_order_relaxed);
  control_.low_hand.store(0, std::memory_order_relaxed);
  // The first walk opens nests that are empty, so that the second meets them as what they are.
  sweep_walk(false);
  sweep_walk(true);
}

void Heap::sweep_walk(bool listing) {
  std::uint64_t live = 0;
  std::uint64_t others = 0;    // units
  bool unreaped = false;       // somebody is dead, but not reaped yet: sweep again then
  std::uint64_t run = 0;       // free block being enlarged, 0 = none
  std::uint64_t previous = 0;  // units of the block before
  std::uint64_t before = 0;    // the same, as it was met
  const std::uint64_t end = arena_.size();
  const auto close = [&] {
    if (run == 0) return;
    if (listing) {
      insert(run);
    } else {
      open_if_empty(run);
    }
  };
  std::uint64_t offset = layout::kBlocks;
  while (offset < end) {
    layout::BlockHeader* b = block(offset);
    if (b == nullptr) break;
    BlockSizes sizes = sizes_of(*b);
    if (sizes.own < kMinimumBlockUnits || sizes.own * 16 > end - offset) {
      // Damaged by a stray write. What lies behind can't be walked any more: keep it out of use.
      arena_.header().corrupt.fetch_add(1, std::memory_order_relaxed);
      ++strange_;
      sizes.own = std::min((end - offset) / 16, kMaximumBlockUnits);
      sizes.side = Side::kOpen;
      b->word.store(TaggedWord::make(kBlockLive, {}, 0).bits, std::memory_order_relaxed);
    }
    if (sizes.previous != 0 && sizes.previous != before) ++strange_;
    before = sizes.own;
    TaggedWord w = load(b->word);
    if (left_by_the_dead(w)) unreaped = true;
    if (sweepable(w)) {
      w = TaggedWord::make(kBlockFree, {}, w.generation());
      b->word.store(w.bits, std::memory_order_release);
      CELERIAC_CRASH_POINT("heap.sweep.freed");
    }
    if (w.state() == kBlockFree && sizes.side == Side::kCache) sizes.side = Side::kOpen;
    if (in_nest(sizes.side) || (w.state() != kBlockFree && sizes.side == Side::kOpen)) {
      others += sizes.own;
    }
    BlockSizes joined = run == 0 ? BlockSizes{} : this->sizes(run);
    if (w.state() == kBlockFree && run != 0 && lie_together(joined.side, sizes.side) &&
        joined.own + sizes.own <= kMaximumBlockUnits) {
      joined.own += sizes.own;
      resize(run, joined);  // H1
      CELERIAC_CRASH_POINT("heap.sweep.merged");
      previous = joined.own;
    } else {
      sizes.previous = previous;
      b->sizes.store(sizes.pack(), std::memory_order_release);
      close();
      run = w.state() == kBlockFree ? offset : 0;
      if (run == 0) ++live;
      previous = sizes.own;
      control_.last_block.store(offset, std::memory_order_relaxed);
    }
    offset += sizes.own * 16;
  }
  close();
  control_.other_bytes.store(others * 16, std::memory_order_relaxed);
  control_.live_blocks.store(live, std::memory_order_relaxed);
  if (unreaped) mark_dirty();
}

std::vector<std::uint64_t> Heap::window(std::uint64_t bytes, Fit fit,
                                        const std::function<bool(std::uint64_t offset)>& gives_way,
                                        OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) return {};
  if (guard.recovered()) sweep_locked();
  const std::uint64_t wanted = (bytes + 15) / 16;              // find() meets exact fits too
  const std::uint64_t end = std::min(arena_.size(), fence());  // H6
  const std::uint64_t hand = control_.window_hand.load(std::memory_order_relaxed);
  struct Part {
    std::uint64_t offset, units;
    bool leaves;
  };
  std::deque<Part> run;     // neighbours that are free or leave, no more than needed
  std::uint64_t units = 0;  // of all of them
  std::deque<Part> found;   // a run that is enough
  const bool cache = fit == Fit::kCache;
  // From the lowest block that could give way: the cache's hand may be inside of a block by now.
  const std::uint64_t low = control_.low_hand.load(std::memory_order_relaxed);
  const std::uint64_t first = block(low) == nullptr ? layout::kBlocks : low;
  bool passed = false;  // a block that could have given way with others
  for (std::uint64_t offset = first, own = 0; offset < end; offset += own * 16) {
    layout::BlockHeader* b = block(offset);
    if (b == nullptr) return {};
    const BlockSizes sizes = sizes_of(*b);
    own = sizes.own;
    if (own < kMinimumBlockUnits) return {};
    if (offset + own * 16 > end) break;
    const unsigned state = load(b->word).state();
    const bool leaves = sizes.side == Side::kCache && state == kBlockLive && gives_way(offset);
    if (!leaves && (in_nest(sizes.side) || state != kBlockFree)) {
      run.clear();
      units = 0;
      continue;
    }
    run.push_back({offset, own, leaves});
    for (units += own; units - run.front().units >= wanted; run.pop_front()) {
      units -= run.front().units;
    }
    if (leaves && !passed) {
      control_.low_hand.store(run.front().offset, std::memory_order_relaxed);
      passed = true;
    }
    if (units < wanted) continue;
    const bool beyond = run.front().offset >= hand;
    if (cache && !beyond && !found.empty()) continue;
    found = run;
    if (!cache || beyond) break;
  }
  if (found.empty() && units + room_to_grow(fit) / 16 >= wanted) found = run;
  if (found.empty()) return {};
  std::vector<std::uint64_t> blocks;
  for (const Part& part : found) {
    if (part.leaves) blocks.push_back(part.offset);
  }
  (cache ? control_.window_hand : control_.push_line)
      .store(found.back().offset + found.back().units * 16, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("heap.window.found");
  return blocks;
}

std::uint64_t Heap::largest_piece(OwnerTag me) {
  OwnerMutex mutex(control_.mutex, owners_);
  const MutexGuard guard(mutex, mutex.lock_within(me, kLockPatience));
  if (!guard.held()) return 0;
  if (guard.recovered()) sweep_locked();
  std::uint64_t most = 0;
  std::uint64_t last = 0;  // free units at the end of the arena
  const std::uint64_t end = std::min(arena_.size(), fence());
  for (std::uint64_t offset = layout::kBlocks, own = 0; offset < end; offset += own * 16) {
    const layout::BlockHeader* b = block(offset);
    if (b == nullptr) break;
    const BlockSizes sizes = sizes_of(*b);
    own = sizes.own;
    if (own < kMinimumBlockUnits || offset + own * 16 > end) break;
    last = load(b->word).state() == kBlockFree && sizes.side == Side::kOpen ? own : 0;
    if (load(b->word).state() == kBlockFree) most = std::max(most, own);
  }
  return std::max(most * 16, last * 16 + room_to_grow(Fit::kProper));
}

HeapStats Heap::stats() const {
  return {arena_.capacity(), arena_.size(), control_.free_bytes.load(std::memory_order_relaxed),
          control_.live_blocks.load(std::memory_order_relaxed)};
}

}  // namespace celeriac
