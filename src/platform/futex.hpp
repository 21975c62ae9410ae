// Shared futexes: sleep on a 32-bit word of the arena until it changes or a deadline passes.
#pragma once

#include <atomic>
#include <cstdint>

namespace celeriac {

// Sleeps while *word == expected, until woken or until `deadline_ns` (now_ns() clock, kNever = no
// end). Returns false when the deadline passed; true otherwise, which may be spurious: check again.
// Thread-safe. Runs the blocking hooks around the sleep.
bool futex_wait(const std::atomic<std::uint32_t>* word, std::uint32_t expected,
                std::uint64_t deadline_ns);

// Wakes at most n sleepers; returns how many were woken.
int futex_wake(const std::atomic<std::uint32_t>* word, int n);

// One step of a busy wait.
inline void cpu_relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield" ::: "memory");
#endif
}

}  // namespace celeriac
