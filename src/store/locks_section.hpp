// A bucket's mutex for the length of a scope, and those who are to be woken at its end: when who is
// woken may have the mutex at once. Part of locks.cpp and locks_repair.cpp.
#pragma once

#include "arena/crash_point.hpp"
#include "platform/futex.hpp"
#include "store/locks.hpp"

namespace celeriac {

class Locks::Section {
 public:
  Section(Locks& locks, layout::LockBucket& of, OwnerTag me,
          std::uint64_t patience_ns = kMutexPatience)
      : bucket(of),
        mutex_(of.mutex, locks.base_.owners),
        guard_(mutex_, mutex_.lock_within(me, patience_ns)) {
    if (!guard_.recovered()) return;
    locks.relink(bucket);
    locks.wake_bucket(bucket);
  }
  // Crash-safe: the mutex is taken from the dead, and recovery wakes who isn't woken.
  ~Section() {
    guard_.unlock();
    flush();
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  bool held() const { return guard_.held(); }
  // Has who sleeps on the seat look again. Crash-safe: recovery wakes who isn't.
  void wake(layout::LockSeat& seat) {
    if (n_ == woken_.size()) flush();
    // release pairs with the acquire in look(): who sees it sees what was done to his seat
    seat.signal.fetch_add(1, std::memory_order_release);
    woken_[n_++] = &seat.signal;
  }

  layout::LockBucket& bucket;

 private:
  void flush() {
    if (n_ == 0) return;
    CELERIAC_CRASH_POINT("lock.grant.unwoken");
    for (std::size_t i = 0; i < n_; ++i) futex_wake(woken_[i], 1);
    n_ = 0;
  }

  OwnerMutex mutex_;
  MutexGuard guard_;
  std::array<layout::HalfWord*, 8> woken_{};
  std::size_t n_ = 0;
};

}  // namespace celeriac
