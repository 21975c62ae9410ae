// The cache index: 64 shards, each a table of 8-way buckets of index words.
//
//   index word = {frequency:2 | generation:16 | tag:10 | location:36}; 0 = free way
//   table word = {version:21 | size class:7 | block / 16:36}
//
// `generation` is the namespace's when the entry was set: a word of another one is as good as free.
// That 16 bits of it are enough is N7 of store/namespaces.hpp. A namespace is known by its id; the
// entry has its place only (space_index()), and the generation says which name's entry it is.
//
// A key may stand in either of two buckets of its shard's table. The second follows from the first
// and the tag, and the first from the second in the same way (partial-key cuckoo hashing: Fan,
// Andersen, Kaminsky, Mitzenmacher, "Cuckoo filter: practically better than Bloom", CoNEXT 2014),
// so that an entry can be moved to its other bucket without a look at it. When no single move makes
// room, the table grows by an eighth or less (a fifth, while it is small): so it is about 0.83 to
// 0.95 full, and an entry costs 8.4 to 9.6 bytes of index.
//
// Writers change a shard under its mutex, one index word at a time by one store. Readers take
// nothing: see store/cache.hpp for how they validate.
//
// Invariants
//   X1  An index word that isn't free leads to a complete entry: in a segment that isn't kFree, or
//       in a kLive block.
//   X2  An entry is unlinked (index word changed) before its memory is given back.
//   X3  MutexWord.pending names the blocks between kLive and linked, or between unlinked and
//       condemned, each by a ticket (offset and generation), so that a block which has been freed
//       and is somebody else's by then isn't mistaken for it.
//   X4  A word that moves to its other bucket is in both for a moment, and `moves` rises before it
//       leaves the first: a reader that found nothing and sees `moves` unchanged missed nothing.
// Killed at any instruction: the next holder settles `pending` (linked: leave it; live and not
// linked: release it), removes doubles, and counts the shard's cells anew.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "memory/base.hpp"
#include "store/entry.hpp"
#include "store/namespaces.hpp"
#include "store/segments.hpp"

namespace celeriac {

struct IndexWord {
  std::uint64_t bits = 0;

  static constexpr std::uint64_t kFrequency = 3ULL << 62U;
  static constexpr std::uint64_t kOneRead = 1ULL << 62U;

  static constexpr IndexWord make(Location where, std::uint16_t tag, std::uint32_t generation,
                                  unsigned frequency) {
    return {static_cast<std::uint64_t>(frequency) << 62U | (generation & 0xFFFFULL) << 46U |
            static_cast<std::uint64_t>(tag & 0x3FFU) << 36U | where.bits};
  }
  constexpr bool free() const { return (bits & 0xFFFFFFFFFULL) == 0; }
  constexpr Location location() const { return {bits & 0xFFFFFFFFFULL}; }
  constexpr std::uint16_t tag() const { return static_cast<std::uint16_t>(bits >> 36U & 0x3FFU); }
  constexpr std::uint32_t generation() const {
    return static_cast<std::uint32_t>(bits >> 46U & 0xFFFFU);
  }
  constexpr unsigned frequency() const { return static_cast<unsigned>(bits >> 62U); }
  // Of this tag and generation, whatever the location and frequency?
  constexpr bool matches(IndexWord other) const { return (bits ^ other.bits) << 2U >> 38U == 0; }
  constexpr std::uint64_t identity() const { return bits & ~kFrequency; }
};

struct TableWord {
  std::uint64_t bits = 0;

  static constexpr TableWord make(std::uint64_t block, unsigned size_class, std::uint64_t version) {
    return {(version & 0x1FFFFFU) << 43U | static_cast<std::uint64_t>(size_class) << 36U |
            block / 16};
  }
  constexpr std::uint64_t block() const { return (bits & 0xFFFFFFFFFULL) * 16; }
  constexpr unsigned size_class() const { return static_cast<unsigned>(bits >> 36U & 0x7FU); }
  constexpr std::uint64_t version() const { return bits >> 43U; }
  // 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18 …
  constexpr std::uint64_t size() const { return size_of(size_class()); }
  static constexpr std::uint64_t size_of(unsigned size_class) {
    return (8ULL + (size_class & 7U)) << (size_class >> 3U) >> 1U;
  }
};

// What a hash says. The table's size divides the range of 32 bits, not by a remainder.
struct Place {
  explicit Place(std::uint64_t h)
      : hash(h),
        shard(static_cast<std::uint32_t>(h >> 58U)),
        tag(static_cast<std::uint16_t>(h >> 48U & 0x3FFU)) {}
  std::uint64_t first(std::uint64_t size) const { return (hash & 0xFFFFFFFFU) * size >> 32U; }
  static std::uint64_t other(std::uint64_t bucket, std::uint16_t tag, std::uint64_t size) {
    const std::uint64_t sum = (tag * 0x9E3779B1ULL & 0xFFFFFFFFU) * size >> 32U;
    return sum >= bucket ? sum - bucket : sum + size - bucket;
  }
  std::uint64_t hash;
  std::uint32_t shard;
  std::uint16_t tag;
};

// A way found under the shard's mutex, and the entry that it leads to.
struct Found {
  layout::Word* way = nullptr;
  IndexWord word;
  EntryPlace place;
  EntryHead head;
};

// What an unlinked entry leaves, to be given back without the shard's mutex.
struct Leftover {
  std::uint64_t block = 0;    // condemned: Heap::free() it
  std::uint32_t segment = 0;  // nothing in it lives any more
};

class Index {
 public:
  Index(Base& base, Namespaces& spaces, Segments& segments)
      : base_(base), spaces_(spaces), segments_(segments) {}

  layout::Shard& shard(std::uint32_t i) {
    return base_.arena.fixed<layout::Shard>(layout::kShards)[i % layout::kShardCount];
  }
  // The buckets of a table, or null when the word is nonsense or empty.
  layout::Bucket* buckets(TableWord t) {
    if (t.block() == 0) return nullptr;
    return base_.arena.at<layout::Bucket>(aligned_object(t.block()),
                                          sizeof(layout::Bucket) * t.size());
  }
  std::uint64_t hash(std::uint32_t space, std::string_view key);
  std::uint64_t hash_of(const EntryPlace& place, const EntryHead& head);

  // Tables, and entries of tables, that are hidden in the heap. REQUIRES: nobody else uses the
  // arena. Crash-safe: idempotent.
  void forget(const LiveBlocks& live);

  // Everything below REQUIRES the shard's mutex.

  // After taking the mutex from the dead. Crash-safe: idempotent.
  void repair(std::uint32_t shard, OwnerTag me);
  // The entry of a key. None for a namespace that has lost its place (N4): whoever has it now
  // can't put entries into this shard meanwhile. A damaged way is dropped, and counted as corrupt.
  // Crash-safe: dropped by one store; who takes the mutex from the dead counts entries anew.
  std::optional<Found> find(const Place& place, std::uint32_t space, std::string_view key);
  // The way that leads there, or null.
  layout::Word* find_at(const Place& place, Location where);
  // The entry that a word leads to; false when there is none.
  bool entry(IndexWord w, EntryPlace* place, EntryHead* head);
  // A way for a new entry, free or of a cleared generation; moves others to their other bucket or
  // grows the table when it must. Null when memory is short: then victim() names one to evict.
  // Crash-safe: X4; the table grows by one store; X3.
  layout::Word* free_way(const Place& place, Fit fit, OwnerTag me);
  // A table that is larger than its words need becomes smaller; `moves`: it becomes another one in
  // any case, since its block has to go. False when there is no room for it.
  // Crash-safe: one store; X3.
  bool shrink(std::uint32_t shard, bool moves, Fit fit, OwnerTag me);
  // Bytes in one piece for the next larger table. REQUIRES: nothing; a hint.
  std::uint64_t next_table(std::uint32_t shard);
  layout::Word* victim(const Place& place);
  // A word that may lead to the key: only its tag and generation are compared.
  IndexWord guess(const Place& place, std::uint32_t space);
  // Links an entry into a way, over what stood there. Counts, the new before the old (N8). `head`:
  // of the new entry; `found`: what find() found in the way, if it did.
  // Crash-safe: X1 to X3.
  Leftover link(std::uint32_t shard, layout::Word* way, IndexWord fresh, const EntryHead& head,
                const Found* found, OwnerTag me);
  // Crash-safe: X2, X3.
  Leftover unlink(std::uint32_t shard, layout::Word* way, OwnerTag me);

  // Of the name that has the place now, and not cleared?
  bool current(IndexWord w, const EntryHead& h) const {
    return belongs(w, h, h.space, spaces_.generation_now(h.space));
  }
  // Was it set in that generation of the namespace? No entry has generation 0.
  static bool belongs(IndexWord w, const EntryHead& h, std::uint32_t space,
                      std::uint32_t generation) {
    return h.space == space_index(space) && generation != 0 &&
           w.generation() == (generation & 0xFFFFU);
  }
  bool present(IndexWord w, const EntryHead& h, std::uint64_t now) const {
    return current(w, h) && h.expires > now;
  }
  bool present(IndexWord w, const EntryHead& h) const {
    return present(w, h, h.expires == kNever ? 0 : now_ns());
  }

 private:
  bool grow(std::uint32_t shard, Fit fit, OwnerTag me);
  bool replace(std::uint32_t shard, unsigned size_class, Fit fit, OwnerTag me);
  bool fill(std::uint32_t shard, layout::Bucket* to, std::uint64_t size, TableWord from);
  layout::Word* make_way(layout::Bucket* b, std::uint64_t size, std::uint64_t first,
                         std::uint16_t tag, layout::Shard* moves);
  void count(std::uint32_t shard, IndexWord w, const EntryHead& h, int direction);
  Leftover leave(IndexWord old, const Found& f, bool known, OwnerTag me);
  // A damaged way: it leads to nothing that could be an entry. Counts what is left anew.
  void drop(std::uint32_t shard, layout::Word& way);
  void recount(std::uint32_t shard);
  bool linked(std::uint32_t shard, std::uint64_t block);

  Base& base_;
  Namespaces& spaces_;
  Segments& segments_;
};

// The shard's mutex, repaired if it came from the dead.
class ShardGuard {
 public:
  ShardGuard(Base& base, Index& index, std::uint32_t shard, OwnerTag me, bool try_only = false)
      : mutex_(index.shard(shard).mutex, base.owners),
        guard_(mutex_, try_only ? mutex_.try_lock(me) : mutex_.lock_within(me, kMutexPatience)) {
    if (!guard_.recovered()) return;
    const OperationScope operation(base.owners.record(me.slot));  // readers come here too
    index.repair(shard, me);
  }
  bool held() const { return guard_.held(); }
  void unlock() { guard_.unlock(); }

 private:
  OwnerMutex mutex_;
  MutexGuard guard_;
};

}  // namespace celeriac
