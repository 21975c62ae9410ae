#include "queue/queues.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "platform/crc32c.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

// Counters are sums of differences, and may be below zero for a moment: who makes a message ready
// counts it after it is ready, and another may have taken it by then. Stopping at zero there would
// leave the sum wrong for good.
void add(layout::Word& counter, std::int64_t n) {
  counter.fetch_add(static_cast<std::uint64_t>(n), std::memory_order_relaxed);
}

std::uint32_t checksum(std::string_view headers, std::string_view body) {
  return crc32c(body.data(), body.size(), crc32c(headers.data(), headers.size()));
}

std::uint64_t body_offset(std::uint64_t header_size) {
  return sizeof(layout::MessageHead) + layout::align_up(header_size, 8);
}

Status not_owner() {
  return {Code::kNotOwner,
          "the message isn't reserved by this process any more: it was acknowledged already, or "
          "redelivered to another"};
}

}  // namespace

QueueRef Queues::of_meta(SlotMeta meta) {
  layout::QueueRecord* r = directory_.at(meta.queue());
  if (r == nullptr) return {};
  const TaggedWord w = load(r->word);
  if (w.state() != kQueueActive || !meta.of(meta.queue(), w.generation())) return {};
  return {r, meta.queue(), w.generation()};
}

// ----------------------------------------------------------------------------------- put

Result<std::uint64_t> Queues::write_body(const Outgoing& m, OwnerTag me) {
  const std::uint64_t bytes = body_offset(m.headers.size()) + m.body.size();
  const std::uint64_t capacity = base_.arena.capacity();
  if (bytes + bytes / 8 > capacity - std::min(capacity, layout::kBlocks)) {
    return Status(Code::kValueTooLarge, "a message of " + std::to_string(m.body.size()) +
                                            " bytes is larger than the arena can hold (memory=" +
                                            std::to_string(capacity) +
                                            "): raise memory= or send less");
  }
  Result<std::uint64_t> block = base_.allocate(bytes, me);
  if (!block) {
    if (block.status().code() != Code::kNotEnoughMemory) return block.status();
    return Status(Code::kQueueFull, "no memory for another message: " + block.status().message());
  }
  char* p = base_.heap.payload(block.value(), bytes);
  if (p == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  const layout::MessageHead head{static_cast<std::uint32_t>(m.headers.size()),
                                 checksum(m.headers, m.body), m.body.size()};
  copy_in(p, &head, sizeof head);
  copy_in(p + sizeof head, m.headers.data(), m.headers.size());
  copy_in(p + body_offset(m.headers.size()), m.body.data(), m.body.size());
  CELERIAC_CRASH_POINT("queue.put.written");
  return block;
}

bool Queues::drop_oldest(const QueueRef& queue, OwnerTag me) {
  Delivery oldest;
  if (!try_get(queue, &oldest, me)) return false;
  layout::Slot* s = slots_.at(oldest.index);
  if (s == nullptr) return false;
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, oldest.word.generation());
  if (!change(s->word, oldest.word, taken)) return false;
  slots_.reclaim(*s, taken, me);
  add(queue.record->reserved, -1);
  add(queue.record->length, -1);
  add(queue.record->dropped, 1);
  return true;
}

Result<std::uint64_t> Queues::put(const QueueRef& queue, const Outgoing& m, OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  if (!directory_.current(queue)) return Status(Code::kNotFound, "the queue was deleted");
  const QueueConfig config = directory_.config(q);
  const bool again = m.journal != 0;                  // it was counted and told when it was put
  if (config.max_length != 0 && !again) recount(me);  // a death may have left the length too high
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t before = q.length.fetch_add(1, std::memory_order_relaxed);
  // Below zero for a moment, or after a death: see add().
  const bool full = static_cast<std::int64_t>(before) >= 0 && before >= config.max_length;
  if (config.max_length != 0 && full && !again) {
    const bool room = (config.flags & kDropOldest) != 0 && drop_oldest(queue, me);
    if (!room) {
      add(q.length, -1);
      return Status(Code::kQueueFull, "the queue holds its max_length of " +
                                          std::to_string(config.max_length) +
                                          " messages: consume some, or raise max_length");
    }
  }
  if (m.due != 0) {
    Status room = timers_.reserve(me);
    if (!room) {
      add(q.length, -1);
      return Status(Code::kQueueFull, "no memory for another delayed message: " + room.message());
    }
  }
  Result<std::uint64_t> block = write_body(m, me);
  if (!block) {
    add(q.length, -1);
    return block;
  }
  Result<SlotRef> slot = slots_.acquire(me);
  if (!slot) {
    base_.heap.release(block.value(), me);
    add(q.length, -1);
    return slot.status();
  }
  layout::Slot& s = *slot.value().slot;
  const TaggedWord writing = load(s.word);
  const SlotMeta meta =
      SlotMeta::make(queue.index, static_cast<std::uint16_t>(queue.generation), m.priority);
  s.meta.store(meta.bits, std::memory_order_relaxed);
  s.sequence.store(q.next_sequence.fetch_add(1, std::memory_order_relaxed),
                   std::memory_order_relaxed);
  s.due.store(m.due, std::memory_order_relaxed);
  s.expires.store(m.expires, std::memory_order_relaxed);
  s.first.store(writing.generation() - m.deliveries, std::memory_order_relaxed);
  s.enqueued.store(now_ns(), std::memory_order_relaxed);
  s.body.store(block.value(), std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.put.body");
  base_.heap.make_live(block.value(), me);
  Status told = tell_put(queue, m, s);
  if (!told) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, writing.generation());
    if (change(s.word, writing, taken)) slots_.reclaim(s, taken, me);
    add(q.length, -1);
    return told;
  }

  const unsigned state = m.due == 0 ? kSlotReady : kSlotDelayed;
  const layout::Hint hint = make_hint(slot.value().index, writing.generation());
  const std::uint64_t number = s.journal.load(std::memory_order_relaxed);
  if (m.dead) {
    add(q.length, -1);
    add(q.dead, 1);
    s.word.store(TaggedWord::make(kSlotDead, {}, writing.generation()).bits,
                 std::memory_order_release);
    return number;
  }
  add(m.due == 0 ? q.ready : q.delayed, 1);
  // L1: seq_cst, before the look at the lane's overflow. Q4: from here on the message exists.
  s.word.store(TaggedWord::make(state, {}, writing.generation()).bits, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.put.published");
  if (m.due == 0) {
    lanes_.push(q, meta, hint, false, me);
    parking_.wake_one(q);
  } else if (timers_.insert(m.due, hint, me)) {
    parking_.wake_one(q);  // somebody must set his alarm anew
  }
  CELERIAC_CRASH_POINT("queue.put.woken");
  // Deleted meanwhile: whoever deleted may have scanned before the message was there. If it can't
  // be taken back, it was consumed, or purged by the deleter: then it was put.
  if (!directory_.current(queue) &&
      reclaim_if(slot.value().index, s, TaggedWord::make(state, {}, writing.generation()), me)) {
    return Status(Code::kNotFound, "the queue was deleted");
  }
  return number != 0 ? number : make_hint(slot.value().index, writing.generation());
}

// The journal has it before anybody sees it. REQUIRES: the slot is this process's, kWriting.
Status Queues::tell_put(const QueueRef& queue, const Outgoing& m, layout::Slot& s) {
  s.journal.store(m.journal, std::memory_order_relaxed);
  JournalSink* sink = slots_.sink();
  const std::uint64_t of = queue.record->journal.load(std::memory_order_relaxed);
  if (sink == nullptr || of == 0 || m.journal != 0) return Status::ok();
  const Result<std::uint64_t> number =
      sink->put({of, m.headers, m.body, m.priority, m.due, m.expires}, [&](std::uint64_t n) {
        s.journal.store(n, std::memory_order_release);
        CELERIAC_CRASH_POINT("queue.put.told");
      });
  if (number) return Status::ok();
  s.journal.store(0, std::memory_order_relaxed);
  return number.status();
}

// What became of a message that was given back, or is damaged.
void Queues::tell_moved(const layout::Slot& s, unsigned state, std::uint64_t due,
                        std::uint32_t deliveries) {
  const std::uint64_t number = s.journal.load(std::memory_order_relaxed);
  if (number == 0 || slots_.sink() == nullptr) return;
  const SinkState to = state == kSlotDelayed ? SinkState::kDelayed
                       : state == kSlotDead  ? SinkState::kDead
                                             : SinkState::kReady;
  slots_.sink()->moved(number, to, due, deliveries, {});
}

// ----------------------------------------------------------------------------------- get

bool Queues::read_body(layout::Slot& s, Delivery* to) {
  const std::uint64_t block = s.body.load(std::memory_order_acquire);
  const char* p = base_.heap.payload(block, sizeof(layout::MessageHead));
  if (p == nullptr) return false;
  layout::MessageHead head{};
  copy_out(&head, p, sizeof head);
  const std::uint64_t at = body_offset(head.header_size);
  if (head.body_size > base_.arena.capacity() ||
      base_.heap.payload(block, at + head.body_size) == nullptr) {
    return false;
  }
  to->headers = {p + sizeof head, head.header_size};
  to->body = {p + at, head.body_size};
  return checksum(to->headers, to->body) == head.crc;
}

bool Queues::claim(const QueueRef& queue, layout::Hint hint, Delivery* to, OwnerTag me) {
  layout::Slot* s = slots_.at(hint_index(hint));
  if (s == nullptr) return false;
  const TaggedWord w = load(s->word);
  if (w.state() != kSlotReady || w.generation() != hint_generation(hint)) return false;
  const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
  if (!meta.of(queue.index, queue.generation)) return false;
  const TaggedWord mine = TaggedWord::make(kSlotReserved, me, w.generation() + 1);
  if (!change(s->word, w, mine)) return false;
  CELERIAC_CRASH_POINT("queue.get.reserved");
  layout::QueueRecord& q = *queue.record;
  add(q.ready, -1);
  add(q.reserved, 1);
  const bool expired = s->expires.load(std::memory_order_relaxed) <= now_ns();
  const bool whole = expired || read_body(*s, to);
  if (expired || !whole) {
    // A body that fails its checksum was overwritten by a stray write: set it aside.
    if (expired) {
      const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, mine.generation());
      if (change(s->word, mine, taken)) slots_.reclaim(*s, taken, me);
      add(q.length, -1);
      add(q.dropped, 1);
    } else {
      tell_moved(*s, kSlotDead, 0, 0);
      change(s->word, mine, TaggedWord::make(kSlotDead, {}, mine.generation()));
      base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
      add(q.length, -1);
      add(q.dead, 1);
    }
    add(q.reserved, -1);
    return false;
  }
  to->index = hint_index(hint);
  to->word = mine;
  const auto first = static_cast<std::uint32_t>(s->first.load(std::memory_order_relaxed));
  const std::uint64_t number = s->journal.load(std::memory_order_relaxed);
  to->id = number != 0 ? number : make_hint(to->index, first);
  to->deliveries = mine.generation() - first;
  to->priority = meta.priority();
  return true;
}

bool Queues::try_get(const QueueRef& queue, Delivery* to, OwnerTag me) {
  if (timers_.next_due() != kNever) promote(me);  // an operation of its own
  const OperationScope operation(base_.owners.record(me.slot));
  return lanes_.pop(*queue.record, queue.generation, me,
                    [&](layout::Hint hint) { return claim(queue, hint, to, me); });
}

Status Queues::wait(const QueueRef& queue, std::uint64_t deadline_ns, std::uint64_t poll_ns,
                    OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  parking_.mark_blocked(queue, me);
  const std::uint32_t seen = q.signal.load(std::memory_order_seq_cst);
  Parked how = Parked::kChanged;
  if (!maybe_ready(queue) && directory_.current(queue)) {
    const std::uint64_t now = now_ns();
    const std::uint64_t poll = poll_ns == kNever ? kNever : now + poll_ns;
    const std::uint64_t until = std::min({deadline_ns, timers_.next_due(), poll});
    how = park_until(q.signal, seen, until);
  }
  parking_.unmark_blocked(queue, me);
  if (how == Parked::kInterrupted) {
    if (maybe_ready(queue)) parking_.wake_one(q);  // we may have been the one woken
    return {Code::kInterrupted, "interrupted by a signal"};
  }
  return Status::ok();
}

// ------------------------------------------------------------------------- ack, nack, rest

Status Queues::ack(const QueueRef& queue, const Delivery& d, OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr || d.word.owner() != me) return not_owner();
  const OperationScope operation(base_.owners.record(me.slot));
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, d.word.generation());
  if (!change(s->word, d.word, taken)) return not_owner();
  CELERIAC_CRASH_POINT("queue.ack.decided");
  slots_.reclaim(*s, taken, me);
  layout::QueueRecord& q = *queue.record;
  if (load(q.word).generation() == queue.generation) {
    add(q.reserved, -1);
    add(q.length, -1);
    add(q.done, 1);
  }
  CELERIAC_CRASH_POINT("queue.ack.counted");
  return Status::ok();
}

Status Queues::nack(const QueueRef& queue, const Delivery& d, std::uint64_t due, OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr || d.word.owner() != me) return not_owner();
  const OperationScope operation(base_.owners.record(me.slot));
  layout::QueueRecord& q = *queue.record;
  const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
  const bool orphan = !directory_.current(queue);
  const std::uint64_t limit = orphan ? 0 : directory_.config(q).max_deliveries;
  unsigned state = due == 0 ? kSlotReady : kSlotDelayed;
  if (limit != 0 && d.deliveries >= limit) state = kSlotDead;
  if (state == kSlotDelayed) {
    Status room = timers_.reserve(me);
    if (!room) state = kSlotReady;  // at once is better than not at all
    s->due.store(due, std::memory_order_relaxed);
  }
  if (orphan) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, d.word.generation());
    if (!change(s->word, d.word, taken)) return not_owner();
    slots_.reclaim(*s, taken, me);
    return Status::ok();
  }
  // Told while it is still ours: nobody can end it before that, and be told of first.
  if (load(s->word) == d.word) tell_moved(*s, state, due, d.deliveries);
  if (!change(s->word, d.word, TaggedWord::make(state, {}, d.word.generation()))) {
    return not_owner();
  }
  CELERIAC_CRASH_POINT("queue.nack.decided");
  add(q.reserved, -1);
  const layout::Hint hint = make_hint(d.index, d.word.generation());
  if (state == kSlotDead) {
    add(q.dead, 1);
    add(q.length, -1);
  } else if (state == kSlotDelayed) {
    add(q.delayed, 1);
    if (timers_.insert(due, hint, me)) parking_.wake_one(q);
  } else {
    add(q.ready, 1);
    make_ready(q, meta, hint, true, me);
  }
  CELERIAC_CRASH_POINT("queue.nack.counted");
  return Status::ok();
}

void Queues::make_ready(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front,
                        OwnerTag me) {
  lanes_.push(q, meta, hint, front, me);
  parking_.wake_one(q);
}

void Queues::promote(OwnerTag me) {
  const std::uint64_t now = now_ns();
  if (timers_.next_due() > now) return;
  const OperationScope operation(base_.owners.record(me.slot));
  for (const layout::Hint hint : timers_.due(now, me)) {
    layout::Slot* s = slots_.at(hint_index(hint));
    if (s == nullptr) continue;
    const TaggedWord w = load(s->word);
    if (w.state() != kSlotDelayed || w.generation() != hint_generation(hint)) continue;
    const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
    if (!change(s->word, w, TaggedWord::make(kSlotReady, {}, w.generation()))) continue;
    CELERIAC_CRASH_POINT("queue.promote.ready");
    const QueueRef q = of_meta(meta);
    if (q.record == nullptr) continue;  // deleted: recovery or purge takes it
    add(q.record->delayed, -1);
    add(q.record->ready, 1);
    make_ready(*q.record, meta, hint, false, me);
  }
}

}  // namespace celeriac
