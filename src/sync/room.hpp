// Waiting for room: who may wait sleeps on a futex until somebody makes room. There is one word for
// each queue (max_length), one for the store (memory, slots), and one for each concurrency limit.
//
//   RoomWord.signal    the futex; rises with each wake-up
//   RoomWord.waiting   somebody may sleep
//
// Sleeper: read `signal`; waiting = 1; try again; sleep while `signal` is what it was.
// Waker:  make room; if `waiting`: waiting = 0, signal + 1, wake. If it woke any, waiting = 1.
// All of these are seq_cst. So either the sleeper's last try finds the room, or the waker sees
// `waiting`, and its new signal is later than what the sleeper read: it doesn't sleep, or is
// woken. Only a sleeper that came between `waiting = 0` and a wake-up of others could be forgotten,
// and for that `waiting` is set again when anybody was woken.
//
// Who waits for memory looks once a second as well: tables and caches give it back too, and don't
// know of him.
//
// Killed at any instruction: a mark that stays costs one wake-up that wakes nobody. A waker that
// dies between making room and waking leaves sleepers: recovery wakes all of them.
#pragma once

#include "arena/crash_point.hpp"
#include "arena/layout.hpp"
#include "platform/futex.hpp"

namespace celeriac {

// Says that the caller is about to sleep; what to sleep on. Crash-safe: as above.
inline std::uint32_t await_room(layout::RoomWord& room) {
  const std::uint32_t seen = room.signal.load(std::memory_order_seq_cst);
  room.waiting.store(1, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.room.awaited");
  return seen;
}

// There is room for `n` more. REQUIRES: what made it was followed by a seq_cst operation.
// Crash-safe: as above.
inline void made_room(layout::RoomWord& room, int n) {
  if (room.waiting.load(std::memory_order_seq_cst) == 0) return;
  room.waiting.store(0, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.room.unmarked");
  room.signal.fetch_add(1, std::memory_order_seq_cst);
  if (futex_wake(&room.signal, n) > 0) room.waiting.store(1, std::memory_order_seq_cst);
}

}  // namespace celeriac
