// States of a heap block's tagged word (memory/heap.hpp explains them).
#pragma once

#include <cstdint>

#include "arena/layout.hpp"

namespace celeriac {

constexpr unsigned kBlockFree = 0;
constexpr unsigned kBlockWriting = 1;
constexpr unsigned kBlockLive = 2;
constexpr unsigned kBlockGarbage = 3;

// Header and the two links of a free list.
constexpr std::uint64_t kMinimumBlockUnits = 2;
constexpr std::uint64_t kMaximumBlockUnits = (1ULL << 30U) - 1;

// Where a block lies: in the open heap, or in a nest, as its first block or behind that; kCache: in
// the open heap, and the cache's.
enum class Side : std::uint32_t { kOpen = 0, kNestFirst = 1, kNestInner = 2, kCache = 3 };

// BlockHeader.sizes
struct BlockSizes {
  std::uint64_t previous = 0;
  Side side = Side::kOpen;
  std::uint64_t own = 0;

  constexpr std::uint64_t pack() const {
    return previous << 32U | static_cast<std::uint64_t>(side) << 30U | own;
  }
  static constexpr BlockSizes unpack(std::uint64_t w) {
    return {w >> 32U, static_cast<Side>(w >> 30U & 3U), w & kMaximumBlockUnits};
  }
};
inline BlockSizes sizes_of(const layout::BlockHeader& b) {
  return BlockSizes::unpack(b.sizes.load(std::memory_order_relaxed));
}

constexpr bool in_nest(Side s) { return s == Side::kNestFirst || s == Side::kNestInner; }
// May these neighbours become one block, by where they lie?
constexpr bool lie_together(Side left, Side right) {
  return right == Side::kNestInner ? in_nest(left) : !in_nest(right) && !in_nest(left);
}

}  // namespace celeriac
