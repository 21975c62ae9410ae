// Cache and queue share the memory: neither keeps the other from what is free or can be evicted.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
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
  void SetUp() override { CELERIAC_TEST_HAS_ONE_THREAD(); }

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

// Spare segments lay in the way, anywhere in memory; and the cache was evicted down to half of it.
TEST_F(MemoryMix, AValueOfHalfTheMemoryHasRoomInACacheOfManySizes) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 15'000; ++i) {
      const std::size_t sizes[] = {10, 100, 1000, 10'000, 100'000};
      cache.set(key(random() % 100'000), std::string(sizes[random() % 5], 'v'));
    }
    for (int i = 0; i < 4; ++i) cache.set("large", std::string(5 * kMiB, 'l'));
    EXPECT_LT(heap().stats().free, 16 * kMiB) << "no more is evicted than it needs, about";
    if (round % 2 == 0) cache.clear();
    const Result<bool> stored = cache.store("half", std::string(16 * kMiB, 'h'), StoreMode::kSet);
    EXPECT_TRUE(stored.is_ok()) << round << ": " << stored.status().message();
  }
}

TEST_F(MemoryMix, AValueThatCannotFitEvictsNothing) {
  for (int i = 0; i < 18; ++i) queue.put(std::string(kMiB, 'm'));
  std::uint64_t n = 0;
  while (cache.counts().evictions == 0) cache.set(key(n++), std::string(1000, 'v'));
  const CacheCounts before = cache.counts();
  for (const StoreMode mode : {StoreMode::kAdd, StoreMode::kSet}) {
    const Result<bool> stored = cache.store("large", std::string(15 * kMiB, 'l'), mode);
    ASSERT_EQ(stored.status().code(), Code::kNotEnoughMemory);
    EXPECT_NE(stored.status().message().find("largest free piece is "), std::string::npos);
    EXPECT_EQ(stored.status().message().find("full"), std::string::npos);
  }
  EXPECT_EQ(cache.counts().evictions, before.evictions);
  EXPECT_EQ(cache.counts().entries, before.entries);
  const std::string last = key(n - 1);
  EXPECT_FALSE(cache.store(last, std::string(15 * kMiB, 'l'), StoreMode::kSet).is_ok());
  EXPECT_FALSE(cache.has(last)) << "the old value isn't what was set";
  EXPECT_EQ(cache.counts().entries, before.entries - 1);
  EXPECT_TRUE(cache.set("large", std::string(3 * kMiB, 'l')));
  EXPECT_GT(cache.counts().entries, before.entries / 3) << "no more than it needs, about";
}

TEST_F(MemoryMix, AQueueIsFullOnlyWhenNothingOfTheCacheIsLeft) {
  const std::size_t sizes[] = {2 * kMiB, 9000, 200, 2 * kMiB};
  for (std::size_t round = 0; round < 4; ++round) {
    const std::size_t size = sizes[round];
    for (std::uint64_t i = 0; i < 60'000; ++i) cache.set(key(i), std::string(1000, 'v'));
    Result<std::uint64_t> put(0);
    std::uint64_t n = 0;
    while ((put = queue.try_put({{}, std::string(size, 'm')}))) ++n;
    EXPECT_EQ(put.status().code(), Code::kQueueFull);
    // A queue's tables of slots stay where they came when it had 100,000 messages, with less than
    // two mebibytes between them.
    const bool cut_up = round == 3;
    EXPECT_GT(n * (size + 100), (cut_up ? 12 : 20) * kMiB) << size;
    EXPECT_LT(free_or_evictable(), cut_up ? 16 * kMiB : 2 * size + kMiB) << put.status().message();
    queue.purge();
    EXPECT_TRUE(cache.set("again", "v"));
  }
}

// Values up to an eighth of the memory are never refused while half of it is free or evictable.
TEST_F(MemoryMix, LargeValuesAreNotRefusedWhileHalfOfTheMemoryCouldBeTheirs) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    std::mt19937_64 random(seed);
    std::uint64_t large = 0;
    for (int i = 0; i < 30'000; ++i) {
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
