// What every shared structure stands on: the arena, its owners, its heap, its recovery.
#pragma once

#include <functional>

#include "arena/arena.hpp"
#include "arena/owners.hpp"
#include "arena/recovery.hpp"
#include "memory/heap.hpp"
#include "platform/clock.hpp"

namespace celeriac {

struct Base {
  Arena& arena;
  Owners& owners;
  Recovery& recovery;
  Heap& heap;
  // Frees what may be given up (cache entries) in one piece of so many bytes; returns how many,
  // 0 = there is no such piece, and nothing was given up. Takes shard mutexes.
  std::function<std::uint64_t(std::uint64_t bytes, OwnerTag me)> make_room{};

  // Heap::allocate(), making room when memory is short: the cache gives way to everything else.
  // REQUIRES: the caller holds no shard's mutex. Thread-safe. Crash-safe: as Heap::allocate().
  Result<std::uint64_t> allocate(std::uint64_t bytes, OwnerTag me);
  // That there is no room for a block of so many bytes: what there is, and why no more (`cause`).
  Status no_room(std::uint64_t bytes, const Status& cause, OwnerTag me);
};

// Structures that hold 64-byte-aligned objects put them here inside their block.
constexpr std::uint64_t aligned_object(std::uint64_t block) {
  return layout::align_up(block + sizeof(layout::BlockHeader), 64);
}
constexpr std::uint64_t aligned_bytes(std::uint64_t object_bytes) { return object_bytes + 48; }

// How long an operation waits for a mutex of the arena before it says kLockTimeout: only a stopped
// process holds one that long, since a dead one's is taken over.
constexpr std::uint64_t kMutexPatience = 2 * kSecond;

inline Status mutex_timeout(const char* what) {
  return {Code::kLockTimeout, std::string(what) +
                                  " is locked by a living process that doesn't run (stopped, or "
                                  "starved of CPU); try again"};
}

}  // namespace celeriac
