// Where the heap places blocks, and its free lists: two-level segregated fit (see heap.hpp for the
// source), once for the open heap and once for the nests. All of the lists is hints
// under the heap mutex; the links live in the payload of free blocks. Every link is checked before
// it is followed, and a list that leads to a block that isn't free is cut.
#include <algorithm>
#include <bit>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "memory/heap.hpp"

namespace celeriac {
namespace {

// Stale readers of a freed cache entry may still look at these words, hence atomics.
struct Links {
  layout::Word next;
  layout::Word previous;
};

constexpr std::uint64_t kUnlisted = 1;  // in place of the previous block: in no list (H6)
constexpr std::uint64_t kLeastNest = 4096;
constexpr std::uint64_t kMostNest = 128 << 10U;

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
  if (b == nullptr) return;
  const std::uint64_t fence = this->fence();
  if (std::uint64_t end = offset + sizes_of(*b).own * 16; end > fence) {
    if (offset + kMinimumBlockUnits * 16 <= fence && fence + kMinimumBlockUnits * 16 <= end) {
      split(offset, fence);
      insert(fence);
      end = fence;
    }
    if (end > fence) {
      links(b)->next.store(0, std::memory_order_relaxed);
      links(b)->previous.store(kUnlisted, std::memory_order_relaxed);
      control_.free_bytes.fetch_add(end - offset, std::memory_order_relaxed);
      return;
    }
  }
  const std::uint64_t units = sizes_of(*b).own;
  const Bin bin = bin_of(units);
  layout::FreeLists& lists = lists_of(sizes_of(*b).side);
  layout::Word& head = lists.heads[bin.first][bin.second];
  const std::uint64_t old = head.load(std::memory_order_relaxed);
  links(b)->next.store(old, std::memory_order_relaxed);
  links(b)->previous.store(0, std::memory_order_relaxed);
  if (layout::BlockHeader* o = block(old); old != 0 && o != nullptr) {
    links(o)->previous.store(offset, std::memory_order_relaxed);
  }
  head.store(offset, std::memory_order_relaxed);
  lists.second_bitmap[bin.first].fetch_or(1U << bin.second, std::memory_order_relaxed);
  lists.first_bitmap.fetch_or(1ULL << bin.first, std::memory_order_relaxed);
  control_.free_bytes.fetch_add(units * 16, std::memory_order_relaxed);
}

void Heap::remove(std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  if (b == nullptr) return;
  const std::uint64_t units = sizes_of(*b).own;
  const Bin bin = bin_of(units);
  const std::uint64_t next = links(b)->next.load(std::memory_order_relaxed);
  const std::uint64_t previous = links(b)->previous.load(std::memory_order_relaxed);
  if (previous == kUnlisted) {
    control_.free_bytes.fetch_sub(units * 16, std::memory_order_relaxed);
    return;
  }
  if (layout::BlockHeader* n = block(next); next != 0 && n != nullptr) {
    links(n)->previous.store(previous, std::memory_order_relaxed);
  }
  layout::FreeLists& lists = lists_of(sizes_of(*b).side);
  layout::Word& head = lists.heads[bin.first][bin.second];
  if (layout::BlockHeader* p = block(previous); previous != 0 && p != nullptr) {
    links(p)->next.store(next, std::memory_order_relaxed);
  } else {
    head.store(next, std::memory_order_relaxed);
  }
  if (head.load(std::memory_order_relaxed) == 0) {
    const std::uint32_t left =
        lists.second_bitmap[bin.first].fetch_and(~(1U << bin.second), std::memory_order_relaxed) &
        ~(1U << bin.second);
    if (left == 0) {
      lists.first_bitmap.fetch_and(~(1ULL << bin.first), std::memory_order_relaxed);
    }
  }
  control_.free_bytes.fetch_sub(units * 16, std::memory_order_relaxed);
}

// The block that a list leads to. Null, and the list is cut, when it isn't a free one: what hangs
// there waits for a sweep, which finds what is damaged.
layout::BlockHeader* Heap::listed(layout::Word& head, std::uint64_t offset) {
  layout::BlockHeader* b = block(offset);
  if (b != nullptr && load(b->word).state() == kBlockFree) {
    const std::uint64_t own = sizes_of(*b).own;
    if (own >= kMinimumBlockUnits && own * 16 <= arena_.size() - offset) return b;
  }
  head.store(0, std::memory_order_relaxed);
  mark_dirty();
  return nullptr;
}

// The first block of the bin's list with at least `units`, looking at a bounded number.
std::uint64_t Heap::pop_fitting(layout::FreeLists& lists, Bin bin, std::uint64_t units) {
  layout::Word& head = lists.heads[bin.first][bin.second];
  std::uint64_t offset = head.load(std::memory_order_relaxed);
  for (int i = 0; offset != 0 && i < 32; ++i) {
    layout::BlockHeader* b = listed(head, offset);
    if (b == nullptr) return 0;
    if (sizes_of(*b).own >= units) {
      remove(offset);
      return offset;
    }
    offset = links(b)->next.load(std::memory_order_relaxed);
  }
  return 0;
}

bool Heap::may_fit(std::uint64_t bytes) const {
  const layout::FreeLists& lists = control_.lists[0];
  const Bin bin = bin_of(cost(bytes) / 16);
  const std::uint64_t above = lists.first_bitmap.load(std::memory_order_relaxed);
  const std::uint32_t beside = lists.second_bitmap[bin.first].load(std::memory_order_relaxed);
  return (above & (~0ULL << bin.first << 1U)) != 0 || (beside & (~0U << bin.second)) != 0;
}

std::uint64_t Heap::find(layout::FreeLists& lists, std::uint64_t units) {
  // Any block of the bin after the rounded-up size fits: the first of the first non-empty bin.
  std::uint64_t rounded = units;
  if (units >= layout::kSecondLevels) {
    const auto top = static_cast<std::uint32_t>(std::bit_width(units)) - 1;
    rounded = units + (1ULL << (top - 4U)) - 1;
  }
  Bin bin = bin_of(rounded);
  std::uint32_t second =
      lists.second_bitmap[bin.first].load(std::memory_order_relaxed) & (~0U << bin.second);
  if (second == 0) {
    const std::uint64_t above =
        bin.first + 1 >= 64
            ? 0
            : lists.first_bitmap.load(std::memory_order_relaxed) & (~0ULL << (bin.first + 1));
    if (above != 0) {
      bin.first = static_cast<std::uint32_t>(std::countr_zero(above)) % layout::kFirstLevels;
      second = lists.second_bitmap[bin.first].load(std::memory_order_relaxed);
    }
  }
  second &= (1U << layout::kSecondLevels) - 1;
  if (second != 0) {
    bin.second = static_cast<std::uint32_t>(std::countr_zero(second));
    const std::uint64_t offset = pop_fitting(lists, bin, units);
    if (offset != 0) return offset;
  }
  return pop_fitting(lists, bin_of(units), units);  // the bin below may hold one that fits exactly
}

// A free block with `units`, in as many looks as there are: of those that fit best, for the cache
// the highest whose high end is above the line, for others the lowest whose low end is below it.
std::uint64_t Heap::search(layout::FreeLists& lists, std::uint64_t units, bool for_cache,
                           std::uint64_t line, int* looks) {
  const Bin least = bin_of(units);
  std::uint64_t best = 0;
  for (std::uint64_t firsts =
           lists.first_bitmap.load(std::memory_order_relaxed) & (~0ULL << least.first);
       firsts != 0; firsts &= firsts - 1) {
    const auto first = static_cast<std::uint32_t>(std::countr_zero(firsts)) % layout::kFirstLevels;
    std::uint32_t seconds = lists.second_bitmap[first].load(std::memory_order_relaxed) & 0xFFFFU;
    if (first == least.first) seconds &= ~0U << least.second;
    for (; seconds != 0; seconds &= seconds - 1) {
      layout::Word& head = lists.heads[first][std::countr_zero(seconds)];
      std::uint64_t offset = head.load(std::memory_order_relaxed);
      for (; offset != 0 && *looks > 0; --*looks) {
        layout::BlockHeader* b = listed(head, offset);
        if (b == nullptr) break;
        const std::uint64_t own = sizes_of(*b).own;
        const bool good = for_cache ? offset + (own - units) * 16 >= line && offset > best
                                    : offset + units * 16 <= line && (best == 0 || offset < best);
        if (own >= units && good) best = offset;
        offset = links(b)->next.load(std::memory_order_relaxed);
      }
      if (best != 0) break;
    }
    if (best != 0) break;
  }
  if (best != 0) remove(best);
  return best;
}

// ------------------------------------------------------------------------------- placing

std::uint64_t Heap::nest_units() const {
  return std::clamp<std::uint64_t>(layout::align_up(arena_.capacity() / 1024, kLeastNest),
                                   kLeastNest, kMostNest) /
         16;
}

std::uint64_t Heap::piece(std::uint64_t bytes) const {
  return small(cost(bytes) / 16) ? nest_units() * 16 : cost(bytes);
}

// Up to where what isn't the cache's should lie, `units` more of it included.
std::uint64_t Heap::line(std::uint64_t units) const {
  const std::uint64_t others =
      std::min(control_.other_bytes.load(std::memory_order_relaxed), arena_.capacity());
  return layout::kBlocks + others + others / 4 + arena_.capacity() / 64 + units * 16;
}

// A block of so many units, in no list; 0 if there is none where it belongs.
std::uint64_t Heap::place(std::uint64_t units, Fit fit, std::uint64_t line) {
  auto& [open, nests] = control_.lists;
  int looks = 512;
  if (fit == Fit::kCache || fit == Fit::kMoved) {
    return cut(search(open, units, true, line, &looks), units, true);
  }
  if (!small(units)) return cut(search(open, units, false, line, &looks), units, false);
  std::uint64_t offset = find(nests, units);
  if (offset + units * 16 > line) {
    // That nest is where there was no other room. What stays in it would keep the arena long: a
    // lower one, then, or a new one; unless there are many like that.
    int few = 64;
    const std::uint64_t lower = search(nests, units, false, line, &few);
    if (lower != 0 || few > 0) {
      insert(offset);
      offset = lower;
    }
  }
  if (offset != 0) return cut(offset, units, false);
  const std::uint64_t nest =
      cut(search(open, nest_units(), false, line, &looks), nest_units(), false);
  if (nest == 0) return 0;
  BlockSizes sizes = this->sizes(nest);
  sizes.side = Side::kNestFirst;
  resize(nest, sizes);  // H5
  CELERIAC_CRASH_POINT("heap.allocate.nested");
  count_other(sizes.own, +1);
  return cut(nest, units, false);
}

// Makes a block of `units` of a free one that is in no list, at its low or high end; the rest goes
// back to a list. 0 of 0.
std::uint64_t Heap::cut(std::uint64_t offset, std::uint64_t units, bool high) {
  if (offset == 0) return 0;
  BlockSizes low = sizes(offset);
  const std::uint64_t rest = low.own - units;
  if (rest < kMinimumBlockUnits) return offset;
  BlockSizes above = low;
  low.own = high ? rest : units;
  above.own -= low.own;
  above.previous = low.own;
  if (above.side == Side::kNestFirst) above.side = Side::kNestInner;
  const std::uint64_t middle = offset + low.own * 16;
  layout::BlockHeader* c = block(middle);
  if (c == nullptr) return 0;
  c->word.store(TaggedWord::make(kBlockFree, {}, 0).bits, std::memory_order_relaxed);
  resize(middle, above);
  CELERIAC_CRASH_POINT("heap.allocate.cut");
  resize(offset, low);  // H1
  CELERIAC_CRASH_POINT("heap.allocate.split");
  set_previous(middle + above.own * 16, above.own);
  if (middle + above.own * 16 == arena_.size()) {
    control_.last_block.store(middle, std::memory_order_relaxed);
  }
  insert(high ? offset : middle);
  return high ? middle : offset;
}

}  // namespace celeriac
