// The cache under deaths: entries old, new or absent, counts exact, nothing leaked.
#include <gtest/gtest.h>

#include <random>

#include "arena/crash_point.hpp"
#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Space;

constexpr std::uint64_t kMiB = 1ULL << 20U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class CacheKillTest : public test::LocalStoreTest {
 protected:
  CacheKillTest() : LocalStoreTest(16 * kMiB) {
    for (std::uint64_t i = 0; i < 200; ++i) table.set(key(i), test::checkable(i, 50));
    for (std::uint64_t i = 0; i < 200; ++i) cache.set(key(i), test::checkable(i, 50));
  }

  bool change_for_ever(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (;;) {
      const std::uint64_t k = random() % 250;
      Space& s = random() % 2 == 0 ? table : cache;
      switch (random() % 8) {
        case 0:
          s.erase(key(k));
          break;
        case 1:
          s.touch(key(k), kNever);
          break;
        case 2:
          if (const auto v = s.get(key(k)); v && !test::is_whole(*v)) return false;
          break;
        default:
          s.set(key(k), test::checkable(random() << 16U | k, random() % 600));
      }
    }
  }

  // The shards' tables, the blocks of the tables' entries, the segments, and what they need.
  std::uint64_t linked_blocks() {
    std::uint64_t n = 0;
    Index& index = core->cache().index();
    Segments& segments = core->cache().segments();
    for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
      const TableWord t{index.shard(i).table.load()};
      const auto* b = index.buckets(t);
      if (b == nullptr) continue;
      ++n;
      for (std::uint64_t k = 0; k < t.size(); ++k) {
        for (const layout::Word& way : b[k].ways) {
          const IndexWord w{way.load()};
          n += !w.free() && w.location().pinned() ? 1U : 0U;
        }
      }
    }
    for (std::uint32_t i = 1; i < segments.high(); ++i) {
      n += TaggedWord{segments.record(i)->word.load()}.state() != Segments::kFree ? 1U : 0U;
    }
    for (const layout::Word& chunk : segments.directory().offsets) n += chunk.load() != 0 ? 1U : 0U;
    for (const layout::Word& w : segments.directory().spare) n += w.load() != 0 ? 1U : 0U;
    for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
      n += segments.log(i).ghosts.load() != 0 ? 1U : 0U;
    }
    return n;
  }

  // Everything that is there, is there once, whole, counted, and in a block.
  void expect_exact(const std::string& when) {
    for (Space* s : {&table, &cache}) {
      std::uint64_t bytes = 0;
      std::uint64_t n = 0;
      core->cache().each(s->index(), me(), [&](std::string_view k, const ValueBuffer& v) {
        EXPECT_TRUE(test::is_whole(v.bytes())) << when << " " << k;
        EntryHead h;
        h.key_size = static_cast<std::uint16_t>(k.size());
        h.value_size = v.bytes().size();
        h.raw_value_size = s == &table ? kSingleSize : 0;
        bytes += entry_cost(h);
        return ++n, true;
      });
      ASSERT_EQ(s->counts().entries, n) << when;
      ASSERT_EQ(s->counts().bytes, bytes) << when;
    }
    const test::HeapPicture p = test::look_at_heap(core->arena());
    ASSERT_TRUE(p.whole) << when;
    ASSERT_EQ(p.used_blocks, linked_blocks()) << when << ": a block leaked, or was freed twice";
    ASSERT_EQ(heap().stats().blocks, p.used_blocks) << when;
    ASSERT_EQ(core->arena().header().corrupt.load(), 0U) << when;
  }

  Space table{*core, "table", true};
  Space cache{*core, "cache"};
};

TEST_F(CacheKillTest, TwoHundredKillsLeaveCountsExact) {
  CELERIAC_TEST_FORKS();
  expect_exact("before");
  std::mt19937_64 random(3);
  for (std::uint64_t round = 0; round < 200; ++round) {
    Child a = Child::run([&] { return change_for_ever(round); });
    Child b = Child::run([&] { return change_for_ever(round + 1000); });
    test::sleep_us(static_cast<unsigned>(300 + random() % 2500));
    ASSERT_EQ(a.kill(), test::kKilled) << "it saw a torn value";
    ASSERT_EQ(b.kill(), test::kKilled) << "it saw a torn value";
    table.walk();  // takes each shard's mutex from the dead, and repairs
    recover();
    ASSERT_NO_FATAL_FAILURE(expect_exact("round " + std::to_string(round)));
  }
}

TEST_F(CacheKillTest, ReadersGoOnWhileWritersDie) {
  CELERIAC_TEST_FORKS();
  table.set("fixed", test::checkable(7, 300));
  for (std::uint64_t round = 0; round < 40; ++round) {
    Child writer = Child::run([&] { return change_for_ever(round); });
    const std::uint64_t until = now_ns() + (500 + round * 50) * 1000;
    while (now_ns() < until) ASSERT_EQ(test::seed_of(table.get("fixed").value()), 7U);
    ASSERT_EQ(writer.kill(), test::kKilled);
    ASSERT_TRUE(table.has("fixed"));
  }
}

TEST_F(CacheKillTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point :
       {"cache.set.written",       "cache.set.pending",      "cache.set.counted",
        "cache.set.linked",        "cache.set.left",         "cache.set.unlocked",
        "cache.delete.pending",    "cache.delete.unlinked",  "cache.delete.left",
        "cache.delete.unlocked",   "cache.touch.stored",     "cache.incr.stored",
        "cache.grow.pending",      "cache.grow.linked",      "eviction.push.freed",
        "namespaces.clear.done",   "namespaces.open.named",  "namespaces.open.written",
        "namespaces.open.counted", "namespaces.open.vacated"}) {
    for (const unsigned nth : {1U, 3U}) {
      Child child = Child::run([&] {
        arm_crash_point(point, nth, "kill");
        for (std::uint64_t i = 0; i < 300; ++i) {
          table.set(key(i % 10), test::checkable(i << 16U, 80));
          cache.set(std::string(point) + key(nth * 1000 + i), test::checkable(i, 80));
          table.touch(key(i % 10), kNever);
        }
        for (std::uint64_t i = 0; i < 10; ++i) table.erase(key(i));
        Space extra(*core, std::string(point) + std::to_string(nth));
        const int names = point == std::string_view("namespaces.open.vacated") ? 130 : 0;
        for (int i = 0; i < names; ++i) Space(*core, std::string(point) + "-" + std::to_string(i));
        extra.set_int("n", 1);
        std::int64_t sum = 0;
        for (int i = 0; i < 3; ++i) extra.increment("n", 1, &sum);
        extra.erase("n");
        core->cache().eviction().make_room(4096, core->base().owners.current());
        for (int i = 0; i < 3; ++i) cache.clear();
        for (std::uint64_t i = 0; i < 5000; ++i) extra.set(key(i), test::checkable(i, 20));
        for (std::uint64_t i = 0; i < 5000; ++i) extra.erase(key(i));
        return true;
      });
      const int how = child.wait();
      ASSERT_TRUE(how == test::kKilled || nth > 1) << point << " isn't passed: " << how;
      table.walk();
      recover();
      ASSERT_NO_FATAL_FAILURE(expect_exact(std::string(point) + " " + std::to_string(nth)));
    }
  }
}

}  // namespace
}  // namespace celeriac
