// The part of layout.hpp that locks are made of.
#pragma once

#include "arena/layout_counts.hpp"
#include "arena/layout_words.hpp"

namespace celeriac::layout {

constexpr std::uint32_t kLockBucketCount = 512;
constexpr std::uint32_t kSeatsPerChunk = 64;
constexpr std::uint32_t kMaxSeatChunks = 1024;
constexpr std::uint32_t kSeatNameBytes = 168;

// Somebody's place at a lock: he waits for it, or holds it (store/lock_seats.hpp).
struct alignas(64) LockSeat {
  Word word;                // tagged word: state, owner, generation
  Word first, second;       // 128 bits of hash of the lock's name: which one it is
  Word order;               // place in the line
  Word token;               // of who holds
  Word until;               // a lease ends then; kNever = with its owner alone
  Word lease;               // ns that it is to last, 0 = none
  Word since;               // when he came, or began to hold
  HalfWord next, previous;  // of the same lock, a ring in order; seat indexes + 1
  HalfWord chain;           // of the ring's first seat: the next ring of the bucket
  HalfWord signal;          // futex of who waits
  HalfWord permits;         // how many may hold
  HalfWord name_length;     // of `name`, which is as much as fits: for people
  char name[kSeatNameBytes];
};
static_assert(sizeof(LockSeat) == 256);

struct LockDirectory {
  MutexWord mutex;
  HalfWord chunks;
  HalfWord reserved;
  Word tokens;                   // given so far
  Word offsets[kMaxSeatChunks];  // blocks of LockSeat[kSeatsPerChunk]
};

struct alignas(64) LockBucket {
  MutexWord mutex;
  HalfWord first;  // ring, as the index of its first seat + 1
  HalfWord reserved;
  Word next_order;
};
static_assert(sizeof(LockBucket) == 64);

}  // namespace celeriac::layout
