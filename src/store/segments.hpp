// The cache's memory: logs of segments, so that the heap only sees blocks of one size (and large
// values) and no entry pays for a block of its own.
//
//   log      what is evicted together: one for all namespaces, one for each with max_entries
//   queue    small or main (store/eviction.hpp): a chain of segments in the order of their opening
//   segment  a record, and a heap block with entries back to back, appended until it is full. A
//            value that is larger than half a segment gets a segment of its own ("single").
//
// Each queue has an open segment for every class of lifetimes that is in use, so that entries which
// expire at about the same time lie together and their segment can be taken whole.
//
// States of a segment (SegmentRecord.word = {state | who made it, if single | generation})
//   kFree      no block; the record is in the free list
//   kWritable  entries that were reserved in it may be linked into the index
//   kDraining  no entry that isn't linked yet may be linked any more; linked ones are still good
//
// Transitions, all under the directory's mutex
//   kFree -> kWritable      add()    block and fields first, then the word with a new generation
//   kWritable -> kDraining  seal()   before the first look at its entries
//   any -> kFree            remove() no index word leads to it; the word first, then the block
//
// Invariants
//   S1  The index is the truth: an entry is there iff an index word leads to it. Bytes that none
//       leads to are garbage: overwritten, deleted, or left by a writer that died.
//   S2  A segment's entries can be walked from the first to `used`: sizes are written before `used`
//       counts them.
//   S3  A writer links an entry under its shard's mutex, and only while the segment is kWritable
//       with the generation it reserved in. Who drains seals first and then takes the shard's mutex
//       for each entry: so it meets each linked entry, and none is linked behind it. The two sides
//       are ordered by seq_cst fences (seal(), writable()).
//   S4  `live` is what is linked or reserved: never less, but for damage. More, when a writer died;
//       it goes with the segment.
//   S5  Lock order: directory, shard, heap.
//   S6  What a dead process left of large values is given back when it is reaped: single segments
//       of its making that nothing leads to, and all segments in which nothing lives.
//   S7  Memory is given back only when everybody who reserved in it has completed the entry,
//       whether linked or not, or is dead: each entry names its writer until then
//       (store/entry.hpp).
// Killed at any instruction: who takes the directory's mutex from the dead rebuilds all chains, the
// free list and the open segments from the records, and settles the blocks in `pending`.
#pragma once

#include <cstdint>
#include <optional>

#include "memory/base.hpp"
#include "store/entry.hpp"

namespace celeriac {

enum : std::uint32_t { kSmallQueue = 0, kMainQueue = 1 };

// Where an entry is: 36 bits.
//   {0:1 | segment:19 | place / 2:16}   in a segment
//   {1:1 | block / 16:35}               alone in a heap block: an entry of a table
struct Location {
  std::uint64_t bits = 0;

  static constexpr Location in_segment(std::uint32_t segment, std::uint64_t at) {
    return {static_cast<std::uint64_t>(segment) << 16U | at / 2};
  }
  static constexpr Location in_block(std::uint64_t block) { return {1ULL << 35U | block / 16}; }
  constexpr bool pinned() const { return (bits >> 35U & 1U) != 0; }
  constexpr std::uint64_t block() const { return (bits & 0x7FFFFFFFFULL) * 16; }
  constexpr std::uint32_t segment() const {
    return static_cast<std::uint32_t>(bits >> 16U & 0x7FFFFU);
  }
  constexpr std::uint64_t at() const { return (bits & 0xFFFFU) * 2; }
  constexpr bool operator==(const Location&) const = default;
};

// {entries:28 | bytes:36}
struct Live {
  std::uint64_t bits = 0;
  static constexpr Live one(std::uint64_t bytes) { return {1ULL << 36U | bytes}; }
  constexpr std::uint64_t entries() const { return bits >> 36U; }
  constexpr std::uint64_t bytes() const { return bits & 0xFFFFFFFFFULL; }
};
inline Live load_live(const layout::Word& w) { return {w.load(std::memory_order_relaxed)}; }
void add_live(layout::Word& w, Live what);
// Never below zero: counts are hints. Returns what is left.
Live subtract_live(layout::Word& w, Live what);

// SegmentRecord.place
struct SegmentPlace {
  bool single = false;
  std::uint32_t queue = 0;
  std::uint32_t life = 0;
  std::uint32_t log = 0;
  constexpr std::uint32_t pack() const {
    return (single ? 1U << 31U : 0) | queue << 30U | life << 16U | log;
  }
  static constexpr SegmentPlace unpack(std::uint32_t w) {
    return {(w >> 31U) != 0, w >> 30U & 1U, (w >> 16U) % layout::kLifeClasses,
            (w & 0xFFFFU) % layout::kLogCount};
  }
};

// Room for an entry: what a writer fills and then links.
struct Reserved {
  Location location;
  EntryPlace place;
  EntryHead head;
  std::uint64_t word = 0;  // the segment's, when the room was reserved
};

enum class RoomFor {
  kNew,      // a new entry
  kDrained,  // one that stays when its segment is drained
  kPushed,   // one that makes room for what isn't the cache's: the arena may grow for it
};

class Segments {
 public:
  enum : unsigned { kFree = 0, kWritable = 1, kDraining = 2 };

  explicit Segments(Base& base) : base_(base) {}

  layout::SegmentDirectory& directory() {
    return *base_.arena.fixed<layout::SegmentDirectory>(layout::kSegments);
  }
  layout::LogRecord& log(std::uint32_t i) {
    return base_.arena.fixed<layout::LogRecord>(layout::kLogs)[i % layout::kLogCount];
  }
  std::uint32_t high();
  // Null when there is no such record.
  layout::SegmentRecord* record(std::uint32_t number);
  // Where the entry is; `guard` is the word that changes when it isn't any more, `before` what it
  // was. False when there is nothing.
  bool resolve(Location where, EntryPlace* place, layout::Word** guard, std::uint64_t* before);
  // May the entry be linked? REQUIRES: its shard's mutex.
  bool writable(const Reserved& r);

  // Bytes of an ordinary segment's payload: 1/1024 of the arena, 4 to 128 KiB.
  std::uint64_t ordinary() const;
  // Would the next segment have to be drained from others? A hint.
  bool scarce() const;
  // Above it an entry gets a segment of its own.
  std::uint64_t largest_shared() const { return ordinary() / 2; }
  static std::uint32_t life_class(std::uint64_t expires, std::uint64_t now);

  // Everything below REQUIRES the directory's mutex.

  // Room in the open segment of that place, or nothing: then add() one.
  // Crash-safe: S2; the room of a dead writer is garbage.
  std::optional<Reserved> append(SegmentPlace to, const EntryHead& head, OwnerTag me);
  // The last room of an open segment is free again, if nothing will be linked there.
  // Crash-safe: one store; garbage before it.
  void take_back(const Reserved& r);
  // A new segment with `bytes` of payload at the young end of its queue, open unless it is single;
  // its number. Not kNew: from the spare blocks, if need be. kNotEnoughMemory: the caller may
  // make room and ask again.
  // Crash-safe: the record counts when it is complete.
  Result<std::uint32_t> add(SegmentPlace to, std::uint64_t bytes, RoomFor what, OwnerTag me);
  // Room for the only entry of a single segment. Crash-safe: as append().
  Reserved fill_single(std::uint32_t number, const EntryHead& head, OwnerTag me);
  // kWritable -> kDraining, and no longer open. Crash-safe: one store.
  void seal(std::uint32_t number);
  // Is a living process writing into it? Then its memory can't be given back yet (S7).
  bool being_written(std::uint32_t number);
  // Nothing is left to be decided in it.
  static bool drained(const layout::SegmentRecord& r);
  // The oldest segment of a queue that can be drained further or given back, 0 = none.
  std::uint32_t oldest(std::uint32_t log, std::uint32_t queue);
  // Frees the segment, or keeps its block as a spare one if it may. REQUIRES: no index word leads
  // to it, and nobody is writing into it.
  // Crash-safe: the word first; the block is settled by `pending`.
  void remove(std::uint32_t number, OwnerTag me, bool may_spare = true);
  // The spare blocks become free; false when there are none.
  // Crash-safe: each is settled by `pending`.
  bool give_up_spares(OwnerTag me);
  // A single segment changes its log or queue, and goes to the young end.
  // Crash-safe: chains are rebuilt.
  void move(std::uint32_t number, std::uint32_t log, std::uint32_t queue);
  bool is_open(std::uint32_t number);
  // What was a chunk of records isn't any more: who still looks there finds that its segment is
  // kFree. REQUIRES: no structure leads to the block. Crash-safe: repair() does it again.
  void blank_records(std::uint64_t block);
  // After taking the mutex from the dead. Crash-safe: idempotent.
  void repair(OwnerTag me);
  // Records, and blocks that they lead to, that are hidden in the heap (memory/live_blocks.hpp).
  // REQUIRES: nobody else uses the arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

 private:
  void relink();
  Reserved reserve_at(std::uint32_t number, layout::SegmentRecord& r, const EntryHead& head,
                      std::uint64_t at, OwnerTag me);
  std::uint32_t new_record(OwnerTag me);
  void chain(std::uint32_t number);
  void unchain(std::uint32_t number);
  bool claimed(std::uint64_t block);

  Base& base_;
};

// The directory's mutex, repaired if it came from the dead.
class LogGuard {
 public:
  LogGuard(Base& base, Segments& segments, OwnerTag me)
      : mutex_(segments.directory().mutex, base.owners),
        guard_(mutex_, mutex_.lock_within(me, kMutexPatience)) {
    if (!guard_.recovered()) return;
    const OperationScope operation(base.owners.record(me.slot));
    segments.repair(me);
  }
  bool held() const { return guard_.held(); }
  void unlock() { guard_.unlock(); }

 private:
  OwnerMutex mutex_;
  MutexGuard guard_;
};

}  // namespace celeriac
