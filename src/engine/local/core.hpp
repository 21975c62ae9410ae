// One attachment of this process to one arena: everything of src/ below, put together, and what the
// handles of the local engine share.
//
// Life: open (attach, no owner slot yet), first operation (register as an owner), close with the
// last open handle (give back what is held, free the slot), destruction (unmap). A forked child
// keeps the mapping and registers itself at its first operation.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "arena/recovery.hpp"
#include "engine/engine.hpp"
#include "engine/local/death_watcher.hpp"
#include "engine/local/durable.hpp"
#include "memory/base.hpp"
#include "queue/queues.hpp"
#include "store/cache.hpp"
#include "store/concurrency.hpp"
#include "store/limits.hpp"
#include "store/locks.hpp"
#include "store/metrics.hpp"

namespace celeriac {

class LocalWaiter;

class LocalCore final : public ForkListener {
 public:
  // `level`: of the queues of a store that has a journal, which is one in a directory of its own.
  static Result<std::shared_ptr<LocalCore>> open(const ArenaOptions& options,
                                                 Durability level = Durability::kEverySecond);
  ~LocalCore() override;

  // This process's tag, after the checks that every call begins with: the store isn't closed.
  Result<OwnerTag> enter() {
    if (closed_.load(std::memory_order_acquire)) return closed_error();
    if (!arena_->up_to_date()) {
      if (arena_->destroyed()) return destroyed_error();
      arena_->follow();
    }
    return base_.owners.identity();
  }

  // The same for operations on queues: the arena holds what the journal does. `first`: of several
  // that are confirmed at once.
  Result<OwnerTag> enter_queues(bool first = true) {
    Result<OwnerTag> me = enter();
    if (me && durable_ != nullptr) {
      if (first) Durable::forget();
      Status loaded = durable_->begin(me.value());
      if (!loaded) return loaded;
    }
    return me;
  }
  // Ends an operation on queues with what `done` says, when that is as durable as promised.
  Status confirm(Status done, OwnerTag me) {
    if (durable_ == nullptr) return done;
    Status confirmed = durable_->confirm(me);
    return done.is_ok() ? confirmed : done;
  }
  Durable* durable() { return durable_.get(); }  // null without a journal

  Base& base() { return base_; }
  Cache& cache() { return cache_; }
  Queues& queues() { return queues_; }
  Limits& limits() { return limits_; }
  Concurrency& concurrency() { return concurrency_; }
  Locks& locks() { return locks_; }
  Metrics& metrics() { return metrics_; }
  Recovery& recovery() { return recovery_; }
  Arena& arena() { return *arena_; }

  // How often a sleeper should look for dead owners itself: never, while the watcher runs.
  std::uint64_t poll_interval() { return watcher_.start() ? kNever : 20 * kMillisecond; }

  // Waiters of this process, for the one that empties the common FIFO to tell the others.
  void add_waiter(LocalWaiter* w);
  void remove_waiter(LocalWaiter* w);
  void ring_others(const LocalWaiter* but);
  bool any_armed();
  std::mutex& waiters_mutex() { return waiters_mutex_; }

  Status close();
  bool is_open() const { return !closed_.load(std::memory_order_acquire) && !arena_->destroyed(); }
  Status closed_error() const;
  Status destroyed_error() const;
  // Has this process's sleepers look again whether their handle is still open.
  void wake_own_sleepers();
  // Tells everybody who is attached, sleepers included. Crash-safe: one store; sleepers that a
  // dying caller didn't wake are told by its death.
  void mark_destroyed();

  void add_handle() { handles_.fetch_add(1, std::memory_order_relaxed); }
  // Closes with the last.
  Status drop_handle() {
    return handles_.fetch_sub(1, std::memory_order_acq_rel) == 1 ? close() : Status::ok();
  }

  void after_fork_in_child() noexcept override;

 private:
  LocalCore(std::unique_ptr<Arena> arena, std::unique_ptr<Owners> owners);
  void use_journal(Durability level);

  std::unique_ptr<Arena> arena_;
  std::unique_ptr<Owners> owners_;
  Recovery recovery_;
  Heap heap_;
  Base base_;
  Cache cache_;
  Queues queues_;
  Limits limits_;
  Concurrency concurrency_;
  Locks locks_;
  Metrics metrics_;
  std::unique_ptr<Durable> durable_;
  DeathWatcher watcher_;
  std::atomic<bool> closed_{false};
  std::atomic<int> handles_{0};
  std::mutex waiters_mutex_;
  std::vector<LocalWaiter*> waiters_;
};

// What one connect() returned: caches, queues, messages and waiters made from it end with it, other
// handles of the same attachment don't.
class LocalHandle {
 public:
  explicit LocalHandle(std::shared_ptr<LocalCore> core) : core_(std::move(core)) {
    core_->add_handle();
  }
  ~LocalHandle() { static_cast<void>(close()); }
  LocalHandle(const LocalHandle&) = delete;
  LocalHandle& operator=(const LocalHandle&) = delete;

  // The process's tag, or kConfiguration when this handle or the whole attachment is closed.
  Result<OwnerTag> enter() {
    if (closed_.load(std::memory_order_acquire)) return core_->closed_error();
    return core_->enter();
  }
  Result<OwnerTag> enter_queues(bool first = true) {
    if (closed_.load(std::memory_order_acquire)) return core_->closed_error();
    return core_->enter_queues(first);
  }
  LocalCore& core() { return *core_; }
  bool is_open() const { return !closed_.load(std::memory_order_acquire) && core_->is_open(); }
  Status close() {
    if (closed_.exchange(true, std::memory_order_acq_rel)) return Status::ok();
    core_->wake_own_sleepers();
    return core_->drop_handle();
  }

 private:
  std::shared_ptr<LocalCore> core_;
  std::atomic<bool> closed_{false};
};

}  // namespace celeriac
