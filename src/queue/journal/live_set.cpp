#include "queue/journal/live_set.hpp"

#include <algorithm>
#include <cstring>

#include "platform/clock.hpp"

namespace celeriac::journal {
namespace {

Place place_of(const Record& r) {
  return {r.segment, static_cast<std::uint32_t>(r.offset), r.length};
}

}  // namespace

void LiveSet::put(const Record& r) {
  const std::optional<Put> p = decode_put(r.payload);
  if (!p) {
    ++strange_;
    return;
  }
  if (const std::optional<Key> key = decode_key(p->key)) {
    keys_[r.subject] = {key->fixed, std::string(key->text), place_of(r)};
  }
  if (queues_gone_.contains(p->fixed.queue)) return;
  const std::uint64_t order = p->fixed.place == 0 ? r.lsn : p->fixed.place;
  messages_[r.subject] = {p->fixed.queue, order, place_of(r), {}, r.lsn, false};
}

void LiveSet::moved(const Record& r) {
  const auto m = messages_.find(r.subject);
  if (m == messages_.end()) return;  // its put is lost, which is reported
  const std::optional<Moved> moved = decode_moved(r.payload);
  if (!moved) {
    ++strange_;
    return;
  }
  m->second.moved = place_of(r);
  m->second.lsn = r.lsn;
  if (moved->fixed.queue != 0) m->second.queue = moved->fixed.queue;
  if (moved->fixed.behind == 0) return;
  m->second.order = r.lsn;
  m->second.forever = true;
}

void LiveSet::end(std::uint64_t message) {
  messages_.erase(message);
  const auto key = keys_.find(message);
  if (key != keys_.end() && key->second.fixed.until == 0) keys_.erase(key);
}

void LiveSet::gone(const Record& r) {
  if (r.subject != 0) {
    end(r.subject);
    return;
  }
  if (r.payload.size() % sizeof(std::uint64_t) != 0) ++strange_;
  for (std::size_t i = 0; i + sizeof(std::uint64_t) <= r.payload.size();
       i += sizeof(std::uint64_t)) {
    std::uint64_t id = 0;
    std::memcpy(&id, r.payload.data() + i, sizeof id);
    end(id);
  }
}

void LiveSet::apply(const Record& r) {
  switch (r.kind) {
    case Kind::kQueue: {
      const std::optional<QueueNamed> q = decode_queue(r.payload);
      if (!q) {
        ++strange_;
        return;
      }
      queues_[r.subject] = {std::string(q->name), std::string(q->config), place_of(r)};
      return;
    }
    case Kind::kQueueGone:
      queues_.erase(r.subject);
      queues_gone_.insert(r.subject);  // its messages go in finish()
      return;
    case Kind::kPut:
      put(r);
      return;
    case Kind::kMoved:
      moved(r);
      return;
    case Kind::kKey:
      if (const std::optional<Key> key = decode_key(r.payload)) {
        keys_[r.subject] = {key->fixed, std::string(key->text), place_of(r)};
      } else {
        ++strange_;
      }
      return;
    case Kind::kGone:
      gone(r);
      return;
    case Kind::kNothing:
    case Kind::kVoid:
    case Kind::kSeal:
      return;
  }
  ++strange_;
}

const LiveMessage* LiveSet::find(std::uint64_t id) const {
  const auto m = messages_.find(id);
  return m == messages_.end() || is_gone(m->second) ? nullptr : &m->second;
}

std::vector<std::uint64_t> LiveSet::ids() const {
  std::vector<std::uint64_t> all;
  all.reserve(messages_.size());
  for (const auto& [id, m] : messages_) {
    if (!is_gone(m)) all.push_back(id);
  }
  std::sort(all.begin(), all.end(), [this](std::uint64_t a, std::uint64_t b) {
    return messages_.at(a).order < messages_.at(b).order;
  });
  return all;
}

bool LiveSet::outlives(std::uint64_t message, const LiveKey& key) const {
  return find(message) == nullptr && !queues_gone_.contains(key.fixed.queue) &&
         key.fixed.until > wall_ns();
}

void LiveSet::finish() {
  std::erase_if(messages_, [this](const auto& m) { return is_gone(m.second); });
  for (const auto& [id, m] : messages_) {
    if (!queues_.contains(m.queue)) {
      queues_[m.queue] = {"recovered-" + std::to_string(m.queue), "", {}};
    }
  }
  std::erase_if(keys_, [this](const auto& k) {
    return !queues_.contains(k.second.fixed.queue) ||
           (!messages_.contains(k.first) && !outlives(k.first, k.second));
  });
}

Status MessageReader::record(const Place& place, std::string* bytes, Record* to) {
  if (!fd_.valid() || header_.number != place.segment) {
    Status opened = reader_.open(place.segment, &fd_, &header_);
    if (!opened) return opened;
  }
  bytes->resize(padded(place.length));
  Status read = read_at(fd_.get(), bytes->data(), bytes->size(), place.offset);
  if (!read) return read;
  const std::optional<Record> r = decode_record(*bytes, header_.salt);
  if (!r) {
    return {Code::kCorrupt, "a record of " + segment_name(place.segment) + " at offset " +
                                std::to_string(place.offset) + " isn't there any more"};
  }
  *to = *r;
  return Status::ok();
}

Status MessageReader::read(std::uint64_t id, const LiveMessage& message, WholeMessage* to) {
  Record r;
  Status found = record(message.put, &to->bytes, &r);
  if (!found) return found;
  const std::optional<Put> p = decode_put(r.payload);
  if (!p) return {Code::kCorrupt, "a message's record isn't one"};
  to->id = id;
  to->lsn = message.lsn;
  to->fixed = p->fixed;
  to->fixed.queue = message.queue;
  to->fixed.place = message.order;
  if (message.forever) to->fixed.expires = 0;
  to->key = p->key;
  to->reason = p->reason;
  to->headers = p->headers;
  to->body = p->body;
  if (message.moved.length == 0) return Status::ok();
  found = record(message.moved, &to->moved_bytes, &r);
  if (!found) return found;
  const std::optional<Moved> m = decode_moved(r.payload);
  if (!m) return {Code::kCorrupt, "the record of a message's change isn't one"};
  to->fixed.due = m->fixed.due;
  to->fixed.deliveries = m->fixed.deliveries;
  to->fixed.state = m->fixed.state;
  to->fixed.end = m->fixed.end;
  to->fixed.end_deliveries = m->fixed.end_deliveries;
  to->fixed.reason_size = m->fixed.reason_size;
  to->reason = m->reason;
  return Status::ok();
}

}  // namespace celeriac::journal
