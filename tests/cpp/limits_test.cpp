// Rate limits in the arena: slots, levels, several rates, threads, processes, deaths.
#include "store/limits.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "arena/crash_point.hpp"
#include "support/cache_verbs.hpp"

namespace celeriac {
namespace {

using test::must;

constexpr std::uint64_t kNow = 1'000'000 * kSecond;
constexpr std::uint64_t kDay = 86'400 * kSecond;

Rate gcra(std::uint64_t count, std::uint64_t period = kDay) {
  return {RateForm::kGcra, count, period, count};
}

class LimitsTest : public test::LocalStoreTest {
 protected:
  explicit LimitsTest(std::uint64_t memory = 16ULL << 20U) : LocalStoreTest(memory) {}
  Limits& limits() { return core->limits(); }
  LimitPlan plan(const std::vector<Rate>& rates, std::string_view name = "limit") {
    return must(limits().plan(name, rates, me()));
  }
  bool hit(const LimitPlan& p, std::string_view key, std::uint64_t now = kNow,
           std::uint64_t cost = 1) {
    return must(limits().hit(p, key, cost, now, me())).verdict.allowed;
  }
  std::uint64_t left(const LimitPlan& p, std::string_view key, std::uint64_t now = kNow) {
    return must(limits().peek(p, key, 1, now, me())).verdict.remaining;
  }
};

template <class Work>
void in_threads(int n, Work work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < n; ++i) threads.emplace_back(work, i);
  for (std::thread& t : threads) t.join();
}

TEST_F(LimitsTest, ThreadsTakeExactlyWhatThereIs) {
  for (const RateForm form : {RateForm::kGcra, RateForm::kSliding, RateForm::kFixed}) {
    const LimitPlan p = plan({{form, 5000, kDay, 5000}}, "form");
    std::atomic<int> allowed{0};
    in_threads(4, [&](int) {
      for (int i = 0; i < 2000; ++i) allowed += hit(p, "k") ? 1 : 0;
    });
    EXPECT_EQ(allowed, 5000);
  }
}

TEST_F(LimitsTest, ThreadsThatMeetANewKeyGiveItOneSlot) {
  const LimitPlan p = plan({gcra(3)});
  for (int round = 0; round < 300; ++round) {
    const std::string key = "k" + std::to_string(round);
    std::atomic<int> allowed{0};
    in_threads(3, [&](int) { allowed += (hit(p, key) ? 1 : 0) + (hit(p, key) ? 1 : 0); });
    ASSERT_EQ(allowed, 3);
  }
}

TEST_F(LimitsTest, AListIsTakenWholeOrNotAtAll) {
  const LimitPlan p = plan({gcra(10, kSecond), gcra(3, kDay)});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(hit(p, "k"));
  const LimitVerdict no = must(limits().hit(p, "k", 1, kNow, me()));
  EXPECT_FALSE(no.verdict.allowed);
  EXPECT_EQ(no.which, 1U);
  ASSERT_TRUE(limits().refund(p, "k", 3, kNow, me()));
  EXPECT_TRUE(hit(p, "k", kNow, 3));
  ASSERT_TRUE(limits().reset(p, "k", kNow, me()));
  EXPECT_EQ(left(p, "k"), 3U);
}

TEST_F(LimitsTest, ThreadsTakeOfAListExactly) {
  const LimitPlan p = plan({gcra(4000, kDay), gcra(3000, kDay / 2), gcra(3500, kDay / 3)});
  std::atomic<int> allowed{0};
  in_threads(4, [&](int) {
    for (int i = 0; i < 1500; ++i) allowed += hit(p, "k") ? 1 : 0;
  });
  EXPECT_EQ(allowed, 3000);
}

TEST_F(LimitsTest, NamesFormsAndPeriodsHaveStatesOfTheirOwn) {
  std::vector<LimitPlan> all{plan({gcra(1)}),
                             plan({gcra(1)}, "other"),
                             plan({gcra(1, kSecond)}),
                             plan({{RateForm::kFixed, 1, kDay, 1}}),
                             plan({{RateForm::kSliding, 1, kDay, 1}}),
                             plan({gcra(1), gcra(1, kSecond)})};
  for (const LimitPlan& p : all) EXPECT_TRUE(hit(p, "k"));
  for (const LimitPlan& p : all) EXPECT_FALSE(hit(p, "k"));
  EXPECT_FALSE(hit(plan({gcra(1)}), "k"));
  EXPECT_FALSE(hit(plan({gcra(1, kSecond), gcra(1)}), "k"));  // a list in another order
}

TEST_F(LimitsTest, CostsThatCanNeverBeAreErrors) {
  const LimitPlan p = plan({gcra(10), gcra(5, kSecond)});
  EXPECT_EQ(limits().hit(p, "k", 0, kNow, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(limits().peek(p, "k", 6, kNow, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(limits().refund(p, "k", 6, kNow, me()).code(), Code::kConfiguration);
  EXPECT_EQ(left(p, "k"), 5U);
  EXPECT_EQ(limits().plan("n", {}, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(limits().plan("n", std::vector(9, gcra(1)), me()).status().code(),
            Code::kConfiguration);
}

TEST_F(LimitsTest, SlidingWindowsOfManyPeriods) {
  for (std::uint64_t i = 0; i < layout::kLimitPeriods; ++i) {
    EXPECT_TRUE(hit(plan({{RateForm::kSliding, 1, kSecond + i * kMillisecond, 1}}), "k"));
  }
  EXPECT_EQ(limits().plan("n", {{RateForm::kSliding, 1, kDay, 1}}, me()).status().code(),
            Code::kNotEnoughMemory);
  EXPECT_TRUE(limits().plan("n", {{RateForm::kSliding, 1, kSecond, 1}}, me()));
}

TEST_F(LimitsTest, CachesDontPushLimitsOut) {
  const LimitPlan p = plan({gcra(1)});
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(hit(p, std::to_string(i)));
  test::Space cache(*core, "c");
  for (int i = 0; i < 400; ++i) cache.set("k" + std::to_string(i), std::string(100'000, 'x'));
  for (int i = 0; i < 1000; ++i) EXPECT_FALSE(hit(p, std::to_string(i)));
}

TEST_F(LimitsTest, SlotsThatGoFromKeyToKeyUnderThreadsKeepKeysApart) {
  const LimitPlan p = plan({gcra(2, kSecond)});
  std::atomic<std::uint64_t> time{kNow};
  std::atomic<int> wrong{0};
  in_threads(3, [&](int who) {
    for (int i = 0; i < 3000; ++i) {  // each key is new, and idle soon
      const std::string key = std::to_string(who) + "." + std::to_string(i);
      const std::uint64_t now = time.fetch_add(10 * kMillisecond);
      const bool first = hit(p, key, now, 2);
      const bool second = hit(p, key, now);
      // When others have let a second pass meanwhile, they may have taken the idle key's slot.
      const bool idle = time >= now + kSecond;
      if (!first || (second && !idle)) ++wrong;
    }
  });
  EXPECT_EQ(wrong, 0);
  EXPECT_LT(limits().counts(time).slots, 9000U);
}

TEST_F(LimitsTest, ProcessesTakeExactlyWhatThereIs) {
  CELERIAC_TEST_FORKS();
  const LimitPlan one = plan({gcra(4000)});
  const LimitPlan two = plan({gcra(4000), gcra(3000, kSecond)});
  const test::Shared<std::array<std::atomic<int>, 2>> allowed;
  std::vector<test::Child> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(test::Child::run([&] {
      for (int n = 0; n < 2000; ++n) {
        (*allowed)[0] += hit(one, "k") ? 1 : 0;
        (*allowed)[1] += hit(two, "k") ? 1 : 0;
      }
      return true;
    }));
  }
  for (test::Child& c : children) EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ((*allowed)[0], 4000);
  EXPECT_EQ((*allowed)[1], 3000);
}

TEST_F(LimitsTest, DeathInTheMiddleOfAListTakesAllOrNothing) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  const LimitPlan p = plan({gcra(10), gcra(20, kSecond), gcra(30, kDay / 2)});
  EXPECT_TRUE(hit(p, "k"));
  for (const char* point :
       {"limits.together.noted", "limits.together.half", "limits.together.whole"}) {
    for (unsigned nth = 1; nth <= 3; ++nth) {
      ASSERT_TRUE(limits().reset(p, "k", kNow, me()));
      test::Child child = test::Child::run([&] {
        arm_crash_point(point, nth, "kill");
        return hit(p, "k", kNow, 4);
      });
      const bool killed = child.wait() == test::kKilled;
      const std::uint64_t there = left(p, "k");
      EXPECT_TRUE(there == 10 || there == 6) << point;
      EXPECT_EQ(there == 6, !killed || std::string_view(point) == "limits.together.whole");
      // Of the others, as much is left as of the first: with it refunded they're all fresh.
      ASSERT_TRUE(limits().refund(p, "k", there == 10 ? 1 : 4, kNow, me()));
      EXPECT_EQ(limits().counts(kNow).used, 0U) << point << nth;
    }
  }
}

class MillionKeys : public LimitsTest {
 protected:
  MillionKeys() : LimitsTest(32ULL << 20U) {}
  void SetUp() override { CELERIAC_TEST_HAS_ONE_THREAD(); }
};

TEST_F(MillionKeys, TakeLessThan32MbAndIdleOnesGiveTheirRoom) {
  const LimitPlan p = plan({gcra(1, kSecond)});
  std::uint64_t now = kNow;
  std::uint64_t bytes = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 1'000'000; ++i) {
      ASSERT_TRUE(hit(p, std::to_string(round) + ":" + std::to_string(i), now));
    }
    for (int i = 0; i < 1'000'000; i += 1000) {
      ASSERT_FALSE(hit(p, std::to_string(round) + ":" + std::to_string(i), now));
    }
    const LimitCounts counts = limits().counts(now);
    EXPECT_EQ(counts.used, 1'000'000U);
    EXPECT_LT(counts.bytes, 32'000'000U);
    if (round > 0) {
      EXPECT_EQ(counts.bytes, bytes);
    }
    bytes = counts.bytes;
    now += 2 * kSecond;
  }
  EXPECT_EQ(limits().counts(now).used, 0U);
}

class FullStore : public LimitsTest {
 protected:
  FullStore() : LimitsTest(2ULL << 20U) {}
};

TEST_F(FullStore, SaysSoForNewKeysAndAnswersForOthers) {
  const LimitPlan p = plan({gcra(2, kSecond)});
  int made = 0;
  for (;; ++made) {
    ASSERT_LT(made, 1'000'000);
    const auto v = limits().hit(p, std::to_string(made), 1, kNow, me());
    if (v) continue;
    EXPECT_EQ(v.status().code(), Code::kNotEnoughMemory);
    EXPECT_NE(v.status().message().find("rate limits need a table"), std::string::npos);
    break;
  }
  EXPECT_GT(made, 20'000);
  for (int i = 0; i < made; i += 100) EXPECT_TRUE(hit(p, std::to_string(i)));
  EXPECT_TRUE(hit(p, std::to_string(made), kNow + 2 * kSecond));  // they are idle by then
}

}  // namespace
}  // namespace celeriac
