// Places of namespaces: who gets one, what becomes of the ids of those who lost theirs.
#include "store/namespaces.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/cache_verbs.hpp"

namespace celeriac {
namespace {

using test::must;
using test::Space;

class NamespacesTest : public test::LocalStoreTest {
 protected:
  NamespacesTest() : LocalStoreTest(8ULL << 20U) {}
  Namespaces& spaces() { return core->cache().namespaces(); }
  Result<std::uint32_t> open(const std::string& name, const std::string& overflow = {},
                             bool create = true) {
    return spaces().open({name, false, overflow, create}, me());
  }
  std::size_t names() { return must(spaces().list(me())).size(); }
  // Opens other names until the place of this id is another's.
  void drive_out(std::uint32_t id) {
    for (int i = 0; spaces().good(id); ++i) {
      ASSERT_LT(i, 1000);
      must(open("driver " + std::to_string(made_++)));
    }
  }
  int made_ = 0;
};

TEST_F(NamespacesTest, TablesKeepTheirPlacesAndTheLibraryHasItsOwn) {
  Status last;
  for (int i = 0; last; ++i) last = spaces().open("n" + std::to_string(i), true, me()).status();
  EXPECT_EQ(last.code(), Code::kNotEnoughMemory);
  EXPECT_EQ(names(), layout::kMaxNamespaces - Namespaces::kReserved);
  for (std::uint32_t i = 0; i < Namespaces::kReserved; ++i) {
    EXPECT_TRUE(spaces().open("celeriac." + std::to_string(i), i % 2 == 0, me()));
  }
  EXPECT_EQ(spaces().open("celeriac.more", false, me()).status().code(), Code::kNotEnoughMemory);
  EXPECT_EQ(names(), layout::kMaxNamespaces);
}

TEST_F(NamespacesTest, AnEmptyCacheGivesItsPlaceToAnother) {
  Space kept(*core, "kept");
  kept.set("k", "v");
  for (int i = 0; i < 2000; ++i) must(open("n" + std::to_string(i)));
  EXPECT_TRUE(spaces().good(kept.index()));
  EXPECT_EQ(kept.get("k"), "v");
  EXPECT_EQ(names(), layout::kMaxNamespaces - Namespaces::kReserved);
  EXPECT_EQ(must(open("kept")), kept.index());
}

TEST_F(NamespacesTest, AnIdThatLostItsPlaceReachesNothing) {
  Space late(*core, "late");
  late.set("k", "v");
  late.erase("k");
  drive_out(late.index());
  const std::uint32_t heir_id = [&] {
    for (const NamespaceName& n : must(spaces().list(me()))) {
      if (n.index == space_index(late.index())) return must(open(n.name));
    }
    return 0U;
  }();
  EXPECT_NE(heir_id, late.index());
  const auto set = [&](std::uint32_t id, std::string_view value) {
    return must(
        core->cache().store(id, "k", {Codec::kBytes, value}, kNever, StoreMode::kSet, 0, me()));
  };
  ValueBuffer v;
  EXPECT_FALSE(set(late.index(), "lost"));
  EXPECT_FALSE(core->cache().get(heir_id, "k", v, false, me()));
  EXPECT_EQ(core->cache().counts(heir_id).entries, 0U);
  ASSERT_TRUE(set(heir_id, "heir's"));
  EXPECT_EQ(late.get("k"), std::nullopt);
  EXPECT_FALSE(set(late.index(), "lost"));
  EXPECT_FALSE(late.erase("k"));
  EXPECT_FALSE(late.touch("k", kNever));
  EXPECT_EQ(late.walk(), 0U);
  EXPECT_EQ(late.counts().entries, 0U);
  EXPECT_EQ(core->cache().eviction().cull(late.index(), 10, me()), 0U);
  EXPECT_FALSE(late.clear());
  ASSERT_TRUE(core->cache().get(heir_id, "k", v, false, me()));
  EXPECT_EQ(v.bytes(), "heir's");
}

TEST_F(NamespacesTest, StatisticsBeginAnewWithTheName) {
  Space first(*core, "first");
  for (int i = 0; i < 5; ++i) EXPECT_EQ(first.get("k"), std::nullopt);
  EXPECT_EQ(first.counts().misses, 5U);
  drive_out(first.index());
  EXPECT_EQ(core->cache().counts(must(open("first"))).misses, 0U);
}

TEST_F(NamespacesTest, ALimitIsTheNamesNotThePlaces) {
  Space first(*core, "first");
  ASSERT_TRUE(first.limit(10));
  for (int i = 0; i < 100; ++i) first.set("k" + std::to_string(i), "v");
  EXPECT_LE(first.counts().entries, 10U);
  first.clear();
  drive_out(first.index());
  EXPECT_FALSE(first.limit(5));
  std::uint32_t heir = 0;
  for (const NamespaceName& n : must(spaces().list(me()))) {
    if (n.index == space_index(first.index())) heir = must(open(n.name));
  }
  EXPECT_EQ(spaces().max_entries(heir), 0U);
  const auto set = [&](int i) {
    must(core->cache().store(heir, "h" + std::to_string(i), {Codec::kBytes, "v"}, kNever,
                             StoreMode::kSet, 0, me()));
  };
  for (int i = 0; i < 100; ++i) set(i);
  EXPECT_EQ(core->cache().counts(heir).entries, 100U);
  EXPECT_TRUE(must(core->cache().limit(heir, 20, me())));
  EXPECT_EQ(core->cache().counts(heir).entries, 20U);
  for (int i = 100; i < 200; ++i) set(i);
  EXPECT_LE(core->cache().counts(heir).entries, 40U) << "its log, and what it had before";
}

TEST_F(NamespacesTest, AnOverflowHasNoLimit) {
  for (std::uint32_t i = 0; i < Namespaces::kMostWithOverflow; ++i) {
    const std::uint32_t id = must(open("p" + std::to_string(i), "celeriac.over"));
    must(core->cache().store(id, "k", {Codec::kBytes, "v"}, kNever, StoreMode::kSet, 0, me()));
  }
  const std::uint32_t over = must(open("guest", "celeriac.over"));
  ASSERT_TRUE(spaces().is_overflow(over));
  EXPECT_FALSE(must(core->cache().limit(over, 1, me())));
  EXPECT_EQ(spaces().max_entries(over), 0U);
}

// An index word has 16 bits of the generation. What was set once is never there again.
TEST_F(NamespacesTest, GenerationsComeRoundWithoutWhatWasThere) {
  Space cache(*core, "cache");
  Space table(*core, "table", true);
  for (int i = 0; i < 3 << 16; ++i) {
    if (i % 9973 == 0) {
      cache.set("k" + std::to_string(i), "v");
      table.set("k" + std::to_string(i), "v");
    }
    ASSERT_TRUE(cache.clear());
    ASSERT_TRUE(table.clear());
    ASSERT_EQ(cache.counts().entries, 0U);
    for (int old = i % 9973 == 0 ? 0 : i / 9973; old <= i / 9973; ++old) {
      ASSERT_FALSE(cache.has("k" + std::to_string(old * 9973))) << i;
      ASSERT_FALSE(table.has("k" + std::to_string(old * 9973))) << i;
    }
  }
}

// ... whether by clear() or since the place goes from name to name.
TEST_F(NamespacesTest, NoGenerationTooManyWithoutASweep) {
  Space cache(*core, "cache");
  Space kept(*core, "kept");
  kept.set("k", "v");
  int cleared = 0;
  while (spaces().clear(cache.index())) ++cleared;
  EXPECT_EQ(cleared, (1 << 15) - 1) << "it began with 1";
  EXPECT_TRUE(spaces().good(cache.index()));
  EXPECT_TRUE(spaces().sweep_due(cache.index()));
  EXPECT_TRUE(spaces().sweep_due());
  for (int i = 0; i < 500; ++i) must(open("n" + std::to_string(i)));
  EXPECT_TRUE(spaces().good(cache.index())) << "it is empty, but waits for a sweep";
  EXPECT_TRUE(core->cache().eviction().drop_absent(me()));
  EXPECT_FALSE(spaces().sweep_due());
  drive_out(cache.index());
  EXPECT_EQ(kept.get("k"), "v");
}

TEST_F(NamespacesTest, WithoutPlaceIsWithoutEntries) {
  EXPECT_EQ(open("none", {}, false).status().code(), Code::kNotFound);
  EXPECT_EQ(open("none", "celeriac.over", false).status().code(), Code::kNotFound);
  EXPECT_EQ(names(), 0U);
}

TEST_F(NamespacesTest, AllAgreeOnWhoIsInTheOverflow) {
  const auto fill = [&](int from) {
    for (std::uint32_t i = 0; i < Namespaces::kMostWithOverflow; ++i) {
      const std::uint32_t id =
          must(open("p" + std::to_string(from) + std::to_string(i), "celeriac.over"));
      must(core->cache().store(id, "k", {Codec::kBytes, "v"}, kNever, StoreMode::kSet, 0, me()));
    }
  };
  fill(1);
  const std::uint32_t over = must(open("guest", "celeriac.over"));
  EXPECT_TRUE(spaces().is_overflow(over));
  EXPECT_EQ(must(open("celeriac.over")), over);
  must(
      core->cache().store(over, "guest's", {Codec::kBytes, "v"}, kNever, StoreMode::kSet, 0, me()));
  // Places are free again, but while the era lasts nobody who might be in the overflow gets one.
  for (const NamespaceName& n : must(spaces().list(me()))) {
    if (n.name[0] == 'p') spaces().clear(must(open(n.name)));
  }
  EXPECT_EQ(must(open("guest", "celeriac.over")), over);
  EXPECT_EQ(must(open("other", "celeriac.over")), over);
  EXPECT_EQ(must(open("other", "celeriac.over", false)), over);
  spaces().clear(over);
  EXPECT_FALSE(spaces().good(over));
  const std::uint32_t own = must(open("guest", "celeriac.over"));
  EXPECT_FALSE(spaces().is_overflow(own));
  const std::uint32_t next_era = must(open("celeriac.over"));
  EXPECT_EQ(space_index(next_era), space_index(over));
  EXPECT_NE(next_era, over);
}

TEST_F(NamespacesTest, AnEraEndsWhenTheOverflowIsEmpty) {
  for (std::uint32_t i = 0; i <= Namespaces::kMostWithOverflow; ++i) {
    const std::uint32_t id = must(open("p" + std::to_string(i), "celeriac.over"));
    must(core->cache().store(id, "k", {Codec::kBytes, "v"}, kNever, StoreMode::kSet, 0, me()));
  }
  const std::uint32_t over = must(open("celeriac.over"));
  EXPECT_TRUE(spaces().is_overflow(over));
  must(core->cache().erase(over, "k", me()));
  spaces().clear(must(open("p0")));
  EXPECT_FALSE(spaces().is_overflow(must(open("late", "celeriac.over"))));
  EXPECT_FALSE(spaces().good(over));
}

// Threads that hold a namespace's handle while others drive it out: each reads only its own.
TEST_F(NamespacesTest, NobodyMeetsAnothersEntries) {
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  const auto work = [&](const std::string& name) {
    std::uint32_t id = must(open(name));
    while (!stop.load(std::memory_order_relaxed)) {
      if (!spaces().good(id)) {
        Result<std::uint32_t> found = open(name);
        if (!found) continue;
        id = found.value();
      }
      static_cast<void>(must(
          core->cache().store(id, "k", {Codec::kBytes, name}, kNever, StoreMode::kSet, 0, me())));
      ValueBuffer v;
      if (core->cache().get(id, "k", v, true, me()) && v.bytes() != name) ++wrong;
      must(core->cache().erase(id, "k", me()));
    }
  };
  for (int i = 0; i < 100; ++i) Space(*core, "full " + std::to_string(i)).set("k", "v");
  std::vector<std::thread> threads;
  threads.reserve(3);
  for (int i = 0; i < 3; ++i) threads.emplace_back(work, "worker " + std::to_string(i));
  for (int i = 0; i < 20'000; ++i) must(open("n" + std::to_string(i)));
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(Space(*core, "full " + std::to_string(i)).has("k"));
}

}  // namespace
}  // namespace celeriac
