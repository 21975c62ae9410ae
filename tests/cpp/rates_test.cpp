// The arithmetic of rates, at times that a test chooses.
#include "store/rates.hpp"

#include <gtest/gtest.h>

#include <random>

namespace celeriac {
namespace {

constexpr std::uint64_t kStart = 5'000'000 * kSecond + 123'456'789;

Rate rate(RateForm form, std::uint64_t count, std::uint64_t period, std::uint64_t burst = 0) {
  return {form, count, period, burst == 0 ? count : burst};
}

// A key and its word.
struct Key {
  Rate of;
  std::uint64_t word = 0;
  Verdict hit(std::uint64_t now, std::uint64_t cost = 1) {
    const Verdict v = decide(of, word, now, cost);
    word = v.word;
    return v;
  }
  std::uint64_t hits(std::uint64_t now) {
    std::uint64_t n = 0;
    while (hit(now).allowed) ++n;
    return n;
  }
};

class EveryForm : public ::testing::TestWithParam<RateForm> {};
INSTANTIATE_TEST_SUITE_P(Forms, EveryForm,
                         ::testing::Values(RateForm::kGcra, RateForm::kSliding, RateForm::kFixed));

TEST_P(EveryForm, AFreshKeyGivesTheWholeCountAtOnceAndNoMore) {
  for (const std::uint64_t count : {1U, 2U, 3U, 7U, 100U, 8191U}) {
    Key key{rate(GetParam(), count, kSecond)};
    EXPECT_EQ(key.hits(kStart), count);
    EXPECT_EQ(decide(key.of, key.word, kStart, 0).remaining, 0U);
  }
}

TEST_P(EveryForm, ARefusalCostsNothing) {
  Key key{rate(GetParam(), 10, kSecond)};
  EXPECT_TRUE(key.hit(kStart, 7).allowed);
  const std::uint64_t word = key.word;
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(key.hit(kStart, 4).allowed);
  EXPECT_EQ(key.word, word);
  EXPECT_TRUE(key.hit(kStart, 3).allowed);
}

TEST_P(EveryForm, RetryIsTheFirstMomentThatAllowsIt) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t count = 1 + random() % 50;
    Key key{rate(GetParam(), count, kMillisecond * (1 + random() % 3000))};
    std::uint64_t now = kStart + random() % kSecond;
    for (int n = 0; n < 8; ++n) {
      const std::uint64_t cost = 1 + random() % count;
      const Verdict v = key.hit(now, cost);
      EXPECT_EQ(v.allowed, v.retry_ns == 0);
      if (!v.allowed) {
        EXPECT_TRUE(decide(key.of, key.word, now + v.retry_ns, cost).allowed);
        EXPECT_FALSE(decide(key.of, key.word, now + v.retry_ns - 1, cost).allowed);
        EXPECT_GE(v.reset_ns, v.retry_ns);
      }
      now += random() % key.of.period_ns;
    }
  }
}

TEST_P(EveryForm, AfterResetTheKeyIsAsIfItHadNeverBeenSeen) {
  std::mt19937_64 random(8);
  for (int i = 0; i < 20'000; ++i) {
    Key key{rate(GetParam(), 1 + random() % 50, kMillisecond * (1 + random() % 3000))};
    const std::uint64_t now = kStart + random() % kSecond;
    Verdict v = key.hit(now, 1 + random() % key.of.count);
    if (random() % 2 != 0) v = key.hit(now + random() % key.of.period_ns, 1);
    for (const std::uint64_t later : {now + 3 * key.of.period_ns, now + v.reset_ns, now + 1}) {
      const Verdict as_new = decide(key.of, 0, later, 1);
      const Verdict is = decide(key.of, key.word, later, 1);
      if (!idle(key.word, key.of.period_ns, later)) {
        EXPECT_LT(later, now + 3 * key.of.period_ns);
        continue;
      }
      EXPECT_EQ(as_new.remaining, is.remaining);
      EXPECT_EQ(as_new.reset_ns, is.reset_ns);
      EXPECT_EQ(as_new.word, is.word);
    }
  }
}

TEST_P(EveryForm, RefundsGiveBackWhatWasUsedAndNoMore) {
  Key key{rate(GetParam(), 10, kSecond)};
  key.hit(kStart, 10);
  key.word = refunded(key.of, key.word, kStart, 4);
  EXPECT_EQ(key.hits(kStart), 4U);
  key.word = refunded(key.of, key.word, kStart, 10);
  key.word = refunded(key.of, key.word, kStart, 10);
  EXPECT_TRUE(idle(key.word, kSecond, kStart));
  EXPECT_EQ(key.hits(kStart), 10U);
  EXPECT_EQ(refunded(key.of, 0, kStart, 5), fresh(key.of, kStart));
}

TEST_P(EveryForm, AClockThatGoesBackBlocksNobodyForEver) {
  Key key{rate(GetParam(), 10, kSecond)};
  EXPECT_EQ(key.hits(kStart), 10U);
  const std::uint64_t back = kStart - 3'000'000 * kSecond;
  EXPECT_FALSE(key.hit(back).allowed);  // R3: stored, though it refuses
  EXPECT_LE(key.hit(back).reset_ns, 2 * kSecond);
  EXPECT_EQ(key.hits(back + 2 * kSecond), 10U);
}

TEST_P(EveryForm, AnyWordIsAnswered) {
  std::mt19937_64 random(9);
  for (int i = 0; i < 100'000; ++i) {
    Key key{rate(GetParam(), 10, kSecond), random()};
    const Verdict v = key.hit(kStart);
    EXPECT_LE(v.remaining, 10U);
    EXPECT_LE(v.reset_ns, 2 * kSecond);
    static_cast<void>(idle(random(), kSecond, kStart));
  }
}

TEST(Gcra, ThenOneEachInterval) {
  Key key{rate(RateForm::kGcra, 100, kSecond, 20)};
  EXPECT_EQ(key.hits(kStart), 20U);
  EXPECT_EQ(key.hits(kStart + 9 * kMillisecond), 0U);
  for (std::uint64_t i = 1; i < 50; ++i) EXPECT_EQ(key.hits(kStart + i * 10 * kMillisecond), 1U);
  EXPECT_EQ(key.hits(kStart + 10 * kSecond), 20U);
}

TEST(Gcra, NeverMoreThanTheRateOverAnyTime) {
  for (const std::uint64_t count : {3U, 7U, 999U, 123'457U}) {  // that don't divide a second
    Key key{rate(RateForm::kGcra, count, kSecond, 1)};
    std::uint64_t n = 0;
    std::uint64_t now = kStart;
    for (; n < 2 * count; ++n) {
      const Verdict v = key.hit(now);
      if (!v.allowed) {
        now += v.retry_ns;
        EXPECT_TRUE(key.hit(now).allowed);
      }
    }
    EXPECT_GE(now - kStart, (2 * count - 1) * (kSecond / count));
  }
}

TEST(Gcra, ALoweredBurstIsAFullBucket) {
  Key key{rate(RateForm::kGcra, 10, kSecond, 100)};
  EXPECT_EQ(key.hits(kStart), 100U);
  key.of.burst = 5;
  EXPECT_FALSE(key.hit(kStart).allowed);
  EXPECT_EQ(key.hits(kStart + kSecond / 2), 5U);
}

TEST(SlidingWindow, CountsTheWindowBeforeByWhatIsLeftOfIt) {
  const std::uint64_t begin = kStart / kSecond * kSecond;
  Key key{rate(RateForm::kSliding, 100, kSecond)};
  EXPECT_EQ(key.hits(begin + kSecond / 2), 100U);
  EXPECT_EQ(key.hits(begin + kSecond), 0U);
  EXPECT_EQ(key.hits(begin + kSecond + kSecond / 4), 25U);
  EXPECT_EQ(key.hits(begin + kSecond + kSecond / 2), 25U);
  EXPECT_EQ(key.hits(begin + 4 * kSecond), 100U);
}

TEST(FixedWindow, BeginsWithTheFirstHit) {
  Key key{rate(RateForm::kFixed, 10, kSecond)};
  EXPECT_TRUE(key.hit(kStart).allowed);
  const Verdict v = key.hit(kStart + kSecond * 9 / 10, 9);
  EXPECT_TRUE(v.allowed);
  EXPECT_LE(v.reset_ns, kSecond / 10);
  EXPECT_EQ(key.hits(kStart + kSecond), 10U);
}

TEST(Rates, WhatAWordCantHoldIsRefused) {
  const auto why = [](const Rate& r) { return check_rate(r).message(); };
  EXPECT_EQ(why(rate(RateForm::kGcra, 1'000'000'000, kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kGcra, 1'000'000'001, kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kGcra, 0, kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kGcra, 1, kSecond / 10'000)), "");
  EXPECT_NE(why(rate(RateForm::kGcra, 1, 400 * 86'400 * kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kGcra, 1, 86'400 * kSecond, 10'000)).find("lower the burst"),
            std::string::npos);
  EXPECT_EQ(why(rate(RateForm::kFixed, 2'097'151, kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kFixed, 2'097'152, kSecond)).find("2097151"), std::string::npos);
  EXPECT_EQ(why(rate(RateForm::kSliding, 65'535, kSecond)), "");
  EXPECT_NE(why(rate(RateForm::kSliding, 65'536 * 2, kSecond)).find("gcra"), std::string::npos);
  EXPECT_EQ(why(rate(RateForm::kSliding, 1'000'000, 86'400 * kSecond)), "");
}

}  // namespace
}  // namespace celeriac
