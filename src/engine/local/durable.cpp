#include "engine/local/durable.hpp"

#include <chrono>
#include <map>
#include <new>

#include "arena/crash_point.hpp"
#include "platform/wakeup.hpp"
#include "store/hash.hpp"

namespace celeriac {
namespace {

using journal::Draft;
using journal::Kind;

constexpr std::uint64_t kLoadPatience = 300 * kSecond;
constexpr std::uint64_t kDiskPatience = 30 * kSecond;

// What the calling thread's operation has written, and what went wrong in it.
thread_local std::uint64_t written_lsn = 0;
thread_local Status write_failure;

// Moments of the now_ns() clock, which begins with the boot, as moments of the wall clock; back.
std::uint64_t to_wall(std::uint64_t moment) {
  return wall_ns() + moment - now_ns();  // wraps as it should when it is past
}
// What was before the boot was at the boot.
std::uint64_t from_wall(std::uint64_t moment) {
  const std::uint64_t wall = wall_ns();
  const std::uint64_t now = now_ns();
  if (moment > wall) return now + (moment - wall);
  return wall - moment < now ? now - (wall - moment) : 1;
}

}  // namespace

Durable::Durable(Base& base, Queues& queues, Durability level)
    : base_(base), queues_(queues), journal_(base.arena, base.owners), level_(level) {
  queues.set_sink(this);
}

void Durable::raise(Durability level) {
  if (level > level_.load(std::memory_order_relaxed)) {
    level_.store(level, std::memory_order_relaxed);
  }
}

// ------------------------------------------------------------------------------- writing

Result<std::uint64_t> Durable::write(std::span<const Draft> drafts,
                                     const std::function<void(std::uint64_t)>& told) {
  const OwnerTag me = base_.owners.current();
  if (!me.valid()) return Status(Code::kConfiguration, "this process isn't registered");
  Result<std::uint64_t> lsn = journal_.append(drafts, me, told);
  if (lsn) {
    written_lsn = lsn.value() + drafts.size() - 1;
    if (!wrote_.load(std::memory_order_relaxed)) wrote_.store(true, std::memory_order_relaxed);
    const bool timed = level_.load(std::memory_order_relaxed) == Durability::kEverySecond;
    if (timed || journal_.wants_compaction() || wants_spare()) wake_thread();
  } else {
    write_failure = lsn.status();
  }
  return lsn;
}

Status Durable::write(const Draft& draft) { return write({&draft, 1}, {}).status(); }

Result<std::uint64_t> Durable::put(std::span<const SinkMessage> messages,
                                   const std::function<void(std::uint64_t)>& told) {
  const std::uint64_t wall = wall_ns();
  std::vector<journal::PutFixed> fixed(messages.size());
  std::vector<std::string> keys(messages.size());
  std::vector<Draft> drafts(messages.size());
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const SinkMessage& m = messages[i];
    if (!m.key.empty()) {
      const std::uint64_t until = m.key_ns == 0 ? 0 : wall + std::min(m.key_ns, kNever - wall);
      keys[i] = std::string(journal::piece(journal::KeyFixed{m.queue, until, m.id})).append(m.key);
    }
    journal::PutFixed& f = fixed[i];
    f.queue = m.queue;
    f.due = m.due == 0 ? 0 : to_wall(m.due);
    f.expires = m.expires == kNever ? 0 : to_wall(m.expires);
    f.enqueued = wall;
    f.handle = m.id;
    f.body_size = m.body.size();
    f.header_size = static_cast<std::uint32_t>(m.headers.size());
    f.key_size = static_cast<std::uint32_t>(keys[i].size());
    f.priority = m.priority;
    f.state =
        static_cast<std::uint8_t>(m.due == 0 ? journal::State::kReady : journal::State::kDelayed);
    f.end = m.end;
    f.end_deliveries = m.end_deliveries;
    drafts[i] = {Kind::kPut, 0, 0, {journal::piece(f), keys[i], {}, m.headers, m.body}};
  }
  Result<std::uint64_t> first = write(drafts, told);
  if (!first) write_failure = Status::ok();  // the caller hears of it
  return first;
}

// What happens before all is loaded isn't told: it is about what the journal has.
Status Durable::ended(std::uint64_t message) {
  if (!loaded()) return Status::ok();
  return write({Kind::kGone, 0, message, {}});
}

Status Durable::moved(std::uint64_t message, const SinkChange& change) {
  if (!loaded()) return Status::ok();
  journal::MovedFixed fixed{};
  fixed.due = change.at == 0 ? 0 : to_wall(change.at);
  fixed.queue = change.queue;
  fixed.deliveries = change.deliveries;
  fixed.reason_size = static_cast<std::uint32_t>(change.reason.size());
  fixed.state = static_cast<std::uint8_t>(change.state);
  fixed.end = change.end;
  fixed.end_deliveries = change.end_deliveries;
  fixed.behind = change.behind ? 1 : 0;
  return write({Kind::kMoved, 0, message, {journal::piece(fixed), change.reason}});
}

Result<std::uint64_t> Durable::queue(std::uint64_t number, std::string_view name,
                                     std::string_view settings) {
  if (!loaded()) return naming_;
  const journal::QueueFixed fixed{static_cast<std::uint32_t>(name.size()),
                                  static_cast<std::uint32_t>(settings.size())};
  const Draft draft{Kind::kQueue, 0, number, {journal::piece(fixed), name, settings}};
  Result<std::uint64_t> lsn = write({&draft, 1}, {});
  if (!lsn) {
    write_failure = Status::ok();
    return lsn;
  }
  return number != 0 ? number : lsn.value();
}

void Durable::queue_gone(std::uint64_t number) {
  if (!loaded()) return;
  static_cast<void>(write({Kind::kQueueGone, 0, number, {}}));
}

void Durable::forget() {
  written_lsn = 0;
  write_failure = Status::ok();
}

Status Durable::confirm(OwnerTag me) {
  const std::uint64_t lsn = std::exchange(written_lsn, 0);
  Status failed = std::exchange(write_failure, Status::ok());
  if (!failed) return failed;
  if (lsn == 0 || level_.load(std::memory_order_relaxed) != Durability::kAlways) {
    return Status::ok();
  }
  return journal_.commit(lsn, now_ns() + kDiskPatience, me);
}

// ------------------------------------------------------------------------------- loading

Status Durable::load(OwnerTag me) {
  if (loaded()) {
    if (!journal_.health()) {
      Status rescued = journal_.rescue(me);
      if (!rescued) return rescued;
    }
    ready_.store(true, std::memory_order_relaxed);
    return Status::ok();
  }
  OwnerMutex mutex(control().load, base_.owners);
  const MutexGuard guard(mutex, mutex.lock(me, now_ns() + kLoadPatience));
  if (!guard.held()) return mutex_timeout("the journal, by who reads it into memory,");
  if (loaded()) return Status::ok();
  for (const std::string& name : queues_.directory().names()) {
    const QueueRef half = queues_.directory().find(name);
    if (half.record != nullptr) queues_.remove(half, me);
  }
  journal::LiveSet live;
  Status status;
  if (journal_.begun()) {  // by who died in here
    const Result<journal::Position> at = journal_.position(me);
    status = at.status();
    if (at) {
      const Result<journal::Report> read = journal_.reader().read(&at.value(), live.applier());
      status = read.status();
      live.finish();
    }
  } else if (strangers()) {
    status = {Code::kNotOwner,
              "the arena at " + base_.arena.path() +
                  " was removed while processes were using it, and they still write to its "
                  "journal: stop them first"};
  } else {
    if (level_.load(std::memory_order_relaxed) == Durability::kAlways) {
      static_cast<void>(journal_.make_spare([](std::uint64_t) { return true; }));  // the first too
    }
    const Result<journal::Report> read = journal_.begin(me, &live);
    status = read.status();
    if (read && read.value().damaged()) {
      control().damages.store(read.value().damages.size(), std::memory_order_relaxed);
    }
  }
  CELERIAC_CRASH_POINT("durable.load.read");
  if (status) status = put_back(live, me);
  if (!status) return status;
  CELERIAC_CRASH_POINT("durable.load.filled");
  control().state.store(1, std::memory_order_release);
  ready_.store(true, std::memory_order_relaxed);
  return Status::ok();
}

// Processes that live and aren't in this arena: they have the one that was here before. Who is just
// coming in holds his byte a moment before he has his record.
bool Durable::strangers() const {
  for (int attempt = 0; attempt < 20; ++attempt) {
    bool found = false;
    for (std::uint16_t slot = 0; slot < layout::kMaxOwners && !found; ++slot) {
      const std::uint64_t word = base_.owners.record(slot).word.load(std::memory_order_acquire);
      const bool registered = (word >> 16U) != 0;
      found = !registered && base_.owners.lock().held_by_other(OwnerLock::kFirstOwnerByte + slot);
    }
    if (!found) return false;
    pause_ms(5);
  }
  return true;
}

Status Durable::put_back(const journal::LiveSet& live, OwnerTag me) {
  std::map<std::uint64_t, QueueRef> refs;
  for (const auto& [number, q] : live.queues()) {
    bool paused = false;
    const QueueConfig config = QueueConfig::parsed(q.config, &paused);
    naming_ = number;
    const Result<QueueRef> made = queues_.open(q.name, &config, me);
    if (!made) return made.status();
    refs.emplace(number, made.value());
    made.value().record->paused.store(paused ? 1 : 0, std::memory_order_seq_cst);
  }
  const journal::Reader reader = journal_.reader();
  journal::MessageReader messages(reader);
  for (const std::uint64_t number : live.ids()) {
    journal::WholeMessage m;
    Status read = messages.read(number, *live.find(number), &m);
    if (!read) return read;
    const Result<std::uint64_t> id =
        queues_.restore(refs.at(m.fixed.queue), restored(number, m), me);
    if (!id) {
      return {id.status().code() == Code::kQueueFull ? Code::kNotEnoughMemory : id.status().code(),
              "the journal at " + base_.arena.path() + " holds " +
                  std::to_string(live.messages().size()) +
                  " messages, more than there is memory for: raise memory= (" +
                  id.status().message() + ")"};
    }
    const auto key = live.keys().find(number);
    if (key == live.keys().end()) continue;
    const bool over = m.fixed.state >= static_cast<std::uint8_t>(journal::State::kDead);
    if (key->second.fixed.until == 0 && over) continue;
    Status taken = put_back_key(refs, key->second, id.value(), me);
    if (!taken) return taken;
  }
  for (const auto& [number, key] : live.keys()) {
    if (!live.outlives(number, key)) continue;
    Status taken = put_back_key(refs, key, key.fixed.handle, me);
    if (!taken) return taken;
  }
  return Status::ok();
}

Restored Durable::restored(std::uint64_t number, const journal::WholeMessage& m) {
  constexpr unsigned kStates[] = {kSlotReady, kSlotDelayed, kSlotDead, kSlotDone};
  const journal::PutFixed& f = m.fixed;
  Restored r;
  r.state = kStates[f.state];
  r.message.headers = m.headers;
  r.message.body = m.body;
  r.message.priority = f.priority;
  if (r.state == kSlotDelayed) r.message.due = from_wall(f.due);
  r.message.expires = f.expires == 0 ? kNever : from_wall(f.expires);
  r.number = number;
  r.id = f.handle;
  r.enqueued = from_wall(f.enqueued);
  r.ended = from_wall(f.due);
  r.deliveries = f.deliveries;
  r.end = f.end;
  r.end_deliveries = f.end_deliveries;
  r.reason = m.reason;
  return r;
}

Status Durable::put_back_key(const std::map<std::uint64_t, QueueRef>& refs,
                             const journal::LiveKey& key, std::uint64_t id, OwnerTag me) {
  const auto queue = refs.find(key.fixed.queue);
  if (queue == refs.end()) return Status::ok();
  const std::uint64_t seed = base_.arena.header().fixed.hash_seed;
  const std::uint64_t until = key.fixed.until == 0 ? 0 : from_wall(key.fixed.until);
  return queues_.restore_key(queue->second, {hash_key(key.text, seed), hash_key(key.text, ~seed)},
                             until, id, me);
}

// ------------------------------------------------------------------------------- the thread

bool Durable::wants_spare() const {
  return level_.load(std::memory_order_relaxed) == Durability::kAlways && journal_.wants_spare();
}

// Without one, a switch is slower and what follows it too; nobody hears of it.
void Durable::make_spare() {
  static_cast<void>(journal_.make_spare([this](std::uint64_t ns) {
    std::unique_lock lock(mutex_);
    return !bell_.wait_for(lock, std::chrono::nanoseconds(ns), [this] { return stopping_; });
  }));
}

void Durable::adopt_unsynced() {
  if (level_.load(std::memory_order_relaxed) != Durability::kProcess && journal_.begun() &&
      journal_.unsynced()) {
    wake_thread();
  }
}

void Durable::wake_thread() {
  if (busy_.exchange(true, std::memory_order_acq_rel)) return;
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  if (!running_) {
    try {
      thread_ = std::thread(&Durable::run, this);
      running_ = true;
    } catch (const std::system_error&) {  // none to be had: the next record tries again
      busy_.store(false, std::memory_order_release);
    }
  }
  bell_.notify_one();
}

// Sleeps while there is nothing to do; a second after the first record, syncs.
void Durable::run() {
  block_all_signals();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    bell_.wait(lock, [this] { return stopping_ || busy_.load(std::memory_order_acquire); });
    if (!stopping_ && level_.load(std::memory_order_relaxed) == Durability::kEverySecond) {
      bell_.wait_for(lock, std::chrono::milliseconds(900), [this] { return stopping_; });
    }
    if (stopping_) return;
    busy_.store(false, std::memory_order_release);  // what is written from here on rings again
    lock.unlock();
    const OwnerTag me = base_.owners.current();
    if (me.valid() && journal_.begun()) {
      // Failures are kept in the journal itself: the next append tells.
      if (level_.load(std::memory_order_relaxed) != Durability::kProcess) {
        static_cast<void>(journal_.sync(me));
      }
      if (journal_.wants_compaction()) static_cast<void>(journal_.compact(me));
      if (wants_spare()) make_spare();
    }
    lock.lock();
  }
}

void Durable::stop() {
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (running_) thread = std::move(thread_);
    running_ = false;
  }
  bell_.notify_one();
  if (thread.joinable()) thread.join();
  const OwnerTag me = base_.owners.current();
  if (me.valid() && level_.load(std::memory_order_relaxed) != Durability::kProcess &&
      journal_.begun()) {
    if (journal_.unsynced()) static_cast<void>(journal_.sync(me));
    // A record that says so: what is damaged afterwards is known to have been there.
    const Draft mark{Kind::kVoid, 0, 1, {}};
    if (wrote_.exchange(false) && journal_.append({&mark, 1}, me)) {
      static_cast<void>(journal_.sync(me));
    }
  }
}

void Durable::after_fork_in_child() noexcept {
  new (&mutex_) std::mutex;
  new (&bell_) std::condition_variable;
  new (&thread_) std::thread;
  running_ = false;
  ready_.store(false, std::memory_order_relaxed);
  busy_.store(false, std::memory_order_relaxed);
  journal_.after_fork_in_child();
}

}  // namespace celeriac
