// Owners: who is attached to the arena, and who is alive.
//
// A process is a slot of the owner table and an epoch: {slot, epoch} tags everything that it
// claims. The kernel allocates slots: a process takes the first free record whose byte of
// owners.lock it can lock, and holds the byte until it ends.
//
// States of a record (OwnerRecord.word = state << 16 | epoch)
//   kFree     nobody; nothing in the arena is tagged with this slot's epoch
//   kActive   a process with this epoch registered here; alive exactly while the byte is locked
//
// Transitions
//   kFree -> kActive    register: lock the byte, then one store with epoch + 1
//   kActive -> kFree    by the owner itself when it leaves, after releasing all that it holds, and
//                       before it unlocks the byte; or by recovery, after repairing all that the
//                       dead owner left behind ("reap before reuse")
//
// Invariants
//   O1  A record is kActive and its byte unlocked only if its process is dead.
//   O2  A tag {slot, epoch} is alive only if the record is kActive with that epoch.
//   O3  Epochs of a slot never repeat within 65,535 registrations, and no tag outlives its reaping.
//
// Coming in. Before it registers, a process takes the gate byte, looks whether anybody shares the
// presence byte, runs `rebuild` if nobody does, takes a share, and opens the gate again.
//   O4  Whoever is registered has a share of the presence byte. So `rebuild` runs while nobody else
//       uses the arena, and nobody uses an arena that no `rebuild` went over since it was last left
//       alone: a process killed in `rebuild` had no share yet, and the next one begins anew.
//   O5  All who are registered in an arena lock the same file. A destroyer removes arena and lock
//       file from inside of the gate; whoever comes in looks, inside of the gate, whether both
//       still have their names.
//
// Killed at any instruction: before the store the kernel frees the byte and the record is still
// kFree; after it the record is kActive with a free byte, which is what recovery looks for.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "arena/arena.hpp"
#include "platform/fork_guard.hpp"
#include "platform/owner_lock.hpp"

namespace celeriac {

struct OwnerTag {
  std::uint16_t slot = 0;
  std::uint16_t epoch = 0;  // 0 = nobody
  bool valid() const { return epoch != 0; }
  bool operator==(const OwnerTag&) const = default;
};

struct OwnerInfo {
  OwnerTag tag;
  std::uint32_t pid = 0;
  std::uint64_t started_wall_ns = 0;
  std::string command;
  bool alive = false;
};

class Owners final : public ForkListener {
 public:
  static Result<std::unique_ptr<Owners>> open(Arena& arena);
  ~Owners() override;

  // This process's tag; registers on first use, and again in a forked child. Thread-safe.
  // kNotEnoughMemory when all 1,024 slots are taken by living processes; kLockTimeout when a
  // stopped process is in the gate; kNotFound when the store's files have been removed.
  // Crash-safe: see O1.
  Result<OwnerTag> identity();
  // The tag if this process is registered now, else an invalid one. Never registers.
  OwnerTag current() const;

  // Does the owner of this tag live? True for this process. Errs on the side of life.
  bool alive(OwnerTag tag) const;

  // Nothing tagged so can be claimed any more: its record is free, or another's by now.
  bool reaped(OwnerTag tag) const;

  // All kActive records that are dead. REQUIRES: nothing; the answer can only grow.
  std::vector<OwnerTag> dead() const;
  std::vector<OwnerInfo> list() const;

  // Marks a reaped record free. REQUIRES: dead, repaired, under the recovery byte.
  // Crash-safe: one CAS.
  void mark_free(OwnerTag tag);
  // Leaves: frees the record and the byte. REQUIRES: everything that this owner holds is released.
  // Crash-safe: as if killed.
  void leave();

  // What all registered owners have begun, and whether nobody but (once) the caller is inside of an
  // operation. Two quiet and equal answers: nobody did anything in between.
  struct Activity {
    std::vector<std::uint64_t> begun;
    bool quiet = true;
    bool operator==(const Activity&) const = default;
  };
  Activity activity(OwnerTag me) const;

  layout::OwnerRecord& record(std::uint16_t slot) {
    return arena_.fixed<layout::OwnerRecord>(layout::kOwners)[slot % layout::kMaxOwners];
  }
  const layout::OwnerRecord& record(std::uint16_t slot) const {
    return const_cast<Owners*>(this)->record(slot);
  }

  // Called when registration meets dead records and no free one.
  void set_recover(std::function<void()> recover) { recover_ = std::move(recover); }
  // Called when this process comes in and nobody else is there (O4), before it registers.
  // REQUIRES: idempotent, killable at any point, bounded; needs no identity.
  void set_rebuild(std::function<void()> rebuild) { rebuild_ = std::move(rebuild); }

  // For a destroyer: keeps others out until this attachment ends. kLockTimeout when somebody who
  // doesn't run is in the gate. Crash-safe: the kernel opens the gate.
  Status close_gate() { return enter_gate(); }

  OwnerLock& lock() { return lock_; }
  const std::string& path() const { return path_; }

  void after_fork_in_child() noexcept override;

 private:
  friend class Recovery;
  explicit Owners(Arena& arena) : arena_(arena) {}
  Status open_lock();
  Status come_in();
  Status enter_gate();
  bool take_free_slot(OwnerTag* tag);
  void describe(OwnerTag tag);

  Arena& arena_;
  std::string path_;
  OwnerLock lock_;
  std::mutex register_mutex_;
  std::atomic<std::uint64_t> generation_{0};  // fork generation in which tag_ was taken; 0 = none
  std::atomic<std::uint32_t> tag_{0};
  std::function<void()> recover_;
  std::function<void()> rebuild_;
};

// Counts an operation of this owner while it has stores to make. A dead owner whose count is zero
// left nothing half done, so recovery need not sweep. Signal fences keep the compiler from moving
// the operation's stores out; a killed process's retired stores become visible in program order.
class OperationScope {
 public:
  explicit OperationScope(layout::OwnerRecord& record) : record_(record) {
    record_.begun.fetch_add(1, std::memory_order_relaxed);
    // seq_cst pairs with the loads in Owners::activity(): who sees none of this sees none of the
    // operation's stores either
    record_.inflight.fetch_add(1, std::memory_order_seq_cst);
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  ~OperationScope() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    record_.inflight.fetch_sub(1, std::memory_order_release);  // pairs with activity()
  }
  OperationScope(const OperationScope&) = delete;
  OperationScope& operator=(const OperationScope&) = delete;

 private:
  layout::OwnerRecord& record_;
};

}  // namespace celeriac
