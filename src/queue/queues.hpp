// Queues: put, get, ack, nack and what goes with them, over slots (truth), lanes and timers
// (hints).
//
// Protocol of put()
//   1. count the message in (length), refuse at max_length   2. write the body into a block
//   3. slot kFree -> kWriting(me); meta, sequence, body; block -> kLive
//   4. slot -> kReady (or kDelayed): from here on the message exists   5. hint, wake one waiter
// Protocol of get()
//   1. due delayed messages -> kReady   2. pop hints until a CAS kReady -> kReserved(me) succeeds
// Protocol of ack()
//   1. CAS kReserved(me, generation) -> kReclaim(me): the message is done, or NotOwner
//   2. give the body and the slot back
//
// Guarantees
//   G1  At least once: a message whose put() returned is delivered until an ack() succeeds.
//   G2  At most one ack() succeeds for a message.
//   G3  A dead owner's reserved messages are ready again as soon as recovery ran, in front, with
//       `deliveries` one higher at the next reservation.
//   G4  Within one queue and priority, messages that were put one after the other are first
//       delivered in that order.
//   G5  Counts are exact when no operation is under way.
// src/queue/slots.hpp says what survives a kill at each step.
#pragma once

#include <array>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "queue/directory.hpp"
#include "queue/lanes.hpp"
#include "queue/parking.hpp"
#include "queue/slots.hpp"
#include "queue/timers.hpp"

namespace celeriac {

struct Outgoing {
  std::string_view headers;
  std::string_view body;
  std::uint8_t priority = 0;
  std::uint64_t due = 0;  // 0 = now
  std::uint64_t expires = kNever;
  // Of a message that the journal has already: its number there, and what became of it.
  std::uint64_t journal = 0;
  std::uint32_t deliveries = 0;
  bool dead = false;
};

// A reserved message. The views lead into the arena and stay valid until ack, nack or close.
struct Delivery {
  std::uint32_t index = 0;
  TaggedWord word;
  std::uint64_t id = 0;
  std::uint32_t deliveries = 0;
  std::uint8_t priority = 0;
  std::string_view headers;
  std::string_view body;
};

struct QueueCounts {
  std::uint64_t ready = 0, delayed = 0, reserved = 0, dead = 0, done = 0, dropped = 0;
};

// A message looked at, not taken.
struct Peeked {
  std::uint64_t order = 0;  // due time or sequence number
  Delivery delivery;        // views lead into the copies
  std::string headers;
  std::string body;
  std::uint64_t due = 0;
  bool damaged = false;  // no body: what is there is not what was put
};

class Queues {
 public:
  explicit Queues(Base& base)
      : base_(base),
        slots_(base),
        directory_(base),
        lanes_(base, slots_),
        timers_(base, slots_),
        parking_(base) {}

  Result<QueueRef> open(std::string_view name, const QueueConfig* config, OwnerTag me) {
    return directory_.open(name, config, me);
  }
  QueueDirectory& directory() { return directory_; }
  // Everything that changes queues is told to the sink from now on. REQUIRES: as Slots::set_sink().
  void set_sink(JournalSink* sink) {
    slots_.set_sink(sink);
    directory_.set_sink(sink);
  }
  Parking& parking() { return parking_; }

  // The message's id. kQueueFull (max_length, slots or memory), kValueTooLarge, kNotFound (the
  // queue was deleted); then nothing was put.
  // Thread-safe. Crash-safe: dies before step 4 = not put; after = put.
  Result<std::uint64_t> put(const QueueRef& queue, const Outgoing& message, OwnerTag me);

  // False when nothing is ready. Thread-safe. Crash-safe: reserved or not, by one CAS.
  bool try_get(const QueueRef& queue, Delivery* to, OwnerTag me);
  // Sleeps until there may be something: woken by put, or next due time, or the deadline; or
  // kInterrupted.
  // `poll_ns`: look for dead owners that often (kNever when a death watch does).
  Status wait(const QueueRef& queue, std::uint64_t deadline_ns, std::uint64_t poll_ns, OwnerTag me);

  // kNotOwner when the message isn't ours any more. Thread-safe. Crash-safe: G2.
  Status ack(const QueueRef& queue, const Delivery& d, OwnerTag me);
  // Back to the queue (due = 0: now, in front); or dead, at the delivery limit.
  // Thread-safe. Crash-safe: one CAS.
  Status nack(const QueueRef& queue, const Delivery& d, std::uint64_t due, OwnerTag me);

  // Copies of at most `limit` messages in a state, in order. Thread-safe; changes nothing.
  std::vector<Peeked> peek(const QueueRef& queue, unsigned state, std::size_t limit);
  // Removes ready and delayed messages; how many. Thread-safe. Crash-safe: one by one.
  std::uint64_t purge(const QueueRef& queue, OwnerTag me);
  // Deletes the queue and its messages. Thread-safe. Crash-safe: the mark is one CAS; messages left
  // by a dying deleter belong to no queue and go with the next recovery.
  bool remove(const QueueRef& queue, OwnerTag me);
  QueueCounts counts(const QueueRef& queue, OwnerTag me);

  // Moves what is due to ready. Cheap when nothing is. Crash-safe: G1.
  void promote(OwnerTag me);
  std::uint64_t next_due() const { return timers_.next_due(); }
  bool maybe_ready(const QueueRef& q) const { return Lanes::maybe_ready(*q.record); }

  // Makes all hints anew: timers, lanes, which of them have something; counts by distrusting them.
  // Where blocks may be hidden (memory/live_blocks.hpp), forgets what leads to those.
  // REQUIRES: nobody else uses the arena (arena/owners.hpp, O4).
  // Crash-safe: idempotent, and run again by the next who comes in alone.
  void rebuild(const LiveBlocks& live);

  // The repairer: everything that dead owners left in queues. Crash-safe: idempotent.
  void repair(const DeadOwners& dead);

 private:
  Result<std::uint64_t> write_body(const Outgoing& message, OwnerTag me);
  Status tell_put(const QueueRef& queue, const Outgoing& m, layout::Slot& s);
  void tell_moved(const layout::Slot& s, unsigned state, std::uint64_t due,
                  std::uint32_t deliveries);
  bool claim(const QueueRef& queue, layout::Hint hint, Delivery* to, OwnerTag me);
  bool read_body(layout::Slot& slot, Delivery* to);
  bool drop_oldest(const QueueRef& queue, OwnerTag me);
  void make_ready(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front,
                  OwnerTag me);
  bool reclaim_if(std::uint32_t index, layout::Slot& s, TaggedWord w, OwnerTag me);
  std::uint64_t purge_where(OwnerTag me, const std::function<bool(SlotMeta, TaggedWord)>& which);
  void repair_slot(const DeadOwners& dead, std::uint32_t index, layout::Slot& s, TaggedWord w);
  // After a death inside of an operation a counter may be off: counts the slots, and corrects the
  // counters if there is a moment in which nobody does anything. G5.
  // REQUIRES: the calling thread isn't inside an operation.
  // Crash-safe: the counts stay dirty, or become so again with the recovery of the dead caller.
  void recount(OwnerTag me);
  bool try_recount(OwnerTag me);
  struct Counter {
    layout::Word* word = nullptr;
    std::uint64_t value = 0;
  };
  using Counters = std::array<Counter, 5>;  // ready, delayed, reserved, dead, length
  std::vector<Counters> counters();
  QueueRef of_meta(SlotMeta meta);

  Base& base_;
  Slots slots_;
  QueueDirectory directory_;
  Lanes lanes_;
  Timers timers_;
  Parking parking_;
};

}  // namespace celeriac
