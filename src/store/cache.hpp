// The cache and the tables of a store, over the index, the cache's segments and the heap.
//
// A value is written once, behind its head and its key, and never changed in place, but for two
// single words: the expiry (touch) and the value of an integer (increment). Replacing it links
// another entry. Entries of caches lie in segments, those of tables in blocks of their own.
//
// How a writer stores
//   1. reserves room (Eviction::reserve(), or a block of the heap for a table) and writes the entry
//   2. takes the shard's mutex, looks whether the mode's condition holds and whether the room's
//      segment may still be linked (S3; if not, begins anew), and links by one store
//   3. gives back what it replaced, without the mutex
// How a reader, who holds nothing, gets a value
//   1. load the shard's count of moves, its table word and the index word (acquire)
//   2. load the guard: the segment's word (not kFree) or the block's (kLive)
//   3. check sizes against the segment or block, copy head, key and value out by relaxed words
//   4. acquire fence; load index word, guard and table word again: all three unchanged (but for the
//      frequency bits)?  then the copy is what was linked between 1 and 4
//   5. nothing found: that holds if the table word and the count of moves are unchanged
//   6. otherwise again; after 64 vain tries (a writer replaces this entry without pause) once under
//      the shard's mutex
// Guards carry a generation, so "unchanged" isn't fooled by reuse. Readers write nothing shared
// but, now and then, an entry's two frequency bits.
//
// Invariants
//   C1  After set() returned, every get() that begins later sees it, or a later one, or none
//       (evicted, expired, cleared).
//   C2  A writer that dies leaves the entry old, new or absent, never torn.
//   C3  Memory never exceeds the arena's capacity; entries of tables are never evicted.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "store/eviction.hpp"
#include "store/index.hpp"
#include "store/namespaces.hpp"
#include "store/value.hpp"

namespace celeriac {

class Cache {
 public:
  explicit Cache(Base& base)
      : base_(base),
        spaces_(base),
        segments_(base),
        index_(base, spaces_, segments_),
        eviction_(base, spaces_, segments_, index_) {}

  Namespaces& namespaces() { return spaces_; }
  Segments& segments() { return segments_; }
  Eviction& eviction() { return eviction_; }
  Index& index() { return index_; }

  // True and the value, or false; `counted` as a hit or a miss. Thread-safe, lock-free (but for
  // step 5).
  bool get(std::uint32_t space, std::string_view key, ValueBuffer& to, bool counted, OwnerTag me);
  Met probe(std::uint32_t space, std::string_view key, OwnerTag me);
  // A hit that get() has counted is a miss. Thread-safe. Crash-safe: the counts may lose one.
  void missed(std::uint32_t space, std::string_view key, OwnerTag me);

  // Stores under the mode's condition; true when it was stored. `version` is for kCompare: what a
  // ValueBuffer said, or 0 for "must be absent". kValueTooLarge, kNotEnoughMemory, kLockTimeout;
  // then nothing has changed, but that kSet in a cache removes the old value of the key when there
  // is no room for the new one. A value that can't fit evicts nothing.
  // Thread-safe. Crash-safe: C2.
  Result<bool> store(std::uint32_t space, std::string_view key, const Value& value,
                     std::uint64_t expires, StoreMode mode, std::uint64_t version, OwnerTag me);
  // What there was. With a `version`, as a ValueBuffer said it: only if it is that one still.
  // Thread-safe. Crash-safe: C2.
  Result<Met> erase(std::uint32_t space, std::string_view key, OwnerTag me,
                    std::uint64_t version = 0, Which which = Which::kAll);
  // New expiry of a present entry. Thread-safe. Crash-safe: one store.
  Result<Met> touch(std::uint32_t space, std::string_view key, std::uint64_t expires, OwnerTag me,
                    Which which = Which::kAll);
  // Adds to an integer in place, keeping its expiry. Thread-safe. Crash-safe: one store.
  Result<IncrementResult> increment(std::uint32_t space, std::string_view key, std::int64_t delta,
                                    std::int64_t* result, OwnerTag me);

  // All entries of the namespace become absent in one step. False, and nothing happens, when the id
  // isn't good any more. kLockTimeout. Thread-safe. Crash-safe: one increment.
  Result<bool> clear(std::uint32_t space, OwnerTag me);
  // How many entries a cache may have, 0 = as many as memory holds; from the next new key on. A
  // cache that gets its first limit forgets what it holds beyond it at once. False, and nothing
  // happens, when the id isn't good any more or is an overflow's (N9 of store/namespaces.hpp).
  // kLockTimeout. Thread-safe. Crash-safe: one store, then entry by entry, as delete.
  Result<bool> limit(std::uint32_t space, std::uint32_t max_entries, OwnerTag me);

  // The ceiling of the arena's memory changes (store/resize.hpp); returns the one that holds.
  // Thread-safe. Crash-safe: as Resize::to().
  Result<std::uint64_t> resize(std::uint64_t memory, OwnerTag me);

  // Calls `visit` for each present entry of the namespace, copied out: a moment's view of each
  // shard, not of the whole. Stops when it returns false.
  void each(std::uint32_t space, OwnerTag me,
            const std::function<bool(std::string_view key, const ValueBuffer& value)>& visit);

  // Forgets what is hidden in the heap. REQUIRES: nobody else uses the arena.
  // Crash-safe: idempotent.
  void forget(const LiveBlocks& live) {
    segments_.forget(live);
    index_.forget(live);
  }
  // Repairs the shards whose mutex a dead owner holds, so that counts are right before anybody
  // writes there. Thread-safe. Crash-safe: idempotent; whoever locks such a shard does the same.
  void repair(OwnerTag me);

  std::uint64_t entries(std::uint32_t space) const;
  CacheCounts counts(std::uint32_t space) const;

  // A number that changes when a key of a table changes; other keys may change it too.
  std::uint32_t change_count(std::uint32_t space, std::string_view key);
  // Has all sleepers look again (the store or a handle closes). Crash-safe: they sleep on.
  void wake_all_waiters();
  // Sleeps until it isn't `seen` any more. False at the deadline. Wakes: store, erase, increment.
  Result<bool> wait_for_change(std::uint32_t space, std::string_view key, std::uint32_t seen,
                               std::uint64_t deadline_ns);

 private:
  // `now_or_0`: 0 = whatever the clock says when it matters.
  enum class Look { kHit, kMiss, kAgain };
  struct Hit {
    IndexWord word;
    Codec codec = Codec::kNone;
  };
  Look look(const Place& place, std::uint32_t space, std::string_view key, ValueBuffer* to,
            std::uint64_t now_or_0, Hit* hit);
  Look read_way(layout::Word& way, IndexWord w, std::uint32_t space, std::string_view key,
                ValueBuffer* to, std::uint64_t now_or_0, Hit* hit);
  bool lookup(std::uint32_t space, std::string_view key, ValueBuffer* to, OwnerTag me,
              Hit* hit = nullptr);
  Status check_size(std::uint64_t key_bytes, std::uint64_t value_bytes, bool table) const;
  Result<Reserved> write(std::uint32_t space, const Place& place, std::string_view key,
                         const Value& value, std::uint64_t expires, IndexWord old,
                         std::uint64_t now, OwnerTag me);
  void discard(const Reserved& room, OwnerTag me);
  static std::uint64_t mix_version(Location where, std::uint64_t guard, bool is_word,
                                   std::uint64_t first_word);
  std::uint64_t version_of(const Found& entry);
  void changed(std::uint32_t space, std::uint64_t hash);
  layout::Signal& signal(std::uint64_t hash) {
    return base_.arena.fixed<layout::Signal>(layout::kSignals)[hash >> 8U & 63U];
  }

  Base& base_;
  Namespaces spaces_;
  Segments segments_;
  Index index_;
  Eviction eviction_;
};

}  // namespace celeriac
