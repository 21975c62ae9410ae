#include "queue/queues.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "queue/common.hpp"
#include "sync/parker.hpp"

namespace celeriac {

QueueRef Queues::of_meta(SlotMeta meta) {
  layout::QueueRecord* r = directory_.at(meta.queue());
  if (r == nullptr) return {};
  const TaggedWord w = load(r->word);
  if (w.state() != kQueueActive || !meta.of(meta.queue(), w.generation())) return {};
  return {r, meta.queue(), w.generation()};
}

// ----------------------------------------------------------------------------------- get

bool Queues::find_body(const layout::Slot& s, Delivery* to, std::uint32_t* crc) {
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
  *crc = head.crc;
  return true;
}

bool Queues::read_body(const layout::Slot& s, Delivery* to) {
  std::uint32_t crc = 0;
  return find_body(s, to, &crc) && checksum(to->headers, to->body) == crc;
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
  const bool expired =
      meta.end() == End::kNone && s->expires.load(std::memory_order_relaxed) <= now_ns();  // Q5
  if (expired || !read_body(*s, to)) {
    // A body that fails its checksum was overwritten by a stray write: set it aside.
    const TaggedWord returning = TaggedWord::make(kSlotReturning, me, mine.generation());
    if (!change(s->word, mine, returning)) return false;
    CELERIAC_CRASH_POINT("queue.get.unfit");
    if (!expired) base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
    const End end = expired ? End::kExpired : End::kDamaged;
    static_cast<void>(bury(queue, {hint_index(hint), s}, returning, end, me));
    return false;
  }
  to->index = hint_index(hint);
  to->word = mine;
  to->id = make_hint(to->index, put_generation(*s));
  to->deliveries = deliveries_of(*s, mine);
  to->priority = meta.priority();
  return true;
}

bool Queues::take_ready(const QueueRef& queue, Delivery* to, OwnerTag me) {
  return lanes_.pop(*queue.record, queue.generation, me,
                    [&](layout::Hint hint) { return claim(queue, hint, to, me); });
}

bool Queues::try_get(const QueueRef& queue, Delivery* to, OwnerTag me) {
  if (timers_.next_due() != kNever) promote(me);  // an operation of its own
  if (paused(queue)) return false;
  const OperationScope operation(base_.owners.record(me.slot));
  if (!take_ready(queue, to, me)) return false;
  const std::uint64_t visibility = QueueDirectory::setting(queue.record->settings.visibility);
  if (visibility != 0) {
    const std::uint64_t now = now_ns();
    end_by_itself(queue, *to, now + std::min(visibility, kNever - now), me);
  }
  return true;
}

// The reservation ends at the deadline. Whoever dies in here ends it sooner.
void Queues::end_by_itself(const QueueRef& queue, const Delivery& d, std::uint64_t deadline_ns,
                           OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr) return;
  // relaxed: the timers' mutex brings it to who looks for it
  s->due.store(make_due(deadline_ns, d.word.generation()), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.get.visible");
  if (timers_.insert(deadline_ns, make_hint(d.index, d.word.generation()), me)) {
    wake_one(*queue.record);  // somebody must set his alarm anew
  }
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

// ----------------------------------------------------------------------------------- ack, rest

Status Queues::ack(const QueueRef& queue, const Delivery& d, OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr || d.word.owner() != me) return not_owner();
  const OperationScope operation(base_.owners.record(me.slot));
  layout::QueueRecord& q = *queue.record;
  const bool ours = load(q.word).generation() == queue.generation;
  const bool kept = ours && (QueueDirectory::setting(q.settings.keep[0][0]) |
                             QueueDirectory::setting(q.settings.keep[0][1])) != 0;
  if (kept) {
    const TaggedWord mine = TaggedWord::make(kSlotReturning, me, d.word.generation());
    if (!change(s->word, d.word, mine)) return not_owner();
    CELERIAC_CRASH_POINT("queue.ack.taken");
    const std::uint64_t now = now_ns();
    const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
    if (Status told = tell_moved(*s, mine, meta, kSlotDone, now); !told) {
      reserve_again({d.index, s}, mine, d, me);
      return told;
    }
    s->due.store(now, std::memory_order_relaxed);
    if (!retained_.add(queue, {d.index, s}, mine, kSlotDone, me)) return not_owner();
  } else {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, d.word.generation());
    if (!change(s->word, d.word, taken)) return not_owner();
    CELERIAC_CRASH_POINT("queue.ack.decided");
    if (Status told = slots_.tell_end(*s); !told) {
      reserve_again({d.index, s}, taken, d, me);
      return told;
    }
    slots_.reclaim(*s, taken, me);
  }
  if (ours) {
    add(q.reserved, -1);
    add(q.done, 1);
    left(q);
  } else {
    freed();
  }
  CELERIAC_CRASH_POINT("queue.ack.counted");
  if (kept) trim_done(queue, me);
  return Status::ok();
}

void Queues::make_ready(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front,
                        OwnerTag me) {
  lanes_.push(q, meta, hint, front, me);
  wake_one(q);
}

void Queues::promote(OwnerTag me) {
  const std::uint64_t now = now_ns();
  if (timers_.next_due() > now) return;
  const OperationScope operation(base_.owners.record(me.slot));
  for (const layout::Hint hint : timers_.due(now, me)) {
    layout::Slot* s = slots_.at(hint_index(hint));
    if (s == nullptr) continue;
    const TaggedWord w = load(s->word);
    if (w.state() == kSlotReserved) end_hung(hint, me);
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
