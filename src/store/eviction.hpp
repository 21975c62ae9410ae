// Eviction: where a new entry goes, and which ones leave.
//
// S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, "FIFO queues are all you need for cache eviction", SOSP
// 2023) with a small queue that adapts as ARC's target does (Megiddo and Modha, FAST 2003). Each
// log has a small queue, a main queue, and a ghost of each. Hits only raise an entry's two
// frequency bits, up to 3.
//
//   new key                goes to the small queue; to the main one when a ghost knows it
//   end of the small queue frequency >= 2: to the main queue, from 0 again; 1: once more through
//                          the small queue, from 0; 0: out, to the ghost of small
//   end of the main queue  frequency > 0: once more through the main queue, one less; 0: out, to
//                          the ghost of main
//   which end              the small queue's, while it has its share of the log or more
//   the share              begins at 10 %; a hit in the ghost of small raises it by
//                          max(1, |ghost of main| / |ghost of small|) entries, a hit in the ghost
//                          of main lowers it likewise; 1 % to 99 %
//   more than 3/8          of the log are the small queue's: what was read last counts more than
//                          what was read often. So nothing goes from its end to the main queue,
//                          and a second round begins from frequency 0 in either.
//   a new value            stays in its key's queue, with its key's frequency
//
// A log with max_entries first loses what was cleared, from either queue.
//
// "Through the queue once more" is a copy to the young end of the segments, since the queues are
// the memory. A log with max_entries is evicted entry by entry, as a new key comes. Memory is
// evicted by whole segments, since only they can be given back: what is drained next (the victim)
// is
//   1. a segment whose latest expiry is past,
//   2. the segment with the most garbage, when that is a quarter of it or more: what lives in it
//      moves to the young end of its queue,
//   3. the oldest segment of the small or main queue of the largest log.
// A victim isn't drained at once: while memory is short, each reservation takes twice its own bytes
// off it, so that no single set has to wait for a whole segment.
//
// Killed at any instruction: an entry is in its old place or its new one, or unlinked; cursors, the
// victim and the shares are where they were left.
#pragma once

#include <array>
#include <cstdint>
#include <iterator>
#include <optional>
#include <vector>

#include "store/ghosts.hpp"
#include "store/index.hpp"
#include "store/namespaces.hpp"
#include "store/segments.hpp"

namespace celeriac {

class Eviction {
 public:
  Eviction(Base& base, Namespaces& spaces, Segments& segments, Index& index)
      : base_(base), spaces_(spaces), segments_(segments), index_(index) {}

  // Room for an entry of a cache, evicting what must leave for it. `old`: what the key leads to
  // now, if anything. kNotEnoughMemory, kLockTimeout.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: the room of a dead caller is garbage; evictions entry by entry, as delete.
  Result<Reserved> reserve(const EntryHead& head, std::uint64_t hash, IndexWord old,
                           std::uint64_t now, OwnerTag me);
  // Is a living process, right now, writing an entry whose segment can't give way until it's done?
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  bool being_written(OwnerTag me);
  // The entry wasn't linked. Thread-safe. Crash-safe: the room stays counted until its segment
  // goes.
  void abandon(const Reserved& r, OwnerTag me);
  // Gives back what Index::link() and unlink() left. REQUIRES: no mutex. Thread-safe.
  // Crash-safe: what isn't given back is found when memory is short, or by a sweep of the heap.
  void collect(const Leftover& left, OwnerTag me);

  // Gives back what the dead left of large values (S6). Thread-safe.
  // Crash-safe: idempotent.
  void repair(const DeadOwners& dead, OwnerTag me);

  // Makes room for a block of `bytes`, header included, where it belongs (memory/heap.hpp): what
  // the cache has there moves away, or is evicted when there is no other room. Returns the bytes
  // freed, 0 when there is nothing to give.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  std::uint64_t push(std::uint64_t bytes, OwnerTag me);
  // The same; when the cache has nothing to give, expired entries of tables go.
  // Crash-safe: as push().
  std::uint64_t make_room(std::uint64_t bytes, OwnerTag me);

  // Evicts by the policy until a segment is given back; its bytes, 0 when there is nothing.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  std::uint64_t evict(OwnerTag me);
  enum class Vacated { kGone, kBusy, kStuck };  // busy: being written; stuck: no mutex to be had
  // A segment has to leave its place (store/resize.hpp): what lives in it moves to the young end of
  // its queue, and is evicted only when no room for it can be had by evicting older ones.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: entry by entry, as delete; X1 of store/index.hpp.
  Vacated vacate(std::uint32_t number, OwnerTag me);
  // Forgets ghosts whose block has to leave its place; there are new ones with the next evictions.
  // Thread-safe. Crash-safe: as Ghosts::drop().
  void vacate_ghosts(OwnerTag me);

  // A cache that has got its first limit: its entries move from the common log to its own, so that
  // they count there, and are evicted where no room for them can be had. Thread-safe.
  // REQUIRES: the caller holds no mutex of the arena.
  // Crash-safe: entry by entry, as delete; what is left in the common log moves when it is drained.
  void gather(std::uint32_t space, OwnerTag me);

  // Removes n entries of one namespace, about the oldest; returns how many. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  std::uint64_t cull(std::uint32_t space, std::uint64_t n, OwnerTag me);

  // Unlinks what has expired or was cleared, of all namespaces and in every segment; then no sweep
  // is due (N7 of store/namespaces.hpp). False when the mutex of a shard couldn't be had: the rest
  // is gone. REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  bool drop_absent(OwnerTag me);

  using SweptBucket = std::array<Leftover, std::size(layout::Bucket{}.ways)>;
  // Unlinks what has expired in one more bucket of the shard, if it is a table's: what nobody asks
  // for again goes as others come. REQUIRES: the shard's mutex. Thread-safe.
  // Crash-safe: entry by entry, as delete; what wasn't collected is found by a sweep of the heap.
  void sweep_on(std::uint32_t shard, SweptBucket* left, OwnerTag me);

  // An entry that is linked and goes is counted as evicted or expired; one that was cleared, or set
  // under an earlier name of the place, isn't.
  // REQUIRES: the shard's mutex. Thread-safe. Crash-safe: one increment, before the entry goes.
  void count_out(const Found& entry, OwnerTag me);

 private:
  enum class Fate : std::uint32_t { kPolicy, kKeep, kDrop, kPush };
  struct Step {
    // kStuck: a mutex couldn't be had. kBusy: somebody is still writing into it.
    enum { kMore, kGone, kMoved, kStuck, kBusy } what = kMore;
    std::uint64_t bytes = 0;  // looked at, or given back
  };
  std::uint32_t log_of(std::uint32_t space) const {
    return spaces_.max_entries(space) == 0 ? 0 : space_index(space) + 1;
  }
  Result<Reserved> room_for(SegmentPlace to, const EntryHead& head, RoomFor what, OwnerTag me);
  std::uint32_t queue_for(std::uint32_t log, std::uint64_t hash, std::uint64_t limit);
  std::uint32_t queue_to_drain(std::uint32_t log, std::uint64_t limit);
  void notice_clear(std::uint32_t log, std::uint32_t space, std::uint64_t now);
  void fit_ghosts(layout::LogRecord& log, std::uint64_t entries, OwnerTag me);
  void hold_limit(std::uint32_t log, std::uint64_t limit, OwnerTag me);
  void pay(std::uint64_t bytes, OwnerTag me);
  std::uint32_t choose_victim(Fate* fate, OwnerTag me);
  std::uint64_t reclaim(OwnerTag me);
  Step drain(std::uint32_t number, Fate fate, OwnerTag me);
  Step step(std::uint32_t number, Fate fate, OwnerTag me);
  void judge(std::uint32_t number, Found& entry, const Place& place, Fate fate, OwnerTag me);
  bool relocate(std::uint32_t number, Found& entry, const Place& place, std::uint32_t queue,
                unsigned frequency, Fate fate, OwnerTag me);
  void gather_from(std::uint32_t number, std::uint32_t space, OwnerTag me);
  std::vector<std::uint64_t> window(std::uint64_t bytes, Fit fit, OwnerTag me);
  std::uint64_t clear_window(std::uint64_t bytes, Fit fit, OwnerTag me);
  std::uint32_t segment_of(std::uint64_t block);
  bool in_a_closed_segment(std::uint64_t block);
  std::uint64_t cull_segment(std::uint32_t number, std::uint32_t space, std::uint32_t generation,
                             std::uint64_t n, std::vector<Leftover>* left, OwnerTag me);
  template <class Gone>
  std::optional<std::uint64_t> sweep_shard(std::uint32_t shard, OwnerTag me, Gone gone);
  std::uint64_t drop_expired_blocks(OwnerTag me);

  Base& base_;
  Namespaces& spaces_;
  Segments& segments_;
  Index& index_;
  std::uint32_t without_ghosts_ = 0;  // how often not to ask; under the directory's mutex
};

}  // namespace celeriac
