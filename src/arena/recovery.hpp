// Recovery: the one routine that repairs what the dead left behind.
//
// Anyone may run it, at any time: at registration when slots are short, when a wait expires, when
// something is full, when the death watch fires, or by `celeriac doctor`.
//
//   1. take the recovery byte (if another process is at it, there is nothing to do)
//   2. find the dead: kActive records whose byte is free
//   3. run the repairers in their order; each is idempotent and looks only at what is tagged with
//      a dead owner, so that running it twice, or half and then whole, is the same as once
//   4. mark the records free
//   5. run the finishers: work that needs the records to be free, such as sweeping the heap
//
// Killed at any instruction: the kernel frees the recovery byte, the records are still kActive, and
// the next runner does all of it again; after 4 the heap's dirty flag remembers what 5 would do.
#pragma once

#include <functional>
#include <mutex>
#include <new>
#include <vector>

#include "arena/owners.hpp"

namespace celeriac {

class DeadOwners {
 public:
  DeadOwners(std::vector<OwnerTag> tags, bool interrupted)
      : tags_(std::move(tags)), interrupted_(interrupted) {}

  bool contains(OwnerTag tag) const {
    for (const OwnerTag& t : tags_) {
      if (t == tag) return true;
    }
    return false;
  }
  const std::vector<OwnerTag>& tags() const { return tags_; }
  // At least one of them died inside an operation: sweep and count anew.
  bool interrupted() const { return interrupted_; }

 private:
  std::vector<OwnerTag> tags_;
  bool interrupted_;
};

class Recovery {
 public:
  using Repairer = std::function<void(const DeadOwners&)>;

  explicit Recovery(Owners& owners) : owners_(owners) {}

  // REQUIRES: idempotent, killable at any point, bounded. Called in the order of adding.
  void add(Repairer repairer) { repairers_.push_back(std::move(repairer)); }

  void add_finisher(Repairer finisher) { finishers_.push_back(std::move(finisher)); }

  // Reaps all dead owners; returns how many. Thread-safe. Never blocks.
  // Crash-safe: as above.
  int run();

  // What run() does for the dead, for this process itself, as it leaves.
  void release_own(OwnerTag tag);

  void after_fork_in_child() noexcept { new (&mutex_) std::mutex; }

 private:
  Owners& owners_;
  std::mutex mutex_;  // OFD locks don't exclude threads of one process
  std::vector<Repairer> repairers_;
  std::vector<Repairer> finishers_;
};

}  // namespace celeriac
