#include "memory/base.hpp"

#include <algorithm>

namespace celeriac {
namespace {

constexpr int kTries = 32;
constexpr std::uint64_t kStretch = 1ULL << 16U;

}  // namespace

Result<std::uint64_t> Base::allocate(std::uint64_t bytes, OwnerTag me) {
  Result<std::uint64_t> block = heap.allocate(bytes, me);
  // What isn't the cache's stays longer: it gets whole stretches, so that it lies together and
  // doesn't break up what is left.
  for (int i = 0; make_room && i < kTries; ++i) {
    if (block || block.status().code() != Code::kNotEnoughMemory) return block;
    std::uint64_t freed = make_room(std::max(Heap::cost(bytes), kStretch), true, me);
    if (freed == 0) freed = make_room(Heap::cost(bytes), true, me);
    if (freed == 0) break;
    block = heap.allocate(bytes, me);
  }
  if (block || block.status().code() != Code::kNotEnoughMemory) return block;
  const HeapStats s = heap.stats();
  return Status(Code::kNotEnoughMemory,
                "no room for " + std::to_string(Heap::cost(bytes)) +
                    " bytes in one piece: of memory=" + std::to_string(s.capacity >> 20U) + "M, " +
                    std::to_string((s.capacity - s.size + s.free) >> 20U) +
                    " MiB are free, and what else there is can't be evicted (" +
                    block.status().message() + ")");
}

}  // namespace celeriac
