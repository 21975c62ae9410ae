// Concurrency limits: at most so many are in at once, of all processes of the store, by name.
//
//   record   a block for each name in use: the limit, chunks of places, who waits (sync/room.hpp)
//   place    a tagged word. Who is in has one: kIn, its owner, a generation
//
// Places: 64, 64, 128, 256 ... in chunks that are made when they are needed and stay with the
// record. A limit may change while it is in use: whoever names one last has set it, for everybody.
//
// States of a place, and transitions
//   kOut -> kIn(o)   enter()   one CAS: being in and being known to be in are one step (T1)
//   kIn(o) -> kOut   leave()   one CAS from exactly that word; repair(), for an owner that is dead
// States of a record, under the directory's mutex
//   kUsed(g)          its name leads to it
//   kVacant(g + 1)    no name: the next new one takes it. A record gives way when nobody is in or
//                     waits and there is no other to be had, so that names come and go (one for
//                     each client of a site) and only 1,024 of them are in use at a time
//   kVacant(g + 1) -> kUsed(g + 1)   once it has its new name
//
// Invariants
//   C1  With the first `limit` places only, no more than `limit` can be in. After the limit was
//       lowered some may be in behind them: while there are, who comes takes the record's mutex and
//       counts all of them. Nobody stays in behind the limit who looks at it after he took his
//       place, as all do; so their number only falls, and who saw none needs no mutex.
//   C2  Who took a place and finds the record no longer kUsed in its generation leaves it and looks
//       for the name again; who makes a record kVacant looks at places and waiters after that, and
//       takes it back if there are any. All of that is seq_cst: one of the two sees the other. Who
//       takes the mutex from one that died in between does it for him.
//   C3  A place is left by who entered, once: the CAS has the generation.
//   C4  Whoever leaves tells all who wait. A death between leaving and telling is found by
//       recovery, which tells them.
// Killed at any instruction: who was in is out as soon as recovery has run, which each death starts
// where somebody waits (engine/local/death_watcher.hpp). Chunks that aren't linked are freed by the
// next to take a mutex from the dead.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "memory/live_blocks.hpp"
#include "sync/room.hpp"
#include "sync/tagged_word.hpp"

namespace celeriac {

struct ConcurrencyRef {
  layout::ConcurrencyRecord* record = nullptr;
  std::uint32_t index = 0;
  std::uint32_t generation = 0;
};

// What a place was taken with; leave() gives it back.
struct ConcurrencyPlace {
  ConcurrencyRef in;
  std::uint32_t number = 0;
  TaggedWord word;
};

struct ConcurrencyUse {
  std::string name;
  std::uint32_t limit = 0, inside = 0;
};

class Concurrency {
 public:
  static constexpr std::uint32_t kMostPlaces = 64U << (layout::kConcurrencyChunks - 1);
  enum class Entered { kIn, kFull, kGone };

  explicit Concurrency(Base& base)
      : base_(base),
        directory_(*base.arena.fixed<layout::ConcurrencyDirectory>(layout::kConcurrency)) {}

  // The record of a name, made on first use. kConfiguration for a bad
  // name or limit; kNotEnoughMemory when 1,024 names have somebody in, or without memory.
  // Thread-safe. Crash-safe: a record counts when it is complete.
  // `set`: also an existing one's limit. Else `limit` is for one that has to be made.
  Result<ConcurrencyRef> open(std::string_view name, std::uint32_t limit, bool set, OwnerTag me);
  bool current(const ConcurrencyRef& ref) const;
  static std::uint32_t limit(const ConcurrencyRef& ref) {
    return ref.record->limit.load(std::memory_order_relaxed);
  }

  // Takes a place if there is one. kGone: the name has another record by now. kNotEnoughMemory,
  // kLockTimeout. Thread-safe, lock-free but after a limit was lowered. Crash-safe: one CAS.
  Result<Entered> enter(const ConcurrencyRef& ref, OwnerTag me, ConcurrencyPlace* taken);
  // Gives it back; kNotOwner when it isn't this process's (any more). Thread-safe.
  // Crash-safe: one CAS; C4.
  Status leave(const ConcurrencyPlace& taken, OwnerTag me);
  // How many are in.
  std::uint32_t inside(const ConcurrencyRef& ref);
  // The names that somebody is in, for people. A moment's view of each.
  std::vector<ConcurrencyUse> list();

  // Says that the caller is about to sleep; what to sleep on, after another enter().
  // Crash-safe: as await_room().
  static std::uint32_t await(const ConcurrencyRef& ref) { return await_room(ref.record->room); }
  // Sleeps until somebody may have left; looks up after poll_ns. kInterrupted.
  static Status wait(const ConcurrencyRef& ref, std::uint32_t seen, std::uint64_t deadline_ns,
                     std::uint64_t poll_ns);
  // Everybody who waits looks again. Crash-safe: as made_room().
  void wake_all();

  // Recovery: places of these owners are free. Crash-safe: idempotent.
  void repair(const DeadOwners& dead);
  // After a heap that looked strange: blocks that it doesn't have are forgotten.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

 private:
  static constexpr unsigned kUsed = 1, kVacant = 2;
  static constexpr unsigned kOut = 0, kIn = 1;

  std::uint32_t high() const {
    return std::min(directory_.high.load(std::memory_order_acquire), layout::kMaxConcurrencies);
  }
  layout::ConcurrencyRecord* at(std::uint32_t index);
  // Null when its chunk isn't there.
  layout::Word* place(layout::ConcurrencyRecord& r, std::uint32_t number);
  std::uint32_t count(layout::ConcurrencyRecord& r, std::uint32_t from, std::uint32_t to);
  static void tell(layout::ConcurrencyRecord& r) { made_room(r.room, 1 << 30); }

  // REQUIRE the directory's mutex.
  ConcurrencyRef find(std::string_view name);
  Result<layout::ConcurrencyRecord*> fresh_record(std::uint32_t index, OwnerTag me);
  Result<ConcurrencyRef> make(std::string_view name, OwnerTag me);
  layout::ConcurrencyRecord* vacant(std::uint32_t* index);
  bool make_vacant(layout::ConcurrencyRecord& r);
  void settle(OwnerTag me);

  // REQUIRES the record's mutex.
  Status add_chunks(layout::ConcurrencyRecord& r, std::uint32_t places, OwnerTag me);
  void settle_chunks(layout::ConcurrencyRecord& r, OwnerTag me);
  Status set_limit(layout::ConcurrencyRecord& r, std::uint32_t limit, OwnerTag me);

  Result<Entered> take(const ConcurrencyRef& ref, std::uint32_t limit, OwnerTag me,
                       ConcurrencyPlace* taken);

  Base& base_;
  layout::ConcurrencyDirectory& directory_;
};

}  // namespace celeriac
