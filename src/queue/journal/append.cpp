// Writing: append, the switch to another segment, and what is left by who died in them.
#include <array>
#include <cstring>

#include "arena/crash_point.hpp"
#include "memory/base.hpp"
#include "platform/clock.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"

namespace celeriac::journal {
namespace {

constexpr std::uint64_t kSealBytes = kSmallest;
constexpr std::uint64_t kReserve = 16;
// pending[0] of `append`: a switch to segment (rest of the word), or where a write begins and ends.
constexpr std::uint64_t kSwitch = 1ULL << 63U;
constexpr std::uint64_t kMostAtOnce = (1ULL << 16U) - 1;

constexpr std::uint64_t write_intent(std::uint64_t from, std::uint64_t to) {
  return from / 8 << 32U | to / 8;
}
constexpr std::uint64_t intent_from(std::uint64_t i) { return (i >> 32U) * 8; }
constexpr std::uint64_t intent_to(std::uint64_t i) { return (i & 0xFFFFFFFFU) * 8; }

Status zero(int fd, std::uint64_t from, std::uint64_t to) {
  const std::string zeros(std::min<std::uint64_t>(to - from, 1ULL << 20U), '\0');
  for (std::uint64_t at = from; at < to; at += zeros.size()) {
    Status written = write_at(fd, zeros.data(), std::min<std::uint64_t>(zeros.size(), to - at), at);
    if (!written) return written;
  }
  return Status::ok();
}

}  // namespace

Result<Journal::Encoded> Journal::encode(std::span<const Draft> drafts) {
  Encoded e;
  std::uint64_t bytes = 0;
  for (const Draft& d : drafts) bytes += padded(record_bytes(d));
  if (bytes > kMaxRecord || drafts.size() > kMostAtOnce) {
    return Status(Code::kValueTooLarge,
                  std::to_string(bytes) + " bytes in " + std::to_string(drafts.size()) +
                      " records are more than a journal takes at once (" +
                      std::to_string(kMaxRecord) + ", " + std::to_string(kMostAtOnce) + ")");
  }
  e.bytes.reserve(bytes);
  e.records.reserve(drafts.size());
  for (const Draft& d : drafts) {
    e.puts = e.puts || d.kind == Kind::kPut;
    const std::size_t at = e.bytes.size();
    e.records.emplace_back(at, begin_record(d, &e.bytes));
  }
  return e;
}

Locked Journal::lock_append(OwnerTag me, Status* ready) {
  OwnerMutex mutex(control_.append, owners_);
  const Locked how = mutex.lock_within(me, kMutexPatience);
  if (how == Locked::kTimedOut) {
    *ready = mutex_timeout("the journal");
    return how;
  }
  if (how == Locked::kRecovered) *ready = settle_locked();
  if (*ready) *ready = health();
  if (*ready && !begun()) *ready = {Code::kConfiguration, "the journal wasn't begun"};
  if (*ready) return how;
  mutex.unlock();
  return Locked::kTimedOut;
}

Result<std::uint64_t> Journal::append(std::span<const Draft> drafts, OwnerTag me,
                                      const std::function<void(std::uint64_t)>& told) {
  Result<Encoded> e = encode(drafts);
  if (!e) return e.status();
  Status ready;
  const MutexGuard guard(OwnerMutex(control_.append, owners_), lock_append(me, &ready));
  if (!guard.held()) return ready;
  return append_locked(&e.value(), told);
}

Result<std::uint64_t> Journal::append_locked(Encoded* e,
                                             const std::function<void(std::uint64_t)>& told) {
  Status ready = use(&writing_, control_.current.load(std::memory_order_relaxed));
  if (!ready) return ready;
  const std::uint64_t behind =
      control_.end.load(std::memory_order_relaxed) + e->bytes.size() + kSealBytes;
  if (behind > writing_.size - writing_.size / kReserve) {
    ready = switch_locked(e->bytes.size(), control_.oldest.load(std::memory_order_relaxed));
    const bool reserved = ready.code() == Code::kNotEnoughMemory && !e->puts;
    if (!ready && !(reserved && behind <= writing_.size)) return ready;
  }
  const std::uint64_t end = control_.end.load(std::memory_order_relaxed);
  const std::uint64_t first = control_.next_lsn.load(std::memory_order_relaxed);
  const std::uint64_t synced = durable();
  std::uint64_t lsn = first;
  for (const auto& [at, crc] : e->records) {
    finish_record(e->bytes.data() + at, crc, lsn++, synced, writing_.salt);
  }
  if (told) told(first);
  Status written = write_locked(*e, end, first, e->records.size());
  if (written) return first;
  // What lies there now may be anything: a void record takes its place (J2).
  const Status settled = settle_locked();
  if (!settled) fail(writing_.number, settled);
  return written;
}

Status Journal::write_locked(const Encoded& e, std::uint64_t end, std::uint64_t lsn,
                             std::uint64_t count) {
  layout::MutexWord& m = control_.append;
  m.pending[1].store(lsn << 16U | count, std::memory_order_relaxed);
  m.pending[0].store(write_intent(end, end + e.bytes.size()), std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.append.intended");
  Status written = write_at(writing_.fd.get(), e.bytes.data(), e.bytes.size(), end);
  if (!written) return written;
  CELERIAC_CRASH_POINT("journal.append.written");
  // release: who reads the number finds the bytes, and the segment that they are in
  control_.next_lsn.store(lsn + count, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.append.numbered");
  control_.end.store(end + e.bytes.size(), std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.append.ended");
  m.pending[0].store(0, std::memory_order_release);
  return Status::ok();
}

// ---------------------------------------------------------------------------------- switch

Status Journal::use(OpenSegment* segment, std::uint64_t number) const {
  if (segment->number == number && segment->fd.valid()) return Status::ok();
  OpenSegment fresh;
  SegmentHeader header{};
  Status opened = reader().open(number, &fresh.fd, &header, true);
  if (opened.code() == Code::kNotFound) {
    return {Code::kCorrupt,
            "the journal at " + arena_.path() + " lost its " + segment_name(number) +
                ", which somebody removed: put it back, or stop all processes and "
                "remove the file arena, to go on with what the other segments hold"};
  }
  if (!opened) return opened;
  fresh.number = number;
  fresh.size = header.size;
  fresh.salt = header.salt;
  *segment = std::move(fresh);
  return Status::ok();
}

Result<OpenSegment> Journal::create_segment(const NewSegment& n, const Fill& fill) const {
  OpenSegment s;
  s.number = n.number;
  const std::uint64_t least = layout::align_up(kFirstRecord + n.bytes + kSealBytes, 4096);
  s.size = std::max(segment_size_, least);
  const std::string name = segment_name(n.number);
  Status made;
  if (s.size == segment_size_ && !fill) s.fd = open_spare();
  const bool spare = s.fd.valid();
  if (!spare) {
    Result<Fd> fd = create_unnamed(arena_.directory(), arena_.mode());
    if (!fd) return fd.status();
    s.fd = fd.take();
    made = allocate_durable(s.fd.get(), s.size, arena_.path());
  }
  if (!made) return made;
  SegmentHeader h{};
  random_bytes(&h.salt, sizeof h.salt);
  h.number = n.number;
  h.first_lsn = n.first_lsn;
  h.size = s.size;
  h.oldest = n.oldest;
  h.superseded = n.superseded;
  const std::array<std::uint64_t, 2> uuid{control_.uuid[0].load(std::memory_order_relaxed),
                                          control_.uuid[1].load(std::memory_order_relaxed)};
  std::memcpy(h.uuid, uuid.data(), sizeof h.uuid);
  h.created_wall_ns = wall_ns();
  const std::string page = encode_header(h);
  made = write_at(s.fd.get(), page.data(), page.size(), 0);
  if (made && fill) made = fill(s.fd.get(), h.salt);
  if (made) made = sync_data(s.fd.get());
  CELERIAC_CRASH_POINT("journal.create.written");
  // One that has this name was never published (J2): its maker died, or failed after this step.
  if (made) {
    made = spare ? publish_spare(name) : publish_over(s.fd.get(), arena_.directory(), name);
  }
  CELERIAC_CRASH_POINT("journal.create.named");
  if (made) made = sync_directory(arena_.directory());
  if (!made) return made;
  s.salt = h.salt;
  return s;
}

Status Journal::switch_locked(std::uint64_t bytes, std::uint64_t oldest) {
  const std::uint64_t current = control_.current.load(std::memory_order_relaxed);
  const std::uint64_t lsn = control_.next_lsn.load(std::memory_order_relaxed);
  const std::uint64_t end = control_.end.load(std::memory_order_relaxed);
  Result<OpenSegment> next = create_segment({current + 1, lsn + 1, bytes, oldest, 0});
  if (!next) return next.status();
  std::string seal;
  const Draft draft{Kind::kSeal, 0, current + 1, {}};
  const std::uint32_t crc = begin_record(draft, &seal);
  finish_record(seal.data(), crc, lsn, durable(), writing_.salt);
  layout::MutexWord& m = control_.append;
  m.pending[1].store(lsn, std::memory_order_relaxed);
  m.pending[0].store(kSwitch | (current + 1), std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.switch.intended");
  Status sealed = write_at(writing_.fd.get(), seal.data(), seal.size(), end);
  if (!sealed) {
    const Status settled = settle_locked();
    if (!settled) fail(current, settled);
    return sealed;
  }
  CELERIAC_CRASH_POINT("journal.switch.sealed");
  control_.current.store(current + 1, std::memory_order_release);  // this decides
  CELERIAC_CRASH_POINT("journal.switch.decided");
  control_.next_lsn.store(lsn + 1, std::memory_order_release);
  control_.end.store(kFirstRecord, std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.switch.ended");
  m.pending[0].store(0, std::memory_order_release);
  writing_ = next.take();
  return Status::ok();
}

// --------------------------------------------------------------------------- after a death

Status Journal::settle_locked() {
  const std::uint64_t intent = control_.append.pending[0].load(std::memory_order_acquire);
  if (intent == 0) return Status::ok();
  Status settled = (intent & kSwitch) != 0 ? settle_switch_locked(intent & ~kSwitch)
                                           : settle_write_locked(intent);
  if (!settled) {
    fail(control_.current.load(std::memory_order_relaxed), settled);
    return settled;
  }
  CELERIAC_CRASH_POINT("journal.settle.done");
  control_.append.pending[0].store(0, std::memory_order_release);
  return Status::ok();
}

Status Journal::settle_switch_locked(std::uint64_t target) {
  const std::uint64_t lsn = control_.append.pending[1].load(std::memory_order_relaxed);
  const std::uint64_t current = control_.current.load(std::memory_order_relaxed);
  if (current == target) {  // it was decided: the rest of it
    control_.next_lsn.store(lsn + 1, std::memory_order_release);
    control_.end.store(kFirstRecord, std::memory_order_release);
    return Status::ok();
  }
  Status ready = use(&writing_, current);
  if (!ready) return ready;
  const std::uint64_t end = control_.end.load(std::memory_order_relaxed);
  return zero(writing_.fd.get(), end, end + kSealBytes);
}

Status Journal::settle_write_locked(std::uint64_t intent) {
  const std::uint64_t from = intent_from(intent);
  const std::uint64_t to = intent_to(intent);
  const std::uint64_t numbers = control_.append.pending[1].load(std::memory_order_relaxed);
  const std::uint64_t lsn = numbers >> 16U;
  const std::uint64_t count = numbers & kMostAtOnce;
  if (control_.next_lsn.load(std::memory_order_relaxed) == lsn + count &&
      control_.end.load(std::memory_order_relaxed) == to) {
    return Status::ok();  // it was written and published
  }
  Status ready = use(&writing_, control_.current.load(std::memory_order_relaxed));
  if (!ready) return ready;
  std::string nothing;
  const std::uint32_t crc = begin_record({Kind::kVoid, 0, count, {}}, &nothing);
  finish_record(nothing.data(), crc, lsn, durable(), writing_.salt);
  // Zeros first: behind a void record nobody may find what the dead one wrote.
  Status written = zero(writing_.fd.get(), from, to);
  CELERIAC_CRASH_POINT("journal.settle.zeroed");
  if (written) written = write_at(writing_.fd.get(), nothing.data(), nothing.size(), from);
  if (!written) return written;
  control_.end.store(from + nothing.size(), std::memory_order_release);
  CELERIAC_CRASH_POINT("journal.settle.ended");
  control_.next_lsn.store(lsn + count, std::memory_order_release);
  return Status::ok();
}

void Journal::after_fork_in_child() noexcept {
  writing_ = OpenSegment();
  syncing_ = OpenSegment();
}

}  // namespace celeriac::journal
