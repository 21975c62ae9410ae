// A damaged cache: what can't be an entry is a miss, dropped and counted, and nothing else goes.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"

namespace celeriac {
namespace {

using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class CacheDamage : public test::LocalStoreTest {
 protected:
  CacheDamage() : LocalStoreTest(16 * kMiB) {
    for (std::uint64_t i = 0; i < 500; ++i) cache.set(key(i), test::checkable(i, 50));
  }
  void SetUp() override { CELERIAC_TEST_HAS_ONE_THREAD(); }

  Index& index() { return core->cache().index(); }
  std::uint64_t corrupt() { return core->arena().header().corrupt.load(); }
  Found found(Space& s, std::string_view k) {
    const Place place(index().hash(s.index(), k));
    const ShardGuard guard(core->base(), index(), place.shard, me());
    return index().find(place, s.index(), k).value();
  }
  // Lets the key's way lead somewhere else.
  void redirect(std::string_view k, Location where) {
    const Found f = found(cache, k);
    f.way->store(f.word.identity() ^ f.word.location().bits ^ where.bits);
  }
  void expect_all_but(const std::vector<std::uint64_t>& lost) {
    for (std::uint64_t i = 0; i < 500; ++i) {
      const bool gone = std::find(lost.begin(), lost.end(), i) != lost.end();
      const std::optional<std::string> v = cache.get(key(i));
      ASSERT_EQ(v.has_value(), !gone) << i;
      ASSERT_EQ(v.value_or(test::checkable(i, 50)), test::checkable(i, 50));
    }
    EXPECT_EQ(cache.counts().entries, 500 - lost.size());
    EXPECT_EQ(cache.walk(), 500 - lost.size());
  }

  Space cache{*core, "cache"};
};

TEST_F(CacheDamage, AReadDropsAWayThatLeadsNowhere) {
  redirect(key(7), Location::in_segment(0x7FFFF, 2));          // no such segment
  redirect(key(8), Location::in_block(0x7FFFFFFFF0));          // beyond the arena
  redirect(key(9), Location::in_block(layout::kBlocks + 16));  // no block begins there
  const Found f = found(cache, key(10));
  redirect(key(10), Location::in_segment(f.word.location().segment(), 0x1FFFE));  // beyond its end
  EXPECT_EQ(corrupt(), 0U) << "nobody has looked yet";
  expect_all_but({7, 8, 9, 10});
  EXPECT_EQ(corrupt(), 4U);
  expect_all_but({7, 8, 9, 10});
  EXPECT_EQ(corrupt(), 4U) << "each once";
  EXPECT_TRUE(cache.set(key(7), test::checkable(7, 50)));
  expect_all_but({8, 9, 10});
}

TEST_F(CacheDamage, AHeadOfNonsenseIsDropped) {
  const Found f = found(cache, key(7));
  half(f.place, 6) = 0xFFFF;  // a key of 65,535 bytes
  half(f.place, 8) = 0xFFFE;  // a value of as many
  EXPECT_FALSE(cache.get(key(7)));
  EXPECT_EQ(corrupt(), 1U);
  expect_all_but({7});
}

TEST_F(CacheDamage, WritesDropItToo) {
  for (std::uint64_t i = 0; i < 4; ++i) redirect(key(i), Location::in_segment(0x7FFFF, 2));
  EXPECT_TRUE(cache.set(key(0), test::checkable(0, 50)));
  EXPECT_FALSE(cache.erase(key(1)));
  EXPECT_FALSE(cache.touch(key(2), kNever));
  EXPECT_TRUE(cache.store(key(3), test::checkable(3, 50), StoreMode::kAdd).value());
  EXPECT_EQ(corrupt(), 4U);
  expect_all_but({1, 2});
}

// The index grows over damaged ways that nobody has read.
TEST_F(CacheDamage, ATableThatGrowsLeavesThemBehind) {
  for (std::uint64_t i = 0; i < 100; ++i) redirect(key(i), Location::in_segment(0x7FFFF, 2));
  for (std::uint64_t i = 500; i < 5000; ++i) cache.set(key(i), "v");
  EXPECT_EQ(corrupt(), 100U);
  EXPECT_EQ(cache.counts().entries, 4900U);
  EXPECT_EQ(cache.walk(), 4900U);
}

// Every word of the index is noise: all is lost, nothing crashes, and the cache works again.
TEST_F(CacheDamage, AnIndexOfNoise) {
  std::uint64_t noise = 88172645463325252ULL;
  std::uint64_t ways = 0;
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
    const TableWord t{index().shard(i).table.load()};
    layout::Bucket* b = index().buckets(t);
    for (std::uint64_t k = 0; b != nullptr && k < t.size(); ++k) {
      for (layout::Word& way : b[k].ways) {
        noise ^= noise << 13U;
        noise ^= noise >> 7U;
        noise ^= noise << 17U;
        way.store(noise);
        ++ways;
      }
    }
  }
  for (std::uint64_t i = 0; i < 500; ++i) cache.get(key(i));
  for (std::uint64_t i = 0; i < 500; ++i) cache.set(key(i), test::checkable(i, 50));
  expect_all_but({});
  EXPECT_GT(corrupt(), ways / 8);
  EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
}

// Damage inside of a segment, met by an eviction: what lies behind can't be found by it.
TEST_F(CacheDamage, EvictionGoesOnOverADamagedSegment) {
  for (std::uint64_t i = 0; i < 500; i += 100) {
    const Found f = found(cache, key(i));
    half(f.place, 6) = 0xFFFF;
  }
  const std::string value(1000, 'v');
  for (std::uint64_t i = 1000; i < 40'000; ++i) cache.set(key(i), value);
  EXPECT_GT(corrupt(), 0U);
  for (std::uint64_t i = 0; i < 500; ++i) {
    ASSERT_EQ(cache.get(key(i)).value_or(test::checkable(i, 50)), test::checkable(i, 50));
  }
  EXPECT_TRUE(cache.has(key(39'999)));
  EXPECT_GT(cache.counts().entries, 9000U);
}

}  // namespace
}  // namespace celeriac
