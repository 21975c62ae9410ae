// What a journal's records leave: the queues and messages that there still are, and where their
// bytes lie. Applied in the order of the records; the last word about a subject counts.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "platform/file.hpp"
#include "queue/journal/reader.hpp"

namespace celeriac::journal {

// Where a record lies.
struct Place {
  std::uint64_t segment = 0;
  std::uint32_t offset = 0;
  std::uint32_t length = 0;
};

struct LiveMessage {
  std::uint64_t queue = 0;
  std::uint64_t order = 0;  // in its queue
  Place put;                // the message, or its last copy
  Place moved;              // the last change of its state; length 0: none since
  std::uint64_t lsn = 0;    // of the last record about it
  bool forever = false;     // whatever its put says of expiry
};

// A key that is taken, by a message that may be gone.
struct LiveKey {
  KeyFixed fixed{};
  std::string text;
  Place place;
};

struct LiveQueue {
  std::string name;
  std::string config;
  Place place;
};

// A message with all that is known of it; the views lead into `bytes`.
struct WholeMessage {
  std::uint64_t id = 0;
  std::uint64_t lsn = 0;  // of the last record about it
  PutFixed fixed{};
  std::string_view key, reason, headers, body;
  std::string bytes;
  std::string moved_bytes;
};

class LiveSet {
 public:
  void apply(const Record& record);
  Visit applier() {
    return [this](const Record& r) { apply(r); };
  }

  const std::unordered_map<std::uint64_t, LiveMessage>& messages() const { return messages_; }
  const std::map<std::uint64_t, LiveQueue>& queues() const { return queues_; }
  // Null when there is none, or none any more.
  const LiveMessage* find(std::uint64_t id) const;
  bool is_gone(const LiveMessage& m) const { return queues_gone_.contains(m.queue); }
  // Their ids, in the order in which they came into their queues.
  std::vector<std::uint64_t> ids() const;
  // Keys, by the id of the message that took them.
  const std::map<std::uint64_t, LiveKey>& keys() const { return keys_; }
  // Its message is gone, and its time isn't over: only its own record says so.
  bool outlives(std::uint64_t message, const LiveKey& key) const;
  // Takes out the messages of deleted queues, and keys that stand for nothing any more; messages
  // whose queue's record is lost get a queue `recovered-N`. REQUIRES: all is applied.
  void finish();
  // Records that couldn't be understood though their checksum was right.
  std::uint64_t strange() const { return strange_; }

 private:
  void put(const Record& r);
  void gone(const Record& r);
  void end(std::uint64_t message);
  void moved(const Record& r);

  std::unordered_map<std::uint64_t, LiveMessage> messages_;
  std::map<std::uint64_t, LiveQueue> queues_;
  std::map<std::uint64_t, LiveKey> keys_;
  std::unordered_set<std::uint64_t> queues_gone_;
  std::uint64_t strange_ = 0;
};

// Reads messages back, one after the other. Keeps the segment that it read last.
class MessageReader {
 public:
  explicit MessageReader(const Reader& reader) : reader_(reader) {}
  // kCorrupt when it isn't there any more.
  Status read(std::uint64_t id, const LiveMessage& message, WholeMessage* to);

 private:
  Status record(const Place& place, std::string* bytes, Record* to);
  const Reader& reader_;
  Fd fd_;
  SegmentHeader header_{};
};

}  // namespace celeriac::journal
