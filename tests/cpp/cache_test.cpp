// The cache and the tables, used by one thread.
#include "store/cache.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "store/hash.hpp"
#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;

class CacheTest : public test::LocalStoreTest {
 protected:
  CacheTest() : LocalStoreTest(8 * kMiB) {}
  static std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

  Space cache{*core, "cache"};
  Space table{*core, "table", true};
};

using test::must;

TEST_F(CacheTest, SetGetReplaceErase) {
  EXPECT_EQ(cache.get("k"), std::nullopt);
  EXPECT_TRUE(cache.set("k", "one"));
  EXPECT_EQ(cache.get("k"), "one");
  EXPECT_TRUE(cache.set("k", "another, longer"));
  EXPECT_EQ(cache.get("k"), "another, longer");
  EXPECT_TRUE(cache.erase("k"));
  EXPECT_FALSE(cache.erase("k"));
  EXPECT_FALSE(cache.has("k"));
}

TEST_F(CacheTest, KeysAndValuesAreAnyBytesOfAnySize) {
  const std::string zero("a\0b", 3);
  const std::string huge_key(kMaxKeyBytes, 'k');
  for (const std::string& k : {std::string(), zero, std::string("a"), huge_key}) {
    for (const std::size_t n : {0, 1, 7, 8, 9, 1023, 1024, 1025, 200'000}) {
      const std::string value(n, 'v');
      ASSERT_TRUE(cache.set(k, value));
      ASSERT_EQ(cache.get(k), value) << k.size() << " " << n;
    }
  }
  EXPECT_EQ(cache.counts().entries, 4U);
}

TEST_F(CacheTest, AddAndReplaceHaveTheirConditions) {
  EXPECT_FALSE(must(cache.store("k", "0", StoreMode::kReplace)));
  EXPECT_TRUE(must(cache.store("k", "1", StoreMode::kAdd)));
  EXPECT_FALSE(must(cache.store("k", "2", StoreMode::kAdd)));
  EXPECT_EQ(cache.get("k"), "1");
  EXPECT_TRUE(must(cache.store("k", "3", StoreMode::kReplace)));
  EXPECT_EQ(cache.get("k"), "3");
}

TEST_F(CacheTest, CompareStoresOnlyOverTheVersionSeen) {
  const auto compare = [&](std::string_view value, std::uint64_t version) {
    return must(table.store("k", value, StoreMode::kCompare, kNever, version));
  };
  EXPECT_TRUE(compare("1", 0)) << "absent";
  EXPECT_FALSE(compare("2", 0)) << "present now";
  const std::uint64_t seen = table.version("k");
  EXPECT_TRUE(compare("2", seen));
  EXPECT_FALSE(compare("3", seen)) << "changed since";
  EXPECT_EQ(table.get("k"), "2");
  table.erase("k");
  EXPECT_FALSE(compare("4", seen));
  EXPECT_TRUE(compare("4", 0));
}

TEST_F(CacheTest, NoVersionComesTwice) {
  std::mt19937_64 random(23);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 20'000; ++i) {
    table.set("k", std::string(random() % 300, 'v'));
    ASSERT_TRUE(seen.insert(table.version("k")).second) << "round " << i;
    if (random() % 3 == 0) table.set("other", std::string(random() % 600, 'o'));
    if (random() % 3 == 0) table.erase("other");
    if (random() % 5 == 0) table.erase("k");
  }
}

TEST_F(CacheTest, VersionOfAnIntegerChangesWithIt) {
  table.set_int("n", 1);
  std::int64_t sum = 0;
  const std::uint64_t before = table.version("n");
  ASSERT_EQ(table.increment("n", 1, &sum), IncrementResult::kDone);
  EXPECT_NE(table.version("n"), before);
  EXPECT_FALSE(must(table.store("n", "x", StoreMode::kCompare, kNever, before)));
}

TEST_F(CacheTest, EntriesExpire) {
  cache.set("past", "x", 1);
  cache.set("soon", "x", now_ns() + 20 * kMillisecond);
  cache.set("later", "x", now_ns() + 1000 * kSecond);
  EXPECT_FALSE(cache.has("past"));
  EXPECT_TRUE(cache.has("later"));
  test::sleep_us(25'000);
  EXPECT_FALSE(cache.has("soon"));
  EXPECT_FALSE(cache.touch("soon", kNever)) << "too late";
  EXPECT_TRUE(must(cache.store("soon", "new", StoreMode::kAdd)));
  EXPECT_EQ(cache.get("soon"), "new");
}

TEST_F(CacheTest, TouchMovesTheExpiry) {
  cache.set("k", "x", now_ns() + 1000 * kSecond);
  EXPECT_TRUE(cache.touch("k", now_ns() + 10 * kMillisecond));
  EXPECT_TRUE(cache.has("k"));
  test::sleep_us(12'000);
  EXPECT_FALSE(cache.has("k"));
  EXPECT_FALSE(cache.touch("absent", kNever));
}

TEST_F(CacheTest, IncrementAddsAndKeepsItsReasons) {
  std::int64_t n = 0;
  EXPECT_EQ(cache.increment("n", 1, &n), IncrementResult::kMissing);
  cache.set_int("n", 40);
  EXPECT_EQ(cache.increment("n", 2, &n), IncrementResult::kDone);
  EXPECT_EQ(n, 42);
  EXPECT_EQ(cache.increment("n", -50, &n), IncrementResult::kDone);
  EXPECT_EQ(n, -8);
  cache.set("text", "12345678");
  EXPECT_EQ(cache.increment("text", 1, &n), IncrementResult::kNotInteger);
  cache.set_int("n", std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(cache.increment("n", 1, &n), IncrementResult::kOverflow);
  EXPECT_EQ(cache.increment("n", -1, &n), IncrementResult::kDone);
}

TEST_F(CacheTest, NamespacesAreApartAndClearedInOneStep) {
  Space other(*core, "other");
  cache.set("k", "mine");
  other.set("k", "theirs");
  cache.clear();
  EXPECT_FALSE(cache.has("k"));
  EXPECT_EQ(other.get("k"), "theirs");
  EXPECT_EQ(cache.counts().entries, 0U);
  cache.set("k", "again");
  EXPECT_EQ(cache.counts().entries, 1U);
}

TEST_F(CacheTest, NamespaceIsACacheOrATableForEver) {
  EXPECT_EQ(core->cache().namespaces().open("cache", true, me()).status().code(),
            Code::kConfiguration);
  EXPECT_EQ(core->cache().namespaces().open("", false, me()).status().code(), Code::kConfiguration);
}

TEST_F(CacheTest, ManyEntriesAreFoundAfterTheIndexGrew) {
  for (std::uint64_t i = 0; i < 20'000; ++i) table.set(key(i), key(i * 7));
  for (std::uint64_t i = 0; i < 20'000; ++i) ASSERT_EQ(table.get(key(i)), key(i * 7));
  EXPECT_EQ(table.counts().entries, 20'000U);
  EXPECT_EQ(table.walk(), 20'000U);
  for (std::uint64_t i = 0; i < 20'000; i += 2) ASSERT_TRUE(table.erase(key(i)));
  EXPECT_EQ(table.counts().entries, 10'000U);
  EXPECT_FALSE(table.has(key(2)));
  EXPECT_TRUE(table.has(key(3)));
}

TEST_F(CacheTest, EvictionHoldsTheBound) {
  const std::string value(2000, 'v');
  for (std::uint64_t i = 0; i < 20'000; ++i) ASSERT_TRUE(cache.set(key(i), value));
  EXPECT_LE(core->arena().size(), 8 * kMiB);
  EXPECT_TRUE(cache.has(key(19'999)));
  const CacheCounts c = cache.counts();
  EXPECT_GT(c.evictions, 15'000U);
  EXPECT_GT(c.entries, 2000U) << "and doesn't give more away than it must";
  EXPECT_EQ(c.entries, cache.walk());
  EXPECT_EQ(c.entries + c.evictions, 20'000U);
  EXPECT_LE(c.bytes, core->arena().size());
}

TEST_F(CacheTest, TablesAreNeverEvicted) {
  for (std::uint64_t i = 0; i < 500; ++i) table.set(key(i), key(i));
  const std::string value(3000, 'v');
  for (std::uint64_t i = 0; i < 8000; ++i) ASSERT_TRUE(cache.set(key(i), value));
  for (std::uint64_t i = 0; i < 500; ++i) ASSERT_EQ(table.get(key(i)), key(i));
  EXPECT_EQ(table.counts().evictions, 0U);
}

TEST_F(CacheTest, FullTableSaysSoAndChangesNothing) {
  const std::string value(50'000, 'v');
  std::uint64_t n = 0;
  Status last;
  for (; last; ++n) last = table.store(key(n), value, StoreMode::kSet).status();
  EXPECT_EQ(last.code(), Code::kNotEnoughMemory);
  EXPECT_EQ(table.counts().entries, n - 1);
  EXPECT_EQ(table.get(key(n - 2)), value);
  EXPECT_EQ(table.store(key(0), std::string(80'000, 'w'), StoreMode::kSet).status().code(),
            Code::kNotEnoughMemory);
  EXPECT_EQ(table.get(key(0)), value);
  ASSERT_TRUE(table.erase(key(0)));
  EXPECT_TRUE(table.set(key(0), value)) << "room again";
}

TEST_F(CacheTest, ValueLargerThanTheArenaIsRefused) {
  cache.set("k", "old");
  const std::string giant(9 * kMiB, 'g');
  EXPECT_EQ(cache.store("k", giant, StoreMode::kSet).status().code(), Code::kValueTooLarge);
  EXPECT_EQ(cache.get("k"), std::nullopt) << "nor is the old one what was set";
  EXPECT_TRUE(cache.set("large", std::string(5 * kMiB, 'l')));
}

TEST_F(CacheTest, CullTakesThatMany) {
  for (std::uint64_t i = 0; i < 1000; ++i) cache.set(key(i), "x");
  EXPECT_EQ(core->cache().eviction().cull(cache.index(), 300, me()), 300U);
  EXPECT_EQ(cache.counts().entries, 700U);
  EXPECT_EQ(core->cache().eviction().cull(cache.index(), 5000, me()), 700U);
  EXPECT_EQ(cache.walk(), 0U);
}

TEST_F(CacheTest, CountsAreExact) {
  cache.set("a", "1");
  cache.set("b", "2");
  cache.get("a");
  cache.get("none");
  cache.erase("b");
  cache.erase("none");
  const CacheCounts c = cache.counts();
  EXPECT_EQ(c.sets, 2U);
  EXPECT_EQ(c.hits, 1U);
  EXPECT_EQ(c.misses, 1U);
  EXPECT_EQ(c.deletes, 1U);
  EXPECT_EQ(c.entries, 1U);
  EXPECT_EQ(c.bytes, kEntryHead + 1 + 1 + sizeof(layout::Word));
}

TEST_F(CacheTest, NothingLeaksThroughReplacingAndErasing) {
  cache.set("warm", "up");
  const std::uint64_t before = heap().stats().blocks;
  for (std::uint64_t i = 0; i < 5000; ++i) cache.set(key(i % 10), std::string(i % 900, 'x'));
  for (std::uint64_t i = 0; i < 10; ++i) cache.erase(key(i));
  // Shards that met their first key have a table of their own; "warm" keeps its segment beside the
  // open one, and one more may hold what lives when the loop ends.
  EXPECT_LE(heap().stats().blocks, before + 10 + 2);
  const test::HeapPicture p = test::look_at_heap(core->arena());
  EXPECT_TRUE(p.whole);
  EXPECT_EQ(p.used_blocks, heap().stats().blocks);
}

TEST_F(CacheTest, RandomUseAgainstAModel) {
  std::mt19937_64 random(99);
  std::map<std::string, std::string> model;
  for (int i = 0; i < 60'000; ++i) {
    const std::string k = key(random() % 400);
    switch (random() % 5) {
      case 0:
        model[k] = test::checkable(random(), random() % 300);
        table.set(k, model[k]);
        break;
      case 1:
        ASSERT_EQ(table.erase(k), model.erase(k) == 1);
        break;
      case 2:
        ASSERT_EQ(must(table.store(k, "added", StoreMode::kAdd)),
                  model.try_emplace(k, "added").second);
        break;
      default:
        const auto it = model.find(k);
        const std::optional<std::string> got = table.get(k);
        ASSERT_EQ(got.has_value(), it != model.end());
        if (got) {
          ASSERT_EQ(*got, it->second);
        }
    }
    if (i == 30'000) {
      table.clear();
      model.clear();
    }
  }
  EXPECT_EQ(table.counts().entries, model.size());
}

TEST_F(CacheTest, ChangeCountRisesForTablesOnly) {
  const auto count = [&](Space& s) { return core->cache().change_count(s.index(), "k"); };
  const std::uint32_t cache_before = count(cache);
  const std::uint32_t before = count(table);
  table.set("k", "1");
  table.erase("k");
  EXPECT_EQ(count(table), before + 2);
  cache.set("k", "1");
  EXPECT_EQ(count(cache), cache_before);
}

TEST(Hash, EveryByteAndTheKeyMatter) {
  const std::string text(40, 'a');
  std::set<std::uint64_t> seen{hash_key(text, 1), hash_key(text, 2), hash_key(text + "a", 1)};
  for (std::size_t n = 0; n < 40; ++n) seen.insert(hash_key(std::string(n, 'a'), 1));
  for (std::size_t i = 0; i < 40; ++i) {
    std::string other = text;
    other[i] = 'b';
    seen.insert(hash_key(other, 1));
  }
  EXPECT_EQ(seen.size(), 3U + 40 + 40);
}

TEST(Hash, SpreadsOverTheShards) {
  std::array<int, layout::kShardCount> hits{};
  for (int i = 0; i < 64'000; ++i) ++hits[Place(hash_key("user:" + std::to_string(i), 5)).shard];
  for (const int n : hits) EXPECT_NEAR(n, 1000, 200);
}

}  // namespace
}  // namespace celeriac
