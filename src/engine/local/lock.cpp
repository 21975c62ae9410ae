#include "engine/local/lock.hpp"

#include <algorithm>
#include <map>

#include "sync/parker.hpp"

namespace celeriac {
namespace {

// How often who waits tries again when a stopped process has the lock's bucket.
constexpr std::uint64_t kTryAgain = 50 * kMillisecond;

std::uint64_t packed(LockPlace p) {
  return static_cast<std::uint64_t>(p.generation) << 32U | p.index;
}

LockPlace place_of(std::uint64_t packed) {
  return {static_cast<std::uint32_t>(packed), static_cast<std::uint32_t>(packed >> 32U)};
}

}  // namespace

Result<std::unique_ptr<LockEngine>> LocalLock::open(std::shared_ptr<LocalHandle> handle,
                                                    const std::string& name, std::uint32_t permits,
                                                    OwnerTag me) {
  if (name.empty() || name.size() > kMaxLockName) {
    return Status(Code::kConfiguration, "a lock's name has 1 to " + std::to_string(kMaxLockName) +
                                            " bytes, this one has " + std::to_string(name.size()));
  }
  if (permits == 0 || permits > kMaxPermits) {
    return Status(Code::kConfiguration,
                  "permits=" + std::to_string(permits) + ": 1 to " + std::to_string(kMaxPermits));
  }
  auto lock = std::make_unique<LocalLock>(std::move(handle), name, permits);
  if (name.starts_with("semaphore:")) {
    Status agreed = lock->handle_->core().locks().agree(lock->name_, me);
    if (!agreed) return agreed;
  }
  return std::unique_ptr<LockEngine>(std::move(lock));
}

Result<LockTaken> LocalLock::try_acquire(std::uint64_t lease_ns) {
  for (int tries = 0;; ++tries) {
    const Result<OwnerTag> me = handle_->enter();
    if (!me) return me.status();
    const Result<LockEntered> e = handle_->core().locks().enter(name_, lease_ns, false, me.value());
    if (!e) return e.status();
    if (e.value().place.valid()) return LockTaken{packed(e.value().place), e.value().token};
    if (!e.value().stale || tries == 8 || handle_->core().recovery().run() == 0) {
      return LockTaken{};
    }
  }
}

Result<LockTaken> LocalLock::acquire(std::uint64_t lease_ns, std::uint64_t deadline_ns) {
  if (deadline_ns == 0) return try_acquire(lease_ns);
  Result<LockTaken> taken = enter(lease_ns);
  if (!taken || taken.value().token != 0) return taken;
  const Result<std::uint64_t> token = wait(taken.value().place, deadline_ns);
  if (token && token.value() != 0) return LockTaken{taken.value().place, token.value()};
  static_cast<void>(leave(taken.value().place));
  if (!token) return token.status();
  return LockTaken{};
}

Result<LockTaken> LocalLock::enter(std::uint64_t lease_ns) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<LockEntered> e = handle_->core().locks().enter(name_, lease_ns, true, me.value());
  if (!e) return e.status();
  return LockTaken{packed(e.value().place), e.value().token};
}

Result<std::uint64_t> LocalLock::wait(std::uint64_t packed_place, std::uint64_t deadline_ns) {
  Locks& locks = handle_->core().locks();
  const LockPlace place = place_of(packed_place);
  for (;;) {
    const Result<OwnerTag> me = handle_->enter();
    if (!me) return me.status();
    std::uint64_t token = 0;
    std::uint32_t seen = 0;
    Standing standing = locks.look(place, me.value(), &token, &seen);
    std::uint64_t look_at = kNever;
    if (standing == Standing::kWaits) {
      const Result<LockWatched> watched = locks.watch(place, me.value());
      // A stopped process has the bucket, and we a place in the line.
      look_at = watched ? watched.value().look_at : now_ns() + kTryAgain;
      // What was signalled since `seen` ends the sleep, also when it is that we should watch.
      std::uint32_t now = 0;
      if (watched) standing = locks.look(place, me.value(), &token, &now);
    }
    if (standing == Standing::kHolds) return token;
    if (standing == Standing::kGone) {
      return Status(Code::kLockLost,
                    "the place in the lock's line was given up, by another "
                    "thread or by a close of the store");
    }
    // Even when we don't sleep ourselves: others ask again and again.
    const std::uint64_t poll = handle_->core().poll_interval();
    if (poll != kNever) handle_->core().recovery().run();
    const std::uint64_t now = now_ns();
    if (now >= deadline_ns) return std::uint64_t{0};
    if (poll != kNever) look_at = std::min(look_at, now + poll);
    layout::HalfWord* signal = locks.signal(place);
    if (signal == nullptr) return Status(Code::kCorrupt, "the lock's seat is lost");
    if (park_until(*signal, seen, std::min(deadline_ns, look_at)) == Parked::kInterrupted) {
      return Status(Code::kInterrupted, "interrupted while waiting for a lock");
    }
  }
}

Status LocalLock::leave(std::uint64_t place) {
  // Even when the handle is closed: others of the process may go on.
  const OwnerTag me = handle_->core().base().owners.current();
  if (me.valid()) handle_->core().locks().leave(place_of(place), me);
  return Status::ok();
}

Status LocalLock::release(std::uint64_t place) {
  const Result<OwnerTag> me = handle_->enter();
  return me ? handle_->core().locks().release(place_of(place), me.value()) : me.status();
}

Status LocalLock::renew(std::uint64_t place, std::uint64_t lease_ns) {
  const Result<OwnerTag> me = handle_->enter();
  return me ? handle_->core().locks().renew(place_of(place), lease_ns, me.value()) : me.status();
}

Result<std::pair<std::vector<EngineHolder>, std::uint64_t>> LocalLock::holders() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  std::uint64_t waiting = 0;
  const Result<std::vector<LockHolder>> found =
      handle_->core().locks().holders(name_, &waiting, me.value());
  if (!found) return found.status();
  return std::pair(shown(handle_->core(), found.value()), waiting);
}

std::vector<EngineHolder> LocalLock::shown(LocalCore& core, const std::vector<LockHolder>& found) {
  std::vector<EngineHolder> all;
  const std::vector<OwnerInfo> owners =
      found.empty() ? std::vector<OwnerInfo>{} : core.base().owners.list();
  for (const LockHolder& h : found) {
    EngineHolder e{h.name, 0, "", h.token, h.since, h.until, h.permits, h.holds};
    for (const OwnerInfo& o : owners) {
      if (o.tag == h.owner) {
        e.pid = o.pid;
        e.command = o.command;
      }
    }
    all.push_back(std::move(e));
  }
  return all;
}

}  // namespace celeriac
