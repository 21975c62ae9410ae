// Ghosts: which keys were evicted not long ago, as 16-bit fingerprints.
//
// Two tables in one block, for what left the small queue and for what left the main queue. A key's
// hash names a bucket of 16 fingerprints, kept from the youngest to the oldest: a new one pushes
// the oldest out. So a ghost lives for about as many evictions as the table has places, without a
// time or a link, at two bytes each. A fingerprint is mistaken for another's once in 2,048 lookups.
//
// All of it is hints under the directory's mutex (store/segments.hpp): who dies in the middle of a
// push leaves a bucket with one ghost twice or missing. The block is replaced when the log holds
// half as many entries again as it was made for, or less than half.
#pragma once

#include <cstdint>

#include "memory/base.hpp"
#include "store/segments.hpp"

namespace celeriac {

class Ghosts {
 public:
  Ghosts(Base& base, layout::LogRecord& log, layout::SegmentDirectory& directory)
      : base_(base), log_(log), directory_(directory) {}

  // Makes room for the ghosts of a log of that many entries. False without memory: then there are
  // the old ones, or none.
  // Crash-safe: the old block or the new one.
  bool fit(std::uint64_t entries, OwnerTag me);
  // Forgets them all, since their block has to go. Crash-safe: the block is settled by `pending`.
  void drop(OwnerTag me);
  // What they take of the heap.
  static std::uint64_t bytes(std::uint64_t entries);
  // Remembers a key that left the queue. Crash-safe: a hint.
  void push(std::uint32_t queue, std::uint64_t hash);
  // Was it there? Then it isn't any more. Crash-safe: a hint.
  bool take(std::uint32_t queue, std::uint64_t hash);
  std::uint32_t entries(std::uint32_t queue) const {
    return log_.ghost_entries[queue].load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint16_t>* bucket(std::uint32_t queue, std::uint64_t hash);

  Base& base_;
  layout::LogRecord& log_;
  layout::SegmentDirectory& directory_;
};

}  // namespace celeriac
