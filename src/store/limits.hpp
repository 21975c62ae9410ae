// Rate limits: for each key and rate one word (store/rates.hpp), in tables of their own.
//
// A limit is one rate or several, under a name. The state of a key is found by a 58-bit keyed hash
// of key, name, form and period, so that a limit whose count or burst changes goes on with what its
// keys have used; keys themselves aren't kept. Two of a million keys share a state with a chance of
// one in half a million.
//
//   shard   one of 64, by hash; all rates of one key are in the same
//   level   a table of a shard: buckets of four slots, 64 bytes. A key may lie in any of the kProbe
//           buckets that its hash leads to in each level. Levels are only ever added, each about
//           half as large as all before it together, and neither moved nor given back: so who
//           stopped anywhere writes into a slot at worst, never into what has become another's
//           memory.
//   slot    {tag, state}. The tag names the key, its form and period; the state is its word.
//
// States of a slot
//   nobody's   state 0, whatever the tag. A tag of 0 was never used, and never comes back
//   a key's    state not 0
// Transitions, the last two under the shard's mutex
//   a key's -> a key's     a hit: one CAS of the state from the word that the verdict was about
//   a key's -> nobody's    its word is idle() (R4): one CAS. Whoever needs a slot does it
//   nobody's -> a key's    store the tag, then the state
//
// Single rates. A hit is: find the tag; read the state; read the tag again; decide; CAS the state.
// No mutex, no store but the CAS, exact over all processes: of words that are equal only one CAS
// wins. The first hit of a key takes the mutex to get a slot.
//
// Several rates are one decision, under the shard's mutex, which names its owner and is taken over
// from the dead (sync/owner_mutex.hpp). Without a mutex the rates would be taken one after another
// and given back when a later one refuses, and meanwhile others would be refused by what isn't
// used: not exact. Nobody else writes these words: a list's have tags of their own, so that no hit
// of a single rate meets them. What is about to change is written down first: places and states
// before, then `changing` = how many; then the states; then `changing` = 0. Who takes the mutex
// from the dead and finds it not 0 puts the states back.
//
// Invariants
//   L1  A tag stands in one slot at most: slots are given under the mutex, after a look at all of
//       the key's buckets, and one that has the tag, and is nobody's, is the one to give.
//       (`inserts` says whether anybody got one since a look without the mutex, or died with it.)
//   L2  Within a key's buckets of a level no slot that was never used comes before one that was: so
//       a look ends at the first bucket that has one.
//   L3  A hit's CAS changes only a word of its own key. The state was a's between the two looks at
//       the tag; the slot became b's only after the state was 0, and a word of b is never one that
//       a had: of GCRA and of fixed windows it lies later than the idle one that a left, and forms
//       differ in their low bits. (Of two sliding windows of different periods the words could be
//       equal, if a's process stood still between two instructions for a whole window: then one hit
//       counts for b.)
//   L4  A level is added only when no slot of the key's buckets is nobody's or idle: memory grows
//       with the keys that are in use, and what has become idle is used again.
//   L5  No cache's pressure changes any of it: levels are blocks of the heap's own, which caches
//       give way to.
// Killed at any instruction: a hit has happened or not, of all its rates or of none; a slot is
// nobody's or a key's; a level that isn't linked is freed by the next to have the mutex.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "memory/live_blocks.hpp"
#include "store/hash.hpp"
#include "store/rates.hpp"

namespace celeriac {

// A limit as Limits::plan() makes it.
struct LimitPlan {
  struct Part {
    Rate rate;
    std::uint64_t salt = 0;
    std::uint64_t kind = 0;  // low bits of a tag
  };
  std::vector<Part> parts;
  std::uint64_t seed = 0;
};

// The verdict of all rates: of the one that refuses longest, or else has least left.
struct LimitVerdict {
  Verdict verdict;
  std::size_t which = 0;
};

// Buckets of a shard's level.
constexpr std::array<std::uint64_t, layout::kLimitLevels> limit_levels() {
  constexpr std::uint64_t kFirst = 16;
  std::array<std::uint64_t, layout::kLimitLevels> sizes{kFirst};
  std::uint64_t before = kFirst;
  for (std::size_t i = 1; i < sizes.size(); ++i) {
    sizes[i] = before < 16 * kFirst ? before : before / 2;
    before += sizes[i];
  }
  return sizes;
}

struct LimitCounts {
  std::uint64_t slots = 0, used = 0, bytes = 0;
};

class Limits {
 public:
  explicit Limits(Base& base)
      : base_(base), directory_(*base.arena.fixed<layout::LimitDirectory>(layout::kLimits)) {}

  // kConfiguration for wrong rates, or more than kMostRates; kNotEnoughMemory when the store has
  // sliding windows of kLimitPeriods other periods. Thread-safe. Crash-safe: one store.
  Result<LimitPlan> plan(std::string_view name, const std::vector<Rate>& rates, OwnerTag me);

  // Takes `cost` of all rates if all allow it, or of none. kConfiguration for a cost that can never
  // be; kNotEnoughMemory for a new key without room, kLockTimeout: nothing was taken.
  // Thread-safe; lock-free with one rate, but for a key's first hit.
  // Crash-safe: one CAS, or undone.
  Result<LimitVerdict> hit(const LimitPlan& plan, std::string_view key, std::uint64_t cost,
                           std::uint64_t now, OwnerTag me);
  // How the key stands, and whether a hit of `cost` would be allowed. Takes nothing.
  // Crash-safe: with several rates, what another left half done is undone.
  Result<LimitVerdict> peek(const LimitPlan& plan, std::string_view key, std::uint64_t cost,
                            std::uint64_t now, OwnerTag me);
  // Gives `cost` back, as far as it was used. Thread-safe. Crash-safe: as hit().
  Status refund(const LimitPlan& plan, std::string_view key, std::uint64_t cost, std::uint64_t now,
                OwnerTag me);
  // As if the key had never been seen. Thread-safe. Crash-safe: as hit().
  Status reset(const LimitPlan& plan, std::string_view key, std::uint64_t now, OwnerTag me);

  // Walks over all slots; `used`: of keys that aren't idle. For people. Changes nothing.
  LimitCounts counts(std::uint64_t now);

  // After a heap that looked strange: levels that it doesn't have are forgotten.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

  static constexpr std::uint32_t kProbe = 4;
  static constexpr std::array<std::uint64_t, layout::kLimitLevels> kBuckets = limit_levels();

 private:
  using Shard = layout::LimitShard;
  using Slot = layout::LimitSlot;
  class Held;
  struct Change {
    Slot* slot = nullptr;
    std::uint64_t word = 0;
  };
  using Changes = std::array<Change, layout::kMostRates>;

  static constexpr std::uint64_t kKinds = 63;
  static constexpr std::uint64_t kKindGcra = 1, kKindFixed = 2, kKindSliding = 3;

  Shard& shard_of(std::uint64_t hash) { return directory_.shards[hash >> 58U]; }
  layout::LimitBucket* level(Shard& shard, std::uint32_t i) {
    // acquire pairs with the release in add_level(): its slots are zero, or what became of them
    const std::uint64_t block = shard.levels[i].load(std::memory_order_acquire);
    if (block == 0) return nullptr;
    return base_.arena.at<layout::LimitBucket>(aligned_object(block),
                                               kBuckets[i] * sizeof(layout::LimitBucket));
  }
  // Where in a level a tag's buckets begin.
  static std::uint64_t place_of(std::uint64_t tag, std::uint32_t level) {
    __extension__ using Wide = unsigned __int128;
    const std::uint64_t spread = fold(tag + level, 0x9E3779B97F4A7C15ULL);
    return static_cast<std::uint64_t>(Wide{spread} * kBuckets[level] >> 64U);
  }
  std::uint64_t period_of(std::uint64_t tag) const;
  Result<std::uint64_t> kind_of(const Rate& rate, OwnerTag me);
  static Status check_cost(const LimitPlan& plan, std::uint64_t cost);

  Slot* find(Shard& shard, std::uint64_t tag);
  Status hit_one(const LimitPlan& plan, std::uint64_t hash, std::uint64_t cost, std::uint64_t now,
                 OwnerTag me, Verdict* verdict);
  Status change_one(const LimitPlan& plan, std::uint64_t hash, std::uint64_t now,
                    std::uint64_t give_back);

  // REQUIRE the shard's mutex.
  void settle(Shard& shard, OwnerTag me);
  Result<Slot*> give_slot(Shard& shard, std::uint64_t tag, std::uint64_t now, const Changes& taken,
                          OwnerTag me);
  Slot* claim(Shard& shard, std::uint64_t now, std::uint64_t tag, const Changes& taken);
  Status add_level(Shard& shard, OwnerTag me);
  bool is_slot(Shard& shard, std::uint64_t place);
  void change_together(Shard& shard, const Changes& changes, std::size_t n);

  Result<LimitVerdict> all(const LimitPlan& plan, std::uint64_t hash, std::uint64_t cost, bool take,
                           std::uint64_t now, OwnerTag me);
  Status change_all(const LimitPlan& plan, std::uint64_t hash, std::uint64_t now,
                    std::uint64_t give_back, OwnerTag me);

  Base& base_;
  layout::LimitDirectory& directory_;
};

}  // namespace celeriac
