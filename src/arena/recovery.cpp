#include "arena/recovery.hpp"

#include "arena/crash_point.hpp"

namespace celeriac {

int Recovery::run() {
  const std::unique_lock local(mutex_, std::try_to_lock);
  if (!local.owns_lock()) return 0;
  if (owners_.dead().empty()) return 0;
  OwnerLock& lock = owners_.lock();
  if (!lock.try_lock(OwnerLock::kRecoveryByte)) return 0;
  std::vector<OwnerTag> tags = owners_.dead();
  bool interrupted = false;
  for (const OwnerTag& t : tags) {
    interrupted =
        interrupted || owners_.record(t.slot).inflight.load(std::memory_order_acquire) != 0;
  }
  // If we die half way through, a message may be ready and no lane know it: until it is reaped, an
  // owner that was being repaired counts as one that died inside an operation.
  for (const OwnerTag& t : tags) {
    owners_.record(t.slot).inflight.fetch_add(1, std::memory_order_release);
  }
  const DeadOwners dead(std::move(tags), interrupted);
  CELERIAC_CRASH_POINT("recovery.run.found");
  for (const Repairer& repair : repairers_) {
    repair(dead);
    CELERIAC_CRASH_POINT("recovery.run.repaired");
  }
  for (const OwnerTag& t : dead.tags()) {
    owners_.mark_free(t);
    CELERIAC_CRASH_POINT("recovery.run.freed");
  }
  for (const Repairer& finish : finishers_) finish(dead);
  lock.unlock(OwnerLock::kRecoveryByte);
  return static_cast<int>(dead.tags().size());
}

void Recovery::release_own(OwnerTag tag) {
  const std::lock_guard local(mutex_);
  const DeadOwners only_me({tag}, false);
  for (const Repairer& repair : repairers_) repair(only_me);
}

}  // namespace celeriac
