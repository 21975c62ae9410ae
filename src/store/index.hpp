// The cache index: 64 shards, each a table of 8-way buckets of index words.
//
//   index word = {frequency:2 | version:10 | tag:16 | block / 16:36}; block 0 = free way
//   table word = {version:22 | log2 of buckets:6 | block / 16:36}
//
// A key may stand in either of two buckets of its shard's table, found from its hash; the table
// doubles when both are full.
//
// Writers change a shard under its mutex, one index word at a time by one store, each time with a
// new version. Readers take nothing: see store/cache.hpp for how they validate.
//
// Invariants
//   X1  A non-free index word leads to a kLive block with a complete Entry.
//   X2  An entry is unlinked (index word changed) before its block is condemned.
//   X3  MutexWord.pending names the blocks between kLive and linked, or between unlinked and
//       condemned, each by a ticket (offset and generation), so that a block which has been freed
//       and is somebody else's by then isn't mistaken for it.
// Killed at any instruction: the next holder settles `pending` (linked: leave it; live and not
// linked: release it) and counts the shard's cells anew.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "memory/base.hpp"
#include "memory/copy.hpp"
#include "store/namespaces.hpp"

namespace celeriac {

struct IndexWord {
  std::uint64_t bits = 0;

  static constexpr std::uint64_t kFrequency = 3ULL << 62U;

  static constexpr IndexWord make(std::uint64_t block, std::uint16_t tag, std::uint64_t version) {
    return {(version & 0x3FFU) << 52U | static_cast<std::uint64_t>(tag) << 36U | block / 16};
  }
  constexpr std::uint64_t block() const { return (bits & 0xFFFFFFFFFULL) * 16; }
  constexpr std::uint16_t tag() const { return static_cast<std::uint16_t>(bits >> 36U); }
  constexpr std::uint64_t version() const { return bits >> 52U & 0x3FFU; }
  constexpr unsigned frequency() const { return static_cast<unsigned>(bits >> 62U); }
  constexpr std::uint64_t identity() const { return bits & ~kFrequency; }
};

struct TableWord {
  std::uint64_t bits = 0;

  static constexpr TableWord make(std::uint64_t block, unsigned log2, std::uint64_t version) {
    return {(version & 0x3FFFFFU) << 42U | static_cast<std::uint64_t>(log2) << 36U | block / 16};
  }
  constexpr std::uint64_t block() const { return (bits & 0xFFFFFFFFFULL) * 16; }
  constexpr unsigned log2() const { return static_cast<unsigned>(bits >> 36U & 0x3FU); }
  constexpr std::uint64_t version() const { return bits >> 42U; }
};

// What a hash says.
struct Place {
  explicit Place(std::uint64_t h)
      : hash(h),
        shard(static_cast<std::uint32_t>(h >> 58U)),
        tag(static_cast<std::uint16_t>(h >> 42U)) {}
  std::uint64_t bucket(int which, std::uint64_t mask) const {
    return (which == 0 ? hash : (hash * 0x9E3779B97F4A7C15ULL) >> 24U) & mask;
  }
  std::uint64_t hash;
  std::uint32_t shard;
  std::uint16_t tag;
};

// A way found under the shard's mutex, and the entry that it leads to.
struct Found {
  layout::Word* way = nullptr;
  IndexWord word;
  layout::Entry* entry = nullptr;
};

class Index {
 public:
  Index(Base& base, Namespaces& spaces) : base_(base), spaces_(spaces) {}

  layout::Shard& shard(std::uint32_t i) {
    return base_.arena.fixed<layout::Shard>(layout::kShards)[i];
  }
  // The buckets of a table, or null when the word is nonsense or empty.
  layout::Bucket* buckets(TableWord t) {
    if (t.block() == 0 || t.log2() > 30) return nullptr;
    return base_.arena.at<layout::Bucket>(aligned_object(t.block()), sizeof(layout::Bucket)
                                                                         << t.log2());
  }
  layout::Entry* entry(std::uint64_t block) {
    return reinterpret_cast<layout::Entry*>(base_.heap.payload(block, sizeof(layout::Entry)));
  }

  // Everything below REQUIRES the shard's mutex.

  // After taking the mutex from the dead. Crash-safe: idempotent.
  void repair(std::uint32_t shard, OwnerTag me);
  // The entry of a key. None for a namespace that has lost its place (N4): whoever has it now
  // can't put entries into this shard meanwhile. Crash-safe: a damaged way is dropped by one store.
  std::optional<Found> find(const Place& place, std::uint32_t space, std::string_view key);
  // A free way for a new entry; grows the table when it must. Null when memory is short and the
  // ways of both buckets are taken by others: then victim() names the one to evict.
  // Crash-safe: the table grows by one store; X3.
  layout::Word* free_way(const Place& place, OwnerTag me);
  layout::Word* victim(const Place& place);
  // Links a kWriting block into a way, over what stood there; returns the block to be freed after
  // the mutex is given back (0 = none). Counts.
  // Crash-safe: X1 to X3.
  std::uint64_t link(std::uint32_t shard, layout::Word* way, std::uint64_t block,
                     const Place& place, OwnerTag me);
  // Unlinks; returns the block to be freed after the mutex is given back. Counts.
  // Crash-safe: X2, X3.
  std::uint64_t unlink(std::uint32_t shard, layout::Word* way, OwnerTag me);

  bool current(const layout::Entry& e) const {
    return e.generation == spaces_.generation_now(e.space);
  }

  // Whether it was set in that generation of the namespace. No entry has generation 0.
  static bool belongs(const layout::Entry& e, std::uint32_t space, std::uint32_t generation) {
    return e.space == space_index(space) && e.generation == generation;
  }

 private:
  bool grow(std::uint32_t shard, OwnerTag me);
  bool fill(layout::Bucket* to, unsigned log2, TableWord from);
  void count(std::uint32_t shard, const layout::Entry& e, int direction);
  void recount(std::uint32_t shard);
  bool linked(layout::Shard& s, std::uint64_t block);

  Base& base_;
  Namespaces& spaces_;
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
