#include "engine/local/queue.hpp"

namespace celeriac {

Status LocalMessage::ack() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().confirm(handle_->core().queues().ack(queue_, delivery_, me.value()),
                                 me.value());
}

Status LocalMessage::nack(std::uint64_t due) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().confirm(handle_->core().queues().nack(queue_, delivery_, due, me.value()),
                                 me.value());
}

QueueConfig LocalQueue::config(const QueueOptions& o) {
  return {o.max_length, o.max_deliveries,
          (o.drop_oldest ? kDropOldest : 0) | (o.owner_bound ? kOwnerBound : 0)};
}

Status LocalQueue::no_queue(const std::string& name) {
  return {Code::kNotFound, "there is no queue \"" + name + "\" in this store"};
}

Result<QueueRef> LocalQueue::ref(OwnerTag me) {
  Queues& queues = handle_->core().queues();
  const std::uint64_t seen = ref_.load(std::memory_order_relaxed);
  const QueueRef last{queues.directory().at(static_cast<std::uint32_t>(seen)),
                      static_cast<std::uint32_t>(seen), static_cast<std::uint32_t>(seen >> 32U)};
  if (last.record != nullptr && queues.directory().current(last)) return last;
  if (!options_.create) {
    const QueueRef found = queues.directory().find(name_);
    if (found.record == nullptr) return no_queue(name_);
    remember(found);
    return found;
  }
  const QueueConfig settings = config(options_);
  Result<QueueRef> again = queues.open(name_, options_.given ? &settings : nullptr, me);
  if (again) remember(again.value());
  return again;
}

Result<std::uint64_t> LocalQueue::put(const PutRequest& m) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  const Outgoing out{m.headers, m.body, m.priority, m.due, m.expires};
  for (int attempt = 0;; ++attempt) {
    const Result<QueueRef> q = ref(me.value());
    if (!q) return q.status();
    Result<std::uint64_t> id = handle_->core().queues().put(q.value(), out, me.value());
    if (id) {
      Status confirmed = handle_->core().confirm(Status::ok(), me.value());
      if (!confirmed) return confirmed;
      return id;
    }
    if (id.status().code() != Code::kNotFound || attempt == 8) return id;
    // Deleted while we were at it: ref() makes it again, or says that it is gone.
  }
}

Result<std::unique_ptr<EngineMessage>> LocalQueue::get(std::uint64_t deadline_ns) {
  for (;;) {
    const Result<OwnerTag> me = handle_->enter_queues();
    if (!me) return me.status();
    const Result<QueueRef> q = ref(me.value());
    if (!q) return q.status();
    Delivery d;
    if (handle_->core().queues().try_get(q.value(), &d, me.value())) {
      return std::unique_ptr<EngineMessage>(std::make_unique<LocalMessage>(handle_, q.value(), d));
    }
    if (deadline_ns == 0 || now_ns() >= deadline_ns) {
      // Nothing: but a process may have died with some, and nobody watched.
      if (handle_->core().recovery().run() == 0) return std::unique_ptr<EngineMessage>();
      deadline_ns = 0;
      continue;
    }
    const std::uint64_t poll = handle_->core().poll_interval();
    Status waited = handle_->core().queues().wait(q.value(), deadline_ns, poll, me.value());
    if (!waited) return waited;
    if (poll != kNever) handle_->core().recovery().run();
  }
}

Result<EngineCounts> LocalQueue::counts() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  const Result<QueueRef> q = ref(me.value());
  if (!q) return q.status();
  const QueueCounts c = handle_->core().queues().counts(q.value(), me.value());
  return EngineCounts{c.ready, c.delayed, c.reserved, c.dead, c.done, c.dropped};
}

Result<std::vector<PeekedMessage>> LocalQueue::peek(Peek state, std::size_t limit) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  const Result<QueueRef> q = ref(me.value());
  if (!q) return q.status();
  const unsigned which = state == Peek::kReady     ? kSlotReady
                         : state == Peek::kDelayed ? kSlotDelayed
                                                   : kSlotDead;
  std::vector<PeekedMessage> all;
  for (Peeked& p : handle_->core().queues().peek(q.value(), which, limit)) {
    all.push_back({p.delivery.id, p.due, p.delivery.deliveries, p.delivery.priority, p.damaged,
                   std::move(p.headers), std::move(p.body)});
  }
  return all;
}

Result<std::uint64_t> LocalQueue::purge() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  const Result<QueueRef> q = ref(me.value());
  if (!q) return q.status();
  const std::uint64_t n = handle_->core().queues().purge(q.value(), me.value());
  Status confirmed = handle_->core().confirm(Status::ok(), me.value());
  if (!confirmed) return confirmed;
  return n;
}

Result<bool> LocalQueue::remove() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  const QueueRef q = handle_->core().queues().directory().find(name_);
  if (q.record == nullptr) return false;
  const bool removed = handle_->core().queues().remove(q, me.value());
  Status confirmed = handle_->core().confirm(Status::ok(), me.value());
  if (!confirmed) return confirmed;
  return removed;
}

}  // namespace celeriac
