// Resize: the ceiling of memory changes while the store is in use.
//
// Upward: one store of Header.capacity, which everybody reads whenever it matters.
//
// Downward
//   1. lower      the ceiling falls, under the heap mutex, if what has to stay lies below it:
//                 messages, entries of tables, records (Heap::lower()). If not, nothing has
//                 changed. From here on nothing is allocated above it (H6 of memory/heap.hpp), so
//                 that what lies above only gets less.
//   2. evict      by the policy, the oldest segments first, until what is in use fits; tables of
//                 the index and ghosts become smaller as entries leave
//   3. vacate     what still lies above the ceiling moves below: entries of segments, oldest first,
//                 to the young end of their queues (Eviction::vacate()); tables of the index
//                 (Index::shrink()); ghosts; chunks of segment records (R4)
//   4. trim       the free end is cut off (Heap::trim()), again and again while 2 and 3 go on
//   5. give back  the memory behind the end, after a moment for those who read there (arena.hpp)
// When 2 to 4 can't be finished, since a stopped process holds a mutex or writes into a segment, or
// tables of the index find no room, the ceiling is raised again to what it was.
//
// Others meanwhile
//   R1  Readers and writers go on all the time: each step is one of eviction's, and holds a mutex
//       no longer than that.
//   R2  Nobody needs to know of a resize. Who finds no room below the ceiling evicts for it, as
//       always.
//   R3  Another resize, or who connects with a larger memory=, may set the ceiling meanwhile: the
//       last one holds. Who was lowering it and finds another one stops there.
//   R4  A chunk of segment records moves while all mutexes are held under which records are looked
//       at: the directory's, and all shards' in their order (nobody else holds two). Readers hold
//       none: their guard is a word of the old chunk, which becomes kFree before the mutexes are
//       given back, so that it changes before anything of its segment can.
// Killed at any instruction: the ceiling is the old one or the new one. If it is the new one, the
// arena may be larger than that, or memory behind its end not yet given back. Such an arena is used
// like any other (H6 holds); the next resize, to whatever size, does the rest.
#pragma once

#include <cstdint>
#include <vector>

#include "store/eviction.hpp"
#include "store/index.hpp"
#include "store/segments.hpp"

namespace celeriac {

class Resize {
 public:
  Resize(Base& base, Segments& segments, Index& index, Eviction& eviction)
      : base_(base), segments_(segments), index_(index), eviction_(eviction) {}

  // The ceiling becomes `memory` bytes, in whole pages; returns the one that holds then, which is
  // another when somebody else has set it meanwhile. kConfiguration and kNotEnoughMemory as when a
  // store is made, or when what has to stay doesn't fit: nothing has changed then. kLockTimeout,
  // kInterrupted, kNotEnoughMemory: the ceiling is as before, and entries may have been evicted.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe. Sleeps; gives the interpreter
  // lock away while it works.
  // Crash-safe: as above.
  Result<std::uint64_t> to(std::uint64_t memory, OwnerTag me);

 private:
  Status lower(std::uint64_t ceiling, OwnerTag me);
  Status empty_end(std::uint64_t ceiling, OwnerTag me);
  void evict_to(std::uint64_t ceiling, OwnerTag me);
  bool shrink_tables(OwnerTag me);
  std::vector<std::uint32_t> beyond(OwnerTag me);
  bool move_records(OwnerTag me);
  bool move_chunk(layout::Word& chunk, Fit fit, OwnerTag me);
  bool movable(std::uint64_t block);

  Base& base_;
  Segments& segments_;
  Index& index_;
  Eviction& eviction_;
};

}  // namespace celeriac
