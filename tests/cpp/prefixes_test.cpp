// Rows of counters by prefix: who has one, that nothing is lost, and what damage and death leave.
#include "store/prefixes.hpp"

#include <gtest/gtest.h>

#include <map>
#include <thread>

#include "support/cache_verbs.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::must;
using test::Space;

constexpr std::uint64_t kNamed = 1ULL << 63U;

class PrefixesTest : public test::LocalStoreTest {
 protected:
  PrefixesTest() : LocalStoreTest(8ULL << 20U) {}
  Namespaces& spaces() { return core->cache().namespaces(); }
  layout::PrefixTable& table() {
    return *core->arena().fixed<layout::PrefixTable>(layout::kPrefixTable);
  }
  std::map<std::string, CacheCounts> rows(const Space& s) {
    std::map<std::string, CacheCounts> found;
    for (const PrefixCounts& r : spaces().prefixes().list(space_index(s.index())).rows) {
      EXPECT_TRUE(found.emplace(r.prefix, r.counts).second) << r.prefix;
    }
    return found;
  }
  void set(const Space& s, std::string_view key) { count(*core, s, key); }
  static void count(LocalCore& by, const Space& s, std::string_view key) {
    by.cache()
        .namespaces()
        .counters(s.index(), key, must(by.enter()))
        .sets.fetch_add(1, std::memory_order_relaxed);
  }
  std::uint64_t sets(const Space& s, const std::string& prefix) {
    const auto all = rows(s);
    const auto it = all.find(prefix);
    return it == all.end() ? 0 : it->second.sets;
  }
  // The row of the only prefix that there is.
  std::uint32_t only_row() {
    std::uint32_t found = layout::kPrefixes;
    for (std::uint32_t i = 0; i < layout::kPrefixes; ++i) {
      if (table().words[i].load() == 0) continue;
      EXPECT_EQ(found, layout::kPrefixes);
      found = i;
    }
    return found;
  }
  // Opens other names until the place of this id is another's.
  void drive_out(std::uint32_t id) {
    for (int i = 0; spaces().good(id); ++i) {
      ASSERT_LT(i, 1000);
      must(spaces().open("driver " + std::to_string(i), false, me()));
    }
  }
};

TEST_F(PrefixesTest, WhatAPrefixIs) {
  Space s(*core, "s");
  const std::string forty(40, 'x');
  std::map<std::string, std::uint64_t> expected;
  for (std::size_t n = 1; n <= 40; n += 3) {  // all lengths of its last word
    const std::string prefix = std::string(n, 'p') + "!";
    if (prefix.size() > 40) continue;
    for (const std::string& key : {prefix + ":", prefix + ":1", prefix + "::x:y"}) set(s, key);
    expected[prefix] = 3;
  }
  set(s, forty + ":1");
  set(s, std::string("nul\0", 4) + ":1");
  set(s, "nul:1");
  expected[forty] = expected["nul"] = expected[std::string("nul\0", 4)] = 1;
  for (const std::string& key : {std::string(), std::string(":"), std::string(":x"),
                                 std::string("plain"), std::string(1000, 'k')}) {
    set(s, key);
    ++expected[""];
  }
  set(s, forty + "y:1");
  set(s, std::string(1000, 'k') + ":1");
  expected["(other)"] = 2;
  std::map<std::string, std::uint64_t> found;
  for (const auto& [prefix, counts] : rows(s)) found[prefix] = counts.sets;
  EXPECT_EQ(found, expected);
}

TEST_F(PrefixesTest, ALeadIsSkippedWhereItIs) {
  const auto open = [&](std::uint32_t lead) {
    return must(spaces().open({"led", false, {}, true, lead}, me()));
  };
  open(3);
  Space s(*core, "led");
  set(s, ":1:product:7");
  set(s, ":1:product");
  set(s, ":1:");
  set(s, ":1");
  set(s, "abc:x");
  EXPECT_EQ(sets(s, "product"), 1U);
  EXPECT_EQ(sets(s, "abc"), 1U);
  EXPECT_EQ(sets(s, ""), 3U);
  open(0);  // says nothing about it
  set(s, ":1:product:8");
  EXPECT_EQ(sets(s, "product"), 2U);
  open(Prefixes::kNotApart);
  set(s, ":1:product:9");
  EXPECT_EQ(sets(s, "product"), 2U);
  EXPECT_EQ(s.counts().sets, 7U);
}

TEST_F(PrefixesTest, RowsAreBoundedAndNothingIsLost) {
  Space first(*core, "first");
  Space second(*core, "second");
  for (int i = 0; i < 300; ++i) {
    set(first, "p" + std::to_string(i) + ":1");
    set(second, "p" + std::to_string(i) + ":1");
  }
  for (Space* s : {&first, &second}) {
    const auto all = rows(*s);
    EXPECT_GT(all.size(), 20U);
    EXPECT_LE(all.size(), Prefixes::kMostOfOne + 2U);
    EXPECT_EQ(s->counts().sets, 300U);
    EXPECT_EQ(all.at("(other)").sets, 300U - (all.size() - 2));
    for (const auto& [prefix, counts] : all) {
      const bool own = prefix != "(other)" && !prefix.empty();
      EXPECT_TRUE(!own || counts.sets == 1) << prefix;
    }
  }
}

TEST_F(PrefixesTest, TablesHaveOneRow) {
  Space t(*core, "t", true);
  t.set("a:1", "x");
  EXPECT_EQ(sets(t, ""), 1U);
  EXPECT_EQ(rows(t).size(), 2U);
}

TEST_F(PrefixesTest, AnHeirFindsNothing) {
  Space gone(*core, "gone");
  gone.set("old:1", "x");
  gone.set("old:2", "x", 1);  // expired: stays linked
  gone.clear();
  drive_out(gone.index());
  const std::uint32_t place = space_index(gone.index());
  const auto nothing = [&] {
    CacheCounts sum;
    spaces().prefixes().add_up(place, &sum);
    return sum.hits + sum.misses + sum.sets + sum.deletes + sum.evictions + sum.expirations == 0 &&
           spaces().prefixes().list(place).rows.size() == 2;
  };
  EXPECT_TRUE(nothing());
  for (const layout::Word& w : table().words) EXPECT_EQ(w.load(), 0U);
  // What the old name has left goes, and is no expiry of the new one's.
  EXPECT_TRUE(core->cache().eviction().drop_absent(me()));
  EXPECT_TRUE(nothing());
}

TEST_F(PrefixesTest, WhatAClearLeftIsNotCounted) {
  Space s(*core, "s");
  s.set("a:1", "x");
  s.clear();
  s.set("b:1", "x", 1);
  EXPECT_TRUE(core->cache().eviction().drop_absent(me()));
  EXPECT_EQ(rows(s).at("a").expirations, 0U);
  EXPECT_EQ(rows(s).at("b").expirations, 1U);
  EXPECT_EQ(s.counts().expirations, 1U);
}

TEST_F(PrefixesTest, ARowWithoutANameIsNamedByTheNext) {
  Space s(*core, "s");
  set(s, "user:1");
  const std::uint32_t row = only_row();
  // As its claimer's death leaves it.
  table().words[row].fetch_and(~kNamed);
  for (layout::Word& w : table().records[row].text) w.store(0);
  table().records[row].size.store(0);
  EXPECT_EQ(sets(s, "(other)"), 1U);
  EXPECT_EQ(s.counts().sets, 1U);
  set(s, "user:2");
  EXPECT_EQ(sets(s, "user"), 2U);
  EXPECT_EQ(sets(s, "(other)"), 0U);
  EXPECT_EQ(only_row(), row);
}

TEST_F(PrefixesTest, DamageIsShownAsOther) {
  Space s(*core, "s");
  set(s, "user:1");
  const std::uint32_t row = only_row();
  table().records[row].size.store(~0ULL);
  EXPECT_EQ(sets(s, "(other)"), 1U);
  table().records[row].size.store(4);
  EXPECT_EQ(sets(s, "user"), 1U);
  table().records[row].text[0].fetch_xor(1);
  EXPECT_EQ(sets(s, "(other)"), 1U);
  for (layout::Word& w : table().words) w.store(~0ULL);  // rows of a place beyond all names
  set(s, "user:1");
  EXPECT_EQ(sets(s, "(other)"), 1U);
  EXPECT_EQ(s.counts().sets, 1U);
}

// More prefixes than rows, so that who gets one is fought for.
void count_all(LocalCore& core, Space& s, std::uint64_t rounds) {
  for (std::uint64_t i = 0; i < rounds; ++i) {
    const std::string key = "p" + std::to_string(i * 7 % 60) + ":" + std::to_string(i);
    core.cache()
        .namespaces()
        .counters(s.index(), key, s.me())
        .sets.fetch_add(1, std::memory_order_relaxed);
  }
}

TEST_F(PrefixesTest, ThreadsShareRowsConcurrency) {
  Space s(*core, "s");
  std::vector<std::thread> all;
  for (int t = 0; t < 4; ++t) all.emplace_back([&] { count_all(*core, s, 6000); });
  for (std::thread& t : all) t.join();
  EXPECT_EQ(s.counts().sets, 24000U);
  const auto found = rows(s);  // which looks that none is there twice
  EXPECT_LE(found.size(), Prefixes::kMostOfOne + 4U + 2U);
}

TEST_F(PrefixesTest, ProcessesShareRows) {
  CELERIAC_TEST_FORKS();
  Space s(*core, "s");
  std::vector<Child> all;
  for (int t = 0; t < 4; ++t) {
    all.push_back(Child::run([&] {
      count_all(*core, s, 6000);
      return true;
    }));
  }
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ(s.counts().sets, 24000U);
  std::uint32_t used = 0;
  for (const layout::Word& w : table().words) used += w.load() == 0 ? 0 : 1;
  EXPECT_EQ(rows(s).size(), used + 2U);  // no prefix has two
}

TEST_F(PrefixesTest, NamesComeAndGoWhileOthersCountConcurrency) {
  std::vector<std::thread> all;
  std::atomic<bool> over{false};
  Space stays(*core, "stays");
  stays.set("k", "v");
  all.emplace_back([&] {
    for (int i = 0; i < 400; ++i) {
      Space s(*core, "name " + std::to_string(i));
      for (int k = 0; k < 5; ++k) set(s, "q" + std::to_string(k) + ":1");
    }
    over = true;
  });
  std::uint64_t counted = 1;
  while (!over) {
    set(stays, "mine:1");
    ++counted;
  }
  all[0].join();
  EXPECT_EQ(stays.counts().sets, counted);
  EXPECT_EQ(sets(stays, "mine") + sets(stays, "(other)"), counted - 1);
}

}  // namespace
}  // namespace celeriac
