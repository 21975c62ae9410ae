// The heap's free lists: two-level segregated fit (see heap.hpp for the source). All of it is hints
// under the heap mutex; the links live in the payload of free blocks. Every link is checked before
// it is followed, and a list that leads to a block that isn't free is cut.
#include <bit>

#include "memory/block_states.hpp"
#include "memory/heap.hpp"

namespace celeriac {
namespace {

// Stale readers of a freed cache entry may still look at these words, hence atomics.
struct Links {
  layout::Word next;
  layout::Word previous;
};

constexpr std::uint64_t own_units(std::uint64_t sizes) { return sizes & 0xFFFFFFFFU; }

Links* links(layout::BlockHeader* b) { return reinterpret_cast<Links*>(b + 1); }

}  // namespace

// Sixteen bins for each power of two, so that a bin's blocks differ by at most 1/16 of their size.
Heap::Bin Heap::bin_of(std::uint64_t units) {
  if (units < layout::kSecondLevels) return {0, static_cast<std::uint32_t>(units)};
  const auto top = static_cast<std::uint32_t>(std::bit_width(units)) - 1;
  const auto first = top - 3;
  if (first >= layout::kFirstLevels) return {layout::kFirstLevels - 1, layout::kSecondLevels - 1};
  return {first, static_cast<std::uint32_t>(units >> (top - 4U)) & (layout::kSecondLevels - 1)};
}

void Heap::insert(std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  const std::uint64_t units = own_units(b->sizes.load(std::memory_order_relaxed));
  const Bin bin = bin_of(units);
  layout::Word& head = control_.heads[bin.first][bin.second];
  const std::uint64_t old = head.load(std::memory_order_relaxed);
  links(b)->next.store(old, std::memory_order_relaxed);
  links(b)->previous.store(0, std::memory_order_relaxed);
  if (layout::BlockHeader* o = block(old); old != 0 && o != nullptr) {
    links(o)->previous.store(offset, std::memory_order_relaxed);
  }
  head.store(offset, std::memory_order_relaxed);
  control_.second_bitmap[bin.first].fetch_or(1U << bin.second, std::memory_order_relaxed);
  control_.first_bitmap.fetch_or(1ULL << bin.first, std::memory_order_relaxed);
  control_.free_bytes.fetch_add(units * 16, std::memory_order_relaxed);
}

void Heap::remove(std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  const std::uint64_t units = own_units(b->sizes.load(std::memory_order_relaxed));
  const Bin bin = bin_of(units);
  const std::uint64_t next = links(b)->next.load(std::memory_order_relaxed);
  const std::uint64_t previous = links(b)->previous.load(std::memory_order_relaxed);
  if (layout::BlockHeader* n = block(next); next != 0 && n != nullptr) {
    links(n)->previous.store(previous, std::memory_order_relaxed);
  }
  layout::Word& head = control_.heads[bin.first][bin.second];
  if (layout::BlockHeader* p = block(previous); previous != 0 && p != nullptr) {
    links(p)->next.store(next, std::memory_order_relaxed);
  } else {
    head.store(next, std::memory_order_relaxed);
  }
  if (head.load(std::memory_order_relaxed) == 0) {
    const std::uint32_t left = control_.second_bitmap[bin.first].fetch_and(
                                   ~(1U << bin.second), std::memory_order_relaxed) &
                               ~(1U << bin.second);
    if (left == 0) {
      control_.first_bitmap.fetch_and(~(1ULL << bin.first), std::memory_order_relaxed);
    }
  }
  control_.free_bytes.fetch_sub(units * 16, std::memory_order_relaxed);
}

// The first block of the bin's list with at least `units`, looking at a bounded number.
std::uint64_t Heap::pop_fitting(Bin bin, std::uint64_t units) {
  layout::Word& head = control_.heads[bin.first][bin.second];
  std::uint64_t offset = head.load(std::memory_order_relaxed);
  for (int i = 0; offset != 0 && i < 32; ++i) {
    layout::BlockHeader* b = block(offset);
    if (b == nullptr || load(b->word).state() != kBlockFree) {
      head.store(0, std::memory_order_relaxed);  // damaged: what hangs here waits for a sweep
      mark_dirty();
      return 0;
    }
    if (own_units(b->sizes.load(std::memory_order_relaxed)) >= units) {
      remove(offset);
      return offset;
    }
    offset = links(b)->next.load(std::memory_order_relaxed);
  }
  return 0;
}

bool Heap::may_fit(std::uint64_t bytes) const {
  const Bin bin = bin_of(cost(bytes) / 16);
  const std::uint64_t above = control_.first_bitmap.load(std::memory_order_relaxed);
  const std::uint32_t beside = control_.second_bitmap[bin.first].load(std::memory_order_relaxed);
  return (above & (~0ULL << bin.first << 1U)) != 0 || (beside & (~0U << bin.second)) != 0;
}

std::uint64_t Heap::find(std::uint64_t units) {
  // Any block of the bin after the rounded-up size fits: the first of the first non-empty bin.
  std::uint64_t rounded = units;
  if (units >= layout::kSecondLevels) {
    const auto top = static_cast<std::uint32_t>(std::bit_width(units)) - 1;
    rounded = units + (1ULL << (top - 4U)) - 1;
  }
  Bin bin = bin_of(rounded);
  std::uint32_t second =
      control_.second_bitmap[bin.first].load(std::memory_order_relaxed) & (~0U << bin.second);
  if (second == 0) {
    const std::uint64_t above =
        bin.first + 1 >= 64
            ? 0
            : control_.first_bitmap.load(std::memory_order_relaxed) & (~0ULL << (bin.first + 1));
    if (above != 0) {
      bin.first = static_cast<std::uint32_t>(std::countr_zero(above));
      second = control_.second_bitmap[bin.first].load(std::memory_order_relaxed);
    }
  }
  if (second != 0) {
    bin.second = static_cast<std::uint32_t>(std::countr_zero(second));
    const std::uint64_t offset = pop_fitting(bin, units);
    if (offset != 0) return offset;
  }
  return pop_fitting(bin_of(units), units);  // the bin below may hold one that fits exactly
}

}  // namespace celeriac
