// Queues: what the journal hears of messages, and what it makes of them again (journal_sink.hpp).
#include "arena/crash_point.hpp"
#include "queue/common.hpp"
#include "queue/queues.hpp"

namespace celeriac {
namespace {

SinkState sink_state(unsigned state) {
  switch (state) {
    case kSlotDelayed:
      return SinkState::kDelayed;
    case kSlotDead:
      return SinkState::kDead;
    case kSlotDone:
      return SinkState::kDone;
    default:
      return SinkState::kReady;
  }
}

}  // namespace

// The journal has it before anybody sees it.
Status Queues::tell_put(const QueueRef& queue, const Outgoing& m, std::uint64_t id,
                        layout::Slot& s) {
  const std::uint64_t of = queue.record->journal.load(std::memory_order_acquire);
  if (slots_.sink() == nullptr || of == 0) return Status::ok();
  SinkMessage told{of, id, m.headers, m.body, m.priority, m.due, m.expires};
  told.key = m.key_text;
  told.key_ns = m.key_ns;
  const Result<std::uint64_t> number = slots_.sink()->put(told, [&](std::uint64_t n) {
    slots_.set_number(s, n);
    CELERIAC_CRASH_POINT("queue.put.told");
  });
  if (number) return Status::ok();
  slots_.set_number(s, 0);
  return number.status();
}

void Queues::tell_moved(const layout::Slot& s, TaggedWord mine, SlotMeta meta, unsigned state,
                        std::uint64_t at) {
  const std::uint64_t number = slots_.number(s);
  if (number == 0) return;
  const std::string reason = slots_.reason(s);
  SinkChange change;
  change.state = sink_state(state);
  change.at = at;
  change.deliveries = deliveries_of(s, mine);
  change.end = static_cast<std::uint8_t>(meta.end());
  change.end_deliveries = static_cast<std::uint8_t>(meta.end_deliveries());
  change.reason = reason;
  slots_.sink()->moved(number, change);
  CELERIAC_CRASH_POINT("queue.moved.told");
}

void Queues::tell_behind(const QueueRef& to, layout::Slot& s, SlotMeta meta, std::uint64_t id) {
  if (slots_.sink() == nullptr) return;
  const std::uint64_t number = slots_.number(s);
  const std::uint64_t target = to.record->journal.load(std::memory_order_acquire);
  const auto end = static_cast<std::uint8_t>(meta.end());
  const auto end_deliveries = static_cast<std::uint8_t>(meta.end_deliveries());
  if (number != 0 && target != 0) {
    const std::string reason = slots_.reason(s);
    SinkChange change;
    change.queue = target;
    change.behind = true;
    change.end = end;
    change.end_deliveries = end_deliveries;
    change.reason = reason;
    slots_.sink()->moved(number, change);
  } else if (number != 0) {  // into a queue that goes with its owner
    slots_.sink()->ended(number);
    slots_.set_number(s, 0);
  } else if (Delivery d; target != 0 && read_body(s, &d)) {  // out of one
    SinkMessage told{target, id, d.headers, d.body, meta.priority(), 0, kNever};
    told.end = end;
    told.end_deliveries = end_deliveries;
    static_cast<void>(
        slots_.sink()->put(told, [&](std::uint64_t n) { slots_.set_number(s, n); }));
  }
  CELERIAC_CRASH_POINT("queue.behind.told");
}

Result<std::uint64_t> Queues::restore(const QueueRef& queue, const Restored& r, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  if (r.state == kSlotDelayed) {
    Status room = timers_.reserve(me);
    if (!room) return room;
  }
  Result<std::uint64_t> block = write_body(r.message, me);
  if (!block) return block;
  const std::uint32_t put = hint_generation(r.id);
  SlotRef ref = slots_.acquire_at(hint_index(r.id), put + r.deliveries, me);
  if (ref.slot == nullptr) {
    Result<SlotRef> any = slots_.acquire(me);
    if (!any) {
      base_.heap.release(block.value(), me);
      return any.status();
    }
    ref = any.value();
  }
  layout::QueueRecord& q = *queue.record;
  layout::Slot& s = *ref.slot;
  const TaggedWord writing = load(s.word);
  const std::uint32_t generation = writing.generation();
  const std::uint32_t first = generation - r.deliveries;
  SlotMeta meta =
      SlotMeta::make(queue.index, static_cast<std::uint16_t>(queue.generation), r.message.priority);
  if (r.end != 0) meta = meta.with_end(static_cast<End>(r.end), r.end_deliveries);
  const std::uint64_t due = r.state == kSlotDelayed ? r.message.due : 0;
  const bool ended = r.state == kSlotDead || r.state == kSlotDone;
  s.meta.store(meta.bits, std::memory_order_relaxed);
  s.due.store(ended ? r.ended : due == 0 ? 0 : make_due(due, generation), std::memory_order_relaxed);
  s.expires.store(r.message.expires, std::memory_order_relaxed);
  s.first.store(make_first(first, first), std::memory_order_relaxed);
  s.enqueued.store(r.enqueued, std::memory_order_relaxed);
  s.sequence.store(q.next_sequence.fetch_add(1, std::memory_order_relaxed),
                   std::memory_order_relaxed);
  s.body.store(block.value(), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  slots_.set_number(s, r.number);
  if (!r.reason.empty()) {
    slots_.set_reason(s, r.reason, me);
    meta = SlotMeta{s.meta.load(std::memory_order_relaxed)};
  }
  const std::uint64_t id = make_hint(ref.index, first);
  if (ended) {
    if (r.state == kSlotDead) add(q.dead, 1);
    retained_.add(queue, ref, writing, r.state, me);
    return id;
  }
  add(q.length, 1);
  add(due == 0 ? q.ready : q.delayed, 1);
  const layout::Hint hint = make_hint(ref.index, generation);
  const unsigned state = due == 0 ? kSlotReady : kSlotDelayed;
  s.word.store(TaggedWord::make(state, {}, generation).bits, std::memory_order_seq_cst);  // L1
  CELERIAC_CRASH_POINT("queue.restore.published");
  if (due == 0) {
    make_ready(q, meta, hint, false, me);
  } else if (timers_.insert(due, hint, me)) {
    wake_one(q);
  }
  return id;
}

Status Queues::restore_key(const QueueRef& queue, DedupKey key, std::uint64_t until,
                           std::uint64_t id, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t now = now_ns();
  if (until != 0 && until <= now) return Status::ok();
  return dedup_
      .put(queue, key, until == 0 ? 0 : until - now, id, [] { return Status::ok(); }, me)
      .status();
}

}  // namespace celeriac
