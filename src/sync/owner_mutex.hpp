// Owner mutex: a futex word that names its holder, so that a dead holder's mutex can be taken.
//
//   word = {waiters:1 | owner slot + 1:15 | owner epoch:16}; 0 = free
//
// Steps
//   lock    1. CAS 0 -> me.  2. Else set the waiters bit, sleep on the word with a deadline.
//           3. Every 10 ms of sleep: is the holder alive? If not, CAS its word -> me|waiters.
//   unlock  exchange 0; if the waiters bit was set, wake one.
// Who was woken takes the word with the waiters bit set, since others may sleep still.
//
// Invariants
//   M1  Between a successful lock and unlock the word names the holder: death is always seen.
//   M2  Whoever takes the mutex from the dead is told (kRecovered) and must repair what the mutex
//       guards before using it. Dying during that repair hands the same duty to the next.
//   M3  `pending` names the blocks that the holder is linking or unlinking; the repair settles
//       them.
// Killed at any instruction: before the CAS nothing happened; after it M1 holds; an unlocker that
// dies before the wake leaves sleepers that look again at their next probe.
//
// Two threads of one process are one owner: the word says "alive", and the other waits.
#pragma once

#include <cstdint>

#include "arena/layout.hpp"
#include "arena/owners.hpp"
#include "platform/clock.hpp"

namespace celeriac {

enum class Locked { kAcquired, kRecovered, kTimedOut };

class OwnerMutex {
 public:
  OwnerMutex(layout::MutexWord& m, const Owners& owners) : m_(m), owners_(owners) {}

  // Deadline absolute on the now_ns() clock. REQUIRES: `me` is this process's identity; the
  // calling thread doesn't hold it.
  // Crash-safe: M1, M2.
  [[nodiscard]] Locked lock(OwnerTag me, std::uint64_t deadline_ns);
  // The same for at most `patience_ns` from now; looks at the clock only when it has to wait.
  // Crash-safe: M1, M2.
  [[nodiscard]] Locked lock_within(OwnerTag me, std::uint64_t patience_ns) {
    std::uint32_t free = 0;
    // acquire pairs with the release exchange in unlock()
    if (m_.word.compare_exchange_strong(free, pack(me), std::memory_order_acquire)) {
      return Locked::kAcquired;
    }
    return lock(me, now_ns() + patience_ns);
  }
  // kTimedOut when a living owner holds it. Crash-safe: M1, M2.
  [[nodiscard]] Locked try_lock(OwnerTag me);
  // REQUIRES: held by the calling thread.
  // Crash-safe: one exchange; sleepers that it doesn't wake look again by themselves.
  void unlock();

 private:
  static constexpr std::uint32_t pack(OwnerTag t) {
    return static_cast<std::uint32_t>(t.slot + 1U) << 16U | t.epoch;
  }

  layout::MutexWord& m_;
  const Owners& owners_;
};

// Unlocks at the end of the scope what lock() or try_lock() got.
class MutexGuard {
 public:
  MutexGuard(OwnerMutex mutex, Locked how) : mutex_(mutex), how_(how) {}
  ~MutexGuard() { unlock(); }
  MutexGuard(const MutexGuard&) = delete;
  MutexGuard& operator=(const MutexGuard&) = delete;

  bool held() const { return how_ != Locked::kTimedOut; }
  bool recovered() const { return how_ == Locked::kRecovered; }
  void unlock() {
    if (held()) mutex_.unlock();
    how_ = Locked::kTimedOut;
  }

 private:
  OwnerMutex mutex_;
  Locked how_;
};

}  // namespace celeriac
