#include "engine/local/store.hpp"

#include <charconv>
#include <map>

#include "engine/local/cache.hpp"
#include "engine/local/limits.hpp"
#include "engine/local/lock.hpp"
#include "engine/local/metrics.hpp"
#include "engine/local/queue.hpp"
#include "engine/local/waiter.hpp"

namespace celeriac {
namespace {

// Handles of one store in one process share one attachment, by path. Never destroyed: handles may
// live longer than static objects.
struct Registry {
  std::mutex mutex;
  std::map<std::string, std::weak_ptr<LocalCore>> open;
};

Registry& registry() {
  static Registry* r = new Registry;
  return *r;
}

// Keeps the registry usable in a child that was forked while another thread was in it.
class RegistryForkListener final : public ForkListener {
 public:
  RegistryForkListener() { listen(); }
  void after_fork_in_child() noexcept override { new (&registry().mutex) std::mutex; }
};

}  // namespace

Result<std::shared_ptr<StoreEngine>> open_local(const LocalOptions& o) {
  static RegistryForkListener* listener = new RegistryForkListener;
  static_cast<void>(listener);
  ArenaOptions options;
  options.root = o.root;
  options.name = o.name;
  options.memory = o.memory;
  options.memory_given = o.memory_given;
  options.mode = o.mode;
  options.create = o.create;
  const std::string path = store_path(o.root, o.name);
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  if (const std::shared_ptr<LocalCore> there = r.open[path].lock();
      there && there->is_open() && there->arena().is_current() &&
      (!o.memory_given || o.memory <= there->arena().capacity())) {
    if (o.memory_given && o.memory < kMinimumMemory) {
      return Status(Code::kConfiguration, "memory=" + std::to_string(o.memory) +
                                              " bytes is too small: an arena needs at least " +
                                              std::to_string(kMinimumMemory >> 20U) + " MiB");
    }
    if (there->durable() != nullptr) there->durable()->raise(o.durability);
    return std::shared_ptr<StoreEngine>(
        std::make_shared<LocalStore>(std::make_shared<LocalHandle>(there), o));
  }
  Result<std::shared_ptr<LocalCore>> core = LocalCore::open(options, o.durability);
  if (!core) return core.status();
  r.open[path] = core.value();
  return std::shared_ptr<StoreEngine>(
      std::make_shared<LocalStore>(std::make_shared<LocalHandle>(core.value()), o));
}

Result<std::unique_ptr<CacheEngine>> LocalStore::cache(const CacheRequest& request) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<std::uint32_t> space = open_space(*handle_, request, true, me.value());
  if (!space) return space.status();
  return std::unique_ptr<CacheEngine>(
      std::make_unique<LocalCache>(handle_, request, space.value()));
}

Result<std::unique_ptr<QueueEngine>> LocalStore::queue(const std::string& name,
                                                       const QueueOptions& options) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  if (!options.create && handle_->core().queues().directory().find(name).record == nullptr) {
    return LocalQueue::no_queue(name);
  }
  const QueueConfig config = LocalQueue::config(options);
  const Result<QueueRef> ref =
      handle_->core().queues().open(name, options.given ? &config : nullptr, me.value());
  if (!ref) return ref.status();
  Status confirmed = handle_->core().confirm(Status::ok(), me.value());
  if (!confirmed) return confirmed;
  return std::unique_ptr<QueueEngine>(
      std::make_unique<LocalQueue>(handle_, name, options, ref.value()));
}

Result<std::unique_ptr<LimiterEngine>> LocalStore::limiter(const std::string& name,
                                                           const std::vector<Rate>& rates) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Result<LimitPlan> plan = handle_->core().limits().plan(name, rates, me.value());
  if (!plan) return plan.status();
  return std::unique_ptr<LimiterEngine>(std::make_unique<LocalLimiter>(handle_, plan.take()));
}

Result<std::unique_ptr<ConcurrencyEngine>> LocalStore::concurrency(const std::string& name,
                                                                   std::uint32_t limit) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<ConcurrencyRef> ref =
      handle_->core().concurrency().open(name, limit, true, me.value());
  if (!ref) return ref.status();
  return std::unique_ptr<ConcurrencyEngine>(
      std::make_unique<LocalConcurrency>(handle_, name, limit, ref.value()));
}

Result<std::unique_ptr<LockEngine>> LocalStore::lock(const std::string& name,
                                                     std::uint32_t permits) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return LocalLock::open(handle_, name, permits, me.value());
}

Result<bool> LocalStore::is_locked(std::string_view name) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Locks& locks = handle_->core().locks();
  std::uint64_t waiting = 0;
  const Result<std::vector<LockHolder>> found =
      locks.holders(locks.name(name, 1), &waiting, me.value());
  if (!found) return found.status();
  return !found.value().empty();
}

Result<std::vector<EngineHolder>> LocalStore::locks() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return LocalLock::shown(handle_->core(), handle_->core().locks().list());
}

std::unique_ptr<MetricsEngine> LocalStore::metrics() {
  return std::make_unique<LocalMetrics>(handle_);
}

Result<std::vector<std::string>> LocalStore::caches(bool tables) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  std::vector<std::string> names;
  Result<std::vector<NamespaceName>> all = handle_->core().cache().namespaces().list(me.value());
  if (!all) return all.status();
  for (NamespaceName& space : all.value()) {
    if (space.pinned == tables) names.push_back(std::move(space.name));
  }
  return names;
}

Result<bool> LocalStore::has_queue(const std::string& name) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().queues().directory().find(name).record != nullptr;
}

Result<std::vector<std::string>> LocalStore::queues() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return handle_->core().queues().directory().names();
}

Result<std::unique_ptr<WaiterEngine>> LocalStore::waiter() {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  return std::unique_ptr<WaiterEngine>(std::make_unique<LocalWaiter>(handle_));
}

Result<EngineStats> LocalStore::stats() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const HeapStats h = handle_->core().base().heap.stats();
  layout::Header& header = handle_->core().arena().header();
  const LimitCounts limits = handle_->core().limits().counts(now_ns());
  std::uint64_t living = 0;
  for (const OwnerInfo& o : handle_->core().base().owners.list()) living += o.alive ? 1 : 0;
  EngineStats all{{"memory_limit", h.capacity},
                  {"memory_allocated", h.size},
                  {"memory_free", h.free},
                  {"memory_used", h.size - h.free},
                  {"blocks", h.blocks},
                  {"limits_memory", limits.bytes},
                  {"limits_keys", limits.used},
                  {"owners", living},
                  {"reaped", header.reaped.load(std::memory_order_relaxed)},
                  {"corrupt", header.corrupt.load(std::memory_order_relaxed)},
                  {"layout_major", layout::kMajor},
                  {"layout_minor", layout::kMinor}};
  if (Durable* d = handle_->core().durable(); d != nullptr && d->loaded()) {
    const layout::JournalControl& j = d->journal().control();
    const std::uint64_t current = j.current.load(std::memory_order_relaxed);
    all.emplace_back("journal_segments", current - j.oldest.load(std::memory_order_relaxed) + 1);
    all.emplace_back("journal_records", d->journal().last());
    all.emplace_back("journal_synced", d->journal().durable());
    all.emplace_back("journal_damages", d->damages());
    all.emplace_back("journal_failed", d->journal().health() ? 0U : 1U);
  }
  return all;
}

Result<std::vector<EngineOwner>> LocalStore::owners() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  std::vector<EngineOwner> all;
  for (const OwnerInfo& o : handle_->core().base().owners.list()) {
    all.push_back({o.tag.slot, o.tag.epoch, o.pid, o.started_wall_ns, o.command, o.alive});
  }
  return all;
}

Result<std::string> LocalStore::identity() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return std::to_string(me.value().slot) + "." + std::to_string(me.value().epoch);
}

Result<bool> LocalStore::is_alive(const std::string& identity) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  OwnerTag tag;
  const char* end = identity.data() + identity.size();
  const auto [dot, wrong] = std::from_chars(identity.data(), end, tag.slot);
  if (wrong != std::errc() || dot == end || *dot != '.') return false;
  const auto [rest, wrong_epoch] = std::from_chars(dot + 1, end, tag.epoch);
  if (wrong_epoch != std::errc() || rest != end) return false;
  return handle_->core().base().owners.alive(tag);
}

Result<int> LocalStore::recover() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const int reaped = handle_->core().recovery().run();
  if (handle_->core().base().heap.dirty()) handle_->core().base().heap.sweep(me.value());
  return reaped;
}

Result<std::uint64_t> LocalStore::resize(std::uint64_t memory) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Result<std::uint64_t> ceiling = handle_->core().cache().resize(memory, me.value());
  handle_->core().queues().wake_putters();  // there may be more room
  return ceiling;
}

Status LocalStore::backup(const std::string& path) {
  const Result<OwnerTag> me = handle_->enter_queues();
  if (!me) return me.status();
  if (handle_->core().durable() == nullptr) {
    return {Code::kConfiguration, "the store at " + this->path() +
                                      " has no journal: only file:// stores can be backed up"};
  }
  return handle_->core().durable()->journal().backup(path, me.value());
}

Status LocalStore::destroy(bool force) {
  const Result<OwnerTag> me = handle_->enter();
  if (me) {
    handle_->core().recovery().run();
    std::string others;
    for (const OwnerInfo& o : handle_->core().base().owners.list()) {
      if (o.alive && o.tag != me.value()) others += " " + std::to_string(o.pid);
    }
    if (!others.empty() && !force) {
      return {Code::kNotOwner, "the store at " + path() + " is in use by other processes (pid" +
                                   others + "): stop them, or destroy(force=True)"};
    }
  } else if (!force) {
    return me.status();
  }
  // The recovery byte says that somebody is at it, until the process ends or leaves: who meets a
  // destroyed arena with that byte free finishes the work (Arena::open).
  OwnerLock& lock = handle_->core().base().owners.lock();
  for (int i = 0; i < 200 && !lock.try_lock(OwnerLock::kRecoveryByte); ++i) pause_ms(5);
  // Nobody comes in until the files are gone; somebody who is stopped in the gate can't hold us.
  static_cast<void>(handle_->core().base().owners.close_gate());
  handle_->core().mark_destroyed();
  std::vector<std::string> names = list_directory(handle_->core().arena().directory());
  const bool named = !options_.name.empty();
  std::erase_if(names, [&](const std::string& name) {
    return name == "owners.lock" || !(named || is_file_of_a_store(name));
  });
  names.emplace_back("owners.lock");
  const std::string where = path();
  Status closed = handle_->core().close();
  if (!closed) return closed;
  return named ? remove_directory(where, names) : remove_files(where, names);
}

}  // namespace celeriac
