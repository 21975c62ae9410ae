// Looks at all blocks of an arena, as a sweep would.
#pragma once

#include <cstdint>
#include <functional>

#include "arena/arena.hpp"
#include "memory/block_states.hpp"
#include "memory/heap.hpp"

namespace celeriac::test {

struct HeapPicture {
  bool whole = false;  // the walk by sizes ended exactly at the arena's end
  std::uint64_t free_bytes = 0;
  std::uint64_t used_bytes = 0;
  std::uint64_t free_blocks = 0;
  std::uint64_t used_blocks = 0;
  std::uint64_t neighbours_free = 0;  // free blocks behind a free one that should be one
  std::uint64_t nests = 0;
  std::uint64_t wrong_back_links = 0;
};

inline HeapPicture look_at_heap(Arena& arena) {
  HeapPicture p;
  std::uint64_t offset = layout::kBlocks;
  std::uint64_t before = 0;
  bool free_before = false;
  Side side_before = Side::kOpen;
  while (offset < arena.size()) {
    const auto* b = arena.at<layout::BlockHeader>(offset);
    if (b == nullptr) return p;
    const BlockSizes sizes = sizes_of(*b);
    const std::uint64_t units = sizes.own;
    if (units < kMinimumBlockUnits) return p;
    if (sizes.previous != before && sizes.previous != 0) ++p.wrong_back_links;
    const bool is_free = load(b->word).state() == kBlockFree;
    (is_free ? p.free_bytes : p.used_bytes) += units * 16;
    ++(is_free ? p.free_blocks : p.used_blocks);
    if (is_free && free_before && lie_together(side_before, sizes.side)) ++p.neighbours_free;
    free_before = is_free;
    side_before = sizes.side;
    p.nests += sizes.side == Side::kNestFirst ? 1U : 0U;
    before = units;
    offset += units * 16;
  }
  p.whole = offset == arena.size();
  return p;
}

}  // namespace celeriac::test
