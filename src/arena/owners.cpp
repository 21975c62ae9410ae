#include "arena/owners.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <thread>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kFree = 0;
constexpr std::uint64_t kActive = 1;
constexpr std::uint64_t kGatePatience = 5000 * kMillisecond;  // coming in takes microseconds

constexpr std::uint64_t pack(std::uint64_t state, std::uint16_t epoch) {
  return state << 16U | epoch;
}
constexpr std::uint64_t state_of(std::uint64_t word) { return word >> 16U; }
constexpr std::uint16_t epoch_of(std::uint64_t word) { return static_cast<std::uint16_t>(word); }

constexpr std::uint32_t pack(OwnerTag t) {
  return static_cast<std::uint32_t>(t.slot) << 16U | t.epoch;
}
constexpr OwnerTag unpack(std::uint32_t v) {
  return {static_cast<std::uint16_t>(v >> 16U), static_cast<std::uint16_t>(v)};
}

std::uint64_t byte_of(unsigned slot) { return OwnerLock::kFirstOwnerByte + slot; }

}  // namespace

Result<std::unique_ptr<Owners>> Owners::open(Arena& arena) {
  std::unique_ptr<Owners> owners(new Owners(arena));
  owners->path_ = arena.path();
  if (Status opened = owners->open_lock(); !opened) return opened;
  owners->listen();
  return owners;
}

Owners::~Owners() { stop_listening(); }

OwnerTag Owners::current() const {
  if (generation_.load(std::memory_order_acquire) != fork_generation()) return {};
  return unpack(tag_.load(std::memory_order_relaxed));
}

Result<OwnerTag> Owners::identity() {
  OwnerTag tag = current();
  if (tag.valid()) return tag;
  const std::lock_guard guard(register_mutex_);
  tag = current();
  if (tag.valid()) return tag;
  if (Status in = come_in(); !in) return in;
  bool found = take_free_slot(&tag);
  if (!found && recover_) {
    recover_();
    found = take_free_slot(&tag);
  }
  if (!found) {
    lock_.unlock(OwnerLock::kPresenceByte);
    return Status(Code::kNotEnoughMemory,
                  "the store at " + path_ + " has " + std::to_string(layout::kMaxOwners) +
                      " living processes attached and room for no more: need one owner slot, have "
                      "none; close stores that aren't used");
  }
  describe(tag);
  tag_.store(pack(tag), std::memory_order_relaxed);
  // release pairs with the acquire in current()
  generation_.store(fork_generation(), std::memory_order_release);
  return tag;
}

Status Owners::open_lock() {
  Result<OwnerLock> lock = OwnerLock::open(arena_.directory(), arena_.mode(), path_);
  if (!lock) return lock.status();
  lock_ = std::move(lock.value());
  return Status::ok();
}

Status Owners::enter_gate() {
  const std::uint64_t deadline = now_ns() + kGatePatience;
  while (!lock_.try_lock(OwnerLock::kGateByte)) {
    if (now_ns() > deadline) {
      return {Code::kLockTimeout, "the store at " + path_ +
                                      " is being entered by a process that doesn't run: continue "
                                      "or end it (see: celeriac doctor), then try again"};
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  CELERIAC_CRASH_POINT("owners.enter.gate");
  return Status::ok();
}

// O4, O5. Closing a lock file opens its gate.
Status Owners::come_in() {
  if (lock_.fd() < 0) {  // a forked child gave its parent's description away
    if (Status opened = open_lock(); !opened) return opened;
  }
  for (;;) {
    if (Status in = enter_gate(); !in) return in;
    if (!arena_.is_current()) {
      lock_.close();
      return {Code::kNotFound, "the store at " + path_ +
                                   " was destroyed, or its files were removed: connect() again"};
    }
    if (is_named(lock_.fd(), arena_.directory(), "owners.lock")) break;
    if (Status opened = open_lock(); !opened) return opened;  // and leaves the gate of the old one
  }
  if (rebuild_ && !lock_.held_by_other(OwnerLock::kPresenceByte)) rebuild_();
  CELERIAC_CRASH_POINT("owners.enter.rebuilt");
  lock_.try_share(OwnerLock::kPresenceByte);  // nobody ever has it alone
  lock_.unlock(OwnerLock::kGateByte);
  return Status::ok();
}

bool Owners::take_free_slot(OwnerTag* tag) {
  for (unsigned slot = 0; slot < layout::kMaxOwners; ++slot) {
    layout::OwnerRecord& r = record(static_cast<std::uint16_t>(slot));
    if (state_of(r.word.load(std::memory_order_acquire)) != kFree) continue;
    if (!lock_.try_lock(byte_of(slot))) continue;
    // Again, now that nobody else can register here.
    const std::uint64_t word = r.word.load(std::memory_order_acquire);
    if (state_of(word) != kFree) {
      lock_.unlock(byte_of(slot));
      continue;
    }
    auto epoch = static_cast<std::uint16_t>(epoch_of(word) + 1);
    if (epoch == 0) epoch = 1;
    r.inflight.store(0, std::memory_order_relaxed);
    r.parked.store(0, std::memory_order_relaxed);
    layout::HalfWord& high = arena_.header().owner_high;
    std::uint32_t seen = high.load(std::memory_order_relaxed);
    while (seen < slot + 1 &&
           !high.compare_exchange_weak(seen, slot + 1, std::memory_order_relaxed)) {
    }
    CELERIAC_CRASH_POINT("owners.register.locked");
    // release: who sees the record active sees the cleared fields and owner_high
    r.word.store(pack(kActive, epoch), std::memory_order_release);
    CELERIAC_CRASH_POINT("owners.register.active");
    *tag = {static_cast<std::uint16_t>(slot), epoch};
    return true;
  }
  return false;
}

void Owners::describe(OwnerTag tag) {
  layout::OwnerRecord& r = record(tag.slot);
  r.pid = process_id();
  r.started_wall_ns = wall_ns();
  process_command(r.command, sizeof r.command);
}

bool Owners::alive(OwnerTag tag) const {
  if (tag.slot >= layout::kMaxOwners || !tag.valid()) return false;
  if (record(tag.slot).word.load(std::memory_order_acquire) != pack(kActive, tag.epoch)) {
    return false;
  }
  return tag == current() || lock_.held_by_other(byte_of(tag.slot));
}

bool Owners::reaped(OwnerTag tag) const {
  return record(tag.slot).word.load(std::memory_order_acquire) != pack(kActive, tag.epoch);
}

std::vector<OwnerTag> Owners::dead() const {
  std::vector<OwnerTag> found;
  const std::uint32_t high = std::min(
      const_cast<Owners*>(this)->arena_.header().owner_high.load(std::memory_order_acquire),
      layout::kMaxOwners);
  const OwnerTag me = current();
  for (unsigned slot = 0; slot < high; ++slot) {
    const std::uint64_t word =
        record(static_cast<std::uint16_t>(slot)).word.load(std::memory_order_acquire);
    if (state_of(word) != kActive) continue;
    const OwnerTag tag{static_cast<std::uint16_t>(slot), epoch_of(word)};
    if (tag != me && !lock_.held_by_other(byte_of(slot))) found.push_back(tag);
  }
  return found;
}

std::vector<OwnerInfo> Owners::list() const {
  std::vector<OwnerInfo> all;
  for (unsigned slot = 0; slot < layout::kMaxOwners; ++slot) {
    const layout::OwnerRecord& r = record(static_cast<std::uint16_t>(slot));
    const std::uint64_t word = r.word.load(std::memory_order_acquire);
    if (state_of(word) != kActive) continue;
    OwnerInfo info;
    info.tag = {static_cast<std::uint16_t>(slot), epoch_of(word)};
    info.pid = r.pid;
    info.started_wall_ns = r.started_wall_ns;
    info.command.assign(r.command, strnlen(r.command, sizeof r.command));
    info.alive = alive(info.tag);
    all.push_back(std::move(info));
  }
  return all;
}

Owners::Activity Owners::activity(OwnerTag me) const {
  Activity seen;
  const std::uint32_t high = std::min(
      const_cast<Owners*>(this)->arena_.header().owner_high.load(std::memory_order_acquire),
      layout::kMaxOwners);
  for (unsigned slot = 0; slot < high; ++slot) {
    const layout::OwnerRecord& r = record(static_cast<std::uint16_t>(slot));
    const std::uint64_t word = r.word.load(std::memory_order_acquire);
    const std::uint32_t own = word == pack(kActive, me.epoch) && slot == me.slot ? 1 : 0;
    if (state_of(word) == kActive && r.inflight.load(std::memory_order_seq_cst) > own) {
      seen.quiet = false;
    }
    // An operation of ours that began meanwhile counts too: `begun` of all, free records included.
    seen.begun.push_back(word << 32U | r.begun.load(std::memory_order_seq_cst));
  }
  return seen;
}

void Owners::mark_free(OwnerTag tag) {
  std::uint64_t expected = pack(kActive, tag.epoch);
  // release: the repairs come before the record is free for another
  if (record(tag.slot).word.compare_exchange_strong(expected, pack(kFree, tag.epoch),
                                                    std::memory_order_acq_rel)) {
    arena_.header().reaped.fetch_add(1, std::memory_order_relaxed);
  }
}

void Owners::leave() {
  const OwnerTag tag = current();
  if (!tag.valid()) return;
  const std::lock_guard guard(register_mutex_);
  generation_.store(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("owners.leave.released");
  std::uint64_t expected = pack(kActive, tag.epoch);
  record(tag.slot).word.compare_exchange_strong(expected, pack(kFree, tag.epoch),
                                                std::memory_order_acq_rel);
  lock_.unlock(byte_of(tag.slot));
  lock_.unlock(OwnerLock::kPresenceByte);
}

void Owners::after_fork_in_child() noexcept {
  // The copy of the descriptor would keep the parent's byte locked after the parent's death.
  lock_.close();
  generation_.store(0, std::memory_order_relaxed);
  new (&register_mutex_) std::mutex;  // another thread of the parent may have held it
}

}  // namespace celeriac
