// Timers: when delayed messages become due, and when reservations end by themselves. A binary
// min-heap of {due, hint} in one block, under a mutex; all of it is a hint that can be rebuilt from
// the slots in kDelayed, and those in kReserved whose Slot.due says when. `next_due` is a word
// of its own, so that "nothing due" costs one load.
//
// put() publishes the slot as kDelayed first and inserts it then; a putter that dies in between
// makes recovery set `dirty`, and the next promote() rebuilds. Entries whose slot has moved on
// (cancelled, purged, acknowledged, another generation) are dropped when they come up, or when the
// block is full: only when more than half of it is in use after that, it becomes larger. So each
// entry pays for being looked at a constant number of times.
// Killed at any instruction: whoever takes the mutex from the dead rebuilds.
#pragma once

#include <span>
#include <vector>

#include "queue/slots.hpp"

namespace celeriac {

class Timers {
 public:
  Timers(Base& base, Slots& slots)
      : base_(base), slots_(slots), timers_(*base.arena.fixed<layout::Timers>(layout::kTimers)) {}

  // Room for one more, so that insert() won't need memory. kNotEnoughMemory.
  // Crash-safe: the array is replaced by one store.
  Status reserve(OwnerTag me);
  // True when the message is now the first to become due. Crash-safe: as above.
  bool insert(std::uint64_t due, layout::Hint hint, OwnerTag me);
  // Takes what is due at `now` out. Empty at once when nothing is.
  // Crash-safe: what a dead caller took is found again by the rebuild.
  std::vector<layout::Hint> due(std::uint64_t now, OwnerTag me);

  std::uint64_t next_due() const { return timers_.next_due.load(std::memory_order_seq_cst); }
  // Some delayed slot may be missing: look at the slots at the next due(). Crash-safe: two stores.
  void distrust();
  // Their block, if it is hidden in the heap; rebuild_alone() is to follow.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);
  // The same at once, as far as that needs no memory. REQUIRES: nobody else uses the arena.
  // Crash-safe: idempotent.
  void rebuild_alone();

 private:
  std::span<layout::TimerEntry> entries();  // all the room that there is
  std::span<layout::TimerEntry> heap();     // the entries in it
  Status ensure(std::uint64_t wanted, OwnerTag me);
  bool stands(const layout::TimerEntry& e);
  void compact();
  std::vector<layout::TimerEntry> waiting();                // as a heap
  void fill(const std::vector<layout::TimerEntry>& found);  // REQUIRES: there is room
  void rebuild(OwnerTag me);
  void publish_next();

  Base& base_;
  Slots& slots_;
  layout::Timers& timers_;
};

}  // namespace celeriac
