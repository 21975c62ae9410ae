// Parker: spin a little, then sleep on a futex word until it changes, an absolute deadline passes,
// or it is time to ask whether the one we wait for still lives.
#pragma once

#include <algorithm>
#include <cstdint>

#include "arena/layout.hpp"
#include "platform/blocking.hpp"
#include "platform/clock.hpp"
#include "platform/futex.hpp"

namespace celeriac {

constexpr std::uint64_t kProbeInterval = 10 * kMillisecond;

// A signal that comes after `interrupted` was asked and before the thread sleeps doesn't end that
// sleep. So the first one is short, and who is signalled as his wait begins hears of it then. What
// stays is the microsecond before the second sleep, as in CPython's own waits.
constexpr std::uint64_t kFirstSleep = 20 * kMillisecond;

constexpr int kSpins = 64;

enum class Parked { kChanged, kHolderDead, kTimedOut, kInterrupted };

// Waits while `word` == expected. `holder_alive` is asked every kProbeInterval; pass a function
// that returns true when there is nobody to ask about, together with probe_ns = kNever.
// `interrupted` is asked before each sleep, for calls that a signal may end. `spins`: 0 for who
// knows that it takes long.
template <class HolderAlive, class Interrupted>
Parked park(const layout::HalfWord& word, std::uint32_t expected, std::uint64_t deadline_ns,
            HolderAlive holder_alive, std::uint64_t probe_ns, Interrupted interrupted,
            int spins = kSpins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != expected) return Parked::kChanged;
    cpu_relax();
  }
  for (bool first = true;; first = false) {
    if (interrupted()) return Parked::kInterrupted;
    const std::uint64_t now = now_ns();
    if (now >= deadline_ns) return Parked::kTimedOut;
    const std::uint64_t probe = probe_ns == kNever ? kNever : now + probe_ns;
    const std::uint64_t look = first ? now + kFirstSleep : kNever;
    const bool woken = futex_wait(&word, expected, std::min({deadline_ns, probe, look}));
    if (word.load(std::memory_order_acquire) != expected) return Parked::kChanged;
    if (!woken && probe <= deadline_ns && !holder_alive()) return Parked::kHolderDead;
  }
}

// Waits for a mutex's word: not ended by signals.
template <class HolderAlive>
Parked park(const layout::HalfWord& word, std::uint32_t expected, std::uint64_t deadline_ns,
            HolderAlive holder_alive) {
  return park(word, expected, deadline_ns, holder_alive, kProbeInterval, [] { return false; });
}

// Waits for something to happen, with nobody to ask about.
inline Parked park_until(const layout::HalfWord& word, std::uint32_t expected,
                         std::uint64_t deadline_ns) {
  return park(
      word, expected, deadline_ns, [] { return true; }, kNever, blocking_interrupted);
}

}  // namespace celeriac
