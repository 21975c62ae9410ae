// The cache's memory: what an entry costs, what is left of it after a long life, limits, expiry.
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::must;
using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class CacheMemory : public test::LocalStoreTest {
 protected:
  explicit CacheMemory(std::uint64_t memory = 64 * kMiB) : LocalStoreTest(memory) {}
  void SetUp() override { CELERIAC_TEST_HAS_ONE_THREAD(); }

  std::uint64_t used() { return core->arena().size() - layout::kBlocks - heap().stats().free; }
  Index& index() { return core->cache().index(); }
  // Index ways, and those of them that are taken.
  std::pair<std::uint64_t, std::uint64_t> ways() {
    std::pair<std::uint64_t, std::uint64_t> n;
    for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
      const TableWord t{index().shard(i).table.load()};
      const layout::Bucket* b = index().buckets(t);
      for (std::uint64_t k = 0; b != nullptr && k < t.size(); ++k) {
        for (const layout::Word& way : b[k].ways) {
          ++n.first;
          n.second += IndexWord{way.load()}.free() ? 0U : 1U;
        }
      }
    }
    return n;
  }

  Space cache{*core, "cache"};
};

// Limits, cleared.
TEST_F(CacheMemory, AClearedCacheWithALimitHoldsAsManyAgain) {
  cache.limit(100);
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t i = 0; i < 250; ++i) {
      cache.set(key(i), "v");
      for (int hits = 0; i % 3 == 0 && hits < 3; ++hits) cache.get(key(i));  // for the main queue
    }
    EXPECT_EQ(cache.counts().entries, 100U) << round;
    cache.clear();
    for (std::uint64_t i = 0; i < 100; ++i) cache.set(key(1000 + i), "v");
    EXPECT_EQ(cache.counts().entries, 100U) << round;
  }
}

// Everything counted: heads, padding, index with its free ways, blocks, records, segments half
// full, ghosts.
TEST_F(CacheMemory, AnEntryCostsAtMost24BytesBeyondKeyAndValue) {
  std::uint64_t content = 0;
  std::uint64_t next = 30'000;
  for (std::uint64_t i = 0; i < 240'000; ++i) {
    const std::string value(20 + i % 180, 'v');
    cache.set(key(i), value);
    content += key(i).size() + value.size();
    if (i + 1 != next) continue;
    next += next / 10;
    ASSERT_EQ(cache.counts().entries, i + 1) << "nothing was evicted so far";
    const double overhead = static_cast<double>(used() - content) / static_cast<double>(i + 1);
    EXPECT_LE(overhead, 24.0) << i + 1 << " entries";
  }
  // Full, so that there are ghosts.
  for (std::uint64_t i = 240'000; i < 900'000; ++i) cache.set(key(i), std::string(100, 'v'));
  content = 0;
  std::uint64_t entries = 0;
  core->cache().each(cache.index(), me(), [&](std::string_view k, const ValueBuffer& v) {
    content += k.size() + v.bytes().size();
    return ++entries, true;
  });
  EXPECT_NE(core->cache().segments().log(0).ghosts.load(), 0U);
  EXPECT_GT(entries, 350'000U);
  const double overhead = static_cast<double>(used() - content) / static_cast<double>(entries);
  EXPECT_LE(overhead, 24.0) << entries << " entries";
}

// A new key whose tag is another's is written, looked at and written anew: 1.3 % of them.
TEST_F(CacheMemory, RoomThatIsNotLinkedIsTakenBack) {
  for (std::uint64_t i = 0; i < 100'000; ++i) cache.set(key(i), std::string(100, 'v'));
  Segments& segments = core->cache().segments();
  std::uint64_t used = 0;
  std::uint64_t live = 0;
  for (std::uint32_t i = 1; i < segments.high(); ++i) {
    const layout::SegmentRecord* r = segments.record(i);
    if (TaggedWord{r->word.load()}.state() == Segments::kFree) continue;
    used += r->used.load() - kFirstInSegment;
    live += load_live(r->live).bytes();
  }
  EXPECT_EQ(used, live);
}

TEST_F(CacheMemory, TheIndexIsFourFifthsFullOrMoreOnceItIsLarge) {
  std::uint64_t moved = 0;
  for (std::uint64_t i = 0; i < 120'000; ++i) {
    cache.set(key(i), "v");
    if (i % 7000 != 6999) continue;
    const auto [all, taken] = ways();
    EXPECT_EQ(taken, i + 1);
    EXPECT_GE(taken * 100, all * (i < 20'000 ? 65 : 80)) << i;
  }
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) moved += index().shard(i).moves.load();
  EXPECT_GT(moved, 1000U) << "words move to their other bucket";
  for (std::uint64_t i = 0; i < 120'000; ++i) ASSERT_TRUE(cache.has(key(i)));
}

TEST_F(CacheMemory, ALimitByNumberIsKeptAtEachMoment) {
  cache.limit(50);
  std::mt19937_64 random(5);
  for (int i = 0; i < 20'000; ++i) {
    const std::string k = key(random() % 120);
    if (!cache.get(k)) cache.set(k, std::string(random() % 50, 'x'));
    ASSERT_LE(cache.counts().entries, 50U);
    if (i > 1000) {
      ASSERT_EQ(cache.counts().entries, 50U) << "and no lower";
    }
  }
  EXPECT_EQ(cache.walk(), 50U);
  cache.limit(20);
  EXPECT_LE(cache.counts().entries, 20U);
  cache.limit(0);
  for (std::uint64_t i = 0; i < 1000; ++i) cache.set(key(i), "x");
  EXPECT_GE(cache.counts().entries, 1000U);
}

TEST_F(CacheMemory, ALimitComesToACacheThatIsFull) {
  for (std::uint64_t i = 0; i < 1000; ++i) cache.set(key(i), "x");
  cache.limit(100);
  EXPECT_EQ(cache.counts().entries, 100U);
  for (std::uint64_t i = 2000; i < 3000; ++i) cache.set(key(i), "x");
  EXPECT_LE(cache.counts().entries, 200U);
}

// Ten keys that are read between scans of ten thousand others.
TEST_F(CacheMemory, AScanDoesNotEvictWhatIsRead) {
  cache.limit(100);
  std::uint64_t other = 100;
  std::uint64_t missed = 0;
  for (int round = 0; round < 200; ++round) {
    for (std::uint64_t i = 0; i < 10; ++i) {
      if (cache.get(key(i))) continue;
      ++missed;
      cache.set(key(i), "hot");
    }
    for (int i = 0; i < 50; ++i) cache.set(key(other++), "cold");
  }
  EXPECT_LE(missed, 40U) << "of 2,000; an LRU cache would miss none, a FIFO cache half";
  for (int i = 0; i < 1000; ++i) cache.set(key(other++), "cold");
  std::uint64_t left = 0;
  for (std::uint64_t i = 0; i < 10; ++i) left += cache.has(key(i)) ? 1U : 0U;
  EXPECT_EQ(left, 10U) << "an LRU cache would have none";
}

TEST_F(CacheMemory, ExpiredSegmentsGoBeforeAnythingThatLives) {
  const std::string value(1000, 'v');
  for (std::uint64_t i = 0; i < 20'000; ++i) cache.set("stays " + key(i), value);
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    cache.set("goes " + key(i), value, now_ns() + 50 * kMillisecond);
  }
  test::sleep_us(60'000);
  for (std::uint64_t i = 0; i < 35'000; ++i) cache.set("new " + key(i), value);
  const CacheCounts c = cache.counts();
  EXPECT_EQ(c.evictions, 0U);
  EXPECT_EQ(c.entries + c.expirations, 75'000U) << "nothing else went";
  EXPECT_GT(c.expirations, 75'000U - core->arena().size() / 1000) << "that many don't fit";
  for (std::uint64_t i = 0; i < 20'000; ++i) ASSERT_TRUE(cache.has("stays " + key(i))) << i;
}

TEST_F(CacheMemory, TouchedEntriesOutliveTheirSegment) {
  const std::string value(1000, 'v');
  for (std::uint64_t i = 0; i < 1000; ++i) {
    cache.set(key(i), value, now_ns() + 30 * kMillisecond);
    if (i % 100 == 0) cache.touch(key(i), now_ns() + 3600 * kSecond);
  }
  test::sleep_us(40'000);
  for (std::uint64_t i = 0; i < 50'000; ++i) cache.set("new " + key(i), value);
  for (std::uint64_t i = 0; i < 1000; i += 100) EXPECT_TRUE(cache.has(key(i))) << i;
}

TEST_F(CacheMemory, GarbageGoesBeforeAnythingThatLives) {
  // Half of the memory lives; all of it is written over and over in no order.
  const std::uint64_t keys = 26'000;
  std::mt19937_64 random(8);
  for (std::uint64_t i = 0; i < 300'000; ++i) {
    cache.set(key(random() % keys), std::string(900 + random() % 200, 'v'));
  }
  const CacheCounts c = cache.counts();
  EXPECT_EQ(c.evictions, 0U);
  EXPECT_GT(c.entries, keys - 20);
}

// A writer that is slow, or stopped: its bytes go where it reserved, whatever is evicted meanwhile.
TEST_F(CacheMemory, MemoryThatSomebodyWritesIntoIsNobodyElses) {
  const std::string value(500, 'v');
  for (const std::uint64_t size : {300U, 100'000U}) {
    EntryHead head;
    head.expires = kNever;
    head.key_size = 4;
    head.value_size = size;
    head.raw_value_size = static_cast<std::uint16_t>(size > 60'000 ? kSingleSize : size);
    head.codec = Codec::kBytes;
    head.space = static_cast<std::uint8_t>(cache.index());
    const Reserved r =
        must(core->cache().eviction().reserve(head, 12345, IndexWord{}, now_ns(), me()));
    Segments& segments = core->cache().segments();
    const auto is_the_same = [&] {
      const TaggedWord now{segments.record(r.location.segment())->word.load()};
      return now.state() != Segments::kFree && now.generation() == TaggedWord{r.word}.generation();
    };
    for (std::uint64_t i = 0; i < 250'000; ++i) cache.set(key(i), value);
    EXPECT_GT(cache.counts().evictions, 100'000U);
    EXPECT_TRUE(is_the_same()) << size;
    EXPECT_FALSE(segments.writable(r)) << "but it can't be linked any more";
    complete_head(r.place, r.head);
    for (std::uint64_t i = 0; i < 250'000; ++i) cache.set(key(i), value);
    EXPECT_FALSE(is_the_same()) << "given back";
  }
}

class CacheSoak : public CacheMemory {
 protected:
  CacheSoak() : CacheMemory(32 * kMiB) {}
};

// Sizes from 1 byte to 4 MB, overwritten, deleted, expired, beside a queue-like user of the heap:
// what lives keeps its share of the memory to the end.
TEST_F(CacheSoak, ManySizesLeaveMemoryUsable) {
  std::mt19937_64 random(77);
  const auto size = [&] {
    const auto bits = random() % 100 < 97 ? random() % 14 : random() % 23;
    return 1 + random() % (1ULL << bits);
  };
  std::uint64_t least = ~0ULL;
  std::uint64_t sum = 0;
  std::uint64_t n = 0;
  std::vector<std::uint64_t> blocks;
  for (std::uint64_t i = 0; i < 120'000; ++i) {
    const std::string k = key(random() % 40'000);
    switch (random() % 12) {
      case 0:
        cache.erase(k);
        break;
      case 1:
        cache.set(k, std::string(size(), 's'), now_ns() + random() % (20 * kMillisecond));
        break;
      case 2:
        cache.get(k);
        break;
      case 3:
        if (const auto block = core->base().allocate(64 + random() % 4000, me())) {
          blocks.push_back(block.value());
        }
        break;
      default:
        ASSERT_TRUE(cache.store(k, std::string(size(), 'v'), StoreMode::kSet)) << i;
    }
    while (blocks.size() > 300) {
      std::swap(blocks[random() % blocks.size()], blocks.back());
      heap().release(blocks.back(), me());
      blocks.pop_back();
    }
    ASSERT_LE(core->arena().size(), 32 * kMiB);
    if (i > 60'000 && i % 1000 == 0) {
      least = std::min(least, cache.counts().bytes);
      sum += cache.counts().bytes;
      ++n;
    }
  }
  // A value of 4 MB drives out an eighth of everything, one after another, so the worst moment is
  // far from the mean.
  EXPECT_GE(sum / n, 16 * kMiB) << "half of the memory is content in the mean";
  EXPECT_GE(least, 6 * kMiB);
  EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
  EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
  EXPECT_TRUE(cache.set("large", std::string(2 * kMiB, 'l')));
  EXPECT_GE(cache.counts().entries, cache.walk());
}

class CacheWideSoak : public CacheMemory {
 protected:
  CacheWideSoak() : CacheMemory(256 * kMiB) {}
};

// Sizes from 1 byte to 64 MiB, each power of two as likely as the others: a value of any size finds
// room at any time, and what the cache holds does not dwindle.
TEST_F(CacheWideSoak, ValuesFrom1ByteTo64MiBFindRoomToTheEnd) {
  std::mt19937_64 random(5);
  const std::string bytes(64 * kMiB, 'v');
  std::uint64_t largest = 0;
  std::uint64_t early = 0;
  std::uint64_t late = 0;
  for (std::uint64_t i = 0; i < 9000; ++i) {
    // Large ones are rarer, so that the test takes a second.
    const std::uint64_t most = random() % 20 == 0 ? 27 : 20;
    const std::uint64_t size = 1 + (random() >> 1U) % (1ULL << random() % most);
    const std::string_view value(bytes.data(), size);
    const std::uint64_t expires = random() % 5 == 0 ? now_ns() + 20 * kMillisecond : kNever;
    const Result<bool> stored = cache.store(key(random() % 5000), value, StoreMode::kSet, expires);
    ASSERT_TRUE(stored.is_ok()) << i << ": " << size << ": " << stored.status().message();
    if (random() % 10 == 0) cache.erase(key(random() % 5000));
    largest = std::max(largest, size);
    ASSERT_LE(core->arena().size(), 256 * kMiB);
    if (i >= 3000 && i < 6000) early += cache.counts().bytes / 3000;
    if (i >= 6000) late += cache.counts().bytes / 3000;
  }
  EXPECT_GT(largest, 48 * kMiB);
  EXPECT_GT(early, 80 * kMiB);
  EXPECT_GT(late, 80 * kMiB);
  EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
  EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
  for (const std::uint64_t size : {std::uint64_t{1}, kMiB, 64 * kMiB}) {
    ASSERT_TRUE(cache.set("last", std::string_view(bytes.data(), size))) << size;
    EXPECT_EQ(cache.get("last")->size(), size);
  }
}

TEST(Expiry, IsRoundedDownByLittle) {
  const std::uint64_t base = 5'000'000'000'000;
  for (const std::uint64_t ttl :
       {std::uint64_t{0}, kMillisecond, 20 * kMillisecond, kSecond, 300 * kSecond, 86'400 * kSecond,
        400 * 86'400 * kSecond, 3'000'000'000UL * kSecond}) {
    const std::uint64_t back = decode_expiry(encode_expiry(base + ttl, base), base);
    EXPECT_LE(back, base + ttl);
    EXPECT_GE(back + 1024 + (ttl >> 26U), base + ttl) << ttl;
  }
  EXPECT_EQ(decode_expiry(encode_expiry(kNever, base), base), kNever);
  EXPECT_EQ(decode_expiry(encode_expiry(base - 7, base), base), base);
  EXPECT_LT(decode_expiry(0xFFFFFFFE, base), kNever);
}

TEST(Packed, CopiesAtEveryPlaceAndTouchesNothingElse) {
  alignas(8) char shared[128];
  char from[64];
  for (std::size_t i = 0; i < sizeof from; ++i) from[i] = static_cast<char>(i + 1);
  for (std::size_t at = 8; at < 24; ++at) {
    for (std::size_t n = 0; n <= 40; ++n) {
      std::memset(shared, 0x55, sizeof shared);
      copy_in_packed(shared + at, from, n);
      char back[64] = {};
      copy_out_packed(back, shared + at, n);
      ASSERT_EQ(std::memcmp(back, from, n), 0) << at << " " << n;
      ASSERT_TRUE(equal_packed(shared + at, from, n));
      ASSERT_EQ(shared[at - 1], 0x55);
      ASSERT_EQ(shared[at + n], 0x55);
      if (n > 0) {
        shared[at + n - 1] ^= 1;
        ASSERT_FALSE(equal_packed(shared + at, from, n));
      }
    }
  }
}

}  // namespace
}  // namespace celeriac
