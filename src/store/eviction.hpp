// Eviction: makes room when the heap has none. A clock over the shards and their buckets: entries
// that are expired or of a cleared generation go first, entries read since the hand passed last
// (frequency bits) are spared and lose a bit, others go. Tables' entries are never touched.
//
// (The policy is a placeholder with the right seams; hit ratio is not its strength.)
#pragma once

#include <cstdint>

#include "store/index.hpp"
#include "store/namespaces.hpp"

namespace celeriac {

class Eviction {
 public:
  Eviction(Base& base, Namespaces& spaces, Index& index)
      : base_(base), spaces_(spaces), index_(index) {}

  // Frees cache entries so that a block of `bytes` may fit; returns the bytes freed, 0 when there
  // is nothing to give. Small blocks: what the clock chooses. Large ones, and `contiguous`: what
  // lies side by side, since many small holes don't make a large one.
  // REQUIRES: the caller holds no mutex of the arena. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  std::uint64_t make_room(std::uint64_t bytes, bool contiguous, OwnerTag me);

  // Removes n entries of one namespace, about the oldest; returns how many. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  std::uint64_t cull(std::uint32_t space, std::uint64_t n, OwnerTag me);

  // Removes what has expired or was cleared, of all namespaces. Thread-safe.
  // Crash-safe: entry by entry, as delete.
  void drop_absent(OwnerTag me);

 private:
  std::uint64_t clock(std::uint64_t bytes, OwnerTag me);
  std::uint64_t clear_window(std::uint64_t bytes, OwnerTag me);
  layout::Word* way_of(std::uint64_t block, std::uint32_t* shard);
  struct Batch;
  template <class Choose>
  void sweep_shard(std::uint32_t shard, bool patient, OwnerTag me, Batch& batch, Choose choose);

  Base& base_;
  Namespaces& spaces_;
  Index& index_;
};

}  // namespace celeriac
