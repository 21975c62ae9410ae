#include "queue/journal/live_set.hpp"

#include <algorithm>
#include <cstring>

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
  if (queues_gone_.contains(p->fixed.queue)) return;
  messages_[r.subject] = {p->fixed.queue, place_of(r), {}, r.lsn};
}

void LiveSet::gone(const Record& r) {
  if (r.subject != 0) {
    messages_.erase(r.subject);
    return;
  }
  if (r.payload.size() % sizeof(std::uint64_t) != 0) ++strange_;
  for (std::size_t i = 0; i + sizeof(std::uint64_t) <= r.payload.size();
       i += sizeof(std::uint64_t)) {
    std::uint64_t id = 0;
    std::memcpy(&id, r.payload.data() + i, sizeof id);
    messages_.erase(id);
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
    case Kind::kMoved: {
      const auto m = messages_.find(r.subject);
      if (m == messages_.end()) return;  // its put is lost, which is reported
      if (!decode_moved(r.payload)) {
        ++strange_;
        return;
      }
      m->second.moved = place_of(r);
      m->second.lsn = r.lsn;
      return;
    }
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
  std::sort(all.begin(), all.end());
  return all;
}

void LiveSet::finish() {
  std::erase_if(messages_, [this](const auto& m) { return is_gone(m.second); });
  for (const auto& [id, m] : messages_) {
    if (!queues_.contains(m.queue)) {
      queues_[m.queue] = {"recovered-" + std::to_string(m.queue), "", {}};
    }
  }
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
  to->dedup = p->dedup;
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
  to->fixed.reason_size = m->fixed.reason_size;
  to->reason = m->reason;
  return Status::ok();
}

}  // namespace celeriac::journal
