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

// The journal has them before anybody sees one.
Status Queues::tell_put(const QueueRef& queue, std::span<const Outgoing> messages,
                        std::span<const Prepared> prepared) {
  const std::uint64_t of = queue.record->journal.load(std::memory_order_acquire);
  if (slots_.sink() == nullptr || of == 0) return Status::ok();
  std::vector<SinkMessage> told;
  told.reserve(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Outgoing& m = messages[i];
    told.push_back({of, prepared[i].id, m.headers, m.body, m.priority, m.due, m.expires, m.key_text,
                    m.key_ns});
  }
  const auto number = [&](std::uint64_t first) {
    for (const Prepared& p : prepared) slots_.set_number(*p.ref.slot, first == 0 ? 0 : first++);
  };
  const Result<std::uint64_t> first = slots_.sink()->put(told, [&](std::uint64_t n) {
    number(n);
    CELERIAC_CRASH_POINT("queue.put.told");
  });
  if (first) return Status::ok();
  number(0);
  return first.status();
}

Status Queues::tell_moved(const layout::Slot& s, TaggedWord mine, SlotMeta meta, unsigned state,
                          std::uint64_t at) {
  const std::uint64_t number = slots_.number(s);
  if (number == 0) return Status::ok();
  const std::string reason = slots_.reason(s);
  SinkChange change;
  change.state = sink_state(state);
  change.at = at;
  change.deliveries = deliveries_of(s, mine);
  change.end = static_cast<std::uint8_t>(meta.end());
  change.end_deliveries = static_cast<std::uint8_t>(meta.end_deliveries());
  change.reason = reason;
  Status told = slots_.sink()->moved(number, change);
  CELERIAC_CRASH_POINT("queue.moved.told");
  return told;
}

Status Queues::tell_behind(const QueueRef& to, layout::Slot& s, SlotMeta meta, std::uint64_t id) {
  if (slots_.sink() == nullptr) return Status::ok();
  Status told_it = Status::ok();
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
    told_it = slots_.sink()->moved(number, change);
  } else if (number != 0) {  // into a queue that goes with its owner
    told_it = slots_.sink()->ended(number);
    if (told_it) slots_.set_number(s, 0);
  } else if (Delivery d; target != 0 && read_body(s, &d)) {  // out of one
    SinkMessage told{target, id, d.headers, d.body, meta.priority(), 0, kNever};
    told.end = end;
    told.end_deliveries = end_deliveries;
    told_it =
        slots_.sink()->put({&told, 1}, [&](std::uint64_t n) { slots_.set_number(s, n); }).status();
    if (!told_it) slots_.set_number(s, 0);
  }
  CELERIAC_CRASH_POINT("queue.behind.told");
  return told_it;
}

Result<std::uint64_t> Queues::restore(const QueueRef& queue, const Restored& r, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Result<Prepared> prepared = prepare(queue, r.message, {r.id, r.deliveries}, me);
  if (!prepared) return prepared.status();
  const Prepared& p = prepared.value();
  layout::Slot& s = *p.ref.slot;
  if (r.end != 0) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    s.meta.store(meta.with_end(static_cast<End>(r.end), r.end_deliveries).bits,
                 std::memory_order_relaxed);
  }
  s.enqueued.store(r.enqueued, std::memory_order_relaxed);
  slots_.set_number(s, r.number);
  if (!r.reason.empty()) slots_.set_reason(s, r.reason, me);
  CELERIAC_CRASH_POINT("queue.restore.written");
  layout::QueueRecord& q = *queue.record;
  if (r.state != kSlotDead && r.state != kSlotDone) {
    add(q.length, 1);
    publish(queue, p, r.message.due, me);
    return p.id;
  }
  if (r.state == kSlotDead) add(q.dead, 1);
  s.due.store(r.ended, std::memory_order_relaxed);
  retained_.add(queue, p.ref, p.writing, r.state, me);
  return p.id;
}

Status Queues::restore_key(const QueueRef& queue, DedupKey key, std::uint64_t until,
                           std::uint64_t id, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t now = now_ns();
  if (until != 0 && until <= now) return Status::ok();
  return dedup_
      .put(
          queue, key, until == 0 ? 0 : until - now, id, [] { return Status::ok(); }, me)
      .status();
}

}  // namespace celeriac
