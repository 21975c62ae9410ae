// What a walk over the heap by sizes meets while nobody else uses the arena: the blocks there are.
//
// A size that a stray write has changed hides blocks from the walk, and shows free ones where there
// are none. What is hidden still looks like a block to who is led there by another word, and its
// memory may be given to others as well: so whoever comes alone, and sees that the walk met
// something strange, forgets all words that lead to what the walk didn't meet. A process that died
// in the middle of a change of the heap leaves something strange too, but hides nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace celeriac {

class LiveBlocks {
 public:
  explicit LiveBlocks(bool strange) : strange_(strange) {}

  // In the order of their offsets. `end`: behind its payload.
  void add(std::uint64_t block, std::uint64_t end) { all_.emplace_back(block, end); }

  // May blocks be hidden?
  bool strange() const { return strange_; }
  bool has(std::uint64_t block) const {
    const auto at = std::lower_bound(all_.begin(), all_.end(), std::pair(block, std::uint64_t{0}));
    return at != all_.end() && at->first == block;
  }
  // Do the bytes lie inside of one of them?
  bool holds(std::uint64_t from, std::uint64_t bytes) const {
    auto at = std::lower_bound(all_.begin(), all_.end(), std::pair(from, std::uint64_t{0}));
    return at != all_.begin() && bytes <= (--at)->second && from <= at->second - bytes;
  }

 private:
  std::vector<std::pair<std::uint64_t, std::uint64_t>> all_;
  bool strange_;
};

}  // namespace celeriac
