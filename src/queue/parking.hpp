// Parking: who waits for a queue's messages, and how one of them is woken.
//
// Two kinds of waiters, both marked by owner in bitmaps of the queue record:
//   blocked_owners  threads of that process sleep on the futex word `signal`
//   parked_owners   that process waits in epoll; OwnerRecord.parked says whether it does right now
//                   (kParked), has been signalled (kSignalled), or is busy (kRunning)
//
// Waiter: set the mark; read `signal` (blocked) or set kParked (epoll); look at the queue again;
//         sleep.
// Waker:  make the message ready; look at the marks.
// All of these are seq_cst, so either the waiter sees the message or the waker sees the mark.
// One message wakes one waiter. A waiter that was woken and won't take anything passes it on.
//
// Killed at any instruction: marks of the dead are cleared by recovery, which also wakes somebody
// for each queue that may have something, since the dead may have been woken for it.
#pragma once

#include <array>
#include <mutex>

#include "platform/wakeup.hpp"
#include "queue/directory.hpp"

namespace celeriac {

constexpr std::uint32_t kRunning = 0;
constexpr std::uint32_t kParked = 1;
constexpr std::uint32_t kSignalled = 2;

class Parking {
 public:
  explicit Parking(Base& base) : base_(base), writers_(layout::kMaxOwners) {}

  // Wakes one waiter of the queue, if there is any. Thread-safe.
  // Crash-safe: a wake-up lost with its waker is given again by recovery.
  void wake_one(layout::QueueRecord& q);
  // Wakes all blocked threads and parked loops of the queue (it is gone).
  // Crash-safe: as wake_one().
  void wake_all(layout::QueueRecord& q);

  // Wakes threads of this process that are blocked on the queue (a handle closes); others of other
  // processes may look up too. Crash-safe: as wake_one().
  void wake_blocked(layout::QueueRecord& q, OwnerTag me);

  // Marks of this process; counted, since several threads or waiters may set the same.
  // Crash-safe: recovery clears them.
  void mark_blocked(const QueueRef& q, OwnerTag me) {
    mark(blocked_, q.record->blocked_owners, q, me);
  }
  void unmark_blocked(const QueueRef& q, OwnerTag me) {
    unmark(blocked_, q.record->blocked_owners, q, me);
  }
  void mark_parked(const QueueRef& q, OwnerTag me) {
    mark(parked_, q.record->parked_owners, q, me);
  }
  void unmark_parked(const QueueRef& q, OwnerTag me) {
    unmark(parked_, q.record->parked_owners, q, me);
  }

  // Recovery: clears a dead owner's marks. Crash-safe: idempotent.
  void forget(layout::QueueRecord& q, OwnerTag dead);

  void after_fork_in_child() noexcept;

 private:
  using Counts = std::array<std::uint32_t, layout::kMaxQueues>;
  void mark(Counts& counts, layout::Word* words, const QueueRef& q, OwnerTag me);
  void unmark(Counts& counts, layout::Word* words, const QueueRef& q, OwnerTag me);

  Base& base_;
  FifoWriters writers_;
  std::mutex mutex_;
  Counts blocked_{};
  Counts parked_{};
  std::atomic<unsigned> turn_{0};
};

}  // namespace celeriac
