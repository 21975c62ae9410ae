// Readers against writers: values check themselves, so a torn one can't hide.
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::must;
using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kRun = 250 * kMillisecond;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

// Work is measured in hits, not in time: on a busy machine a thread may not run for long.
constexpr std::uint64_t kEnoughHits = 300;
constexpr std::uint64_t kPatience = 30 * kSecond;

struct Tally {
  bool enough(std::uint64_t until) const {
    const std::uint64_t now = now_ns();
    return (now >= until && hits >= kEnoughHits) || now >= until + kPatience;
  }
  std::atomic<std::uint64_t> hits{0};
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> wrong_key{0};
};

class CacheConcurrency : public test::LocalStoreTest {
 protected:
  CacheConcurrency() : LocalStoreTest(8 * kMiB) {}

  // Seeds carry the key's number in their low bits.
  static void write(Space s, std::uint64_t seed, std::uint64_t keys, std::uint64_t until,
                    const Tally& t) {
    std::mt19937_64 random(seed);
    while (!t.enough(until)) {
      const std::uint64_t k = random() % keys;
      if (random() % 10 == 0) {
        s.erase(key(k));
      } else {
        s.set(key(k), test::checkable(random() << 16U | k, random() % 1500));
      }
    }
  }
  static void read(Space s, std::uint64_t seed, std::uint64_t keys, std::uint64_t until, Tally& t) {
    std::mt19937_64 random(seed);
    while (!t.enough(until)) {
      const std::uint64_t k = random() % keys;
      const std::optional<std::string> v = s.get(key(k));
      if (!v) continue;
      ++t.hits;
      t.torn += test::is_whole(*v) ? 0U : 1U;
      t.wrong_key += (test::seed_of(*v) & 0xFFFFU) == k ? 0U : 1U;
    }
  }
  void expect_sound(Space& s, const Tally& t) {
    EXPECT_EQ(t.torn, 0U);
    EXPECT_EQ(t.wrong_key, 0U);
    EXPECT_GE(t.hits, kEnoughHits);
    EXPECT_EQ(s.counts().entries, s.walk());
    EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
    EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
  }
  void readers_and_writers(std::uint64_t keys, std::vector<LocalCore*> cores, bool pinned) {
    Tally tally;
    std::vector<std::thread> all;
    const std::uint64_t until = now_ns() + kRun;
    for (std::size_t i = 0; i < 4; ++i) {
      Space s(*cores[i % cores.size()], "s", pinned);
      if (i < 2) {
        all.emplace_back([=, &tally] { write(s, i, keys, until, tally); });
      } else {
        all.emplace_back([=, &tally] { read(s, i, keys, until, tally); });
      }
    }
    for (std::thread& t : all) t.join();
    Space s(*core, "s", pinned);
    expect_sound(s, tally);
  }
};

TEST_F(CacheConcurrency, AFewKeysThatAreFoughtOver) { readers_and_writers(3, {core.get()}, false); }

TEST_F(CacheConcurrency, ManyKeysAndAGrowingIndex) {
  readers_and_writers(3000, {core.get()}, true);
}

TEST_F(CacheConcurrency, MoreThanFitsSoThatEvictionRunsToo) {
  readers_and_writers(60'000, {core.get()}, false);
}

TEST_F(CacheConcurrency, ThroughTwoMappings) {
  const auto other = test::second_core(core, options);
  readers_and_writers(50, {core.get(), other.get()}, false);
}

TEST_F(CacheConcurrency, AKeyThatIsOnlyReplacedIsNeverAbsent) {
  Space s(*core, "t", true);
  s.set("k", test::checkable(1, 100));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t n = 1; !stop; ++n) s.set("k", test::checkable(n, 40 + n % 400));
  });
  std::uint64_t last = 0;
  int missed = 0;
  int torn = 0;
  int back_in_time = 0;
  const std::uint64_t until = now_ns() + kRun;
  for (std::uint64_t i = 0; i < 1000 || now_ns() < until; ++i) {
    const std::optional<std::string> v = s.get("k");
    missed += v ? 0 : 1;
    torn += v && !test::is_whole(*v) ? 1 : 0;
    back_in_time += v && test::seed_of(*v) < last ? 1 : 0;
    if (v) last = test::seed_of(*v);
  }
  stop = true;
  writer.join();
  EXPECT_EQ(missed, 0);
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(back_in_time, 0);
}

// A shard's table must be whole when readers first see it: published before it is filled, it would
// hide keys that are there. Each fresh store grows all of its tables several times.
TEST_F(CacheConcurrency, KeysThatStayAreNeverMissedWhileTheIndexGrows) {
  for (int round = 0; round < 12; ++round) {
    ArenaOptions fresh = options;
    fresh.name = "growing" + std::to_string(round);
    const auto store = test::open_core(fresh);
    Space s(*store, "t", true);
    for (std::uint64_t k = 0; k < 100; ++k) s.set("stays " + key(k), test::checkable(k, 60));
    std::atomic<bool> growing{true};
    std::atomic<int> missed{0};
    std::atomic<int> wrong{0};
    std::vector<std::thread> readers;
    for (std::uint64_t r = 0; r < 2; ++r) {
      readers.emplace_back([&, r] {
        for (std::uint64_t i = r; growing || i < 500; ++i) {
          const std::optional<std::string> v = s.get("stays " + key(i % 100));
          missed += v ? 0 : 1;
          wrong += v && *v != test::checkable(i % 100, 60) ? 1 : 0;
        }
      });
    }
    for (std::uint64_t k = 0; k < 12'000; ++k) s.set(key(k), "x");
    growing = false;
    for (std::thread& t : readers) t.join();
    ASSERT_EQ(missed, 0) << "round " << round;
    ASSERT_EQ(wrong, 0) << "round " << round;
  }
}

TEST_F(CacheConcurrency, IncrementsAreAllCounted) {
  Space s(*core, "t", true);
  s.set_int("n", 0);
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i) {
    all.emplace_back([&] {
      std::int64_t sum = 0;
      for (int k = 0; k < 3000; ++k) ASSERT_EQ(s.increment("n", 1, &sum), IncrementResult::kDone);
    });
  }
  for (std::thread& t : all) t.join();
  std::int64_t sum = 0;
  s.increment("n", 0, &sum);
  EXPECT_EQ(sum, 12'000);
}

// A compare that succeeds over another's change would lose that change.
void append_by_compare(Space& s, int times) {
  for (int done = 0; done < times;) {
    const std::uint64_t version = s.version("list");
    const std::string list = s.get("list").value_or("");
    if (s.version("list") != version) continue;
    done += must(s.store("list", list + "x", StoreMode::kCompare, kNever, version)) ? 1 : 0;
  }
}

TEST_F(CacheConcurrency, ComparedUpdatesAreNotLost) {
  Space s(*core, "t", true);
  std::vector<std::thread> all;
  for (int i = 0; i < 3; ++i) all.emplace_back([&] { append_by_compare(s, 300); });
  for (std::thread& t : all) t.join();
  EXPECT_EQ(s.get("list")->size(), 900U);
}

TEST_F(CacheConcurrency, ComparedUpdatesOfProcessesAreNotLost) {
  CELERIAC_TEST_FORKS();
  Space s(*core, "t", true);
  std::vector<Child> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(Child::run([&] { return append_by_compare(s, 300), true; }));
  }
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ(s.get("list")->size(), 1200U);
}

TEST_F(CacheConcurrency, AddHasOneWinner) {
  Space s(*core, "t", true);
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> winners{0};
    std::vector<std::thread> all;
    for (int i = 0; i < 3; ++i) {
      all.emplace_back([&] {
        winners +=
            must(s.store(key(static_cast<std::uint64_t>(round)), "x", StoreMode::kAdd)) ? 1 : 0;
      });
    }
    for (std::thread& t : all) t.join();
    ASSERT_EQ(winners, 1);
  }
}

TEST_F(CacheConcurrency, WaitForChangeIsWokenByAnotherThread) {
  Space s(*core, "t", true);
  for (int i = 0; i < 50; ++i) {
    const std::uint32_t seen = core->cache().change_count(s.index(), "k");
    std::thread writer([&] { s.set("k", "x"); });
    EXPECT_TRUE(must(core->cache().wait_for_change(s.index(), "k", seen, now_ns() + 10 * kSecond)));
    writer.join();
  }
  const std::uint32_t seen = core->cache().change_count(s.index(), "k");
  EXPECT_FALSE(
      must(core->cache().wait_for_change(s.index(), "k", seen, now_ns() + 5 * kMillisecond)));
}

TEST_F(CacheConcurrency, ClearWhileOthersWrite) {
  Space s(*core, "s");
  const std::uint64_t until = now_ns() + kRun;
  Tally none;
  none.hits = kEnoughHits;  // nobody reads
  std::thread writer([&] { write(s, 1, 200, until, none); });
  while (now_ns() < until) s.clear();
  writer.join();
  s.clear();
  EXPECT_EQ(s.walk(), 0U);
  EXPECT_EQ(s.counts().entries, 0U);
  s.set("k", "v");
  EXPECT_EQ(s.counts().entries, 1U);
}

TEST_F(CacheConcurrency, ProcessesReadWhatOthersWrite) {
  CELERIAC_TEST_FORKS();
  const test::Shared<Tally> tally;
  const std::uint64_t until = now_ns() + kRun;
  std::vector<Child> all;
  for (std::uint64_t i = 0; i < 4; ++i) {
    all.push_back(Child::run([&, i] {
      Space s(*core, "s");
      if (i < 2) {
        write(s, i, 40, until, *tally);
      } else {
        read(s, i, 40, until, *tally);
      }
      return true;
    }));
  }
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
  recover();
  Space s(*core, "s");
  expect_sound(s, *tally);
}

}  // namespace
}  // namespace celeriac
