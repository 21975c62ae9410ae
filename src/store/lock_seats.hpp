// Seats: who holds a lock and who waits for one, as slots in shared memory (layout: LockSeat).
//
// A seat belongs to one acquisition. Its word is the truth about it, a tagged word:
//   kFree        nobody's
//   kWriting(o)  taken by o, which writes what it is for; not yet at any lock
//   kWaiting(o)  o waits for the lock that `first` and `second` name, at place `order`
//   kHolding(o)  o holds it, with `token`, until `until`
//   kLeft(o)     o is dead; whoever has the lock's bucket next takes the seat out
//
// Transitions (which of them need the bucket's mutex: locks.hpp)
//   kFree -> kWriting(me)                       take()
//   kWriting(me) -> kWaiting(me), kHolding(me)  enter(), under the mutex
//   kWaiting(o) -> kHolding(o)                  granted by anybody, under the mutex
//   kWaiting(o), kHolding(o) -> kLeft(o)        recovery, without the mutex: o is dead
//   anything but kWriting(o) -> kFree           under the mutex, once it is in no ring
//   kWriting(d) -> kFree                        recovery: d is dead, and no ring has counted on it
//
// Invariants
//   E1  Every transition is one CAS from the exact word seen; taking writes the owner in it.
//   E2  The generation rises with each take. {index, generation} names one acquisition: who comes
//       with an old one finds another word, and changes nothing.
//   E3  What else is in a seat is written by its taker in kWriting, or under the bucket's mutex.
//   E4  Tokens rise in the whole store, whatever names come and go. They begin with the wall clock
//       in microseconds at which the store was made, so that a store that takes the place of one
//       that was removed or lost goes on above it, while fewer than a million a second are given
//       and the clock isn't set back.
// Seats lie in chunks that are never freed: there are as many as were taken at a time, once.
// Killed at any instruction: the word says whose it was (E1), and recovery lets go of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "memory/base.hpp"
#include "memory/live_blocks.hpp"
#include "sync/tagged_word.hpp"

namespace celeriac {

constexpr unsigned kSeatFree = 0;
constexpr unsigned kSeatWriting = 1;
constexpr unsigned kSeatWaiting = 2;
constexpr unsigned kSeatHolding = 3;
constexpr unsigned kSeatLeft = 4;

struct SeatRef {
  std::uint32_t index = 0;
  layout::LockSeat* seat = nullptr;
};

class LockSeats {
 public:
  explicit LockSeats(Base& base)
      : base_(base), directory_(*base.arena.fixed<layout::LockDirectory>(layout::kLocks)) {}

  // Null when there is no such seat.
  layout::LockSeat* at(std::uint32_t index);
  std::uint32_t count() const { return chunks() * layout::kSeatsPerChunk; }

  // A seat in kWriting(me). kNotEnoughMemory: all are taken, and no more can be had.
  // REQUIRES: the caller has no bucket's mutex. Thread-safe. Crash-safe: E1.
  Result<SeatRef> take(OwnerTag me);
  // From exactly that word to kFree; false when it has another. Crash-safe: one CAS.
  bool give_back(layout::LockSeat& seat, TaggedWord word);
  // The next of E4. Crash-safe: one that nobody gets is missing.
  std::uint64_t next_token();

  // Nobody is at any lock; chunks that are hidden in the heap are forgotten.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void clear(const LiveBlocks& live);

  // Visits all seats that aren't free. A moment's view of each.
  template <class Visit>
  void each(Visit visit) {
    const std::uint32_t n = count();
    for (std::uint32_t i = 0; i < n; ++i) {
      layout::LockSeat* s = at(i);
      if (s == nullptr) continue;
      const TaggedWord w = load(s->word);
      if (w.state() != kSeatFree) visit(i, *s, w);
    }
  }

 private:
  std::uint32_t chunks() const {
    // acquire pairs with the release in add_chunk(): the seats are zeroed before they count
    return std::min(directory_.chunks.load(std::memory_order_acquire), layout::kMaxSeatChunks);
  }
  SeatRef scan(std::uint32_t from, std::uint32_t n, OwnerTag me);
  Status add_chunk(std::uint32_t seen, OwnerTag me);

  Base& base_;
  layout::LockDirectory& directory_;
  std::atomic<std::uint32_t> cursor_{0};  // where this process found one last
};

}  // namespace celeriac
