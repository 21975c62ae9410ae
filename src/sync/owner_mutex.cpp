#include "sync/owner_mutex.hpp"

#include "arena/crash_point.hpp"
#include "platform/futex.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

constexpr std::uint32_t kWaiters = 1U << 31U;

constexpr OwnerTag holder(std::uint32_t word) {
  const std::uint32_t who = (word & ~kWaiters) >> 16U;
  if (who == 0) return {};
  return {static_cast<std::uint16_t>(who - 1), static_cast<std::uint16_t>(word)};
}

}  // namespace

Locked OwnerMutex::try_lock(OwnerTag me) {
  std::uint32_t word = 0;
  // acquire pairs with the release exchange in unlock()
  if (m_.word.compare_exchange_strong(word, pack(me), std::memory_order_acquire)) {
    return Locked::kAcquired;
  }
  if (!owners_.alive(holder(word)) &&
      m_.word.compare_exchange_strong(word, pack(me) | kWaiters, std::memory_order_acquire)) {
    return Locked::kRecovered;
  }
  return Locked::kTimedOut;
}

Locked OwnerMutex::lock(OwnerTag me, std::uint64_t deadline_ns) {
  std::uint32_t word = 0;
  if (m_.word.compare_exchange_strong(word, pack(me), std::memory_order_acquire)) {
    return Locked::kAcquired;
  }
  for (int i = 0; i < 100; ++i) {  // most holders are gone within a microsecond
    cpu_relax();
    word = 0;
    if (m_.word.compare_exchange_weak(word, pack(me), std::memory_order_acquire)) {
      return Locked::kAcquired;
    }
  }
  const std::uint32_t mine = pack(me) | kWaiters;
  for (;;) {
    word = m_.word.load(std::memory_order_relaxed);
    if (word == 0) {
      if (m_.word.compare_exchange_weak(word, mine, std::memory_order_acquire)) {
        return Locked::kAcquired;
      }
      continue;
    }
    if ((word & kWaiters) == 0 &&
        !m_.word.compare_exchange_weak(word, word | kWaiters, std::memory_order_relaxed)) {
      continue;
    }
    word |= kWaiters;
    CELERIAC_CRASH_POINT("mutex.lock.waiting");
    const OwnerTag who = holder(word);
    switch (park(m_.word, word, deadline_ns, [&] { return owners_.alive(who); })) {
      case Parked::kChanged:
      case Parked::kInterrupted:
        break;
      case Parked::kHolderDead:
        // acquire: the dead holder's stores were all made before its byte became free
        if (m_.word.compare_exchange_strong(word, mine, std::memory_order_acquire)) {
          CELERIAC_CRASH_POINT("mutex.lock.recovered");
          return Locked::kRecovered;
        }
        break;
      case Parked::kTimedOut:
        return Locked::kTimedOut;
    }
  }
}

void OwnerMutex::unlock() {
  // release pairs with the acquires above
  const std::uint32_t word = m_.word.exchange(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("mutex.unlock.released");
  if ((word & kWaiters) != 0) futex_wake(&m_.word, 1);
}

}  // namespace celeriac
