// Deduplication: a key stands for one message of a queue for a while, and until then another put()
// with it gets that message's id instead of putting one more.
//
// DedupEntry {hash of the key (128 bits), message id, until} in a table of the queue, open
// addressing, under a mutex. A key is taken
//   until == 0   as long as its message is neither done nor dead nor gone
//   otherwise    until that moment, whatever becomes of the message
//
// put() with a key, under the mutex: look for the key; taken: its id. Else 1. the entry with the id
// of a slot in kWriting(me), until = 0; 2. the message is published; 3. until = end of the window.
//
// Invariants
//   D1  An entry is never taken before its message is published: 1 names a slot that isn't.
//   D2  An entry that changes keys is nobody's meanwhile: `first` is written last. It was free, so
//       a torn one takes nothing from anybody.
//   D3  Entries are never removed one by one; the table is made anew, without those that are free,
//       when half of it is used. One word names the new one and its size.
// Killed at any instruction: before 2 the key is free; between 2 and 3 the key is taken as long as
// the message lives, without the window behind it; the mutex is taken over from the dead.
#pragma once

#include <functional>

#include "queue/directory.hpp"
#include "queue/slots.hpp"

namespace celeriac {

struct DedupKey {
  std::uint64_t first = 0, second = 0;  // no key: both 0
  bool given() const { return (first | second) != 0; }
};

class Dedup {
 public:
  Dedup(Base& base, Slots& slots) : base_(base), slots_(slots) {}

  // The id of the message that the key stands for, 0 = the key is free.
  // Thread-safe. Crash-safe: changes nothing but the table's place.
  Result<std::uint64_t> find(const QueueRef& queue, DedupKey key, OwnerTag me);
  // The same; when the key is free, `publish` puts the message `id`, or says why it didn't, and the
  // key is its for `window_ns`, 0 = as long as it isn't done. Thread-safe. Crash-safe: as above.
  Result<std::uint64_t> put(const QueueRef& queue, DedupKey key, std::uint64_t window_ns,
                            std::uint64_t id, const std::function<Status()>& publish, OwnerTag me);
  // Forgets all keys. Crash-safe: one word.
  void clear(layout::QueueRecord& q, OwnerTag me);
  // Its block, if it is hidden in the heap. REQUIRES: nobody else uses the arena.
  // Crash-safe: idempotent.
  static void forget(layout::QueueRecord& q, const LiveBlocks& live);

 private:
  struct Table {
    layout::DedupEntry* entries = nullptr;
    std::uint64_t capacity = 0;
  };
  Table table(const layout::QueueRecord& q);
  layout::DedupEntry* entry(const Table& t, DedupKey key, bool to_write);
  bool taken(const layout::DedupEntry& e);
  bool alive(std::uint64_t id);
  void settle(layout::QueueRecord& q, OwnerTag me);
  Status make_room(layout::QueueRecord& q, OwnerTag me);

  Base& base_;
  Slots& slots_;
};

}  // namespace celeriac
