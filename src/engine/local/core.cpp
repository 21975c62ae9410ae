#include "engine/local/core.hpp"

#include <algorithm>
#include <new>

#include "engine/local/waiter.hpp"

namespace celeriac {

LocalCore::LocalCore(std::unique_ptr<Arena> arena, std::unique_ptr<Owners> owners)
    : arena_(std::move(arena)),
      owners_(std::move(owners)),
      recovery_(*owners_),
      heap_(*arena_, *owners_),
      base_{*arena_, *owners_, recovery_, heap_},
      cache_(base_),
      queues_(base_),
      limits_(base_),
      concurrency_(base_),
      locks_(base_),
      metrics_(base_),
      watcher_(arena_->path() + "/owners.lock", [this] { return recovery_.run(); }) {
  owners_->set_recover([this] { recovery_.run(); });
  owners_->set_rebuild([this] {
    const LiveBlocks live = heap_.rebuild();
    if (live.strange()) {
      cache_.forget(live);
      limits_.forget(live);
      concurrency_.forget(live);
      metrics_.forget(live);
    }
    queues_.rebuild(live);
    locks_.rebuild(live);
  });
  recovery_.add([this](const DeadOwners& dead) {
    if (dead.interrupted()) heap_.mark_dirty();
    queues_.repair(dead);
    concurrency_.repair(dead);
    locks_.repair(dead);
    metrics_.repair(dead);
    const OwnerTag me = owners_->current();
    if (me.valid() && dead.interrupted()) cache_.eviction().repair(dead, me);
  });
  recovery_.add_finisher([this](const DeadOwners&) {
    const OwnerTag me = owners_->current();
    if (!me.valid()) return;
    cache_.repair(me);
    if (!heap_.dirty()) return;
    heap_.sweep(me);
    queues_.wake_putters();
  });
  // Who waits for a key that a dead owner was to change looks again, now that it isn't alive.
  recovery_.add_finisher([this](const DeadOwners&) { cache_.wake_all_waiters(); });
  base_.make_room = [this](std::uint64_t bytes, OwnerTag me) {
    return cache_.eviction().make_room(bytes, me);
  };
  listen();
}

void LocalCore::use_journal(Durability level) {
  durable_ = std::make_unique<Durable>(base_, queues_, level);
  recovery_.add_finisher([this](const DeadOwners&) { durable_->adopt_unsynced(); });
}

Result<std::shared_ptr<LocalCore>> LocalCore::open(const ArenaOptions& options, Durability level) {
  for (int attempt = 0;; ++attempt) {
    Result<std::unique_ptr<Arena>> arena = Arena::open(options);
    if (!arena) return arena.status();
    Result<std::unique_ptr<Owners>> owners = Owners::open(*arena.value());
    if (owners) {
      std::shared_ptr<LocalCore> core(new LocalCore(arena.take(), owners.take()));
      if (options.name.empty()) core->use_journal(level);
      return core;
    }
    const bool destroyed = !arena.value()->is_current();  // between the two steps
    if (!destroyed || !options.create || attempt == 16) return owners.status();
  }
}

LocalCore::~LocalCore() {
  static_cast<void>(close());
  stop_listening();
}

Status LocalCore::closed_error() const {
  return {Code::kConfiguration,
          "the store at " + arena_->path() + " is closed in this process: connect() again"};
}

Status LocalCore::destroyed_error() const {
  return {Code::kNotFound, "the store at " + arena_->path() +
                               " was destroyed by another handle or process: connect() again"};
}

void LocalCore::wake_own_sleepers() {
  const OwnerTag me = owners_->current();
  if (!me.valid()) return;
  for (std::uint32_t i = 0; i < queues_.directory().high(); ++i) {
    layout::QueueRecord* q = queues_.directory().at(i);
    if (q != nullptr) queues_.parking().wake_blocked(*q, me);
  }
  queues_.wake_putters();
  locks_.wake(me);
  cache_.wake_all_waiters();
  concurrency_.wake_all();
  ring_others(nullptr);
}

void LocalCore::mark_destroyed() {
  arena_->mark_destroyed();
  for (std::uint32_t i = 0; i < queues_.directory().high(); ++i) {
    layout::QueueRecord* q = queues_.directory().at(i);
    if (q == nullptr) continue;
    queues_.parking().wake_all(*q);
  }
  queues_.wake_putters();
  locks_.wake_all();
  cache_.wake_all_waiters();
  concurrency_.wake_all();
}

Status LocalCore::close() {
  if (closed_.exchange(true, std::memory_order_acq_rel)) return Status::ok();
  watcher_.stop();
  const OwnerTag me = owners_->current();
  if (me.valid()) {
    recovery_.release_own(me);
    if (durable_ != nullptr) durable_->stop();
    owners_->leave();
    cache_.wake_all_waiters();  // as after a death
  }
  return Status::ok();
}

void LocalCore::add_waiter(LocalWaiter* w) {
  const std::lock_guard lock(waiters_mutex_);
  waiters_.push_back(w);
}

void LocalCore::remove_waiter(LocalWaiter* w) {
  const std::lock_guard lock(waiters_mutex_);
  waiters_.erase(std::remove(waiters_.begin(), waiters_.end(), w), waiters_.end());
}

void LocalCore::ring_others(const LocalWaiter* but) {
  const std::lock_guard lock(waiters_mutex_);
  for (LocalWaiter* w : waiters_) {
    if (w != but && w->armed()) w->ring();
  }
}

bool LocalCore::any_armed() {
  const std::lock_guard lock(waiters_mutex_);
  return std::any_of(waiters_.begin(), waiters_.end(), [](LocalWaiter* w) { return w->armed(); });
}

void LocalCore::after_fork_in_child() noexcept {
  new (&waiters_mutex_) std::mutex;
  arena_->after_fork_in_child();
  recovery_.after_fork_in_child();
  queues_.parking().after_fork_in_child();
  watcher_.after_fork_in_child();
  if (durable_ != nullptr) durable_->after_fork_in_child();
  for (LocalWaiter* w : waiters_) w->after_fork_in_child();
}

}  // namespace celeriac
