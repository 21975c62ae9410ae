// Mapping, shared futexes and clocks: what sleeping in the arena stands on.
#include "platform/futex.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cmath>
#include <thread>

#include "platform/blocking.hpp"
#include "platform/clock.hpp"
#include "platform/file.hpp"
#include "platform/mapping.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac {
namespace {

using test::Child;
using HalfWord = std::atomic<std::uint32_t>;

class FutexTest : public ::testing::Test {
 protected:
  FutexTest() {
    Result<Fd> made = create_unnamed(dir.get(), 0600);
    file = made.take();
    static_cast<void>(allocate(file.get(), 0, 2 * page_size(), "x").is_ok());
  }
  Mapping view(std::size_t pages = 2) {
    Mapping m = Mapping::reserve(4 * page_size()).take();
    EXPECT_TRUE(m.map(file.get(), 0, pages * page_size()).is_ok());
    return m;
  }
  static HalfWord& word(const Mapping& m) { return *reinterpret_cast<HalfWord*>(m.base() + 64); }

  test::TemporaryRoot root;
  Fd dir{open(root.path().c_str(), O_RDONLY | O_DIRECTORY)};
  Fd file;
};

TEST_F(FutexTest, TwoMappingsShowTheSameFile) {
  const Mapping a = view();
  const Mapping b = view();
  ASSERT_NE(a.base(), b.base());
  a.base()[page_size() + 7] = 'x';
  EXPECT_EQ(b.base()[page_size() + 7], 'x');
}

TEST_F(FutexTest, MappingGrowsBehindItselfWithoutMoving) {
  Mapping m = view(1);
  char* base = m.base();
  base[5] = 'a';
  ASSERT_TRUE(m.map(file.get(), page_size(), page_size()).is_ok());
  EXPECT_EQ(m.base(), base);
  EXPECT_EQ(base[5], 'a');
  base[page_size()] = 'b';
  EXPECT_EQ(view().base()[page_size()], 'b');
}

TEST_F(FutexTest, ReservationThatCannotBeIsAnError) {
  const Result<Mapping> m = Mapping::reserve(1ULL << 60U);
  EXPECT_EQ(m.status().code(), Code::kNotEnoughMemory);
  EXPECT_NE(m.status().message().find("ulimit -v"), std::string::npos);
}

TEST_F(FutexTest, MovedMappingBelongsToItsNewPlace) {
  Mapping a = view();
  a.base()[0] = 'm';
  Mapping b(std::move(a));
  EXPECT_EQ(a.base(), nullptr);
  EXPECT_EQ(b.base()[0], 'm');
}

TEST_F(FutexTest, OtherValueReturnsAtOnce) {
  const Mapping m = view();
  word(m) = 5;
  EXPECT_TRUE(futex_wait(&word(m), 4, kNever));
}

TEST_F(FutexTest, DeadlineEndsTheSleepAndNotBefore) {
  const Mapping m = view();
  const std::uint64_t deadline = now_ns() + 20 * kMillisecond;
  bool in_time = true;
  while (in_time) in_time = futex_wait(&word(m), 0, deadline);
  EXPECT_GE(now_ns(), deadline);
}

TEST_F(FutexTest, DeadlineThatPassedReturnsAtOnce) {
  const Mapping m = view();
  EXPECT_FALSE(futex_wait(&word(m), 0, 1));
  EXPECT_FALSE(futex_wait(&word(m), 0, now_ns()));
}

TEST_F(FutexTest, WakesThroughAnotherMapping) {
  const Mapping a = view();
  const Mapping b = view();
  std::thread sleeper([&] {
    while (word(a).load() == 0) futex_wait(&word(a), 0, now_ns() + 10 * kSecond);
  });
  while (futex_wake(&word(b), 1) == 0) test::sleep_us(100);  // it sleeps now
  word(b).store(1);
  while (futex_wake(&word(b), 1) == 0 && word(a).load() == 0) test::sleep_us(100);
  sleeper.join();
  EXPECT_EQ(word(a).load(), 1U);
}

TEST_F(FutexTest, WakesAnotherProcess) {
  CELERIAC_TEST_FORKS();
  const Mapping mine = view();
  Child sleeper = Child::run([&] {
    const Mapping theirs = view();
    return futex_wait(&word(theirs), 0, now_ns() + 10 * kSecond);
  });
  const std::uint64_t end = now_ns() + 10 * kSecond;
  int woken = 0;
  while (woken == 0 && now_ns() < end) woken = futex_wake(&word(mine), 1);
  EXPECT_EQ(woken, 1);
  EXPECT_EQ(sleeper.wait(), 0);
}

TEST_F(FutexTest, WakesNoMoreThanAsked) {
  const Mapping m = view();
  std::atomic<int> awake{0};
  std::vector<std::thread> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.emplace_back([&] {
      futex_wait(&word(m), 0, now_ns() + 10 * kSecond);
      ++awake;
    });
  }
  int woken = 0;
  while (woken < 3) {
    const int now = futex_wake(&word(m), 1);
    EXPECT_LE(now, 1);
    woken += now;
  }
  for (std::thread& t : sleepers) t.join();
  EXPECT_EQ(awake, 3);
}

int g_before = 0;
int g_after = 0;

TEST_F(FutexTest, HooksRunAroundTheSleep) {
  const Mapping m = view();
  BlockingHooks hooks;
  hooks.before = []() -> void* { return ++g_before, &g_before; };
  hooks.after = [](void* token) { g_after += token == &g_before ? 1 : 100; };
  hooks.interrupted = [] { return true; };
  set_blocking_hooks(hooks);
  EXPECT_FALSE(futex_wait(&word(m), 0, now_ns() + kMillisecond));
  EXPECT_TRUE(blocking_interrupted());
  set_blocking_hooks({});
  EXPECT_EQ(g_before, 1);
  EXPECT_EQ(g_after, 1);
  EXPECT_FALSE(blocking_interrupted());
}

TEST(Clock, DeadlinesSaturate) {
  const std::uint64_t now = now_ns();
  EXPECT_EQ(deadline_after(1e300), kNever);
  EXPECT_EQ(deadline_after(HUGE_VAL), kNever);
  EXPECT_GE(deadline_after(0.5), now + kSecond / 2);
  for (const double none : {0.0, -1.0, -HUGE_VAL, std::nan("")}) {
    const std::uint64_t at_once = deadline_after(none);
    EXPECT_GE(at_once, now);
    EXPECT_LE(at_once, now_ns());
  }
}

TEST(Clock, BootIdIsTheKernelsAndStays) {
  EXPECT_EQ(boot_id(), boot_id());
  EXPECT_NE(boot_id(), (std::array<std::uint8_t, 16>{}));
}

TEST(Clock, RandomBytesFillTheWholeBuffer) {
  std::array<std::uint8_t, 64> a{};
  std::array<std::uint8_t, 64> b{};
  random_bytes(a.data(), a.size());
  random_bytes(b.data(), b.size());
  EXPECT_NE(a, b);
  EXPECT_TRUE(std::any_of(a.end() - 16, a.end(), [](std::uint8_t x) { return x != 0; }));
}

}  // namespace
}  // namespace celeriac
