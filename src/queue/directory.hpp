// The directory of queues: records by name.
//
//   QueueRecord.word = tagged word: kQueueActive or kQueueDeleted, owner when the queue is bound to
//   one (it goes when its owner goes), generation
//
// Records are blocks that are never freed; a deleted one is used again for the next new name, with
// another generation. Slots carry (index, generation), so that messages of a deleted queue are
// recognised. Making and deleting happen under the arena's directory mutex; a record counts when
// it is complete.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "queue/journal_sink.hpp"
#include "sync/seqlock.hpp"

namespace celeriac {

constexpr unsigned kQueueActive = 1;
constexpr unsigned kQueueDeleted = 2;

// At max_length the oldest ready message goes instead of the new one being refused.
constexpr std::uint64_t kDropOldest = 1;
// The queue vanishes with the owner that made it.
constexpr std::uint64_t kOwnerBound = 2;

// What every put and nack asks for.
struct QueueLimits {
  std::uint64_t max_length = 0;      // 0 = no bound but memory
  std::uint64_t max_deliveries = 0;  // 0 = no limit
  std::uint64_t flags = 0;
  bool operator==(const QueueLimits&) const = default;
};

// How many ended messages to keep, and how long; 0 = without this limit. Both 0: none are kept on
// purpose (done ones go at once, dead ones stay until somebody sees to them).
struct Keep {
  std::uint64_t most = 0;
  std::uint64_t age_ns = 0;
  bool on() const { return most != 0 || age_ns != 0; }
  bool operator==(const Keep&) const = default;
};

struct QueueConfig {
  // As lines "key=value", and back; of what isn't known nothing is said.
  std::string text(bool paused) const;
  static QueueConfig parsed(std::string_view text, bool* paused);
  bool operator==(const QueueConfig&) const = default;

  QueueLimits limits;
  std::uint64_t visibility_ns = 0;  // 0 = reservations end with their owner alone
  std::uint64_t dedup_ns = 0;       // 0 = a key is taken as long as its message isn't done
  Keep done{}, dead{};
  std::string dead_letter{};  // name of the queue for what would be dead; empty = none
};

// A queue as found: the record and the generation that it had.
struct QueueRef {
  layout::QueueRecord* record = nullptr;
  std::uint32_t index = 0;
  std::uint32_t generation = 0;
};

class QueueDirectory {
 public:
  explicit QueueDirectory(Base& base)
      : base_(base), directory_(*base.arena.fixed<layout::QueueDirectory>(layout::kQueues)) {}

  // The queue's record; made when absent. With `config` also sets an existing one's configuration.
  // kNotEnoughMemory after 1,024 queues or without memory; kConfiguration for a bad name.
  // Thread-safe. Crash-safe: a record counts when it is complete.
  // `made`, when given: whether it was.
  Result<QueueRef> open(std::string_view name, const QueueConfig* config, OwnerTag me,
                        bool* made = nullptr);
  // A null record when there is none.
  QueueRef find(std::string_view name);
  // Only marks it; the caller purges its messages. Crash-safe: one CAS.
  bool remove(const QueueRef& queue);
  // Tells the journal of a queue as it is, and `paused`. kNotFound when it was deleted.
  // Crash-safe: changes nothing here.
  Status tell_paused(const QueueRef& queue, bool paused, OwnerTag me);

  bool current(const QueueRef& q) const {
    const TaggedWord w = load(q.record->word);
    return w.state() == kQueueActive && w.generation() == q.generation;
  }
  layout::QueueRecord* at(std::uint32_t index);
  std::uint32_t high() const {
    return std::min(directory_.high.load(std::memory_order_acquire), layout::kMaxQueues);
  }
  QueueLimits limits(const layout::QueueRecord& record) const;
  // All of it. On the way of no put and no get.
  QueueConfig config(const layout::QueueRecord& record) const;
  // One setting, which is one word, as it is at this moment.
  static std::uint64_t setting(const std::uint64_t& word) {
    return std::atomic_ref(const_cast<std::uint64_t&>(word)).load(std::memory_order_relaxed);
  }
  std::vector<std::string> names();

  // As Slots::set_sink().
  void set_sink(JournalSink* sink) { sink_ = sink; }

  layout::MutexWord& recount() { return directory_.recount; }
  layout::RoomWord& room() { return directory_.room; }
  layout::HalfWord& counts_dirty() { return directory_.counts_dirty; }

 private:
  bool named(const layout::QueueRecord& r, std::string_view name) const;
  void configure(layout::QueueRecord& r, const QueueConfig& config, OwnerTag me);
  Result<layout::QueueRecord*> fresh_record(std::uint32_t index, OwnerTag me);

  // Tells the journal of the queue as it is to be. REQUIRES: the directory's mutex.
  Status tell(layout::QueueRecord& r, std::string_view name, const QueueConfig& config,
              bool paused);

  Base& base_;
  layout::QueueDirectory& directory_;
  JournalSink* sink_ = nullptr;
};

}  // namespace celeriac
