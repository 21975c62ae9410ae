// States of a heap block's tagged word (memory/heap.hpp explains them).
#pragma once

#include <cstdint>

namespace celeriac {

constexpr unsigned kBlockFree = 0;
constexpr unsigned kBlockWriting = 1;
constexpr unsigned kBlockLive = 2;
constexpr unsigned kBlockGarbage = 3;

// Header and the two links of a free list.
constexpr std::uint64_t kMinimumBlockUnits = 2;

}  // namespace celeriac
