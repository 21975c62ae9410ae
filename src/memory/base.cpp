#include "memory/base.hpp"

#include <algorithm>

namespace celeriac {
namespace {

constexpr int kTries = 32;

std::string amount(std::uint64_t bytes) {
  return bytes < 1ULL << 20U ? std::to_string(bytes) + " bytes"
                             : std::to_string(bytes >> 20U) + " MiB";
}

}  // namespace

Result<std::uint64_t> Base::allocate(std::uint64_t bytes, OwnerTag me) {
  Result<std::uint64_t> block = heap.allocate(bytes, me, Fit::kProper);
  // Others may take what was freed: again, then.
  for (int i = 0; make_room && i < kTries; ++i) {
    if (block || block.status().code() != Code::kNotEnoughMemory) return block;
    if (make_room(heap.piece(bytes), me) == 0) break;
    block = heap.allocate(bytes, me, Fit::kProper);
  }
  if (!block) block = heap.allocate(bytes, me, Fit::kAnyHole);
  if (!block && block.status().code() == Code::kNotEnoughMemory && make_room &&
      make_room(Heap::cost(bytes), me) != 0) {
    block = heap.allocate(bytes, me, Fit::kAnyHole);
  }
  if (block || block.status().code() != Code::kNotEnoughMemory) return block;
  return no_room(Heap::cost(bytes), block.status(), me);
}

Status Base::no_room(std::uint64_t bytes, const Status& cause, OwnerTag me) {
  const HeapStats s = heap.stats();
  return {Code::kNotEnoughMemory,
          "no room for " + std::to_string(bytes) +
              " bytes in one piece: of memory=" + amount(s.capacity) + ", " +
              amount(s.capacity - std::min(s.capacity, s.size) + s.free) +
              " are free, the largest free piece is " + amount(heap.largest_piece(me)) +
              ", and nothing else can be evicted (" + cause.message() + ")"};
}

}  // namespace celeriac
