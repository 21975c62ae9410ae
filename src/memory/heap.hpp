// The heap: blocks of any size inside the arena, owner-tagged, walkable, rebuildable.
//
// Blocks lie back to back from the end of the fixed regions to Header.size. Each begins with a
// 16-byte header: a tagged word and its size. Sizes are truth: walking from the first block by
// sizes always meets all blocks and ends exactly at Header.size, at every instruction of every
// operation. Free lists (two-level segregated fit: Masmano, Ripoll, Crespo, Real, "TLSF: a new
// dynamic memory allocator for real-time systems", ECRTS 2004), the sizes of neighbours and all
// counts are hints.
//
// Where a block lies. What can't be evicted would break up the room for large values if it lay
// anywhere, above all when it is small and many come at a time. So
//   open heap  the cache's segments and large values above the line, everything else below it, as
//              low as room is. The line moves with what it is for: five quarters of what others
//              have, and a little. Where the cache is below it, its blocks are moved or evicted
//              (Base::allocate()). So the cache's part is unbroken, but for what was put there when
//              there was no other room.
//   nest       a block of the open heap, of 1/1024 of the arena, that is cut up for small blocks
//              (up to an eighth of a nest): its first block is on the side kNestFirst, all behind
//              it kNestInner. A nest in which nothing lives becomes one block of the open heap.
// Only when no nest can be had there and nothing gives way, a small block goes to a nest above the
// line or any hole, and a larger one into a nest.
//
// States of a block
//   kFree       nobody's; in a free list, or about to be found by a sweep
//   kWriting(o) allocated by owner o, not yet part of any structure
//   kLive       part of a structure (an index word, a slot, a directory leads to it)
//   kGarbage(o) no longer part of a structure; owner o is about to free it
//
// Transitions
//   kFree -> kWriting(o)                 allocate()   under the heap mutex
//   kWriting(o) -> kLive                 make_live()  by o, just before or as it is linked
//   kLive, kWriting(o) -> kGarbage(o)    condemn()    by o, once it is unlinked
//   kGarbage(o) -> kFree                 free()       under the heap mutex
//   kWriting(d), kGarbage(d) -> kFree    sweep()      d dead and reaped
//
// Invariants
//   H1  The walk by sizes is whole at any instruction (split: the new header first, then one store
//       of the smaller size; merge: one store of the larger size).
//   H2  A block that a structure leads to is kLive, or kWriting/kGarbage of an owner that still has
//       its record: so a block is never freed twice, and recovery can still look at it.
//   H3  A sweep frees only what belongs to owners whose records are free again.
//   H4  Generations rise with every allocation in the arena, so that {block, generation} names one
//       life of a block, also where its place was cut anew, until 2^28 allocations later.
//   H5  A nest's blocks are from one kNestFirst to the last kNestInner behind it. Free neighbours
//       merge only inside of a nest, or outside of all. A free block becomes a nest, and an empty
//       nest a free block, by one store of `sizes`; a sweep opens nests that are empty.
//   H6  While the arena is larger than its ceiling (a resize is under way, or was killed), nothing
//       is allocated above the ceiling: free blocks there are in no list, and a free block on both
//       sides of it is split there. So what lies above gets less, never more. Since the lists are
//       rebuilt under the mutex that lowered the ceiling, no block has to be asked where it lies.
// Killed at any instruction: H1 to H3 and H5 hold; the mutex is taken from the dead and the free
// lists are rebuilt by a sweep before anything else.
//
// Shrinking. The end is cut off where a page begins: first that place becomes the beginning of a
// free block (a split as any other: the new header, then one store of the smaller size), then one
// store of Header.size takes the last block off the walk. So H1 holds in between, and who is killed
// there leaves two free neighbours, which the next sweep makes one. Only then the memory behind the
// end is given back (arena/arena.hpp); who is killed before has given back none, or some, and the
// next resize gives back the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "arena/arena.hpp"
#include "arena/owners.hpp"
#include "memory/block_states.hpp"
#include "memory/live_blocks.hpp"
#include "platform/status.hpp"
#include "sync/owner_mutex.hpp"
#include "sync/tagged_word.hpp"

namespace celeriac {

// Which place a block may take.
enum class Fit {
  kCache,    // above the line, and the arena grows to the cache's ceiling only
  kMoved,    // the cache's too, for what others push away: the arena may grow further
  kProper,   // below the line, or nowhere
  kAnyHole,  // below the line, or wherever there is room
};

struct HeapStats {
  std::uint64_t capacity = 0;  // bytes the arena may have
  std::uint64_t size = 0;      // bytes it has
  std::uint64_t free = 0;      // bytes in free blocks
  std::uint64_t blocks = 0;    // blocks in use
};

class Heap {
 public:
  Heap(Arena& arena, const Owners& owners)
      : arena_(arena),
        owners_(owners),
        control_(*arena.fixed<layout::HeapControl>(layout::kHeap)) {}

  // What the arena may grow to for the cache. The last eighth is for everything else, so that a
  // cache that has filled its part leaves unbroken room for queues.
  std::uint64_t cache_ceiling() const { return arena_.capacity() - arena_.capacity() / 8; }

  // A block with room for `bytes`, kWriting(me); returns its offset. Grows the arena if it must.
  // kNotEnoughMemory when neither is possible: the caller may make room and ask again.
  // Thread-safe. Crash-safe: H1; the block of a dead caller is found by the next sweep.
  Result<std::uint64_t> allocate(std::uint64_t bytes, OwnerTag me, Fit fit = Fit::kAnyHole);
  // The bytes in one piece of the open heap that a block of so many bytes needs, if it is to lie
  // where it belongs: its own, or a nest's.
  std::uint64_t piece(std::uint64_t bytes) const;

  // kWriting(me) -> kLive. Crash-safe: one CAS.
  bool make_live(std::uint64_t offset, OwnerTag me);
  // kLive or kWriting(owner) -> kGarbage(owner). False when the block is neither.
  // Crash-safe: one CAS.
  bool condemn(std::uint64_t offset, OwnerTag owner);
  // kGarbage(me) -> kFree. When the heap mutex can't be had soon, leaves it to a sweep.
  // Crash-safe: H2.
  void free(std::uint64_t offset, OwnerTag me);
  // condemn() and free(): for blocks that no structure leads to.
  // Crash-safe: H2.
  void release(std::uint64_t offset, OwnerTag me) {
    if (condemn(offset, me)) free(offset, me);
  }

  // A block and its generation in one word, for MutexWord.pending. 0 for no block.
  std::uint64_t ticket(std::uint64_t offset);
  // The ticket's block if it is still the same one and kLive, else 0.
  std::uint64_t still_live(std::uint64_t ticket);

  // Payload of a block, or null when `bytes` don't fit into it or the offset is nonsense.
  char* payload(std::uint64_t offset, std::uint64_t bytes);
  layout::Word* word(std::uint64_t offset);
  // Is there a free block for so many bytes, about? A hint, without the mutex.
  bool may_fit(std::uint64_t bytes) const;
  // Bytes of the largest block that could be had now. Crash-safe: changes nothing.
  std::uint64_t largest_piece(OwnerTag me);
  // Bytes of a block's payload, 0 when the offset is nonsense.
  std::uint64_t room(std::uint64_t offset);

  // A run of neighbouring blocks with at least `bytes` (headers included) together, each free or
  // one that `gives_way(offset)` says could be freed: those are what it returns, for the caller to
  // free. Empty when there is none. For the cache it goes on where the last call ended, so that
  // blocks give way in turn; for others it is the lowest one. `gives_way` is asked under the heap
  // mutex: it must take no mutex.
  // Crash-safe: changes nothing but the place to go on.
  std::vector<std::uint64_t> window(std::uint64_t bytes, Fit fit,
                                    const std::function<bool(std::uint64_t offset)>& gives_way,
                                    OwnerTag me);

  // The ceiling falls to `capacity` bytes, a whole number of pages, if what is above could leave:
  // what is free, the cache's, or what `leaves(offset)` says. kNotEnoughMemory: it can't, and
  // nothing has changed. `leaves` is asked under the heap mutex: it must take no mutex. Crash-safe:
  // one store; H6 from the sweep on that follows, by us or by who takes the mutex.
  Status lower(std::uint64_t capacity, const std::function<bool(std::uint64_t offset)>& leaves,
               OwnerTag me);
  // Does the block reach above a ceiling that is lower than the arena's end?
  bool beyond(std::uint64_t offset) { return offset + sizes(offset).own * 16 > fence(); }
  // Cuts off what is free at the arena's end; its size then. Crash-safe: H1.
  std::uint64_t trim(OwnerTag me);
  // Gives the memory behind the end back to the file system. Crash-safe: changes nothing else.
  void give_back(OwnerTag me);

  // Frees what dead and reaped owners left and rebuilds the free lists.
  // Crash-safe: idempotent; a dead sweeper's work is done again.
  void sweep(OwnerTag me);
  // Sweeps, and says what is there. REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  LiveBlocks rebuild();
  // A sweep would find something. Crash-safe: one store.
  void mark_dirty() { control_.dirty.store(1, std::memory_order_release); }
  bool dirty() const { return control_.dirty.load(std::memory_order_acquire) != 0; }

  HeapStats stats() const;
  // Bytes that a payload of this size takes, header and rounding included.
  static std::uint64_t cost(std::uint64_t bytes);

 private:
  struct Bin {
    std::uint32_t first, second;
  };
  static Bin bin_of(std::uint64_t units);
  layout::BlockHeader* block(std::uint64_t offset) {
    // As much as the smallest has, so that a free one's links are inside of the arena too.
    return offset % 16 == 0 && offset >= layout::kBlocks
               ? arena_.at<layout::BlockHeader>(offset, kMinimumBlockUnits * 16)
               : nullptr;
  }
  layout::FreeLists& lists_of(Side side) { return control_.lists[in_nest(side) ? 1 : 0]; }
  BlockSizes sizes(std::uint64_t offset) {
    const layout::BlockHeader* b = block(offset);
    return b == nullptr ? BlockSizes{} : sizes_of(*b);
  }
  // REQUIRES: a free block. H1: what it was and what it becomes are both whole.
  void resize(std::uint64_t offset, BlockSizes to) {
    layout::BlockHeader* b = block(offset);
    if (b != nullptr) b->sizes.store(to.pack(), std::memory_order_release);
  }
  std::uint64_t nest_units() const;
  bool small(std::uint64_t units) const { return units <= nest_units() / 8; }
  std::uint64_t line(std::uint64_t units) const;
  std::uint64_t place(std::uint64_t units, Fit fit, std::uint64_t line);
  std::uint64_t cut(std::uint64_t offset, std::uint64_t units, bool high);
  std::uint64_t find(layout::FreeLists& lists, std::uint64_t units);
  std::uint64_t search(layout::FreeLists& lists, std::uint64_t units, bool for_cache,
                       std::uint64_t line, int* looks);
  layout::BlockHeader* listed(layout::Word& head, std::uint64_t offset);
  std::uint64_t pop_fitting(layout::FreeLists& lists, Bin bin, std::uint64_t units);
  void insert(std::uint64_t offset);
  void remove(std::uint64_t offset);
  void set_previous(std::uint64_t offset, std::uint64_t units);
  std::uint64_t fence() const {
    const std::uint64_t capacity = arena_.capacity();
    return arena_.size() > capacity ? capacity : kNever;
  }
  void split(std::uint64_t offset, std::uint64_t middle);
  std::uint64_t last_block();
  Status place_or_grow(std::uint64_t units, std::uint64_t bytes, Fit fit, std::uint64_t* offset);
  void count_other(std::uint64_t units, int direction);
  void free_locked(std::uint64_t offset);
  std::uint64_t merge(std::uint64_t offset);
  bool open_if_empty(std::uint64_t offset);
  std::uint64_t ceiling_for(Fit fit) const {
    return fit == Fit::kCache ? cache_ceiling() : arena_.capacity();
  }
  std::uint64_t room_to_grow(Fit fit) const {
    const std::uint64_t ceiling = ceiling_for(fit);
    return ceiling > arena_.size() ? ceiling - arena_.size() : 0;
  }
  Status grow(std::uint64_t units, std::uint64_t ceiling);
  void sweep_locked();
  void sweep_walk(bool listing);
  bool sweepable(TaggedWord w) const;
  bool left_by_the_dead(TaggedWord w) const;

  Arena& arena_;
  const Owners& owners_;
  layout::HeapControl& control_;
  std::uint64_t strange_ = 0;  // what sweeps met that no whole heap has
};

}  // namespace celeriac
