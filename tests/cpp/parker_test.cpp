// Parker: sleeps until the word changes, the deadline passes, the holder is dead, or a signal came.
#include "sync/parker.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "platform/futex.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using layout::HalfWord;
using test::Child;

const auto kNobodyToAsk = [] { return true; };
const auto kNotInterrupted = [] { return false; };

void change(HalfWord& w) {
  w.fetch_add(1);
  futex_wake(&w, 1 << 30);
}

TEST(Parker, ChangedWordDoesNotSleep) {
  const HalfWord w{2};
  EXPECT_EQ(park_until(w, 1, kNever), Parked::kChanged);
}

TEST(Parker, DeadlineThatPassedDoesNotSleep) {
  const HalfWord w{1};
  EXPECT_EQ(park_until(w, 1, 0), Parked::kTimedOut);
}

TEST(Parker, DeadlineIsKept) {
  const HalfWord w{1};
  const std::uint64_t deadline = now_ns() + 15 * kMillisecond;
  EXPECT_EQ(park_until(w, 1, deadline), Parked::kTimedOut);
  EXPECT_GE(now_ns(), deadline);
}

TEST(Parker, ChangeWakesConcurrency) {
  HalfWord w{1};
  std::thread waker([&] {
    test::sleep_us(3000);
    change(w);
  });
  EXPECT_EQ(park_until(w, 1, now_ns() + 10 * kSecond), Parked::kChanged);
  waker.join();
}

TEST(Parker, ChangeWithoutAWakeIsSeenAtTheNextProbeConcurrency) {
  HalfWord w{1};
  std::thread other([&] {
    test::sleep_us(3000);
    w.store(2);  // and died before the wake
  });
  EXPECT_EQ(park(w, 1, now_ns() + 10 * kSecond, kNobodyToAsk), Parked::kChanged);
  other.join();
}

TEST(Parker, DeadHolderEndsTheWait) {
  const HalfWord w{1};
  int asked = 0;
  const auto dies_later = [&] { return ++asked < 3; };
  EXPECT_EQ(park(w, 1, now_ns() + 10 * kSecond, dies_later), Parked::kHolderDead);
  EXPECT_EQ(asked, 3);
}

TEST(Parker, DeadlineBeforeTheFirstProbeAsksNobody) {
  const HalfWord w{1};
  const auto asked = [] {
    ADD_FAILURE();
    return true;
  };
  EXPECT_EQ(park(w, 1, now_ns() + kMillisecond, asked, kProbeInterval, kNotInterrupted),
            Parked::kTimedOut);
}

TEST(Parker, SignalEndsAWaitThatSignalsMayEnd) {
  const HalfWord w{1};
  int sleeps = 0;
  const auto second_time = [&] { return ++sleeps == 2; };
  EXPECT_EQ(park(w, 1, kNever, kNobodyToAsk, kMillisecond, second_time), Parked::kInterrupted);
}

TEST(Parker, WakesAcrossProcesses) {
  CELERIAC_TEST_FORKS();
  const test::Shared<HalfWord> w;
  for (int round = 0; round < 50; ++round) {
    const std::uint32_t before = w->load();
    Child sleeper = Child::run(
        [&] { return park_until(*w, before, now_ns() + 10 * kSecond) == Parked::kChanged; });
    test::sleep_us(static_cast<unsigned>(round * 20));
    change(*w);
    ASSERT_EQ(sleeper.wait(), 0);
  }
}

// Two take turns by one word: a wake that got lost would hang them until the deadline.
TEST(ParkerConcurrency, PingPongLosesNoWake) {
  HalfWord turn{0};
  const std::uint64_t deadline = now_ns() + 20 * kSecond;
  const auto play = [&](std::uint32_t mine) {
    for (std::uint32_t i = 0; i < 1000; ++i) {
      const std::uint32_t want = i * 2 + mine;
      while (turn.load() != want) {
        const std::uint32_t seen = turn.load();
        if (seen == want) break;
        ASSERT_NE(park_until(turn, seen, deadline), Parked::kTimedOut);
      }
      change(turn);
    }
  };
  std::thread other([&] { play(1); });
  play(0);
  other.join();
  EXPECT_EQ(turn.load(), 2000U);
}

}  // namespace
}  // namespace celeriac
