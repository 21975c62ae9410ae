#include "engine/local/queue.hpp"

#include <algorithm>

#include "store/hash.hpp"

namespace celeriac {
namespace {

constexpr std::size_t kTogether = 64;
constexpr std::size_t kTogetherBytes = 256 << 10;  // others wait for the journal meanwhile

}  // namespace

Status LocalMessage::ack() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().confirm(handle_->core().queues().ack(queue_, delivery_, me.value()),
                                 me.value());
}

Status LocalMessage::nack(std::uint64_t due, std::string_view reason) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().confirm(
      handle_->core().queues().nack(queue_, delivery_, due, reason, me.value()), me.value());
}

Status LocalMessage::extend(std::uint64_t deadline_ns) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().queues().extend(queue_, delivery_, deadline_ns, me.value());
}

bool LocalMessage::held() const { return handle_->core().queues().held(delivery_); }

std::string LocalMessage::reason() {
  return handle_->is_open() ? handle_->core().queues().reason(delivery_) : std::string();
}

QueueConfig LocalQueue::config(const QueueOptions& o) {
  return {{o.max_length, o.max_deliveries,
           (o.drop_oldest ? kDropOldest : 0) | (o.owner_bound ? kOwnerBound : 0)},
          o.visibility_ns,
          o.dedup_ns,
          {o.keep_done, o.keep_done_ns},
          {o.keep_dead, o.keep_dead_ns},
          o.dead_letter};
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

Outgoing LocalQueue::outgoing(const PutRequest& m, const QueueRef& q) {
  Outgoing out{m.headers, m.body, m.priority, m.due, m.expires, {}, 0};
  if (m.key.empty()) return out;
  const std::uint64_t seed = handle_->core().arena().header().fixed.hash_seed;
  out.key = {hash_key(m.key, seed), hash_key(m.key, ~seed)};
  out.key_text = m.key;
  out.key_ns =
      m.key_ns == kNever ? QueueDirectory::setting(q.record->settings.dedup_ttl) : m.key_ns;
  return out;
}

Result<std::uint64_t> LocalQueue::put(const PutRequest& m) {
  Result<std::uint64_t> id = put_unconfirmed(m, true);
  if (!id) return id;
  Status confirmed = confirm();
  if (!confirmed) return confirmed;
  return id;
}

Status LocalQueue::confirm() {
  const Result<OwnerTag> me = handle_->enter();
  return me ? handle_->core().confirm(Status::ok(), me.value()) : me.status();
}

Result<std::uint64_t> LocalQueue::put_unconfirmed(const PutRequest& m, bool first) {
  LocalCore& core = handle_->core();
  layout::RoomWord* awaited = nullptr;
  std::uint32_t seen = 0;
  for (int gone = 0;; first = false) {
    const Result<OwnerTag> me = handle_->enter_queues(first);
    if (!me) return me.status();
    const Result<QueueRef> q = ref(me.value());
    if (!q) return q.status();
    layout::RoomWord* lacking = nullptr;
    Result<std::uint64_t> id =
        core.queues().put(q.value(), outgoing(m, q.value()), me.value(), &lacking);
    if (id) return id;
    // Deleted while we were at it: ref() makes it again, or says that it is gone.
    if (id.status().code() == Code::kNotFound && gone++ < 8) continue;
    if (lacking == nullptr || m.deadline_ns == 0 || now_ns() >= m.deadline_ns) return id;
    if (lacking != awaited) {  // once more: sync/room.hpp
      awaited = lacking;
      seen = await_room(*lacking);
      continue;
    }
    // Memory is given back by tables and by sweeps too, which know nothing of who waits for it.
    const bool memory = awaited == &core.queues().directory().room();
    const std::uint64_t poll = std::min(core.poll_interval(), memory ? kSecond : kNever);
    Status waited = core.queues().wait_for_room(*awaited, seen, m.deadline_ns, poll);
    if (!waited) return waited;
    if (poll != kNever) core.recovery().run();
    awaited = nullptr;
  }
}

Status LocalQueue::put_many(std::span<const PutRequest> messages, std::vector<std::uint64_t>* ids) {
  Status failed;
  while (ids->size() < messages.size()) {
    if (put_some(messages.subspan(ids->size()), ids)) continue;
    Result<std::uint64_t> id = put_unconfirmed(messages[ids->size()], ids->empty());
    failed = id.status();
    if (!id) break;
    ids->push_back(id.value());
  }
  if (ids->empty()) return failed;
  Status confirmed = confirm();  // all at once
  if (!confirmed) ids->clear();
  return failed ? confirmed : failed;
}

// Those that one write of the journal takes, if there is one: more than one, or none.
bool LocalQueue::put_some(std::span<const PutRequest> messages, std::vector<std::uint64_t>* ids) {
  if (handle_->core().durable() == nullptr) return false;
  std::size_t n = 0;
  for (std::size_t bytes = 0; n < std::min(messages.size(), kTogether) && bytes < kTogetherBytes;
       ++n) {
    if (!messages[n].key.empty()) break;
    bytes += messages[n].headers.size() + messages[n].body.size();
  }
  if (n < 2) return false;
  const Result<OwnerTag> me = handle_->enter_queues(ids->empty());
  const Result<QueueRef> q = me ? ref(me.value()) : Result<QueueRef>(me.status());
  if (!q) return false;
  std::vector<Outgoing> out;
  out.reserve(n);
  for (const PutRequest& m : messages.first(n)) out.push_back(outgoing(m, q.value()));
  return handle_->core().queues().put_together(q.value(), out, ids, me.value()) != 0;
}

Status LocalQueue::get_many(std::size_t n, std::uint64_t deadline_ns,
                            std::vector<std::unique_ptr<EngineMessage>>* to) {
  while (to->size() < n) {
    Result<std::unique_ptr<EngineMessage>> m = get(to->empty() ? deadline_ns : 0);
    if (!m) return m.status();
    if (m.value() == nullptr) break;
    to->push_back(m.take());
  }
  return Status::ok();
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
  return with([&](const QueueRef& q, OwnerTag me) -> Result<EngineCounts> {
    const QueueCounts c = handle_->core().queues().counts(q, me);
    return EngineCounts{c.ready, c.delayed, c.reserved, c.dead, c.done, c.dropped};
  });
}

Result<std::vector<PeekedMessage>> LocalQueue::peek(Peek state, std::size_t limit) {
  return with([&](const QueueRef& q, OwnerTag me) -> Result<std::vector<PeekedMessage>> {
    Queues& queues = handle_->core().queues();
    constexpr unsigned kStates[] = {kSlotReady, kSlotDelayed, kSlotDead, kSlotDone};
    if (state == Peek::kDead || state == Peek::kDone) queues.trim(q, me);
    std::vector<PeekedMessage> all;
    for (Peeked& p : queues.peek(q, kStates[static_cast<int>(state)], limit)) {
      all.push_back({p.delivery.id, p.due, p.delivery.deliveries, p.delivery.priority, p.ended,
                     std::move(p.reason), p.damaged, std::move(p.headers), std::move(p.body)});
    }
    return all;
  });
}

Result<std::uint64_t> LocalQueue::purge() {
  return with([&](const QueueRef& q, OwnerTag me) -> Result<std::uint64_t> {
    return handle_->core().queues().purge(q, me);
  });
}

Result<std::uint64_t> LocalQueue::retry_dead(const std::vector<std::uint64_t>* ids) {
  return with([&](const QueueRef& q, OwnerTag me) -> Result<std::uint64_t> {
    return handle_->core().queues().retry_dead(q, ids, me);
  });
}

Result<std::uint64_t> LocalQueue::purge_dead() {
  return with([&](const QueueRef& q, OwnerTag me) -> Result<std::uint64_t> {
    return handle_->core().queues().purge_dead(q, me);
  });
}

Result<bool> LocalQueue::cancel(std::uint64_t id) {
  return with([&](const QueueRef& q, OwnerTag me) -> Result<bool> {
    return handle_->core().queues().cancel(q, id, me);
  });
}

Status LocalQueue::pause(bool paused) {
  return with([&](const QueueRef& q, OwnerTag me) {
    Queues& queues = handle_->core().queues();
    return paused ? queues.pause(q, me) : queues.resume(q, me);
  });
}

Result<bool> LocalQueue::paused() {
  return with([](const QueueRef& q, OwnerTag) -> Result<bool> { return Queues::paused(q); });
}

Result<std::uint64_t> LocalQueue::oldest() {
  return with([&](const QueueRef& q, OwnerTag) -> Result<std::uint64_t> {
    return handle_->core().queues().oldest(q);
  });
}

Result<std::vector<EngineConsumer>> LocalQueue::consumers() {
  return with([&](const QueueRef& q, OwnerTag) -> Result<std::vector<EngineConsumer>> {
    std::vector<EngineConsumer> all;
    for (const QueueConsumer& c : handle_->core().queues().consumers(q)) {
      all.push_back({c.tag.slot, c.tag.epoch, c.reserved, c.waiting});
    }
    return all;
  });
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
