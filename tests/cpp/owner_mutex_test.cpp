// Owner mutex: one holder at a time, and a dead holder's mutex goes to the next, who is told.
#include "sync/owner_mutex.hpp"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::Child;
using test::Gate;

// A mutex and two words that are equal whenever nobody holds it.
struct Guarded {
  layout::MutexWord mutex;
  std::uint64_t a;
  std::uint64_t b;
};

class OwnerMutexTest : public ::testing::Test {
 protected:
  static Guarded& place(Attachment& a) { return *a.arena->fixed<Guarded>(layout::kSignals); }
  static OwnerMutex mutex(Attachment& a) { return {place(a).mutex, *a.owners}; }
  static Locked lock(Attachment& a, std::uint64_t patience = 5 * kSecond) {
    return mutex(a).lock(a.join(), now_ns() + patience);
  }
  // n times: lock, change both words, unlock. False when they weren't equal though nobody died.
  static bool work(Attachment& a, int n) {
    bool good = true;
    for (; n != 0; --n) {
      const Locked how = lock(a);
      Guarded& g = place(a);
      if (how == Locked::kTimedOut) return false;
      if (how == Locked::kRecovered) g.b = g.a;
      good = good && g.a == g.b;
      ++g.a;
      ++g.b;
      mutex(a).unlock();
    }
    return good;
  }
  std::unique_ptr<Attachment> attach() { return std::make_unique<Attachment>(root.options()); }

  test::TemporaryRoot root;
  std::unique_ptr<Attachment> mine = attach();
  std::unique_ptr<Attachment> other = attach();
};

TEST_F(OwnerMutexTest, LocksAndUnlocks) {
  EXPECT_EQ(lock(*mine), Locked::kAcquired);
  EXPECT_EQ(mutex(*other).try_lock(other->join()), Locked::kTimedOut);
  mutex(*mine).unlock();
  EXPECT_EQ(place(*mine).mutex.word.load(), 0U);
  EXPECT_EQ(mutex(*other).try_lock(other->join()), Locked::kAcquired);
}

TEST_F(OwnerMutexTest, GuardUnlocksWhatItHolds) {
  {
    const MutexGuard guard(mutex(*mine), lock(*mine));
    EXPECT_TRUE(guard.held());
    EXPECT_FALSE(guard.recovered());
    const MutexGuard not_held(mutex(*other), mutex(*other).try_lock(other->join()));
    EXPECT_FALSE(not_held.held());
  }
  EXPECT_EQ(place(*mine).mutex.word.load(), 0U);
  MutexGuard early(mutex(*mine), lock(*mine));
  early.unlock();
  EXPECT_EQ(lock(*other), Locked::kAcquired) << "and the guard's end does nothing more";
}

TEST_F(OwnerMutexTest, WaitsNoLongerThanItsDeadline) {
  ASSERT_EQ(lock(*mine), Locked::kAcquired);
  const std::uint64_t deadline = now_ns() + 25 * kMillisecond;
  EXPECT_EQ(mutex(*other).lock(other->join(), deadline), Locked::kTimedOut);
  EXPECT_GE(now_ns(), deadline);
  EXPECT_EQ(mutex(*other).lock(other->join(), 0), Locked::kTimedOut);
}

TEST_F(OwnerMutexTest, ThreadOfTheHoldersProcessWaitsToo) {
  ASSERT_EQ(lock(*mine), Locked::kAcquired);
  EXPECT_EQ(lock(*mine, 25 * kMillisecond), Locked::kTimedOut) << "the same owner, and alive";
}

TEST_F(OwnerMutexTest, DeadHoldersMutexIsTakenAndSaidSo) {
  mine->join();
  ASSERT_EQ(lock(*other), Locked::kAcquired);
  other->die();
  EXPECT_EQ(lock(*mine), Locked::kRecovered);
  mutex(*mine).unlock();
  EXPECT_EQ(lock(*mine), Locked::kAcquired);
}

TEST_F(OwnerMutexTest, TryLockTakesFromTheDeadAtOnce) {
  ASSERT_EQ(lock(*other), Locked::kAcquired);
  other->die();
  EXPECT_EQ(mutex(*mine).try_lock(mine->join()), Locked::kRecovered);
}

TEST_F(OwnerMutexTest, HolderWhoseSlotWasReapedAndReusedIsDeadToo) {
  mine->join();
  const OwnerTag before = other->join();
  ASSERT_EQ(lock(*other), Locked::kAcquired);
  other->die();
  ASSERT_EQ(mine->recovery->run(), 1);
  const auto next = attach();
  ASSERT_EQ(next->join().slot, before.slot);
  EXPECT_EQ(lock(*mine), Locked::kRecovered);
}

TEST_F(OwnerMutexTest, WhoDiesRepairingHandsTheDutyOn) {
  ASSERT_EQ(lock(*other), Locked::kAcquired);
  const auto repairer = attach();
  repairer->join();
  mine->join();
  other->die();
  ASSERT_EQ(lock(*repairer), Locked::kRecovered);
  repairer->die();
  EXPECT_EQ(lock(*mine), Locked::kRecovered);
}

TEST_F(OwnerMutexTest, EverySleeperIsWokenInTheEndConcurrency) {
  ASSERT_EQ(lock(*mine), Locked::kAcquired);
  std::vector<std::thread> sleepers;
  for (int i = 0; i < 4; ++i) sleepers.emplace_back([&] { EXPECT_TRUE(work(*mine, 1)); });
  test::sleep_us(5000);
  mutex(*mine).unlock();
  for (std::thread& t : sleepers) t.join();
  EXPECT_EQ(place(*mine).a, 4U);
}

using OwnerMutexConcurrency = OwnerMutexTest;

TEST_F(OwnerMutexConcurrency, ThreadsExcludeEachOther) {
  mine->join();
  std::vector<std::thread> all;
  for (int i = 0; i < 4; ++i) all.emplace_back([&] { EXPECT_TRUE(work(*mine, 3000)); });
  for (std::thread& t : all) t.join();
  EXPECT_EQ(place(*mine).a, 12'000U);
}

TEST_F(OwnerMutexConcurrency, ThreadsOfTwoMappingsExcludeEachOther) {
  mine->join();
  other->join();
  struct Count {
    std::atomic<int> inside{0};
    std::atomic<int> violations{0};
  } count;
  std::vector<std::thread> all;
  for (Attachment* a : {mine.get(), mine.get(), other.get(), other.get()}) {
    all.emplace_back([&, a] {
      for (int i = 0; i < 2000; ++i) {
        EXPECT_EQ(lock(*a), Locked::kAcquired);
        count.violations += count.inside.fetch_add(1) != 0 ? 1 : 0;
        count.inside.fetch_sub(1);
        mutex(*a).unlock();
      }
    });
  }
  for (std::thread& t : all) t.join();
  EXPECT_EQ(count.violations, 0);
}

TEST_F(OwnerMutexTest, ProcessesExcludeEachOther) {
  CELERIAC_TEST_FORKS();
  std::vector<Child> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(Child::run([&] { return work(*attach(), 3000); }));
  }
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ(place(*mine).a, 12'000U);
}

TEST_F(OwnerMutexTest, HoldersKilledAtRandomLeaveAMutexThatWorks) {
  CELERIAC_TEST_FORKS();
  mine->join();
  int recovered = 0;
  for (unsigned round = 0; round < 100; ++round) {
    Child a = Child::run([&] { return work(*attach(), -1); });
    Child b = Child::run([&] { return work(*attach(), -1); });
    test::sleep_us(800 + round * 31 % 1500);
    a.kill();
    b.kill();
    const Locked how = lock(*mine);
    ASSERT_NE(how, Locked::kTimedOut);
    recovered += how == Locked::kRecovered ? 1 : 0;
    Guarded& g = place(*mine);
    ASSERT_TRUE(how == Locked::kRecovered || g.a == g.b) << "torn, and nobody told";
    g.b = g.a;
    mutex(*mine).unlock();
    mine->recovery->run();
  }
  RecordProperty("recovered", recovered);
}

TEST_F(OwnerMutexTest, StoppedHolderIsAliveAndTheWaitEnds) {
  CELERIAC_TEST_FORKS();
  mine->join();
  const Gate locked;
  Child holder = Child::run([&] {
    const auto theirs = attach();
    const bool got = lock(*theirs) == Locked::kAcquired;
    locked.open();
    for (;;) pause();
    return got;
  });
  ASSERT_TRUE(locked.pass());
  holder.signal(SIGSTOP);
  EXPECT_EQ(lock(*mine, 40 * kMillisecond), Locked::kTimedOut);
  holder.kill();
  EXPECT_EQ(lock(*mine), Locked::kRecovered);
}

TEST_F(OwnerMutexTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  mine->join();
  for (const char* point : {"mutex.lock.waiting", "mutex.unlock.released"}) {
    ASSERT_EQ(lock(*mine), Locked::kAcquired);
    Child child = Child::run([&] {
      const auto theirs = attach();
      theirs->join();
      arm_crash_point(point, 1, "kill");
      return work(*theirs, 1);
    });
    const bool while_held = std::string(point) == "mutex.lock.waiting";
    if (while_held) {
      ASSERT_EQ(child.wait(), test::kKilled);
    }
    mutex(*mine).unlock();
    if (!while_held) {
      ASSERT_EQ(child.wait(), test::kKilled);
    }
    EXPECT_EQ(lock(*mine), Locked::kAcquired) << point;
    mutex(*mine).unlock();
    mine->recovery->run();
  }
}

}  // namespace
}  // namespace celeriac
