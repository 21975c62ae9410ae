// Queues: how reservations and messages end otherwise than by ack: given back, dead, moved to a
// dead letter queue, over by themselves; and what is kept of those that ended.
#include <algorithm>

#include "arena/crash_point.hpp"
#include "queue/common.hpp"
#include "queue/queues.hpp"

namespace celeriac {
namespace {

constexpr std::size_t kBatch = 256;  // so many under one hold of a queue's mutex
constexpr std::size_t kAtATime = 4;  // of retained ones, for each that comes: so lists get shorter

}  // namespace

// ---------------------------------------------------------------------------- reservations

bool Queues::spent(const QueueRef& queue, const layout::Slot& s, TaggedWord w) {
  const std::uint64_t limit = directory_.limits(*queue.record).max_deliveries;
  return limit != 0 && deliveries_of(s, w) >= limit;
}

Status Queues::nack(const QueueRef& queue, const Delivery& d, std::uint64_t due,
                    std::string_view reason, OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr || d.word.owner() != me) return not_owner();
  const OperationScope operation(base_.owners.record(me.slot));
  layout::QueueRecord& q = *queue.record;
  const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
  if (!directory_.current(queue)) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, d.word.generation());
    if (!change(s->word, d.word, taken)) return not_owner();
    slots_.reclaim(*s, taken, me);
    freed();
    return Status::ok();
  }
  const bool last = spent(queue, *s, d.word);
  if (!last && due == 0 && reason.empty()) {
    const TaggedWord ready = TaggedWord::make(kSlotReady, {}, d.word.generation());
    // Told while it is still ours: nobody can end it before that, and be told of first.
    Status told = Status::ok();
    if (load(s->word) == d.word) told = tell_moved(*s, d.word, meta, kSlotReady, 0);
    if (!told) return told;
    if (!change(s->word, d.word, ready)) return not_owner();
    CELERIAC_CRASH_POINT("queue.nack.decided");
    add(q.reserved, -1);
    add(q.ready, 1);
    make_ready(q, meta, make_hint(d.index, d.word.generation()), true, me);
    CELERIAC_CRASH_POINT("queue.nack.counted");
    return Status::ok();
  }
  const TaggedWord mine = TaggedWord::make(kSlotReturning, me, d.word.generation());
  if (!change(s->word, d.word, mine)) return not_owner();
  CELERIAC_CRASH_POINT("queue.nack.taken");
  if (!reason.empty()) slots_.set_reason(*s, reason, me);
  Status done = last ? bury(queue, {d.index, s}, mine, End::kGivenBack, me, &d)
                     : return_reserved(queue, {d.index, s}, mine, due, me, &d);
  CELERIAC_CRASH_POINT("queue.nack.returned");
  return done;
}

void Queues::reserve_again(SlotRef ref, TaggedWord from, const Delivery& d, OwnerTag me) {
  if (!change(ref.slot->word, from, d.word)) return;
  CELERIAC_CRASH_POINT("queue.undo.reserved");
  // Its timer may have come up meanwhile, and found nothing that it was for.
  const std::uint64_t until =
      due_of(ref.slot->due.load(std::memory_order_acquire), d.word.generation());
  if (until != 0) timers_.insert(until, make_hint(ref.index, d.word.generation()), me);
}

// kReturning(me) -> kReady, in front, or kDelayed.
Status Queues::return_reserved(const QueueRef& queue, SlotRef ref, TaggedWord mine,
                               std::uint64_t due, OwnerTag me, const Delivery* back) {
  layout::QueueRecord& q = *queue.record;
  if (due != 0 && !timers_.reserve(me)) due = 0;  // at once is better than not at all
  const unsigned state = due == 0 ? kSlotReady : kSlotDelayed;
  const SlotMeta meta{ref.slot->meta.load(std::memory_order_relaxed)};
  Status told = tell_moved(*ref.slot, mine, meta, state, due);
  if (!told && back != nullptr) {
    reserve_again(ref, mine, *back, me);
    return told;
  }
  if (due != 0) ref.slot->due.store(make_due(due, mine.generation()), std::memory_order_relaxed);
  if (!change(ref.slot->word, mine, TaggedWord::make(state, {}, mine.generation()))) return told;
  CELERIAC_CRASH_POINT("queue.return.decided");
  add(q.reserved, -1);
  add(due == 0 ? q.ready : q.delayed, 1);
  const layout::Hint hint = make_hint(ref.index, mine.generation());
  if (due == 0) {
    make_ready(q, meta, hint, true, me);
  } else if (timers_.insert(due, hint, me)) {
    wake_one(q);
  }
  return told;
}

Status Queues::extend(const QueueRef& queue, const Delivery& d, std::uint64_t deadline_ns,
                      OwnerTag me) {
  layout::Slot* s = slots_.at(d.index);
  if (s == nullptr || d.word.owner() != me) return not_owner();
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t to = make_due(deadline_ns, d.word.generation());
  for (;;) {
    std::uint64_t was = s->due.load(std::memory_order_acquire);
    // Read before the look at the slot's word: the next reservation writes it after that changed.
    if (load(s->word) != d.word) return not_owner();
    const std::uint64_t until = due_of(was, d.word.generation());
    if (!s->due.compare_exchange_strong(was, to, std::memory_order_acq_rel)) continue;
    CELERIAC_CRASH_POINT("queue.extend.stored");
    // A later end is seen when the timer comes up; a sooner one, or the first, needs its own.
    const std::uint64_t rounded = due_of(to, d.word.generation());
    if (until == 0 || rounded < until) {
      if (timers_.insert(rounded, make_hint(d.index, d.word.generation()), me)) {
        wake_one(*queue.record);
      }
    }
    return load(s->word) == d.word ? Status::ok() : not_owner();
  }
}

// A timer came up for a reservation. It may have been extended, or not have an end any more.
void Queues::end_hung(layout::Hint hint, OwnerTag me) {
  layout::Slot* s = slots_.at(hint_index(hint));
  if (s == nullptr) return;
  const TaggedWord w = load(s->word);
  if (w.state() != kSlotReserved || w.generation() != hint_generation(hint)) return;
  const std::uint64_t until = due_of(s->due.load(std::memory_order_acquire), w.generation());
  if (until == 0) return;
  if (until > now_ns()) {
    timers_.insert(until, hint, me);
    return;
  }
  const SlotMeta meta{s->meta.load(std::memory_order_relaxed)};
  const QueueRef queue = of_meta(meta);
  if (queue.record == nullptr) return;
  const TaggedWord mine = TaggedWord::make(kSlotReturning, me, w.generation());
  if (!change(s->word, w, mine)) return;
  CELERIAC_CRASH_POINT("queue.hung.taken");
  if (spent(queue, *s, mine)) {
    static_cast<void>(bury(queue, {hint_index(hint), s}, mine, End::kHung, me));
  } else {
    static_cast<void>(return_reserved(queue, {hint_index(hint), s}, mine, 0, me));
  }
}

// ---------------------------------------------------------------------------- dead

// kReturning(me) -> the dead letter queue; or kDead; or gone, when it only expired.
Status Queues::bury(const QueueRef& queue, SlotRef ref, TaggedWord mine, End end, OwnerTag me,
                    const Delivery* back) {
  layout::QueueRecord& q = *queue.record;
  layout::Slot& s = *ref.slot;
  const QueueConfig config = directory_.config(q);
  if (!config.dead_letter.empty() && end != End::kDamaged) {
    QueueRef to = directory_.find(config.dead_letter);
    if (to.record == nullptr) {
      const Result<QueueRef> made = directory_.open(config.dead_letter, nullptr, me);
      if (made) to = made.value();
    }
    if (to.record != nullptr && to.index != queue.index) {
      return transfer(queue, to, ref, mine, end, me, back);
    }
  }
  if (end == End::kExpired) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, mine.generation());
    if (change(s.word, mine, taken)) slots_.reclaim(s, taken, me);
    add(q.reserved, -1);
    add(q.dropped, 1);
    left(q);
    return Status::ok();
  }
  const SlotMeta meta =
      SlotMeta{s.meta.load(std::memory_order_relaxed)}.with_end(end, deliveries_of(s, mine));
  const std::uint64_t now = now_ns();
  Status told = tell_moved(s, mine, meta, kSlotDead, now);
  if (!told && back != nullptr) {
    reserve_again(ref, mine, *back, me);
    return told;
  }
  s.meta.store(meta.bits, std::memory_order_release);
  s.due.store(now, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.bury.written");
  if (!retained_.add(queue, ref, mine, kSlotDead, me)) return told;
  add(q.reserved, -1);
  add(q.dead, 1);
  left(q);
  if (config.dead.on()) drop_retained(queue, kSlotDead, kAtATime, true, me);
  return told;
}

// Slot.meta says where the message is: before that store it is in `from`, after it in `to`.
Status Queues::transfer(const QueueRef& from, const QueueRef& to, SlotRef ref, TaggedWord mine,
                        End end, OwnerTag me, const Delivery* back) {
  layout::Slot& s = *ref.slot;
  layout::QueueRecord& target = *to.record;
  const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
  const SlotMeta there = meta.with_end(end, deliveries_of(s, mine))
                             .moved(to.index, static_cast<std::uint16_t>(to.generation));
  Status told = tell_behind(to, s, there, make_hint(ref.index, put_generation(s)));
  if (!told && back != nullptr) {
    reserve_again(ref, mine, *back, me);
    return told;
  }
  s.sequence.store(target.next_sequence.fetch_add(1, std::memory_order_relaxed),
                   std::memory_order_relaxed);
  s.expires.store(kNever, std::memory_order_relaxed);
  s.first.store(make_first(put_generation(s), mine.generation()), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.move.begun");
  s.meta.store(there.bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.move.named");
  add(target.length, 1);
  add(target.ready, 1);
  if (!change(s.word, mine, TaggedWord::make(kSlotReady, {}, mine.generation()))) return told;
  CELERIAC_CRASH_POINT("queue.move.decided");
  add(from.record->reserved, -1);
  left(*from.record);
  make_ready(target, there, make_hint(ref.index, mine.generation()), false, me);
  return told;
}

std::string Queues::described(const layout::Slot& s) {
  const SlotMeta meta{s.meta.load(std::memory_order_acquire)};
  const std::string said = slots_.reason(s);
  const std::string limit =
      "max_deliveries=" + std::to_string(meta.end_deliveries()) + " reached; ";
  switch (meta.end()) {
    case End::kGivenBack:
      return limit + (said.empty() ? "given back" : "given back: " + said);
    case End::kOwnerDied:
      return limit + "last owner died";
    case End::kHung:
      return limit + "last owner kept it beyond visibility";
    case End::kDamaged:
      return "damaged: the body fails its checksum";
    case End::kExpired:
      return "expired: its ttl passed before anybody took it";
    case End::kNone:
      break;
  }
  return said.empty() ? std::string() : "given back: " + said;
}

std::string Queues::reason(const Delivery& d) {
  const layout::Slot* s = slots_.at(d.index);
  if (s == nullptr) return {};
  std::string text = described(*s);
  std::atomic_thread_fence(std::memory_order_acquire);  // the same word: a whole copy
  return load(s->word) == d.word ? text : std::string();
}

std::uint64_t Queues::retry_dead(const QueueRef& queue, const std::vector<std::uint64_t>* ids,
                                 OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  const OperationScope operation(base_.owners.record(me.slot));
  std::uint64_t n = 0;
  const auto revive = [&](const Retained::Ended& e) {
    layout::Slot& s = *e.ref.slot;
    const SlotMeta meta = SlotMeta{s.meta.load(std::memory_order_relaxed)}.with_end(End::kNone, 0);
    static_cast<void>(tell_behind(queue, s, meta, make_hint(e.ref.index, put_generation(s))));
    s.sequence.store(q.next_sequence.fetch_add(1, std::memory_order_relaxed),
                     std::memory_order_relaxed);
    s.due.store(0, std::memory_order_relaxed);
    s.expires.store(kNever, std::memory_order_relaxed);  // Q5: before it has no end any more
    s.first.store(make_first(put_generation(s), e.word.generation()), std::memory_order_relaxed);
    s.meta.store(meta.bits, std::memory_order_release);
    CELERIAC_CRASH_POINT("queue.retry.written");
    add(q.length, 1);
    add(q.dead, -1);
    add(q.ready, 1);
    if (!change(s.word, e.word, TaggedWord::make(kSlotReady, {}, e.word.generation()))) return;
    CELERIAC_CRASH_POINT("queue.retry.decided");
    make_ready(q, meta, make_hint(e.ref.index, e.word.generation()), false, me);
    ++n;
  };
  if (ids != nullptr) {
    for (const std::uint64_t id : *ids) {
      layout::Slot* s = slots_.at(hint_index(id));
      if (s == nullptr || put_generation(*s) != hint_generation(id)) continue;
      const auto taken =
          retained_.take_one(queue, {hint_index(id), s}, kSlotDead, kSlotReturning, me);
      if (taken) revive(*taken);
    }
    return n;
  }
  // Those that are dead now: what dies meanwhile is for the next call.
  const std::uint64_t now = now_ns();
  const auto before = [now](const layout::Slot& s, std::uint64_t) {
    return s.due.load(std::memory_order_relaxed) <= now ? Retained::Pick::kTake
                                                        : Retained::Pick::kStop;
  };
  for (;;) {
    const auto some = retained_.take(queue, kSlotDead, kSlotReturning, kBatch, before, me);
    for (const Retained::Ended& e : some) revive(e);
    if (some.size() < kBatch) return n;
  }
}

// ---------------------------------------------------------------------------- retained

// Removes some of a list's oldest; `beyond_only`: those that the queue's options don't keep.
bool Queues::drop_retained(const QueueRef& queue, unsigned state, std::size_t most,
                           bool beyond_only, OwnerTag me) {
  const auto& words = queue.record->settings.keep[state == kSlotDone ? 0 : 1];
  const Keep keep{QueueDirectory::setting(words[0]), QueueDirectory::setting(words[1])};
  const std::uint64_t now = now_ns();
  const auto pick = [&](const layout::Slot& s, std::uint64_t left) {
    if (!beyond_only) return Retained::Pick::kTake;
    const std::uint64_t ended = s.due.load(std::memory_order_relaxed);
    const bool old = keep.age_ns != 0 && now > ended && now - ended > keep.age_ns;
    const bool many = keep.most != 0 && left > keep.most;
    const bool unwanted = state == kSlotDone && !keep.on();
    return old || many || unwanted ? Retained::Pick::kTake : Retained::Pick::kStop;
  };
  const auto taken = retained_.take(queue, state, kSlotReclaim, most, pick, me);
  for (const Retained::Ended& e : taken) {
    slots_.reclaim(*e.ref.slot, e.word, me);
    if (state == kSlotDead) add(queue.record->dead, -1);
  }
  if (!taken.empty()) freed();
  return !taken.empty();
}

void Queues::trim_done(const QueueRef& queue, OwnerTag me) {
  drop_retained(queue, kSlotDone, kAtATime, true, me);
}

void Queues::trim(const QueueRef& queue, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  for (const unsigned state : {kSlotDone, kSlotDead}) {
    while (drop_retained(queue, state, kBatch, true, me)) {
    }
  }
}

// G7: the oldest of what is kept only because there was room.
bool Queues::give_way(OwnerTag me) {
  for (const unsigned state : {kSlotDone, kSlotDead}) {
    // A list in doubt is looked at first, and then isn't any more.
    for (std::uint32_t tries = 0; tries <= directory_.high(); ++tries) {
      QueueRef oldest;
      std::uint64_t when = kNever;
      for (std::uint32_t i = 0; i < directory_.high(); ++i) {
        layout::QueueRecord* q = directory_.at(i);
        const TaggedWord w = q == nullptr ? TaggedWord{} : load(q->word);
        if (w.state() != kQueueActive) continue;
        const bool kept = state == kSlotDone || directory_.config(*q).dead.on();
        const std::uint64_t first = kept ? retained_.oldest({q, i, w.generation()}, state) : kNever;
        if (first >= when) continue;
        oldest = {q, i, w.generation()};
        when = first;
      }
      if (oldest.record == nullptr) break;
      if (drop_retained(oldest, state, kBatch, false, me)) return true;
    }
  }
  return false;
}

std::uint64_t Queues::purge_dead(const QueueRef& queue, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t now = now_ns();
  std::uint64_t n = 0;
  const auto before = [now](const layout::Slot& s, std::uint64_t) {
    return s.due.load(std::memory_order_relaxed) <= now ? Retained::Pick::kTake
                                                        : Retained::Pick::kStop;
  };
  for (;;) {
    const auto some = retained_.take(queue, kSlotDead, kSlotReclaim, kBatch, before, me);
    for (const Retained::Ended& e : some) {
      slots_.reclaim(*e.ref.slot, e.word, me);
      add(queue.record->dead, -1);
      ++n;
    }
    if (some.size() < kBatch) break;
  }
  freed();
  return n;
}

}  // namespace celeriac
