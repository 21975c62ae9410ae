// Locks by name, for all processes of a store: held by as many as have a permit, first come first
// served, until released, until the holder's lease ends, or until its process dies.
//
// A lock is nothing but the seats (lock_seats.hpp) that name it: it begins with the first of them
// and ends with the last, so that names that nobody uses take no memory. Its bucket, one of 512 by
// hash, has a mutex and a chain of rings; a ring is the seats of one lock, doubly linked in their
// order. So the ring's first seats hold, and behind them wait the others.
//
//   enter    take a seat; bucket's mutex; join the ring at its end: holding when a permit is free
//            and nobody waits, else waiting
//   release, leave   bucket's mutex; out of the ring; kFree; settle
//   settle   from the ring's first seat on: out with those that are kLeft, whose lease is over, or
//            whose owner is reaped; grant to who waits as long as permits are free
//   wait     sleep on the seat's own `signal`, which is changed and woken by who grants
//
// Invariants
//   N1  Who holds is what the seats' words say, and no more than `permits` of a lock do: granting
//       and joining are done under the bucket's mutex alone, and a dead or late holder's seat is
//       taken out, by one store, before the next is granted.
//   N2  First come, first served: `order` rises with each that joins, and the first that waits is
//       granted first. Nobody passes who waits.
//   N3  Whoever changes a ring settles it before he lets go of the mutex. So a permit is free only
//       while nobody waits.
//   N4  A seat is changed from kWaiting, kHolding or kLeft by who has the mutex; but for recovery,
//       which marks the seats of the dead kLeft without it, and settles their locks afterwards.
//   N5  Rings, chains and places in them are hints: who takes the mutex from the dead makes those
//       of the bucket anew from the words and their order, and so does who finds them damaged.
//   N6  Of those that wait the first alone watches the leases of the holders, so that their end
//       wakes one. Whoever makes another the first, or shortens a lease, wakes him to look.
//   N7  A holder that is late, by any time, finds its seat not its own any more, or its lease over
//       though nobody came: either way it is told (kLockLost), and has changed nothing that is
//       another's.
//
// Killed at any instruction:
//   before the seat's word says that it waits or holds   recovery frees the seat
//   after it                                             a holder or waiter that is dead: N4
//   in the middle of a ring, with the mutex              N5
//   having granted, before the wake                      recovery wakes all who wait or were just
//                                                        granted, when one died inside an operation
//
// Threads of one process are separate owners: who it is that holds is known by his place alone.
// A forked child has its parent's places, and another owner's tag: it is told kNotOwner.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arena/recovery.hpp"
#include "store/lock_seats.hpp"
#include "sync/owner_mutex.hpp"

namespace celeriac {

constexpr std::size_t kMaxLockName = 1024;
constexpr std::uint32_t kMaxPermits = 65'535;

// Which lock. `first` and `second` stand for the name.
struct LockName {
  LockName(std::string_view name, std::uint32_t most, std::uint64_t seed);
  std::string_view text;
  std::uint32_t permits;
  std::uint64_t first, second;
};

// One acquisition: index and generation of its seat.
struct LockPlace {
  std::uint32_t index = 0;
  std::uint32_t generation = 0;  // 0 = none
  bool valid() const { return generation != 0; }
};

struct LockEntered {
  LockPlace place;          // none: it isn't free, and `wait` was false
  std::uint64_t token = 0;  // 0: waits
  bool stale = false;       // it isn't free, but a holder is dead: recovery frees it
};

enum class Standing { kGone, kWaits, kHolds };

struct LockWatched {
  Standing standing = Standing::kGone;
  std::uint64_t look_at = kNever;  // when a lease ends that keeps it from holding
};

// A seat, for people.
struct LockHolder {
  std::string name;
  OwnerTag owner;
  std::uint64_t token = 0;
  std::uint64_t since = 0;
  std::uint64_t until = kNever;
  std::uint32_t permits = 1;
  bool holds = false;
};

class Locks {
 public:
  explicit Locks(Base& base)
      : base_(base),
        seats_(base),
        buckets_(base.arena.fixed<layout::LockBucket>(layout::kLockBuckets)) {}

  LockName name(std::string_view text, std::uint32_t permits) const {
    return {text, permits, base_.arena.header().fixed.hash_seed};
  }

  // Takes the lock, or a place in its line if `wait`. `lease_ns` 0 = none. kConfiguration when the
  // lock has another number of permits; kNotEnoughMemory; kLockTimeout when a stopped process has
  // the bucket. Thread-safe. Crash-safe: E1; the word is the last that is written.
  Result<LockEntered> enter(const LockName& name, std::uint64_t lease_ns, bool wait, OwnerTag me);
  // What has become of who waits; settles the lock. kLockTimeout as enter().
  // Thread-safe. Crash-safe: as release().
  Result<LockWatched> watch(LockPlace place, OwnerTag me);
  // What the word says, without a mutex; `token` when it holds, `signal` for a sleep thereafter.
  Standing look(LockPlace place, OwnerTag me, std::uint64_t* token, std::uint32_t* signal);
  // The futex of a place; null when there is none.
  layout::HalfWord* signal(LockPlace place);

  // Gives the lock up. kNotOwner: it is another's; kLockLost: it isn't held any more.
  // Thread-safe. Crash-safe: the seat is out of the ring, and free, by one store; the rest is N5.
  Status release(LockPlace place, OwnerTag me);
  // Gives up a place that waits, or holds by now; and wakes who sleeps on it. Nothing when it is
  // neither. Thread-safe. Crash-safe: as release().
  void leave(LockPlace place, OwnerTag me);
  // The lease lasts `lease_ns` from now, 0 = without end. Errors as release().
  // Thread-safe. Crash-safe: one store.
  Status renew(LockPlace place, std::uint64_t lease_ns, OwnerTag me);

  // kConfiguration when those who use the lock now use another number of permits.
  // Crash-safe: as holders().
  Status agree(const LockName& name, OwnerTag me);
  // Who holds, in the order in which they came, and how many wait. The dead don't count. Settles
  // the lock. Crash-safe: as release().
  Result<std::vector<LockHolder>> holders(const LockName& name, std::uint64_t* waiting,
                                          OwnerTag me);
  // All who hold or wait for any lock. A moment's view of each.
  std::vector<LockHolder> list();

  // Recovery. Crash-safe: idempotent.
  void repair(const DeadOwners& dead);
  // Nobody holds anything. REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void rebuild(const LiveBlocks& live);
  // Wakes those who wait, of one owner or of all, to look whether their store is still there.
  // Crash-safe: changes no truth.
  void wake(OwnerTag whose);
  // Crash-safe: as wake().
  void wake_all() { wake({}); }

 private:
  class Section;
  struct Ring {
    std::uint32_t first = 0;  // seat + 1, 0 = there is none
    std::uint32_t holding = 0;
    std::uint32_t waiting = 0;       // the first that waits, seat + 1
    std::uint64_t ends_at = kNever;  // when the first lease does
  };

  layout::LockBucket& bucket_of(std::uint64_t first) const {
    return buckets_[first % layout::kLockBucketCount];
  }
  layout::LockSeat* held_seat(LockPlace place, OwnerTag me);
  Status not_mine(LockPlace place, OwnerTag me);
  static LockHolder shown(const layout::LockSeat& seat, TaggedWord w);
  void fill(layout::LockSeat& seat, const LockName& name, std::uint64_t lease_ns);
  bool find(const layout::LockBucket& b, std::uint64_t first, std::uint64_t second,
            std::uint32_t* ring);
  bool look_up(Section& s, std::uint64_t first, std::uint64_t second, Ring* ring);
  bool any_dead(const Ring& ring);
  void join(layout::LockBucket& b, std::uint32_t first, std::uint32_t index);
  bool unlink(layout::LockBucket& b, std::uint32_t index, std::uint32_t* first);
  bool take_out(Section& s, std::uint32_t place, Ring* ring);
  void drop(Section& s, std::uint32_t index);
  bool grant(layout::LockSeat& seat, TaggedWord from, std::uint64_t now);
  bool is_over(const layout::LockSeat& seat, std::uint64_t* now) const;
  bool settle(Section& s, std::uint32_t first, Ring* ring, bool changed = false);
  void relink(layout::LockBucket& b);
  void damaged(layout::LockBucket& b);
  bool tidy(layout::LockBucket& b, OwnerTag me);
  void wake_bucket(const layout::LockBucket& b);

  Base& base_;
  LockSeats seats_;
  layout::LockBucket* buckets_;
};

}  // namespace celeriac
