// The interface of an engine: what bindings (and nothing below) use, so that nothing above knows
// whether a store is an arena on this host or a Redis server. Behaviour is specified once, in
// tests/conformance, which every engine must pass.
//
// All calls are thread-safe and may be used after fork (the child registers itself as another
// owner). Calls never throw; times are absolute deadlines on the now_ns() clock unless named ttl or
// delay; kNever means never. Calls keep the interpreter lock (see platform/blocking.hpp) except
// while they sleep.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/clock.hpp"
#include "platform/status.hpp"
#include "store/metric_kinds.hpp"
#include "store/rates.hpp"
#include "store/value.hpp"

namespace celeriac {

// Where a scan of a namespace stands; all zero = at its beginning. Its meaning is the engine's.
struct ScanCursor {
  std::uint64_t place = 0;
  std::uint64_t table = 0;
  std::uint64_t moves = 0;
};

// A cache namespace or a table. Keys are bytes, at most kMaxKeyBytes (kValueTooLarge beyond).
class CacheEngine {
 public:
  virtual ~CacheEngine() = default;
  // `counted`: as a hit or a miss.
  virtual Result<bool> get(std::string_view key, ValueBuffer& to, bool counted) = 0;
  virtual Result<Met> probe(std::string_view key) = 0;
  // What get() has just counted as a hit was none: its packer says so. Counts it as a miss.
  virtual Status missed(std::string_view key) = 0;
  // True when the mode's condition held and the value is stored. On error nothing has changed.
  virtual Result<bool> store(std::string_view key, const Value& value, std::uint64_t expires,
                             StoreMode mode, std::uint64_t version) = 0;
  // What was there, and is now gone, or has the new expiry. With a `version` that isn't 0, only if
  // it has that version still. With Which::kPlain, kPacked says that nothing was done.
  virtual Result<Met> erase(std::string_view key, std::uint64_t version, Which which) = 0;
  virtual Result<Met> touch(std::string_view key, std::uint64_t expires, Which which) = 0;
  virtual Result<IncrementResult> increment(std::string_view key, std::int64_t delta,
                                            std::int64_t* result) = 0;
  // False, and nothing has changed: the entries are kept in the overflow, with those of others.
  virtual Result<bool> clear() = 0;
  virtual Result<std::uint64_t> cull(std::uint64_t n) = 0;
  // At most so many entries, for everybody who uses the cache; 0 = as many as memory holds.
  virtual Status limit(std::uint32_t max_entries) = 0;
  virtual Result<std::uint64_t> entries() = 0;
  virtual Result<CacheCounts> counts() = 0;
  // The same by prefix (store/prefixes.hpp), without entries and bytes: their sum is counts()'s.
  virtual Result<PrefixRows> prefixes() = 0;
  virtual Status each(
      const std::function<bool(std::string_view key, const ValueBuffer& value)>& visit) = 0;
  // One step of a walk over the keys, of bounded work and about `most` keys; moves the cursor.
  // False when it was the last. A key that is there from the first step to the last comes at least
  // once; others may come or not, and some twice when the namespace grows meanwhile. `bytes`: of
  // the key and the value as it is stored.
  virtual Result<bool> scan(
      ScanCursor& cursor, std::size_t most,
      const std::function<void(std::string_view key, Codec codec, std::uint64_t bytes)>& visit) = 0;
  virtual Result<std::uint32_t> change_count(std::string_view key) = 0;
  virtual Result<bool> wait_for_change(std::string_view key, std::uint32_t seen,
                                       std::uint64_t deadline_ns) = 0;
};

struct CacheRequest {
  std::string name;
  bool table = false;
  // A cache that keeps the entries while the store has no place for one more: for callers whose
  // keys differ from those of all others with the same overflow. Empty: an error instead.
  std::string overflow;
  // How many bytes all keys begin with before what tells them apart in statistics, the last one
  // ':'. More than 240: nothing does.
  std::uint32_t lead = 0;
};

struct QueueOptions {
  bool create = true;  // false: kNotFound when there is no such queue, now or later
  bool given = false;  // set the rest on an existing queue too
  std::uint64_t max_length = 0;
  std::uint64_t max_deliveries = 0;
  bool drop_oldest = false;
  bool owner_bound = false;
  std::uint64_t visibility_ns = 0;  // 0 = a reservation ends with its owner alone
  std::uint64_t dedup_ns = 0;       // 0 = a key is taken as long as its message isn't done
  std::uint64_t keep_done = 0, keep_done_ns = 0;  // 0 = without this limit; both 0: none are kept
  std::uint64_t keep_dead = 0, keep_dead_ns = 0;  // the same; both 0: all are kept
  std::string dead_letter;                        // a queue for what would be dead; empty = none
};

struct PutRequest {
  std::string_view headers;
  std::string_view body;
  std::uint8_t priority = 0;
  std::uint64_t due = 0;  // 0 = now
  std::uint64_t expires = kNever;
  std::string_view key;           // of deduplication; empty = none
  std::uint64_t key_ns = kNever;  // its window; kNever = as the queue says
  std::uint64_t deadline_ns = 0;  // how long to wait for room; 0 = not
};

struct EngineCounts {
  std::uint64_t ready = 0, delayed = 0, reserved = 0, dead = 0, done = 0, dropped = 0;
};

// A message reserved by this process. Its views are valid until ack, nack, or the store is closed.
class EngineMessage {
 public:
  virtual ~EngineMessage() = default;
  virtual std::string_view body() const = 0;
  virtual std::string_view headers() const = 0;
  virtual std::uint64_t id() const = 0;
  virtual std::uint32_t deliveries() const = 0;
  virtual std::uint8_t priority() const = 0;
  // Reserved by us, still: then the views showed what was put.
  virtual bool held() const = 0;
  // What was said when it was given back last, or why it is in a dead letter queue; or nothing.
  virtual std::string reason() = 0;
  // kNotOwner when it was acknowledged, given back or redelivered.
  virtual Status ack() = 0;
  virtual Status nack(std::uint64_t due, std::string_view reason) = 0;
  // The reservation ends by itself at the deadline, and not before.
  virtual Status extend(std::uint64_t deadline_ns) = 0;
};

// A message looked at, not taken.
struct PeekedMessage {
  std::uint64_t id = 0;
  std::uint64_t due = 0;
  std::uint32_t deliveries = 0;
  std::uint8_t priority = 0;
  std::uint64_t ended = 0;  // of done and dead ones
  std::string reason;       // of dead ones
  bool damaged = false;     // then without headers and body
  std::string headers;
  std::string body;
};

enum class Peek { kReady, kDelayed, kDead, kDone };

// A process that waits for a queue's messages or has some reserved.
struct EngineConsumer {
  std::uint32_t slot = 0;
  std::uint32_t epoch = 0;
  std::uint64_t reserved = 0;
  bool waiting = false;
};

class QueueEngine {
 public:
  virtual ~QueueEngine() = default;
  // The message's id; that of the message whose key this one has, when there is one. kQueueFull at
  // the deadline; kInterrupted.
  virtual Result<std::uint64_t> put(const PutRequest& message) = 0;
  // In order, until one can't be put; appends the ids of those that were.
  virtual Status put_many(std::span<const PutRequest> messages,
                          std::vector<std::uint64_t>* ids) = 0;
  // A null pointer at the deadline (0 = don't wait).
  virtual Result<std::unique_ptr<EngineMessage>> get(std::uint64_t deadline_ns) = 0;
  // At most `n`, appended; waits for the first only. What was appended is reserved, whatever the
  // status says.
  virtual Status get_many(std::size_t n, std::uint64_t deadline_ns,
                          std::vector<std::unique_ptr<EngineMessage>>* to) = 0;
  virtual Result<EngineCounts> counts() = 0;
  // At most `limit` messages in that state, delayed ones by due time, others in order.
  virtual Result<std::vector<PeekedMessage>> peek(Peek state, std::size_t limit) = 0;
  virtual Result<std::uint64_t> purge() = 0;
  virtual Result<bool> remove() = 0;
  // Dead messages put back, those of `ids` that are dead, or all (null); how many.
  virtual Result<std::uint64_t> retry_dead(const std::vector<std::uint64_t>* ids) = 0;
  virtual Result<std::uint64_t> purge_dead() = 0;
  // Removes a ready or delayed message; false when it is neither.
  virtual Result<bool> cancel(std::uint64_t id) = 0;
  virtual Status pause(bool paused) = 0;
  virtual Result<bool> paused() = 0;
  // When the ready message that has waited longest was put; kNever = there is none.
  virtual Result<std::uint64_t> oldest() = 0;
  virtual Result<std::vector<EngineConsumer>> consumers() = 0;
};

// One descriptor for an event loop that consumes from several queues.
class WaiterEngine {
 public:
  virtual ~WaiterEngine() = default;
  virtual Result<int> fd() = 0;
  virtual Status watch(QueueEngine& queue) = 0;
  virtual Status unwatch(QueueEngine& queue) = 0;
  // True: parked, the descriptor will become readable. False: something is ready now.
  virtual Result<bool> arm() = 0;
  // After the descriptor was readable: takes the wake-up, moves due messages, redelivers those of
  // the dead.
  virtual Status drain() = 0;
  // Makes the descriptor readable, so that the loop comes to look.
  virtual void nudge() = 0;
  // Not consuming for now: whoever else waits is woken instead.
  virtual Status disarm() = 0;
  virtual void close() = 0;
};

struct LimitDecision {
  bool allowed = false;
  std::uint64_t remaining = 0;
  std::uint64_t retry_ns = 0;  // until it would be allowed; 0 = it is
  std::uint64_t reset_ns = 0;  // until nothing of it is left
  std::size_t which = 0;       // of the rates: the one that refuses longest, or has least left
};

// Rates under a name. kConfiguration for a cost that could never be allowed; on every error nothing
// has changed.
class LimiterEngine {
 public:
  virtual ~LimiterEngine() = default;
  // Takes `cost` of all rates, or of none.
  virtual Result<LimitDecision> hit(std::string_view key, std::uint64_t cost) = 0;
  virtual Result<LimitDecision> peek(std::string_view key, std::uint64_t cost) = 0;
  virtual Status reset(std::string_view key) = 0;
  virtual Status refund(std::string_view key, std::uint64_t cost) = 0;
};

// At most so many at once in the whole store. A place is known by a number that never comes back.
class ConcurrencyEngine {
 public:
  virtual ~ConcurrencyEngine() = default;
  // Nothing at the deadline (0 = don't wait). A dead owner's place is free. kInterrupted.
  virtual Result<std::optional<std::uint64_t>> enter(std::uint64_t deadline_ns) = 0;
  // kNotOwner when this process didn't enter with that number, or has left.
  virtual Status leave(std::uint64_t place) = 0;
  // What wait() waits for: that somebody leaves after this call. Then try to enter once more first.
  virtual Result<std::uint32_t> await() = 0;
  virtual Result<bool> wait(std::uint32_t seen, std::uint64_t deadline_ns) = 0;
  virtual Result<std::uint32_t> inside() = 0;
  virtual Result<std::uint32_t> limit() = 0;
};

// An acquisition of a lock, or the wish for one.
struct LockTaken {
  std::uint64_t place = 0;  // 0 = none
  std::uint64_t token = 0;  // of fencing: rises with every acquisition in the store; 0 = it waits
};

// Somebody who holds a lock or waits for it, for people.
struct EngineHolder {
  std::string name;  // its first 168 bytes
  std::uint32_t pid = 0;
  std::string command;
  std::uint64_t token = 0;
  std::uint64_t since = 0;
  std::uint64_t until = kNever;  // when its lease ends
  std::uint32_t permits = 1;
  bool holds = false;
};

// A lock by name, that as many hold as it has permits, first come first served. Each acquisition is
// an owner of its own, and ends with this process at the latest. `lease_ns`: after so long it ends
// by itself; 0 = never.
class LockEngine {
 public:
  virtual ~LockEngine() = default;
  // Waits until the deadline (0 = not at all); no place when it wasn't to be had. kConfiguration
  // when others use it with another number of permits; kNotEnoughMemory; kInterrupted.
  virtual Result<LockTaken> acquire(std::uint64_t lease_ns, std::uint64_t deadline_ns) = 0;
  // Takes a place in the line; holds at once when nobody is before it. To be followed by release()
  // or leave(). Errors as acquire().
  virtual Result<LockTaken> enter(std::uint64_t lease_ns) = 0;
  // The token when the place holds, at the latest at the deadline (0 = now); else 0. kLockLost when
  // the place was given up meanwhile; kInterrupted.
  virtual Result<std::uint64_t> wait(std::uint64_t place, std::uint64_t deadline_ns) = 0;
  // Gives the place up, whether it holds or not, and ends the wait() of another thread.
  virtual Status leave(std::uint64_t place) = 0;
  // kNotOwner: held by another process. kLockLost: not held any more.
  virtual Status release(std::uint64_t place) = 0;
  virtual Status renew(std::uint64_t place, std::uint64_t lease_ns) = 0;
  // Who holds, in the order in which they came, and how many wait.
  virtual Result<std::pair<std::vector<EngineHolder>, std::uint64_t>> holders() = 0;
};

// One series. What it is told counts for this process, and what it says is of all (or of this
// process, where each has its own). Neither memory that is short nor a removed series is an error.
class MetricSeriesEngine {
 public:
  virtual ~MetricSeriesEngine() = default;
  // `cell`: of a histogram the bucket, or behind them the sum; of a summary count, sum.
  virtual Status add(std::uint32_t cell, double amount) = 0;
  // `time`: seconds of the wall clock, for the most recent.
  virtual Status set(std::uint32_t cell, double value, double time) = 0;
  // Of a histogram or a summary.
  virtual Status observe(double value) = 0;
  virtual Result<double> get(std::uint32_t cell) = 0;
  // Back to nothing, in all processes; it began at `created`.
  virtual Status reset(double created) = 0;
  // It was removed: what it is told from now on counts for nothing.
  virtual void retire() = 0;
  // There was no place for it.
  virtual bool dropped() const = 0;
};

class MetricFamilyEngine {
 public:
  virtual ~MetricFamilyEngine() = default;
  virtual Result<std::unique_ptr<MetricSeriesEngine>> series(
      const std::vector<std::string_view>& labels, double created) = 0;
  virtual Result<std::uint64_t> remove(const std::vector<std::string_view>& labels) = 0;
  virtual Result<std::uint64_t> clear() = 0;
  virtual Result<MetricFamilyView> collect() = 0;
};

class MetricsEngine {
 public:
  virtual ~MetricsEngine() = default;
  // kConfiguration when there is a family of that name with another type, mode, labels or bounds.
  virtual Result<std::unique_ptr<MetricFamilyEngine>> family(const MetricFamilySpec& spec) = 0;
  virtual Result<std::vector<MetricFamilyView>> collect() = 0;
  virtual Result<MetricCounts> counts() = 0;
};

struct EngineOwner {
  std::uint32_t slot = 0;
  std::uint32_t epoch = 0;
  std::uint32_t pid = 0;
  std::uint64_t started_wall_ns = 0;
  std::string command;
  bool alive = false;
};

using EngineStats = std::vector<std::pair<std::string, std::uint64_t>>;

class StoreEngine {
 public:
  virtual ~StoreEngine() = default;
  virtual Result<std::unique_ptr<CacheEngine>> cache(const CacheRequest& request) = 0;
  virtual Result<std::unique_ptr<QueueEngine>> queue(const std::string& name,
                                                     const QueueOptions& options) = 0;
  // kConfiguration for rates that can't be.
  virtual Result<std::unique_ptr<LimiterEngine>> limiter(const std::string& name,
                                                         const std::vector<Rate>& rates) = 0;
  // `limit` becomes the name's, for everybody.
  virtual Result<std::unique_ptr<ConcurrencyEngine>> concurrency(const std::string& name,
                                                                 std::uint32_t limit) = 0;
  virtual Result<std::unique_ptr<LockEngine>> lock(const std::string& name,
                                                   std::uint32_t permits) = 0;
  // Does anybody hold the lock of that name?
  virtual Result<bool> is_locked(std::string_view name) = 0;
  // All who hold a lock or wait for one.
  virtual Result<std::vector<EngineHolder>> locks() = 0;
  virtual std::unique_ptr<MetricsEngine> metrics() = 0;
  // Names of the caches, or of the tables, that were ever opened.
  virtual Result<std::vector<std::string>> caches(bool tables) = 0;
  virtual Result<bool> has_queue(const std::string& name) = 0;
  virtual Result<std::vector<std::string>> queues() = 0;
  virtual Result<std::unique_ptr<WaiterEngine>> waiter() = 0;
  virtual Result<EngineStats> stats() = 0;
  virtual Result<std::vector<EngineOwner>> owners() = 0;
  // A name for this process as an owner, for others to ask after: is_alive() is true from then on
  // until this process ends or leaves, and never again. Its end wakes all who sleep in
  // wait_for_change().
  virtual Result<std::string> identity() = 0;
  virtual Result<bool> is_alive(const std::string& identity) = 0;
  // Runs recovery now; how many dead owners were reaped.
  virtual Result<int> recover() = 0;
  // The ceiling of memory becomes `memory` bytes, upward at once, downward by eviction; returns the
  // one that holds then. An engine whose memory isn't its own to bound says kConfiguration.
  // kConfiguration, kNotEnoughMemory, kLockTimeout, kInterrupted: the ceiling is as before.
  virtual Result<std::uint64_t> resize(std::uint64_t memory) = 0;
  // One file with all queues and messages, while others go on. kConfiguration in a store without a
  // journal, and when something has that name.
  virtual Status backup(const std::string& path) = 0;
  virtual std::string path() const = 0;
  // Ends this handle: later calls on it and on anything made from it: kConfiguration. With the last
  // handle of the process, releases all that the process holds.
  virtual Status close() = 0;
  virtual bool is_open() const = 0;
  // Removes the store. kNotOwner while other processes are attached, unless `force`.
  virtual Status destroy(bool force) = 0;
};

// What a call on a queue of a file:// store has done when it returns (engine/local/durable.hpp).
enum class Durability : std::uint8_t { kProcess, kEverySecond, kAlways };

struct LocalOptions {
  std::string root;
  std::string name;  // empty: the store is in `root` itself
  std::uint64_t memory = 0;
  bool memory_given = false;
  unsigned mode = 0600;
  bool create = true;
  Durability durability = Durability::kEverySecond;  // of queues, where there is a journal
};

// The local engine. Handles of one store in one process share one attachment.
Result<std::shared_ptr<StoreEngine>> open_local(const LocalOptions& options);

// What is in a journal, or a backup of one, without a store: for people and for tests.
struct JournalReport {
  struct Message {
    std::uint64_t queue = 0;
    std::uint64_t place = 0;  // in its queue
    std::uint32_t deliveries = 0;
    std::uint8_t state = 0;
    std::uint8_t priority = 0;
    std::string reason, headers, body;
  };
  std::uint64_t segments = 0, records = 0, messages = 0, queues = 0, next_number = 0, synced = 0;
  struct Key {
    std::uint64_t message = 0, queue = 0, until_wall_ns = 0;
    std::string text;
  };
  bool damaged = false;
  std::vector<Key> keys;
  std::vector<std::string> damages;  // torn tails, too
  std::vector<std::pair<std::uint64_t, std::pair<std::string, std::string>>> names;  // and settings
};
// `each`: called with all messages, if given.
Result<JournalReport> verify_journal(
    const std::string& path,
    const std::function<void(std::uint64_t id, const JournalReport::Message&)>& each);
// Makes a backup the journal of a new directory.
Status restore_journal(const std::string& directory, const std::string& backup, unsigned mode);

}  // namespace celeriac
