#include "memory/base.hpp"

#include <algorithm>

namespace celeriac {
namespace {

// Single entries are tried this often; holes that lie apart don't add up to one that fits.
constexpr int kSingles = 4;
constexpr int kTries = 32;
constexpr std::uint64_t kStretch = 1ULL << 16U;

}  // namespace

Result<std::uint64_t> Base::allocate(std::uint64_t bytes, OwnerTag me, std::uint64_t ceiling) {
  Result<std::uint64_t> block = heap.allocate(bytes, me, ceiling);
  // Cache entries give way to each other one by one. Everything else, which stays longer, gets
  // whole stretches, so that it lies together and doesn't break up what is left.
  const bool entry = ceiling != kNoCeiling;
  const std::uint64_t wanted = entry ? Heap::cost(bytes) : std::max(Heap::cost(bytes), kStretch);
  for (int i = 0; make_room && i < kTries; ++i) {
    if (block || block.status().code() != Code::kNotEnoughMemory) return block;
    const bool contiguous = !entry || i >= kSingles;
    std::uint64_t freed = make_room(wanted, contiguous, me);
    if (freed == 0 && contiguous) freed = make_room(Heap::cost(bytes), true, me);
    if (freed == 0 && contiguous) break;
    if (freed == 0) i = kSingles - 1;  // nothing single to give: neighbours may do
    block = heap.allocate(bytes, me, ceiling);
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
