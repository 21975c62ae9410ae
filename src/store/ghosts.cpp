#include "store/ghosts.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr std::uint32_t kWays = 16;
using Fingerprint = std::atomic<std::uint16_t>;
static_assert(sizeof(Fingerprint) == 2);

// Ghosts for each entry of the log, in hundredths: measured on the traces (docs/adr/0009).
constexpr std::uint64_t kOfSmall = 70;
constexpr std::uint64_t kOfMain = 40;

std::uint16_t fingerprint(std::uint64_t hash) { return static_cast<std::uint16_t>(hash) | 1U; }

std::uint32_t buckets_for(std::uint64_t entries, std::uint64_t share) {
  const std::uint64_t n = (entries * share / 100 + kWays / 2) / kWays;
  return static_cast<std::uint32_t>(std::clamp<std::uint64_t>(n, 1, 1ULL << 26U));
}

}  // namespace

Fingerprint* Ghosts::bucket(std::uint32_t queue, std::uint64_t hash) {
  const std::uint64_t block = log_.ghosts.load(std::memory_order_relaxed);
  const std::uint64_t small = log_.ghost_buckets[0].load(std::memory_order_relaxed);
  const std::uint64_t n = log_.ghost_buckets[queue].load(std::memory_order_relaxed);
  if (block == 0 || n == 0) return nullptr;
  const std::uint64_t index = (hash >> 32U) * n >> 32U;
  const std::uint64_t first = (queue == 0 ? 0 : small) + index;
  if (base_.heap.room(block) < aligned_bytes((first + 1) * kWays * sizeof(Fingerprint))) {
    return nullptr;
  }
  return base_.arena.at<Fingerprint>(aligned_object(block) + first * kWays * sizeof(Fingerprint),
                                     kWays * sizeof(Fingerprint));
}

std::uint64_t Ghosts::bytes(std::uint64_t entries) {
  const std::uint64_t buckets = buckets_for(entries, kOfSmall) + buckets_for(entries, kOfMain);
  return aligned_bytes(buckets * kWays * sizeof(Fingerprint));
}

bool Ghosts::fit(std::uint64_t entries, OwnerTag me) {
  const std::uint64_t made_for =
      log_.ghost_buckets[0].load(std::memory_order_relaxed) * 100ULL * kWays / kOfSmall;
  const std::uint64_t old = log_.ghosts.load(std::memory_order_relaxed);
  if (old != 0 && entries * 2 <= made_for * 3 + 64 && entries * 2 + 64 >= made_for) return true;
  const std::uint32_t n[2] = {buckets_for(entries, kOfSmall), buckets_for(entries, kOfMain)};
  const std::uint64_t bytes = (n[0] + n[1]) * static_cast<std::uint64_t>(kWays) * 2;
  const Result<std::uint64_t> block = base_.heap.allocate(aligned_bytes(bytes), me);
  if (!block) return false;
  auto* words = base_.arena.at<layout::Word>(aligned_object(block.value()), bytes);
  if (words == nullptr) return false;
  for (std::uint64_t i = 0; i < bytes / 8; ++i) words[i].store(0, std::memory_order_relaxed);
  std::uint32_t kept[2] = {0, 0};
  // Buckets divide the range of hashes evenly, so old bucket i lies about where new bucket
  // i * n / old n does: most ghosts are found again.
  for (std::uint32_t queue = 0; queue < 2; ++queue) {
    const std::uint64_t had = log_.ghost_buckets[queue].load(std::memory_order_relaxed);
    for (std::uint64_t i = 0; i < n[queue] && had != 0; ++i) {
      const std::uint64_t middle = ((2 * i + 1) << 31U) / n[queue] << 32U;
      const Fingerprint* from = bucket(queue, middle);
      auto* to = reinterpret_cast<Fingerprint*>(words) +
                 (static_cast<std::uint64_t>(queue) * n[0] + i) * kWays;
      for (std::uint32_t way = 0; from != nullptr && way < kWays; ++way) {
        const std::uint16_t f = from[way].load(std::memory_order_relaxed);
        to[way].store(f, std::memory_order_relaxed);
        kept[queue] += f != 0 ? 1U : 0U;
      }
    }
  }
  directory_.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
  directory_.mutex.pending[1].store(base_.heap.ticket(old), std::memory_order_release);
  CELERIAC_CRASH_POINT("ghosts.fit.pending");
  base_.heap.make_live(block.value(), me);
  // Sizes that belong to another block are bounded by the arena's end: wrong hints, nothing else.
  log_.ghosts.store(0, std::memory_order_relaxed);
  for (std::uint32_t queue = 0; queue < 2; ++queue) {
    log_.ghost_buckets[queue].store(n[queue], std::memory_order_relaxed);
    log_.ghost_entries[queue].store(kept[queue], std::memory_order_relaxed);
  }
  log_.ghosts.store(block.value(), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("ghosts.fit.linked");
  const bool ours = old != 0 && base_.heap.condemn(old, me);
  directory_.mutex.pending[0].store(0, std::memory_order_release);
  directory_.mutex.pending[1].store(0, std::memory_order_release);
  if (ours) base_.heap.free(old, me);
  return true;
}

void Ghosts::drop(OwnerTag me) {
  const std::uint64_t block = log_.ghosts.load(std::memory_order_relaxed);
  directory_.mutex.pending[1].store(base_.heap.ticket(block), std::memory_order_release);
  log_.ghosts.store(0, std::memory_order_relaxed);
  for (layout::HalfWord& n : log_.ghost_entries) n.store(0, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("ghosts.drop.unlinked");
  const bool ours = block != 0 && base_.heap.condemn(block, me);
  directory_.mutex.pending[1].store(0, std::memory_order_release);
  if (ours) base_.heap.free(block, me);
}

void Ghosts::push(std::uint32_t queue, std::uint64_t hash) {
  Fingerprint* b = bucket(queue, hash);
  if (b == nullptr) return;
  const bool full = b[kWays - 1].load(std::memory_order_relaxed) != 0;
  for (std::uint32_t i = kWays - 1; i > 0; --i) {
    b[i].store(b[i - 1].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  b[0].store(fingerprint(hash), std::memory_order_relaxed);
  if (!full) log_.ghost_entries[queue].fetch_add(1, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("ghosts.push.stored");
}

bool Ghosts::take(std::uint32_t queue, std::uint64_t hash) {
  Fingerprint* b = bucket(queue, hash);
  if (b == nullptr) return false;
  std::uint32_t i = 0;
  while (i < kWays && b[i].load(std::memory_order_relaxed) != fingerprint(hash)) ++i;
  if (i == kWays) return false;
  for (; i + 1 < kWays; ++i) {
    b[i].store(b[i + 1].load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  b[kWays - 1].store(0, std::memory_order_relaxed);
  const std::uint32_t n = entries(queue);
  if (n > 0) log_.ghost_entries[queue].store(n - 1, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("ghosts.take.stored");
  return true;
}

}  // namespace celeriac
