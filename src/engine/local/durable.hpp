// The queues of a file:// store and its journal, put together: what queues tell is written, waited
// for as the durability asks, and brought back into an arena that lost it.
//
// Levels (DESIGN D2)
//   process    a call returns when the record is in the kernel's hands
//   everysec   the same; a thread of this process syncs within a second after the first record
//   always     a call returns when the record is on the disk: confirm(), as the operation ends; a
//              thread of this process has the next segment's file ready
// The level is the process's own, by its URL; the records are the same.
//
// load() runs before the first use of queues in an arena, under a mutex of the journal's: it
// empties the queues (a dead one may have begun), reads the journal, and puts back what is alive.
// Until JournalControl.state says that it is done, nobody uses queues, and nothing that happens to
// them is told to the journal. Killed in between: done again. Where a disk has failed (J5), each
// process tries the rescue as it comes in, so that to start one again is to try again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>

#include "engine/engine.hpp"
#include "memory/base.hpp"
#include "queue/journal/journal.hpp"
#include "queue/queues.hpp"

namespace celeriac {

class Durable final : public JournalSink {
 public:
  Durable(Base& base, Queues& queues, Durability level);
  ~Durable() override { stop(); }
  Durable(const Durable&) = delete;
  Durable& operator=(const Durable&) = delete;

  // Before each operation on queues: they hold what the journal holds.
  Status begin(OwnerTag me) {
    return ready_.load(std::memory_order_relaxed) ? Status::ok() : load(me);
  }
  bool loaded() const { return control().state.load(std::memory_order_acquire) != 0; }

  Result<std::uint64_t> put(std::span<const SinkMessage> messages,
                            const std::function<void(std::uint64_t)>& told) override;
  Status ended(std::uint64_t message) override;
  Status moved(std::uint64_t message, const SinkChange& change) override;
  Result<std::uint64_t> queue(std::uint64_t number, std::string_view name,
                              std::string_view settings) override;
  void queue_gone(std::uint64_t number) override;

  // Nothing is remembered of what the calling thread did before.
  static void forget();
  // What the calling thread's operation has written is as durable as promised, or why not.
  Status confirm(OwnerTag me);
  // Levels may differ between handles of a process: the strictest counts.
  void raise(Durability level);

  journal::Journal& journal() { return journal_; }
  // What was found wrong when the journal was read.
  std::uint64_t damages() const { return control().damages.load(std::memory_order_relaxed); }
  // A process died: what it had not synced yet is ours to sync.
  void adopt_unsynced();
  void stop();
  void after_fork_in_child() noexcept;

 private:
  layout::JournalControl& control() const {
    return *base_.arena.fixed<layout::JournalControl>(layout::kJournal);
  }
  Result<std::uint64_t> write(std::span<const journal::Draft> drafts,
                              const std::function<void(std::uint64_t)>& told);
  Status write(const journal::Draft& draft);
  Status load(OwnerTag me);
  bool strangers() const;
  Status put_back(const journal::LiveSet& live, OwnerTag me);
  static Restored restored(std::uint64_t number, const journal::WholeMessage& m);
  Status put_back_key(const std::map<std::uint64_t, QueueRef>& refs, const journal::LiveKey& key,
                      std::uint64_t id, OwnerTag me);
  bool wants_spare() const;
  void make_spare();
  void wake_thread();
  void run();

  Base& base_;
  Queues& queues_;
  journal::Journal journal_;
  std::atomic<Durability> level_;
  std::atomic<bool> wrote_{false};  // since the last mark
  std::atomic<bool> ready_{false};  // load() was done in this process
  std::uint64_t naming_ = 0;        // the queue that load() is making
  std::atomic<bool> busy_{false};   // the thread has something to do
  std::mutex mutex_;
  std::condition_variable bell_;
  bool stopping_ = false;
  bool running_ = false;
  std::thread thread_;
};

}  // namespace celeriac
