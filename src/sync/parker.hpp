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
// sleep. So the first sleep is short, each lasts no longer than twice the one before, and none
// longer than a minute: what falls into that gap of a microsecond is late by no more.
constexpr std::uint64_t kFirstSleep = 20 * kMillisecond;
constexpr std::uint64_t kLongestSleep = 60 * kSecond;

enum class Parked { kChanged, kHolderDead, kTimedOut, kInterrupted };

// Waits while `word` == expected. `holder_alive` is asked every kProbeInterval; pass a function
// that returns true when there is nobody to ask about, together with probe_ns = kNever.
// `interrupted` is asked before each sleep, for calls that a signal may end.
template <class HolderAlive, class Interrupted>
Parked park(const layout::HalfWord& word, std::uint32_t expected, std::uint64_t deadline_ns,
            HolderAlive holder_alive, std::uint64_t probe_ns, Interrupted interrupted) {
  for (int i = 0; i < 64; ++i) {
    if (word.load(std::memory_order_acquire) != expected) return Parked::kChanged;
    cpu_relax();
  }
  std::uint64_t longest = kFirstSleep;
  for (;;) {
    if (interrupted()) return Parked::kInterrupted;
    const std::uint64_t now = now_ns();
    if (now >= deadline_ns) return Parked::kTimedOut;
    const std::uint64_t probe = probe_ns == kNever ? kNever : now + probe_ns;
    const bool woken = futex_wait(&word, expected, std::min({deadline_ns, probe, now + longest}));
    if (word.load(std::memory_order_acquire) != expected) return Parked::kChanged;
    if (!woken && probe <= deadline_ns && !holder_alive()) return Parked::kHolderDead;
    longest = std::min(2 * longest, kLongestSleep);
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
