// Cache and queue share the memory: neither keeps the other from what is free or can be evicted.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Space;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class MemoryMix : public test::LocalStoreTest {
 protected:
  MemoryMix() : LocalStoreTest(32 * kMiB) {}

  // What a value could have: free, or a segment of the cache.
  std::uint64_t free_or_evictable() {
    const HeapStats s = heap().stats();
    std::uint64_t bytes = s.capacity - s.size + s.free;
    Segments& segments = core->cache().segments();
    for (std::uint32_t i = 1; i < segments.high(); ++i) {
      const layout::SegmentRecord* r = segments.record(i);
      if (TaggedWord{r->word.load()}.state() != Segments::kFree) bytes += r->size.load();
    }
    return bytes;
  }

  Space cache{*core, "cache"};
  TestQueue queue{*core};
};

TEST_F(MemoryMix, AfterABurstOfSmallMessagesALargeValueHasRoom) {
  for (const std::size_t size : {10U, 100U, 1000U, 5000U}) {
    std::uint64_t n = 0;
    for (std::uint64_t bytes = 0; bytes < 20 * kMiB; bytes += size + 120) {
      if (queue.try_put({{}, std::string(size, 'm')})) ++n;
    }
    while (queue.take() != "none") --n;
    EXPECT_EQ(n, 0U);
    const Result<bool> stored = cache.store("large", std::string(4 * kMiB, 'l'), StoreMode::kSet);
    EXPECT_TRUE(stored.is_ok()) << size << ": " << stored.status().message();
  }
}

// Values up to an eighth of the memory are never refused while half of it is free or evictable.
TEST_F(MemoryMix, LargeValuesAreNotRefusedWhileHalfOfTheMemoryCouldBeTheirs) {
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    std::mt19937_64 random(seed);
    std::uint64_t large = 0;
    for (int i = 0; i < 15'000; ++i) {
      const std::uint64_t what = random() % 1000;
      if (what < 2) {
        const std::uint64_t most = random() % (6 * kMiB);
        const std::size_t size = 1ULL << random() % 15;
        for (std::uint64_t bytes = 0; bytes < most; bytes += size + 150) {
          if (!queue.try_put({{}, std::string(1 + random() % size, 'm')})) break;
        }
      } else if (what < 4) {
        const std::uint64_t keep = random() % 3 == 0 ? random() % 2000 : 0;
        for (std::uint64_t n = queue.counts().ready; n > keep && queue.take() != "none"; --n) {
        }
      } else if (what < 20 || (what < 500 && i % 5000 < 1500)) {
        if (random() % 2 == 0) {
          static_cast<void>(queue.try_put({{}, std::string(random() % 3000, 'm')}));
        } else {
          queue.take();
        }
      } else {
        const std::uint64_t bits = random() % 100 < 97 ? random() % 14 : random() % 23;
        const std::size_t size = 1 + random() % (1ULL << bits);
        const std::uint64_t could = free_or_evictable();
        const Result<bool> stored =
            cache.store(key(random() % 40'000), std::string(size, 'v'), StoreMode::kSet);
        large += size > kMiB ? 1U : 0U;
        ASSERT_TRUE(stored.is_ok() || could < 16 * kMiB)
            << seed << " " << i << ": " << stored.status().message() << "; " << could
            << " bytes are free or evictable";
      }
    }
    EXPECT_GT(large, 10U);
    queue.purge();
    cache.clear();
  }
  EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
  EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
}

}  // namespace
}  // namespace celeriac
