// Ready lanes: hints of which slots are READY, one pair of boost::lockfree::queue per queue and
// priority, redelivered messages in the front one. Truth is the slot word: a hint is worth
// something only if the CAS kReady -> kReserved with its generation succeeds.
//
// What can go wrong with hints, and why it doesn't matter
//   lost       (killed between publishing a slot and pushing, or while popping; a node leaked by
//              Boost's queue): `overflow` is set for every lane when a dead owner is reaped, and
//              the next consumer that finds the lane empty refills it from the slots
//   doubled    the second one fails its CAS
//   stale      (slot used again; Boost's 16-bit ABA): generation differs, the CAS isn't tried
//   too many   the lane is full: the slot is READY all the same, `overflow` is set
//
// What a refill finds and has no room for, it leaves in the backlog: a block of hints in their
// order, from which the next refills take. So a look at all slots gives all that is READY then, and
// a message of a million costs as much as one of a thousand.
//
// Order: while `overflow` isn't kInLane, put() doesn't push, so that nothing overtakes what waits
// in the slots; refill() takes them by their sequence numbers, up to the last number given out
// before its scan, since of those put during the scan it may see a later and not an earlier one.
//
//   overflow   kInLane -> kInSlots        put() into a full lane, recovery
//              kInSlots -> kRefilling     refill(), before it scans
//              kRefilling -> kInLane      refill(), after it has pushed all that it found; by CAS
//              kRefilling -> kInBacklog   refill(), when there was more, which is in the backlog
//                                         now; by CAS
//              kInBacklog -> kInSlots     refill() that took the rest of the backlog
//              any -> kInSlots            what didn't go into the lane and is to come before the
//                                         backlog: many redelivered ones; recovery; put() that
//                                         waited too long for the refill. The backlog is void then.
//
// Invariants
//   L1  put() publishes the slot, then reads `overflow` (both seq_cst). kInLane: it pushes.
//       kInSlots, kInBacklog: the next scan will see the slot. kRefilling: it waits for the end,
//       and when that doesn't come soon, asks for another refill. So no message is in neither
//       place.
//   L2  The priority's bit in `active` is set after a push or after `overflow`; a consumer that
//       found the lane empty clears the bit, looks again, and sets it back if there was something.
//       So with the bit clear there is nothing.
//   L3  A lane's block is replaced by one store under the queue's lanes_mutex, and freed only when
//       every living owner was seen outside of all operations since; until then pending[1] names
//       it. So whoever looks into a lane is inside an operation.
//   L4  Boost's queue trusts the indexes in its memory. So they are never older than the processes
//       that use it: whoever comes into an arena that nobody uses empties all lanes, and forgets
//       those whose blocks the heap's walk doesn't meet (rebuild()).
#pragma once

#include <bit>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "queue/directory.hpp"
#include "queue/slots.hpp"

namespace celeriac {

class Lanes {
 public:
  Lanes(Base& base, Slots& slots) : base_(base), slots_(slots) {}

  // Tells that the slot is READY. REQUIRES: it is, with this meta. `front`: before all others.
  // Crash-safe: a hint lost is found by refill().
  void push(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front, OwnerTag me);

  // Calls `claim(hint)` with candidates, most urgent and oldest first, until it returns true.
  // False when there is nothing READY. Crash-safe: as above.
  template <class Claim>
  bool pop(layout::QueueRecord& q, std::uint32_t queue_generation, OwnerTag me, Claim claim) {
    for (int word = layout::kPriorities / 64 - 1; word >= 0; --word) {
      layout::Word& active = q.active[word];
      std::uint64_t bits = active.load(std::memory_order_seq_cst);
      int rounds = 0;
      while (bits != 0) {
        const int bit = 63 - std::countl_zero(bits);
        const auto priority = static_cast<std::uint8_t>(word * 64 + bit);
        const Popped popped = pop_lane(q, queue_generation, priority, me, claim);
        if (popped == Popped::kOne) return true;
        if (popped == Popped::kStuck) {  // the bit stays: somebody will see what there is
          bits &= ~(1ULL << bit);
          continue;
        }
        active.fetch_and(~(1ULL << bit), std::memory_order_seq_cst);  // L2
        if (lane_has_something(q, queue_generation, priority)) {
          active.fetch_or(1ULL << bit, std::memory_order_seq_cst);
          // It says so again and again and gives nothing: overwritten by a stray write. So may the
          // queue's record be; then the bit stays, and who waits looks again.
          if (++rounds == kDoubt) abandon_lane(q, priority);
          if (rounds < kDoubt + 4) continue;
        }
        rounds = 0;
        bits &= ~(1ULL << bit);
      }
    }
    return false;
  }

  // Something may be READY. Never wrongly false (L2).
  static bool maybe_ready(const layout::QueueRecord& q) {
    for (const layout::Word& w : q.active) {
      if (w.load(std::memory_order_seq_cst) != 0) return true;
    }
    return false;
  }

  // Gives the lanes of a deleted queue back, as far as nobody may be looking into them: the rest
  // stays for the next queue in this place. REQUIRES: the caller is inside an operation.
  // Crash-safe: L3; a lane taken off and not freed is settled by whoever makes one next.
  void give_back(layout::QueueRecord& q, OwnerTag me);

  // Empties every lane of the queue; what isn't in a live block is forgotten. `taken`: blocks that
  // are lanes already, so that they are nobody else's too.
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void rebuild(layout::QueueRecord& q, const LiveBlocks& live,
               std::unordered_set<std::uint64_t>* taken);

  // Hints may have been lost: have every lane of the queue refilled. Crash-safe: idempotent.
  void distrust(layout::QueueRecord& q);

 private:
  static constexpr int kDoubt = 256;  // rounds of a lane that has something and gives nothing
  enum class Popped { kOne, kNone, kStuck };  // kStuck: a stopped process is refilling the lane

  template <class Claim>
  Popped pop_lane(layout::QueueRecord& q, std::uint32_t queue_generation, std::uint8_t priority,
                  OwnerTag me, Claim& claim) {
    for (int round = 0; round < 64; ++round) {
      layout::Lane* lane = this->lane(q, priority);
      layout::Hint hint = 0;
      // Bounded by what the lane can hold, so that a damaged one can't keep us here.
      for (std::uint32_t i = 0;
           lane != nullptr && i < layout::kLaneCapacity + layout::kFrontLaneCapacity &&
           (lane->front.pop(hint) || lane->main.pop(hint));
           ++i) {
        if (claim(hint)) return Popped::kOne;
      }
      if (lane != nullptr && lane->overflow.load(std::memory_order_seq_cst) == 0) {
        return Popped::kNone;
      }
      const SlotMeta meta = SlotMeta::make(q.index.load(std::memory_order_relaxed),
                                           static_cast<std::uint16_t>(queue_generation), priority);
      bool stuck = false;
      const std::optional<layout::Hint> first = refill(q, meta, me, &stuck);
      if (!first) return stuck ? Popped::kStuck : Popped::kNone;
      if (*first != kPushed && claim(*first)) return Popped::kOne;
    }
    return Popped::kNone;
  }

  static constexpr layout::Hint kPushed = ~0ULL;
  std::optional<layout::Hint> oldest(SlotMeta meta);
  static bool push_main(layout::Lane& lane, layout::Hint hint, bool front);
  layout::Lane* lane(layout::QueueRecord& q, std::uint8_t priority);
  // A lane in place of `old` (0 = of none), or the one that another put there meanwhile.
  layout::Lane* make_lane(layout::QueueRecord& q, std::uint8_t priority, std::uint64_t old,
                          OwnerTag me);
  bool settle(layout::QueueRecord& q, OwnerTag me);
  void drop_backlog(layout::Lane& lane, OwnerTag me);
  bool keep_backlog(layout::Lane& lane,
                    const std::vector<std::pair<std::uint64_t, layout::Hint>>& all,
                    std::size_t from, OwnerTag me);
  std::size_t push_backlog(layout::Lane& lane);
  layout::Lane* lane_at(std::uint64_t block);
  bool nobody_inside(OwnerTag me);
  void abandon_lane(layout::QueueRecord& q, std::uint8_t priority);
  bool lane_has_something(layout::QueueRecord& q, std::uint32_t queue_generation,
                          std::uint8_t priority);
  std::vector<std::pair<std::uint64_t, layout::Hint>> ready_slots(SlotMeta meta);
  // Pushes READY slots into the lane in their order. Nothing: there were none. kPushed: look into
  // the lane. A hint: the lane took none, or can't be refilled now (`stuck`), here is the first.
  std::optional<layout::Hint> refill(layout::QueueRecord& q, SlotMeta meta, OwnerTag me,
                                     bool* stuck);

  Base& base_;
  Slots& slots_;
};

}  // namespace celeriac
