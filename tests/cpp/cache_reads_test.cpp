// What readers do to a cache: they take no lock, and change counts and frequencies only.
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kFrequency = 3ULL << 62U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class CacheReads : public test::LocalStoreTest {
 protected:
  CacheReads() : LocalStoreTest(8 * kMiB) {
    for (std::uint64_t i = 0; i < 2000; ++i) {
      cache.set(key(i), test::checkable(i, 50 + i % 500),
                i % 2 == 0 ? kNever : now_ns() + 1000 * kSecond);
    }
    for (std::uint64_t i = 0; i < 50; ++i) cache.set("expired " + key(i), "v", now_ns() - 1);
    cache.set_int("n", 7);
  }

  using Words = std::vector<std::uint64_t>;
  Words memory() {
    Words words(core->arena().size() / 8);
    std::memcpy(words.data(), core->arena().at<char>(0, core->arena().size()), words.size() * 8);
    return words;
  }
  // The places in bytes of the words that differ.
  static std::vector<std::uint64_t> differences(const Words& before, const Words& after) {
    std::vector<std::uint64_t> places;
    for (std::uint64_t i = 0; i < before.size(); ++i) {
      if (before[i] != after[i]) places.push_back(i * 8);
    }
    return places;
  }
  // Whether the place is a way of the index.
  bool is_way(std::uint64_t place) {
    Index& index = core->cache().index();
    for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
      const TableWord t{index.shard(i).table.load()};
      const char* b = reinterpret_cast<const char*>(index.buckets(t));
      if (b == nullptr) continue;
      const auto at =
          static_cast<std::uint64_t>(b - core->arena().at<char>(0, core->arena().size()));
      if (place >= at && place < at + t.size() * sizeof(layout::Bucket)) return true;
    }
    return false;
  }
  void read_all() {
    ValueBuffer v;
    for (std::uint64_t i = 0; i < 2500; ++i) {  // the last 500 are missing
      cache.get(key(i));
      cache.has(key(i));
      cache.version(key(i));
    }
    for (std::uint64_t i = 0; i < 50; ++i) cache.get("expired " + key(i));
    cache.get("n");
  }

  Space cache{*core, "cache"};
};

TEST_F(CacheReads, ChangeFrequenciesAndCountsOnly) {
  CELERIAC_TEST_HAS_ONE_THREAD();
  const Words before = memory();
  const CacheCounts counts = cache.counts();
  read_all();
  const Words after = memory();
  std::uint64_t frequencies = 0;
  std::uint64_t others = 0;
  for (const std::uint64_t place : differences(before, after)) {
    if (is_way(place)) {
      EXPECT_EQ((before[place / 8] ^ after[place / 8]) & ~kFrequency, 0U) << place;
      ++frequencies;
    } else {
      EXPECT_GE(place, layout::kCounters) << "before the counts";
      EXPECT_LT(place, layout::kShards) << "behind the counts";
      ++others;
    }
  }
  EXPECT_EQ(frequencies, 2001U);
  EXPECT_EQ(others, 2U) << "one stripe's hits and misses";
  EXPECT_EQ(cache.counts().hits, counts.hits + 2001);
  EXPECT_EQ(cache.counts().misses, counts.misses + 550);
  // Frequencies go to three, then a hit writes no shared word but its count.
  for (int i = 0; i < 3; ++i) read_all();
  const Words warm = memory();
  read_all();
  EXPECT_EQ(differences(warm, memory()).size(), 2U);
}

// What two processes count lies in lines of their own, so that neither waits for the other's.
TEST_F(CacheReads, TwoProcessesCountInNoLineOfEachOther) {
  CELERIAC_TEST_FORKS();
  const auto lines = [this](const Words& before) {
    std::set<std::uint64_t> all;
    for (const std::uint64_t place : differences(before, memory())) {
      if (place >= layout::kCounters && place < layout::kShards) all.insert(place / 64);
    }
    return all;
  };
  Words before = memory();
  read_all();
  const std::set<std::uint64_t> mine = lines(before);
  before = memory();
  Child reader = Child::run([&] { return read_all(), true; });
  EXPECT_EQ(reader.wait(), 0);
  const std::set<std::uint64_t> theirs = lines(before);
  EXPECT_EQ(mine.size(), 1U);
  EXPECT_EQ(theirs.size(), 1U);
  EXPECT_NE(mine, theirs);
}

TEST_F(CacheReads, GoOnWhileEveryLockIsHeld) {
  CELERIAC_TEST_FORKS();
  // A process that stopped in the middle of a write would hold them like this.
  std::vector<std::unique_ptr<ShardGuard>> held;
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
    held.push_back(std::make_unique<ShardGuard>(core->base(), core->cache().index(), i, me()));
    ASSERT_TRUE(held.back()->held());
  }
  Child reader = Child::run([&] {
    Space s(*core, "cache");
    for (std::uint64_t i = 0; i < 2000; ++i) {
      if (s.get(key(i)) != test::checkable(i, 50 + i % 500)) return false;
      if (s.has("absent " + key(i)) || s.has("expired " + key(i % 50))) return false;
    }
    return true;
  });
  EXPECT_EQ(reader.wait(), 0);
}

TEST_F(CacheReads, AClearTouchesAFewWordsWhateverTheNumberOfEntries) {
  CELERIAC_TEST_HAS_ONE_THREAD();
  for (const std::uint64_t entries : {10U, 3000U}) {
    Space s(*core, "of " + std::to_string(entries));
    for (std::uint64_t i = 0; i < entries; ++i) s.set(key(i), "v");
    const Words before = memory();
    s.clear();
    EXPECT_LE(differences(before, memory()).size(), 8U) << entries;
    EXPECT_EQ(s.counts().entries, 0U);
    EXPECT_FALSE(s.has(key(0)));
  }
}

}  // namespace
}  // namespace celeriac
