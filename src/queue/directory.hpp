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

struct QueueConfig {
  std::uint64_t max_length = 0;      // 0 = no bound but memory
  std::uint64_t max_deliveries = 0;  // 0 = no limit
  std::uint64_t flags = 0;
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
  Result<QueueRef> open(std::string_view name, const QueueConfig* config, OwnerTag me);
  // A null record when there is none.
  QueueRef find(std::string_view name);
  // Only marks it; the caller purges its messages. Crash-safe: one CAS.
  bool remove(const QueueRef& queue);

  bool current(const QueueRef& q) const {
    const TaggedWord w = load(q.record->word);
    return w.state() == kQueueActive && w.generation() == q.generation;
  }
  layout::QueueRecord* at(std::uint32_t index);
  std::uint32_t high() const {
    return std::min(directory_.high.load(std::memory_order_acquire), layout::kMaxQueues);
  }
  QueueConfig config(const layout::QueueRecord& record) const;
  std::vector<std::string> names();

  // As Slots::set_sink().
  void set_sink(JournalSink* sink) { sink_ = sink; }

  layout::MutexWord& recount() { return directory_.recount; }
  layout::HalfWord& counts_dirty() { return directory_.counts_dirty; }

 private:
  bool named(const layout::QueueRecord& r, std::string_view name) const;
  void configure(layout::QueueRecord& r, const QueueConfig& config, OwnerTag me);
  Result<layout::QueueRecord*> fresh_record(std::uint32_t index, OwnerTag me);

  // Tells the journal of the queue as it is to be. REQUIRES: the directory's mutex.
  Status tell(layout::QueueRecord& r, std::string_view name, const QueueConfig& config);

  Base& base_;
  layout::QueueDirectory& directory_;
  JournalSink* sink_ = nullptr;
};

}  // namespace celeriac
