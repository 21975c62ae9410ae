// What makes records durable: group commit, and what follows a sync that failed.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "arena/crash_point.hpp"
#include "memory/base.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"
#include "sync/parker.hpp"

namespace celeriac::journal {
namespace {

constexpr std::uint64_t kSyncPatience = 60 * kSecond;
constexpr std::uint64_t kMostAwaited = 64;  // of larger groups none need wait for more
constexpr std::uint64_t kLongestGathering = 4 * kMillisecond;
constexpr std::uint64_t kReadPatience = 300 * kSecond;  // another reads the whole journal

// JournalControl.group: what the last sync says of the next one.
struct Group {
  static constexpr std::uint64_t kMostMicros = (1ULL << 24U) - 1;

  explicit Group(std::uint64_t word)
      : served(static_cast<std::uint32_t>(word >> 32U)),
        size(word >> 24U & 0xFFU),
        took_us(word & kMostMicros) {}
  Group(std::uint32_t arrived, std::uint64_t members, std::uint64_t took_ns)
      : served(arrived),
        size(std::min<std::uint64_t>(members, 0xFFU)),
        took_us(std::min(took_ns / 1000, kMostMicros)) {}
  std::uint64_t word() const { return std::uint64_t{served} << 32U | size << 24U | took_us; }

  bool complete(std::uint32_t arrived) const {
    return size < 2 || size > kMostAwaited || arrived - served >= size;
  }

  std::uint32_t served;  // `arrived` when that sync began
  std::uint64_t size;
  std::uint64_t took_us;
};

}  // namespace

Status Journal::health() const {
  const std::uint64_t failed = control_.failed.load(std::memory_order_acquire);
  if (failed == 0) return Status::ok();
  return {Code::kSystem, "the journal at " + arena_.path() + " stopped: writing or syncing " +
                             segment_name(failed >> 16U) +
                             " failed, so that nothing is acknowledged any more; look after the "
                             "disk, then start any process of the store again"};
}

void Journal::fail(std::uint64_t segment, const Status& why) {
  static_cast<void>(why);
  std::uint64_t none = 0;
  // release: nobody acknowledges from here on (J5)
  control_.failed.compare_exchange_strong(none, segment << 16U | 1U, std::memory_order_acq_rel);
  CELERIAC_CRASH_POINT("journal.fail.noted");
  wake_followers();
}

void Journal::wake_followers() {
  control_.rounds.fetch_add(1, std::memory_order_release);
  futex_wake(&control_.rounds, std::numeric_limits<int>::max());
}

Status Journal::commit(std::uint64_t lsn, std::uint64_t deadline_ns, OwnerTag me) {
  OwnerMutex mutex(control_.lead, owners_);
  bool counted = false;
  for (;;) {
    const std::uint32_t round = control_.rounds.load(std::memory_order_acquire);
    if (durable() >= lsn) return Status::ok();
    Status healthy = health();
    if (!healthy) return healthy;
    if (!std::exchange(counted, true)) control_.arrived.fetch_add(1, std::memory_order_acq_rel);
    const std::uint64_t until = gather(now_ns());
    const Locked how = until == 0 ? mutex.try_lock(me) : Locked::kTimedOut;
    if (how != Locked::kTimedOut) {
      Status led = durable() >= lsn ? Status::ok() : lead(how == Locked::kRecovered, me);
      CELERIAC_CRASH_POINT("journal.commit.led");
      mutex.unlock();
      CELERIAC_CRASH_POINT("journal.commit.unlocked");
      wake_followers();
      if (!led) return led;
      continue;
    }
    // Not ended by signals: the record is written, and whether it is durable is known soon.
    const std::uint64_t woken = until == 0 ? deadline_ns : std::min(deadline_ns, until);
    const Parked parked = park(
        control_.rounds, round, woken, [] { return false; }, kProbeInterval, [] { return false; },
        0);
    if (parked == Parked::kTimedOut && now_ns() >= deadline_ns) {
      return {Code::kLockTimeout,
              "the disk hasn't confirmed the write yet: it may or may not have "
              "been made"};
    }
  }
}

Status Journal::sync(OwnerTag me) {
  if (!begun()) return Status::ok();
  return commit(last(), now_ns() + kSyncPatience, me);
}

// Until when the caller sleeps, unless the group is complete before; 0 = it is, or was waited for.
// Without this a leader syncs its own record, and all who come meanwhile share the next sync, in
// turns: half of what a sync could carry. (As PostgreSQL's commit_delay, within what was seen.)
// They sleep, and don't yield the processor: who yields is let wait by the scheduler afterwards, in
// the middle of the sync. The first of them has the alarm. It is set to twice what a sync took, so
// that it doesn't go off during the sync of a group that got complete in time, which most do.
std::uint64_t Journal::gather(std::uint64_t now) {
  const Group group(control_.group.load(std::memory_order_relaxed));
  if (group.complete(control_.arrived.load(std::memory_order_relaxed))) return 0;
  std::uint64_t until = 0;
  const std::uint64_t wait = std::min(group.took_us * 1000 * 2, kLongestGathering);
  if (control_.gathering.compare_exchange_strong(until, now + wait, std::memory_order_relaxed)) {
    CELERIAC_CRASH_POINT("journal.commit.gathering");
    return now + wait;
  }
  return until > now && until <= now + kLongestGathering ? kNever : 0;
}

// Who came during a sync, and who was served by it, can share the next one. But where a group
// wasn't complete when its time was over, no more are waited for than came.
void Journal::note_group(std::uint32_t served, std::uint64_t took) {
  const Group before(control_.group.load(std::memory_order_relaxed));
  const std::uint32_t here =
      before.complete(served) ? control_.arrived.load(std::memory_order_relaxed) : served;
  control_.group.store(Group(served, here - before.served, took).word(), std::memory_order_relaxed);
  control_.gathering.store(0, std::memory_order_relaxed);
}

// REQUIRES: `lead` is held.
Status Journal::lead(bool from_the_dead, OwnerTag me) {
  const std::uint64_t begun = now_ns();
  const std::uint32_t arrived = control_.arrived.load(std::memory_order_acquire);
  // In this order: who arrived had written; records below next_lsn are in segments up to current.
  // acquire pairs with the release stores in append and switch.
  const std::uint64_t next = control_.next_lsn.load(std::memory_order_acquire);
  const std::uint64_t last = control_.current.load(std::memory_order_acquire);
  const std::uint64_t first = control_.sync_from.load(std::memory_order_relaxed);
  if (from_the_dead && control_.syncing.load(std::memory_order_relaxed) != 0) {
    Status again = write_again(first, last, me);
    if (!again) {
      fail(last, again);
      return again;
    }
  }
  control_.syncing.store(1, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.commit.syncing");
  for (std::uint64_t n = first; n <= last; ++n) {
    Status synced = use(&syncing_, n);
    // Removed by a compaction, which had it synced, before this process looked.
    if (synced.code() == Code::kCorrupt && n < control_.oldest.load(std::memory_order_acquire)) {
      continue;
    }
    if (synced) synced = sync_data(syncing_.fd.get());
    if (synced && is_unlinked(syncing_.fd.get())) {
      control_.syncing.store(0, std::memory_order_release);
      return {Code::kCorrupt, "the journal at " + arena_.path() + " lost its " + segment_name(n) +
                                  ", which somebody removed while it was in use: what is written "
                                  "to it is on no disk. Put the directory back, from a backup"};
    }
    if (!synced) {
      fail(n, synced);
      return synced;
    }
  }
  CELERIAC_CRASH_POINT("journal.commit.synced");
  control_.sync_from.store(last, std::memory_order_release);
  // release pairs with durable(): J4
  control_.durable.store(next - 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.commit.durable");
  note_group(arrived, now_ns() - begun);
  control_.syncing.store(0, std::memory_order_release);
  return Status::ok();
}

// J5: the dead leader may have been told of an error that nobody hears of again.
Status Journal::write_again(std::uint64_t first, std::uint64_t last, OwnerTag me) {
  const Result<Position> now = position(me);
  if (!now) return now.status();
  for (std::uint64_t n = first; n <= last; ++n) {
    Status ready = use(&syncing_, n);
    if (!ready) return ready;
    const std::uint64_t end = n == now.value().segment ? now.value().offset : syncing_.size;
    std::string bytes(1ULL << 20U, '\0');
    for (std::uint64_t at = 0; at < end; at += bytes.size()) {
      const std::uint64_t piece = std::min<std::uint64_t>(bytes.size(), end - at);
      ready = read_at(syncing_.fd.get(), bytes.data(), piece, at);
      if (ready) ready = write_at(syncing_.fd.get(), bytes.data(), piece, at);
      if (!ready) return ready;
    }
  }
  return Status::ok();
}

Result<Position> Journal::position(OwnerTag me) {
  Status ready;
  const MutexGuard guard(OwnerMutex(control_.append, owners_), lock_append(me, &ready));
  if (!guard.held()) return ready;
  return position_locked();
}

Position Journal::position_locked() const {
  return {control_.current.load(std::memory_order_relaxed),
          control_.end.load(std::memory_order_relaxed),
          control_.next_lsn.load(std::memory_order_relaxed)};
}

Result<Report> Journal::begin(OwnerTag me, LiveSet* live) {
  if (begun()) return Report{};
  MutexGuard alone(OwnerMutex(control_.compact, owners_),
                   OwnerMutex(control_.compact, owners_).lock(me, now_ns() + kReadPatience));
  if (!alone.held()) return mutex_timeout("the journal's beginning");
  if (begun()) return Report{};
  Result<Report> read = reader().read(nullptr, live->applier());
  if (!read) return read;
  live->finish();
  const Report& report = read.value();
  std::array<std::uint64_t, 2> uuid{};
  random_bytes(uuid.data(), sizeof uuid);
  if (!report.segments.empty()) std::memcpy(uuid.data(), report.uuid.data(), sizeof uuid);
  control_.uuid[0].store(uuid[0], std::memory_order_relaxed);
  control_.uuid[1].store(uuid[1], std::memory_order_relaxed);
  // What was read is gone on from: it may not be lost any more.
  for (const SegmentReport& s : report.segments) {
    OpenSegment old;
    Status synced = use(&old, s.header.number);
    const bool readable = synced.code() != Code::kNotFound && synced.code() != Code::kCorrupt;
    if (!readable) continue;  // missing, foreign or damaged, as the report says
    if (synced) synced = sync_data(old.fd.get());
    if (!synced) return synced;
  }
  Result<OpenSegment> made =
      create_segment({report.next_segment, report.next_lsn, 0, report.oldest, 0});
  if (!made) return made.status();
  control_.end.store(kFirstRecord, std::memory_order_relaxed);
  control_.next_lsn.store(report.next_lsn, std::memory_order_relaxed);
  control_.oldest.store(report.oldest, std::memory_order_relaxed);
  control_.kept.store(report.segments.size() + 1, std::memory_order_relaxed);
  control_.sync_from.store(report.next_segment, std::memory_order_relaxed);
  control_.durable.store(report.next_lsn - 1, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("journal.begin.written");
  // release pairs with begun()
  control_.current.store(report.next_segment, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.begin.begun");
  remove_segments(report, report.oldest);
  return read;
}

Status Journal::rescue(OwnerTag me) {
  const std::uint64_t patience = now_ns() + kSyncPatience;
  const auto lock = [&](layout::MutexWord& m) { return OwnerMutex(m, owners_).lock(me, patience); };
  const MutexGuard compact(OwnerMutex(control_.compact, owners_), lock(control_.compact));
  if (!compact.held()) return mutex_timeout("the journal's compaction");
  const MutexGuard leading(OwnerMutex(control_.lead, owners_), lock(control_.lead));
  if (!leading.held()) return mutex_timeout("the journal's commit");
  const MutexGuard appending(OwnerMutex(control_.append, owners_), lock(control_.append));
  if (!appending.held()) return mutex_timeout("the journal");
  if (control_.failed.load(std::memory_order_acquire) == 0) return Status::ok();
  const std::uint64_t first = control_.sync_from.load(std::memory_order_relaxed);
  const std::uint64_t last = control_.current.load(std::memory_order_relaxed);
  Encoded e;
  std::uint64_t next = control_.next_lsn.load(std::memory_order_relaxed);
  for (std::uint64_t n = first; n <= last; ++n) {
    Result<Reader::Loaded> l = reader().load(n, kFirstRecord, 0);
    if (!l) return l.status();
    SegmentReport segment;
    segment.header = l.value().header;
    Report report;
    const std::uint64_t behind =
        scan_records(l.value().bytes, kFirstRecord, segment.header.first_lsn, &segment, &report,
                     [&](const Record& r) {
                       if (r.kind == Kind::kVoid || r.kind == Kind::kSeal) return;
                       const std::size_t at = e.bytes.size();
                       e.records.emplace_back(
                           at, begin_record({r.kind, r.how, r.subject, {r.payload}}, &e.bytes));
                     });
    next = std::max(next, behind);
  }
  CELERIAC_CRASH_POINT("journal.rescue.read");
  const auto fill = [&](int fd, std::uint32_t salt) {
    std::uint64_t lsn = next;
    for (const auto& [at, crc] : e.records) {
      finish_record(e.bytes.data() + at, crc, lsn++, durable(), salt);
    }
    return write_at(fd, e.bytes.data(), e.bytes.size(), kFirstRecord);
  };
  const std::uint64_t oldest = control_.oldest.load(std::memory_order_relaxed);
  Result<OpenSegment> made = create_segment({last + 1, next, e.bytes.size(), oldest, first}, fill);
  if (!made) return made.status();
  // Nobody appends before `failed` is gone; who dies in between leaves it, and all is done again.
  control_.append.pending[0].store(0, std::memory_order_relaxed);
  control_.end.store(kFirstRecord + e.bytes.size(), std::memory_order_relaxed);
  control_.current.store(last + 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.rescue.published");
  control_.next_lsn.store(next + e.records.size(), std::memory_order_release);
  control_.sync_from.store(last + 1, std::memory_order_release);
  control_.syncing.store(0, std::memory_order_relaxed);
  control_.durable.store(next + e.records.size() - 1, std::memory_order_release);
  control_.failed.store(0, std::memory_order_release);
  return Status::ok();
}

}  // namespace celeriac::journal
