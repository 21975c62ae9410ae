// Compaction: what is alive in the oldest segments is written again, and they go (J6, J7).
#include <algorithm>
#include <map>

#include "arena/crash_point.hpp"
#include "memory/base.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"

namespace celeriac::journal {
namespace {

constexpr std::uint64_t kCopyBytes = 256ULL << 10U;  // written in one append, while others wait

// The first segment that stays: before it lie the oldest ones, of whose bytes at most half live.
std::uint64_t first_kept(const Report& report, const LiveSet& live, std::uint64_t current) {
  std::map<std::uint64_t, std::uint64_t> alive;
  for (const auto& [id, m] : live.messages()) alive[m.put.segment] += m.put.length;
  std::uint64_t used = 0;
  std::uint64_t living = 0;
  std::uint64_t kept = report.oldest;
  for (const SegmentReport& s : report.segments) {
    if (s.header.number >= current) break;
    used += s.used;
    living += alive[s.header.number];
    if (living * 2 <= used) kept = s.header.number + 1;
  }
  return kept;
}

}  // namespace

bool Journal::wants_compaction() const {
  const std::uint64_t current = control_.current.load(std::memory_order_relaxed);
  const std::uint64_t n = current - control_.oldest.load(std::memory_order_relaxed) + 1;
  return current != 0 && n > 2 && n >= 2 * control_.kept.load(std::memory_order_relaxed);
}

// Applies what others have written since; while they go on, and at most a little then.
Status Journal::catch_up(Position* at, LiveSet* live, OwnerTag me) {
  const Result<Position> now = position(me);
  if (!now) return now.status();
  return reader().read_on(at, now.value(), live->applier());
}

// `append`, and nothing was written that isn't applied (J7). As lock_append().
Locked Journal::lock_caught_up(Position* at, LiveSet* live, OwnerTag me, Status* ready) {
  const Locked how = lock_append(me, ready);
  if (how == Locked::kTimedOut) return how;
  *ready = reader().read_on(at, position_locked(), live->applier());
  if (*ready) return how;
  OwnerMutex(control_.append, owners_).unlock();
  return Locked::kTimedOut;
}

Status Journal::copy_some(const std::vector<WholeMessage>& some, LiveSet* live, Position* at,
                          OwnerTag me, CompactResult* result) {
  Status caught = catch_up(at, live, me);
  if (!caught) return caught;
  std::vector<PutFixed> fixed(some.size());
  Status ready;
  const MutexGuard guard(OwnerMutex(control_.append, owners_),
                         lock_caught_up(at, live, me, &ready));
  if (!guard.held()) return ready;
  std::vector<Draft> drafts;
  for (std::size_t i = 0; i < some.size(); ++i) {
    const WholeMessage& m = some[i];
    const LiveMessage* alive = live->find(m.id);
    if (alive == nullptr || alive->lsn != m.lsn) continue;  // gone, or changed: another round
    fixed[i] = m.fixed;
    drafts.push_back({Kind::kPut, 0, m.id, {piece(fixed[i]), m.key, m.reason, m.headers, m.body}});
  }
  if (drafts.empty()) return Status::ok();
  Result<Encoded> e = encode(drafts);
  if (!e) return e.status();
  const Result<std::uint64_t> written = append_locked(&e.value(), {});
  CELERIAC_CRASH_POINT("journal.compact.copied");
  if (!written) return written.status();
  result->copied += drafts.size();
  return Status::ok();
}

Status Journal::copy_living(std::uint64_t below, LiveSet* live, Position* at, OwnerTag me,
                            CompactResult* result) {
  const Reader from = reader();
  MessageReader messages(from);
  for (;;) {
    std::vector<std::uint64_t> ids;
    for (const auto& [id, m] : live->messages()) {
      if (m.put.segment < below && !live->is_gone(m)) ids.push_back(id);
    }
    if (ids.empty()) return Status::ok();
    std::sort(ids.begin(), ids.end());
    std::vector<WholeMessage> some;
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const LiveMessage* m = live->find(ids[i]);
      if (m != nullptr && m->put.segment < below) {
        some.emplace_back();
        Status read = messages.read(ids[i], *m, &some.back());
        if (!read) return read;
        bytes += m->put.length;
      }
      if (bytes < kCopyBytes && i + 1 < ids.size()) continue;
      Status copied = copy_some(some, live, at, me, result);
      if (!copied) return copied;
      some.clear();
      bytes = 0;
    }
    Status caught = catch_up(at, live, me);
    if (!caught) return caught;
  }
}

// Queues, and keys that outlive their messages.
Status Journal::copy_small(std::uint64_t below, LiveSet* live, Position* at, OwnerTag me) {
  for (;;) {
    Status caught = catch_up(at, live, me);
    if (!caught) return caught;
    const auto left = [&] {
      return std::any_of(live->queues().begin(), live->queues().end(),
                         [&](const auto& q) { return q.second.place.segment < below; }) ||
             std::any_of(live->keys().begin(), live->keys().end(), [&](const auto& k) {
               return k.second.place.segment < below && live->outlives(k.first, k.second);
             });
    };
    if (!left()) return Status::ok();
    Status ready;
    const MutexGuard guard(OwnerMutex(control_.append, owners_),
                           lock_caught_up(at, live, me, &ready));
    if (!guard.held()) return ready;
    const auto write = [&](const Draft& draft) {
      Result<Encoded> e = encode({&draft, 1});
      if (!e) return e.status();
      return append_locked(&e.value(), {}).status();
    };
    for (const auto& [id, q] : live->queues()) {
      if (q.place.segment >= below) continue;
      const QueueFixed fixed{static_cast<std::uint32_t>(q.name.size()),
                             static_cast<std::uint32_t>(q.config.size())};
      Status written = write({Kind::kQueue, 0, id, {piece(fixed), q.name, q.config}});
      if (!written) return written;
    }
    for (const auto& [id, key] : live->keys()) {
      if (key.place.segment >= below || !live->outlives(id, key)) continue;
      Status written = write({Kind::kKey, 0, id, {piece(key.fixed), key.text}});
      if (!written) return written;
    }
  }
}

Result<CompactResult> Journal::compact(OwnerTag me) {
  const MutexGuard alone(OwnerMutex(control_.compact, owners_),
                         OwnerMutex(control_.compact, owners_).try_lock(me));
  if (!alone.held()) {
    return Status(Code::kLockTimeout,
                  "another process is compacting the journal, or backing it up");
  }
  CompactResult result;
  Result<Position> at = position(me);
  if (!at) return at.status();
  LiveSet live;
  Result<Report> read = reader().read(&at.value(), live.applier());
  if (!read) return read.status();
  live.finish();
  const std::uint64_t below = first_kept(read.value(), live, at.value().segment);
  if (below > read.value().oldest) {
    Status copied = copy_living(below, &live, &at.value(), me, &result);
    // Keys last: a message may go while others are copied, and its key stay.
    if (copied) copied = copy_small(below, &live, &at.value(), me);
    // J6: on the disk, whatever the durability, before a header says that the originals count no
    // more.
    if (copied) copied = sync(me);
    CELERIAC_CRASH_POINT("journal.compact.synced");
    if (!copied) return copied;
    Status ready;
    MutexGuard guard(OwnerMutex(control_.append, owners_), lock_append(me, &ready));
    if (!guard.held()) return ready;
    ready = use(&writing_, control_.current.load(std::memory_order_relaxed));
    if (ready) ready = switch_locked(0, below);
    if (!ready) return ready;
    CELERIAC_CRASH_POINT("journal.compact.switched");
    control_.oldest.store(below, std::memory_order_release);
    guard.unlock();
    remove_segments(read.value(), below);
    result.removed = below - read.value().oldest;
  }
  const std::uint64_t current = control_.current.load(std::memory_order_relaxed);
  control_.kept.store(current - below + 1, std::memory_order_relaxed);
  return result;
}

void Journal::remove_segments(const Report& report, std::uint64_t below) const {
  for (const std::uint64_t n : reader().numbers()) {
    const bool superseded =
        std::find(report.leftovers.begin(), report.leftovers.end(), n) != report.leftovers.end();
    if (n >= below && !superseded) continue;
    const auto found = std::find_if(report.segments.begin(), report.segments.end(),
                                    [&](const SegmentReport& s) { return s.header.number == n; });
    const std::string name = segment_name(n);
    // What is damaged stays for people to look at. A file that can't go now goes another time.
    if (found != report.segments.end() && found->damaged) {
      static_cast<void>(rename_name(arena_.directory(), name, name + ".damaged"));
    } else {
      static_cast<void>(remove_name(arena_.directory(), name));
    }
    CELERIAC_CRASH_POINT("journal.compact.removed");
  }
}

}  // namespace celeriac::journal
