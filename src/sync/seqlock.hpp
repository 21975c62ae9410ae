// Seqlock: many readers of a few words, one writer at a time, and no reader waits for a dead one.
//
//   word = {sequence:32 | owner slot + 1:16 | owner epoch:16}; odd sequence = being written, and
//   then the rest names the writer
//
//   write   1. CAS even -> odd | me.  2. release fence.  3. relaxed word stores.
//           4. store even (release).
//   read    1. load (acquire), even?  2. relaxed word loads.  3. acquire fence.
//           4. load again: the same? Else once more.
// A reader that meets an odd word asks whether the writer lives; a dead writer's payload is torn,
// and the reader is told so (kTorn): the owner of the data resets it with a write of its own, which
// takes the odd word of the dead by CAS.
//
// Payload words go through relaxed atomic_ref, since a plain memcpy that races is undefined (Boehm,
// "Can seqlocks get along with programming language memory models?", MSPC 2012).
// Killed at any instruction: before the CAS old; between 1 and 4 torn, and known to be; after, new.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "arena/crash_point.hpp"
#include "arena/layout.hpp"
#include "arena/owners.hpp"
#include "platform/futex.hpp"

namespace celeriac {

enum class SeqRead { kOk, kTorn };

class Seqlock {
 public:
  Seqlock(layout::SequenceWord& s, const Owners& owners) : s_(s), owners_(owners) {}

  // Copies `words` 64-bit words out. Lock-free while writers live and run.
  SeqRead read(const std::uint64_t* from, std::uint64_t* to, std::size_t words) const {
    for (std::uint64_t tries = 1;; ++tries) {
      const std::uint64_t before = s_.word.load(std::memory_order_acquire);
      if (odd(before)) {
        if (tries % 1024 == 0 && !owners_.alive(writer(before))) return SeqRead::kTorn;
        cpu_relax();
        continue;
      }
      for (std::size_t i = 0; i < words; ++i) {
        to[i] =
            std::atomic_ref(const_cast<std::uint64_t&>(from[i])).load(std::memory_order_relaxed);
      }
      // Pairs with the release fence in write(): seeing any of its words means seeing its odd word.
      std::atomic_thread_fence(std::memory_order_acquire);
      if (s_.word.load(std::memory_order_relaxed) == before) return SeqRead::kOk;
    }
  }

  // Copies `words` 64-bit words in. Waits for a living writer, takes over from a dead one.
  // Crash-safe: as above.
  void write(OwnerTag me, std::uint64_t* to, const std::uint64_t* from, std::size_t words) {
    std::uint64_t before = s_.word.load(std::memory_order_relaxed);
    for (std::uint64_t tries = 1;; ++tries) {
      const bool taken = odd(before);
      if (!taken || (tries % 1024 == 0 && !owners_.alive(writer(before)))) {
        const std::uint64_t next = (sequence(before) + (taken ? 2 : 1)) << 32U | who(me);
        if (s_.word.compare_exchange_weak(before, next, std::memory_order_acquire)) {
          before = next;
          break;
        }
        continue;
      }
      cpu_relax();
      before = s_.word.load(std::memory_order_relaxed);
    }
    std::atomic_thread_fence(std::memory_order_release);  // pairs with the fence in read()
    CELERIAC_CRASH_POINT("seqlock.write.begun");
    for (std::size_t i = 0; i < words; ++i) {
      std::atomic_ref(to[i]).store(from[i], std::memory_order_relaxed);
    }
    CELERIAC_CRASH_POINT("seqlock.write.copied");
    // release pairs with the first load of read()
    s_.word.store((sequence(before) + 1) << 32U, std::memory_order_release);
  }

 private:
  static constexpr std::uint64_t sequence(std::uint64_t w) { return w >> 32U; }
  static constexpr bool odd(std::uint64_t w) { return (w >> 32U & 1U) != 0; }
  static constexpr std::uint64_t who(OwnerTag t) { return (t.slot + 1ULL) << 16U | t.epoch; }
  static constexpr OwnerTag writer(std::uint64_t w) {
    return {static_cast<std::uint16_t>((w >> 16U & 0xFFFFU) - 1), static_cast<std::uint16_t>(w)};
  }

  layout::SequenceWord& s_;
  const Owners& owners_;
};

}  // namespace celeriac
