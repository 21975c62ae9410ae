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
// or, where done messages are kept, 1. CAS kReserved(me, generation) -> kReturning(me), or NotOwner
//   2. when; kDone, and into the list. Who dies before that hasn't acknowledged.
// Protocol of nack() that says more than "at once"
//   1. CAS kReserved(me, generation) -> kReturning(me), or NotOwner   2. reason, due time, end
//   3. kReturning(me) -> kReady, kDelayed or kDead; or, to the dead letter queue: its sequence,
//      then Slot.meta in one store, then kReady
// A reservation with an end (visibility): whoever looks at the timers takes the message of one that
// is over, CAS kReserved(o) -> kReturning(me), and gives it back in its owner's place.
//
// Guarantees
//   G1  At least once: a message whose put() returned is delivered until an ack() succeeds.
//   G2  At most one ack() succeeds for a message.
//   G3  A dead owner's reserved messages are ready again as soon as recovery ran, in front, with
//       `deliveries` one higher at the next reservation.
//   G4  Within one queue and priority, messages that were put one after the other are first
//       delivered in that order.
//   G5  Counts are exact when no operation is under way.
//   G6  Of a paused queue nothing is delivered. `paused` is looked at before each delivery, and by
//       who wakes: put() makes its message ready and then reads `paused`; resume() clears it and
//       then wakes all (both seq_cst): so one of the two wakes who sleeps.
//   G7  What is retained gives way before a put() is refused for want of memory or slots.
// src/queue/slots.hpp says what survives a kill at each step.
#pragma once

#include <array>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "queue/dedup.hpp"
#include "queue/directory.hpp"
#include "queue/lanes.hpp"
#include "queue/parking.hpp"
#include "queue/retained.hpp"
#include "queue/slots.hpp"
#include "queue/timers.hpp"
#include "sync/room.hpp"

namespace celeriac {

struct Outgoing {
  std::string_view headers;
  std::string_view body;
  std::uint8_t priority = 0;
  std::uint64_t due = 0;  // 0 = now
  std::uint64_t expires = kNever;
  DedupKey key{};
  std::uint64_t key_ns = 0;     // the key's window; 0 = as long as the message isn't done
  std::string_view key_text{};  // what `key` is the hash of, for the journal
};

// A message as the journal has it.
struct Restored {
  Outgoing message;
  std::uint64_t number = 0;  // in the journal
  std::uint64_t id = 0;      // what it was; kept where its slot is free
  unsigned state = kSlotReady;
  std::uint64_t enqueued = 0;
  std::uint64_t ended = 0;  // kSlotDead, kSlotDone: since when
  std::uint32_t deliveries = 0;
  std::uint8_t end = 0;  // of Slot.meta
  std::uint8_t end_deliveries = 0;
  std::string_view reason;
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

// An owner that has to do with a queue.
struct QueueConsumer {
  OwnerTag tag;
  std::uint64_t reserved = 0;
  bool waiting = false;
};

// A message looked at, not taken.
struct Peeked {
  std::uint64_t order = 0;  // due time or sequence number
  Delivery delivery;        // views lead into the copies
  std::string headers;
  std::string body;
  std::uint64_t due = 0;
  std::uint64_t ended = 0;  // of done and dead ones
  std::string reason;       // of dead ones, for people
  bool damaged = false;     // no body: what is there is not what was put
};

class Queues {
 public:
  explicit Queues(Base& base)
      : base_(base),
        slots_(base),
        directory_(base),
        lanes_(base, slots_),
        timers_(base, slots_),
        retained_(base, slots_),
        dedup_(base, slots_),
        parking_(base) {}

  // As QueueDirectory::open(). Crash-safe: a record counts when it is complete.
  Result<QueueRef> open(std::string_view name, const QueueConfig* config, OwnerTag me) {
    bool made = false;
    Result<QueueRef> queue = directory_.open(name, config, me, &made);
    if (made) dedup_.clear(*queue.value().record, me);  // of one that was here before
    return queue;
  }
  QueueDirectory& directory() { return directory_; }
  Parking& parking() { return parking_; }
  // Everything that changes queues is told to the sink from now on. REQUIRES: as Slots::set_sink().
  void set_sink(JournalSink* sink) {
    slots_.set_sink(sink);
    directory_.set_sink(sink);
  }

  // A message that the journal has, without telling it: its id here. Bounds of the queue don't
  // count. kQueueFull: no memory. Crash-safe: as put(); but see engine/local/durable.hpp.
  Result<std::uint64_t> restore(const QueueRef& queue, const Restored& r, OwnerTag me);
  // A key that stands for a message, which may be gone, until a moment. Crash-safe: as put().
  Status restore_key(const QueueRef& queue, DedupKey key, std::uint64_t until, std::uint64_t id,
                     OwnerTag me);

  // The message's id; with a key that is taken, that of the message that is there, and nothing was
  // put. kQueueFull (max_length, slots or memory), kValueTooLarge, kNotFound (the queue was
  // deleted); then nothing was put, and `*lacking` is what to wait at when it is full.
  // Thread-safe. Crash-safe: dies before step 4 = not put; after = put.
  Result<std::uint64_t> put(const QueueRef& queue, const Outgoing& message, OwnerTag me,
                            layout::RoomWord** lacking = nullptr);
  // The same of messages without keys, as one: as many of the first as can be put at once, which
  // may be none; why not, put() says of the next one. Adds their ids.
  // Thread-safe. Crash-safe: each as put(); dies before the first step 4 = none is put.
  std::size_t put_together(const QueueRef& queue, std::span<const Outgoing> messages,
                           std::vector<std::uint64_t>* ids, OwnerTag me);
  // Sleeps until there may be room, or the deadline; or kInterrupted. REQUIRES: `seen` is from
  // await_room(), and a put() after that lacked the same. `poll_ns`: as of wait().
  // Thread-safe. Crash-safe: who sleeps has put nothing.
  Status wait_for_room(layout::RoomWord& room, std::uint32_t seen, std::uint64_t deadline_ns,
                       std::uint64_t poll_ns);
  // Everybody who waits for room looks again. Crash-safe: as made_room().
  void wake_putters();

  // False when nothing is ready. Thread-safe. Crash-safe: reserved or not, by one CAS.
  bool try_get(const QueueRef& queue, Delivery* to, OwnerTag me);
  // Sleeps until there may be something: woken by put, or next due time, or the deadline; or
  // kInterrupted.
  // `poll_ns`: look for dead owners that often (kNever when a death watch does).
  Status wait(const QueueRef& queue, std::uint64_t deadline_ns, std::uint64_t poll_ns, OwnerTag me);

  // kNotOwner when the message isn't ours any more. What the journal says when it can't be told: it
  // is ours as before. Thread-safe. Crash-safe: G2.
  Status ack(const QueueRef& queue, const Delivery& d, OwnerTag me);
  // Back to the queue (due = 0: now, in front); or dead, at the delivery limit. `reason` is kept
  // with the message, as far as there is memory for it.
  // Thread-safe. Crash-safe: given back by us, or by recovery.
  Status nack(const QueueRef& queue, const Delivery& d, std::uint64_t due, std::string_view reason,
              OwnerTag me);
  // The reservation ends by itself at the deadline, and not before.
  // kNotOwner as ack(). Thread-safe. Crash-safe: one word, and a hint.
  Status extend(const QueueRef& queue, const Delivery& d, std::uint64_t deadline_ns, OwnerTag me);
  // Reserved by us, still.
  bool held(const Delivery& d) {
    const layout::Slot* s = slots_.at(d.index);
    std::atomic_thread_fence(std::memory_order_acquire);  // after what was copied out of it
    return s != nullptr && load(s->word) == d.word;
  }
  // Why it was given back last, or why it is in a dead letter queue; empty when nothing was said or
  // the message isn't ours any more. Thread-safe; changes nothing.
  std::string reason(const Delivery& d);

  // Dead messages back to ready, at the end, their deliveries counted anew and their ttl forgotten;
  // how many. Those of `ids` (others of them are ignored), or all.
  // Thread-safe. Crash-safe: one by one; one under way is dead still, or ready.
  std::uint64_t retry_dead(const QueueRef& queue, const std::vector<std::uint64_t>* ids,
                           OwnerTag me);
  // Removes the dead messages; how many. Thread-safe. Crash-safe: one by one.
  std::uint64_t purge_dead(const QueueRef& queue, OwnerTag me);
  // Removes what is retained longer than the queue's options say. Crash-safe: one by one.
  void trim(const QueueRef& queue, OwnerTag me);
  // Removes a ready or delayed message; false when it is neither. Thread-safe. Crash-safe: one CAS.
  bool cancel(const QueueRef& queue, std::uint64_t id, OwnerTag me);

  // Nothing is delivered until resume(). Thread-safe. Crash-safe: one store.
  Status pause(const QueueRef& queue, OwnerTag me);
  // Thread-safe. Crash-safe: one store; who sleeps and wasn't woken is by recovery.
  Status resume(const QueueRef& queue, OwnerTag me);
  static bool paused(const QueueRef& q) {
    return q.record->paused.load(std::memory_order_seq_cst) != 0;  // G6
  }
  // When the ready message that has waited longest was put; kNever = there is none. Walks over all
  // slots, as does consumers(). A moment's view.
  std::uint64_t oldest(const QueueRef& queue);
  std::vector<QueueConsumer> consumers(const QueueRef& queue);

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
  // Something may be there to be had. Never wrongly false.
  bool maybe_ready(const QueueRef& q) const { return Lanes::maybe_ready(*q.record) && !paused(q); }

  // Makes all hints anew: timers, lanes, which of them have something; counts by distrusting them.
  // Where blocks may be hidden (memory/live_blocks.hpp), forgets what leads to those.
  // REQUIRES: nobody else uses the arena (arena/owners.hpp, O4).
  // Crash-safe: idempotent, and run again by the next who comes in alone.
  void rebuild(const LiveBlocks& live);

  // The repairer: everything that dead owners left in queues. Crash-safe: idempotent.
  void repair(const DeadOwners& dead);

 private:
  Result<std::uint64_t> write_body(const Outgoing& message, OwnerTag me);
  struct Prepared {
    SlotRef ref;
    TaggedWord writing;
    std::uint64_t id = 0;
  };
  struct Was {
    std::uint64_t id = 0;  // 0 = a new one
    std::uint32_t deliveries = 0;
  };
  Result<Prepared> prepare(const QueueRef& queue, const Outgoing& m, const Was& was, OwnerTag me);
  TaggedWord publish(const QueueRef& queue, const Prepared& p, std::uint64_t due, OwnerTag me);
  void abandon(const Prepared& p, OwnerTag me);
  // The journal hears of all or none. REQUIRES: as many of both; all are kWriting(me).
  Status tell_put(const QueueRef& queue, std::span<const Outgoing> messages,
                  std::span<const Prepared> prepared);
  // What becomes of a message: `meta` as it will be. REQUIRES: the word is `mine`, of this process.
  Status tell_moved(const layout::Slot& s, TaggedWord mine, SlotMeta meta, unsigned state,
                    std::uint64_t at);
  // To another queue, or to the end of its own; as tell_moved().
  Status tell_behind(const QueueRef& to, layout::Slot& s, SlotMeta meta, std::uint64_t id);
  bool claim(const QueueRef& queue, layout::Hint hint, Delivery* to, OwnerTag me);
  // Where headers and body are, within their block, and what they should sum up to.
  bool find_body(const layout::Slot& slot, Delivery* to, std::uint32_t* crc);
  bool read_body(const layout::Slot& slot, Delivery* to);  // the same, and they do
  Status count_in(const QueueRef& queue, const QueueLimits& limits, OwnerTag me);
  Result<std::uint64_t> put_counted(const QueueRef& queue, const Outgoing& m, bool* put,
                                    OwnerTag me);
  bool take_ready(const QueueRef& queue, Delivery* to, OwnerTag me);
  bool drop_oldest(const QueueRef& queue, OwnerTag me);
  bool give_way(OwnerTag me);
  bool drop_retained(const QueueRef& queue, unsigned state, std::size_t most, bool beyond_only,
                     OwnerTag me);
  void left(layout::QueueRecord& q);
  void freed();
  void wake_one(layout::QueueRecord& q) {
    if (q.paused.load(std::memory_order_seq_cst) == 0) parking_.wake_one(q);  // G6
  }
  void end_by_itself(const QueueRef& queue, const Delivery& d, std::uint64_t deadline_ns,
                     OwnerTag me);
  void trim_done(const QueueRef& queue, OwnerTag me);
  // Undoes what the journal can't be told of: the reservation is as it was.
  void reserve_again(SlotRef ref, TaggedWord from, const Delivery& d, OwnerTag me);
  // What to do with a kReturning(me): REQUIRES that, and to be inside an operation. With `back`, of
  // which that was made, it is that again when the journal can't be told, and the status says why;
  // without, what has to be done is done.
  Status return_reserved(const QueueRef& queue, SlotRef ref, TaggedWord mine, std::uint64_t due,
                         OwnerTag me, const Delivery* back = nullptr);
  Status bury(const QueueRef& queue, SlotRef ref, TaggedWord mine, End end, OwnerTag me,
              const Delivery* back = nullptr);
  Status transfer(const QueueRef& from, const QueueRef& to, SlotRef ref, TaggedWord mine, End end,
                  OwnerTag me, const Delivery* back);
  bool spent(const QueueRef& queue, const layout::Slot& s, TaggedWord w);
  void end_hung(layout::Hint hint, OwnerTag me);
  std::string described(const layout::Slot& s);
  void make_ready(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front,
                  OwnerTag me);
  bool reclaim_if(layout::Slot& s, TaggedWord w, OwnerTag me);
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
  void repair_queue(const DeadOwners& dead, std::uint32_t index, OwnerTag me);
  using Counters = std::array<Counter, 5>;  // ready, delayed, reserved, dead, length
  std::vector<Counters> counters();
  QueueRef of_meta(SlotMeta meta);

  Base& base_;
  Slots slots_;
  QueueDirectory directory_;
  Lanes lanes_;
  Timers timers_;
  Retained retained_;
  Dedup dedup_;
  Parking parking_;
};

}  // namespace celeriac
