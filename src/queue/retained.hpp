// Retained messages: those of a queue that are done and kept, and those that are dead, each kind in
// a list from the oldest to the youngest, so that the oldest give way without a search.
//
// A list is threaded through Slot.expires (older and newer neighbour, as index + 1, 0 = none),
// under the queue's retained_mutex. Slot.due is when the message ended. All of it is a hint: truth
// is that the slot is kDone or kDead and whose it is.
//
//   add()    the slot's word becomes kDone or kDead, and is linked, under the mutex
//   take()   the word becomes its taker's, and is unlinked, under the mutex
//
// Invariants
//   R1  With the mutex free and retained_doubt 0, the lists have exactly the kDone and kDead slots
//       of the queue. Whoever changes a word and can't have the mutex sets the doubt afterwards.
//   R2  A member that isn't what its list is for (another queue's by now, a stray write) sets the
//       doubt. With it, whoever takes the mutex next makes the lists anew from the slots first.
//   R3  Of a list that is walked no more steps are gone than there are slots.
// Killed at any instruction: whoever takes the mutex from the dead makes the lists anew; who dies
// without the mutex has changed nothing in them.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "queue/directory.hpp"
#include "queue/slots.hpp"

namespace celeriac {

class Retained {
 public:
  Retained(Base& base, Slots& slots) : base_(base), slots_(slots) {}

  struct Ended {
    SlotRef ref;
    TaggedWord word;
  };
  enum class Pick { kTake, kStop };

  // The slot's word from `from` to kDone or kDead, and the message to the list's young end. False
  // when the word was another. Thread-safe. Crash-safe: one CAS decides; R1.
  bool add(const QueueRef& queue, SlotRef ref, TaggedWord from, unsigned state, OwnerTag me);

  // Asks about each message in `state`, from the oldest on, with how many the list has then, and
  // makes them the caller's, in the state `to`, until told to stop; at most `most`.
  // Thread-safe. Crash-safe: R1; what was taken is its taker's.
  std::vector<Ended> take(const QueueRef& queue, unsigned state, unsigned to, std::size_t most,
                          const std::function<Pick(const layout::Slot&, std::uint64_t left)>& pick,
                          OwnerTag me);
  // The same for one message.
  // Crash-safe: as take().
  std::optional<Ended> take_one(const QueueRef& queue, SlotRef ref, unsigned state, unsigned to,
                                OwnerTag me);

  // Some may be missing in the lists. Crash-safe: one store.
  static void distrust(layout::QueueRecord& q) {
    q.retained_doubt.store(1, std::memory_order_seq_cst);
  }
  // When the oldest one ended; kNever = there is none, 0 = in doubt. A moment's view.
  std::uint64_t oldest(const QueueRef& queue, unsigned state);

 private:
  static layout::RetainedList& list(layout::QueueRecord& q, unsigned state) {
    return q.retained[state == kSlotDone ? 0 : 1];
  }
  layout::Slot* member(const QueueRef& queue, unsigned state, std::uint32_t place);
  void append(layout::RetainedList& l, std::uint32_t place, layout::Slot& s);
  void unlink(layout::RetainedList& l, layout::Slot& s);
  void rebuild(const QueueRef& queue);
  void trust(const MutexGuard& guard, const QueueRef& queue);

  Base& base_;
  Slots& slots_;
};

}  // namespace celeriac
