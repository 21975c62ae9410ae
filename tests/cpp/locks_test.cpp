// Locks by name: as many hold as have a permit, first come first served, and the dead hold nothing.
#include "store/locks.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "arena/crash_point.hpp"
#include "engine/local/lock.hpp"
#include "support/local_store.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::must;

class LocksTest : public test::LocalStoreTest {
 protected:
  Locks& locks() { return core->locks(); }
  LockName name(std::string_view text, std::uint32_t permits = 1) {
    return locks().name(text, permits);
  }
  LockEntered enter(std::string_view text, std::uint64_t lease = 0, std::uint32_t permits = 1) {
    return must(locks().enter(name(text, permits), lease, true, me()));
  }
  LockEntered try_enter(std::string_view text, std::uint32_t permits = 1) {
    return must(locks().enter(name(text, permits), 0, false, me()));
  }
  Standing standing(const LockEntered& e) {
    std::uint64_t token = 0;
    std::uint32_t signal = 0;
    return locks().look(e.place, me(), &token, &signal);
  }
  std::uint64_t token(const LockEntered& e) {
    std::uint64_t token = 0;
    std::uint32_t signal = 0;
    static_cast<void>(locks().look(e.place, me(), &token, &signal));
    return token;
  }
  Status release(const LockEntered& e) { return locks().release(e.place, me()); }
  std::pair<std::size_t, std::uint64_t> count(std::string_view text) {
    std::uint64_t waiting = 0;
    const auto held = must(locks().holders(name(text), &waiting, me()));
    return {held.size(), waiting};
  }
  // Until the leases that there are have ended.
  void sleep_past() {
    for (const LockHolder& h : locks().list()) {
      while (h.until != kNever && now_ns() < h.until) test::sleep_us(200);
    }
  }
  std::unique_ptr<LockEngine> engine(const std::string& text) {
    return must(LocalLock::open(std::make_shared<LocalHandle>(core), text, 1, me()));
  }
};

TEST_F(LocksTest, OneHoldsAndTheOthersWaitInTheirOrder) {
  LockEntered first = enter("lock:a");
  EXPECT_NE(first.token, 0U);
  EXPECT_FALSE(try_enter("lock:a").place.valid());
  std::vector<LockEntered> line;
  for (int i = 0; i < 20; ++i) line.push_back(enter("lock:a"));
  EXPECT_EQ(count("lock:a"), (std::pair<std::size_t, std::uint64_t>(1, 20)));
  std::uint64_t last = first.token;
  ASSERT_TRUE(release(first));
  for (std::size_t i = 0; i < line.size(); ++i) {
    ASSERT_EQ(standing(line[i]), Standing::kHolds) << i;
    ASSERT_GT(token(line[i]), last);
    last = token(line[i]);
    if (i + 1 < line.size()) {
      ASSERT_EQ(standing(line[i + 1]), Standing::kWaits);
    }
    ASSERT_TRUE(release(line[i]));
  }
  EXPECT_EQ(count("lock:a"), (std::pair<std::size_t, std::uint64_t>(0, 0)));
  EXPECT_TRUE(locks().list().empty());
}

TEST_F(LocksTest, NamesAreSeparateAlsoInOneBucket) {
  std::vector<LockEntered> held;
  for (int i = 0; i < 2000; ++i) held.push_back(enter("lock:" + std::to_string(i)));
  for (const LockEntered& e : held) ASSERT_EQ(standing(e), Standing::kHolds);
  EXPECT_EQ(locks().list().size(), held.size());
  for (int i = 0; i < 2000; ++i) {
    ASSERT_FALSE(try_enter("lock:" + std::to_string(i)).place.valid()) << i;
  }
  for (std::size_t i = 0; i < held.size(); i += 2) ASSERT_TRUE(release(held[i]));
  for (std::size_t i = 0; i < held.size(); ++i) {
    ASSERT_EQ(try_enter("lock:" + std::to_string(i)).place.valid(), i % 2 == 0) << i;
  }
}

TEST_F(LocksTest, NamesThatNobodyUsesTakeNoMemory) {
  enter("lock:warm");
  const std::uint64_t before = heap().stats().blocks;
  for (int i = 0; i < 5000; ++i) {
    const LockEntered e = enter("lock:" + std::to_string(i));
    ASSERT_TRUE(release(e));
  }
  EXPECT_EQ(heap().stats().blocks, before);
}

TEST_F(LocksTest, PlaceThatIsOverIsNobodys) {
  const LockEntered e = enter("lock:a");
  ASSERT_TRUE(release(e));
  EXPECT_EQ(release(e).code(), Code::kLockLost);
  const LockEntered again = enter("lock:a");
  EXPECT_EQ(again.place.index, e.place.index) << "the same seat";
  EXPECT_EQ(release(e).code(), Code::kLockLost);
  EXPECT_EQ(locks().renew(e.place, 5, me()).code(), Code::kLockLost);
  locks().leave(e.place, me());
  EXPECT_EQ(standing(again), Standing::kHolds);
  EXPECT_EQ(locks().release({70'000, 1}, me()).code(), Code::kLockLost);
}

TEST_F(LocksTest, WhoLeavesTheLineIsPassed) {
  const LockEntered holder = enter("lock:a");
  const LockEntered a = enter("lock:a");
  const LockEntered b = enter("lock:a");
  const LockEntered c = enter("lock:a");
  locks().leave(b.place, me());
  EXPECT_EQ(standing(b), Standing::kGone);
  locks().leave(holder.place, me());  // a holder's leaving is a release
  EXPECT_EQ(standing(a), Standing::kHolds);
  ASSERT_TRUE(release(a));
  EXPECT_EQ(standing(c), Standing::kHolds);
}

TEST_F(LocksTest, SemaphoreHasItsPermits) {
  std::vector<LockEntered> all;
  for (int i = 0; i < 7; ++i) all.push_back(enter("semaphore:s", 0, 3));
  const auto holding = [&] {
    return std::count_if(all.begin(), all.end(),
                         [&](const LockEntered& e) { return standing(e) == Standing::kHolds; });
  };
  EXPECT_EQ(holding(), 3);
  ASSERT_TRUE(release(all[1]));
  EXPECT_EQ(standing(all[3]), Standing::kHolds);
  EXPECT_EQ(standing(all[4]), Standing::kWaits);
  EXPECT_EQ(holding(), 3);
  const Result<LockEntered> other = locks().enter(name("semaphore:s", 4), 0, true, me());
  EXPECT_EQ(other.status().code(), Code::kConfiguration);
  EXPECT_NE(other.status().message().find("semaphore \"s\" has permits=3"), std::string::npos)
      << other.status().message();
  EXPECT_EQ(locks().agree(name("semaphore:s", 4), me()).code(), Code::kConfiguration);
  for (const LockEntered& e : all) locks().leave(e.place, me());
  EXPECT_TRUE(locks().agree(name("semaphore:s", 4), me()));
  EXPECT_TRUE(enter("semaphore:s", 0, 4).place.valid());
}

TEST_F(LocksTest, LeaseThatIsOverIsLostAndTheNextHolds) {
  const LockEntered e = enter("lock:a", kMillisecond);
  const LockEntered next = enter("lock:a");
  sleep_past();
  EXPECT_EQ(must(locks().watch(next.place, me())).standing, Standing::kHolds);
  EXPECT_EQ(release(e).code(), Code::kLockLost);
  EXPECT_EQ(standing(next), Standing::kHolds);
}

TEST_F(LocksTest, LateHolderIsToldThoughNobodyCame) {
  const LockEntered e = enter("lock:a", kMillisecond);
  sleep_past();
  EXPECT_EQ(locks().renew(e.place, kSecond, me()).code(), Code::kLockLost);
  const LockEntered again = enter("lock:a", kMillisecond);
  EXPECT_NE(again.token, 0U);
  sleep_past();
  EXPECT_EQ(release(again).code(), Code::kLockLost);
  EXPECT_EQ(count("lock:a").first, 0U);
}

// What a holder does to its place is one step: nothing comes between seeing that it is its own and
// ending it, not even its lease's end and another's use of the same seat.
TEST_F(LocksTest, StoppedHolderEndsNothingOfOthers) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const bool renews : {false, true}) {
    Child late = Child::run([&] {
      const LockEntered mine = enter("lock:a", 20 * kMillisecond);
      arm_crash_point(renews ? "lock.renew.seen" : "lock.release.seen", 1, "stop");
      const Status done = renews ? locks().renew(mine.place, kSecond, me()) : release(mine);
      return mine.token != 0 && done.code() == Code::kLockLost;
    });
    int status = 0;
    ASSERT_EQ(waitpid(late.pid(), &status, WUNTRACED), late.pid());
    ASSERT_TRUE(WIFSTOPPED(status));
    sleep_past();
    std::vector<LockEntered> ours{enter("lock:a")};
    while (ours.size() < layout::kSeatsPerChunk) {  // the late one's seat among them
      ours.push_back(enter("lock:" + std::to_string(ours.size())));
    }
    late.signal(SIGCONT);
    EXPECT_EQ(late.wait(), 0);
    EXPECT_EQ(locks().list().size(), ours.size());
    for (const LockEntered& e : ours) {
      ASSERT_EQ(standing(e), Standing::kHolds);
      ASSERT_TRUE(release(e));
    }
  }
}

TEST_F(LocksTest, RenewedLeaseLasts) {
  const LockEntered e = enter("lock:a", kSecond);
  ASSERT_TRUE(locks().renew(e.place, 3600 * kSecond, me()));
  EXPECT_GT(locks().list()[0].until, now_ns() + 3000 * kSecond);
  const LockEntered first = enter("lock:a");
  const LockEntered second = enter("lock:a");
  EXPECT_EQ(must(locks().watch(first.place, me())).look_at, locks().list()[0].until);
  EXPECT_EQ(must(locks().watch(second.place, me())).look_at, kNever) << "the first alone watches";
  std::uint64_t unused = 0;
  std::uint32_t before = 0;
  std::uint32_t after = 0;
  static_cast<void>(locks().look(first.place, me(), &unused, &before));
  ASSERT_TRUE(locks().renew(e.place, kSecond, me()));
  static_cast<void>(locks().look(first.place, me(), &unused, &after));
  EXPECT_NE(before, after) << "a lease that became shorter wakes who watches it";
  locks().leave(first.place, me());
  EXPECT_NE(must(locks().watch(second.place, me())).look_at, kNever);
}

TEST_F(LocksTest, DeadHoldersLockGoesToTheNext) {
  CELERIAC_TEST_NEEDS_TWO_MAPPINGS();
  std::shared_ptr<LocalCore> other = test::open_core(options);
  const OwnerTag them = must(other->enter());
  const LockEntered theirs =
      must(other->locks().enter(other->locks().name("lock:a", 1), 0, true, them));
  static_cast<void>(must(other->locks().enter(other->locks().name("lock:a", 1), 0, true, them)));
  const LockEntered mine = enter("lock:a");
  EXPECT_EQ(locks().release(theirs.place, me()).code(), Code::kNotOwner);
  test::die(*other);
  EXPECT_TRUE(try_enter("lock:a").stale);
  EXPECT_EQ(count("lock:a"), (std::pair<std::size_t, std::uint64_t>(0, 1)))
      << "the dead don't count";
  EXPECT_EQ(recover(), 1);
  EXPECT_EQ(standing(mine), Standing::kHolds);
  EXPECT_EQ(locks().list().size(), 1U);
}

TEST_F(LocksTest, WhoLeavesTheStoreHoldsNothing) {
  CELERIAC_TEST_NEEDS_TWO_MAPPINGS();
  std::shared_ptr<LocalCore> other = test::open_core(options);
  const OwnerTag them = must(other->enter());
  static_cast<void>(must(other->locks().enter(other->locks().name("lock:a", 1), 0, true, them)));
  const LockEntered mine = enter("lock:a");
  ASSERT_TRUE(other->close());
  EXPECT_EQ(standing(mine), Standing::kHolds);
}

TEST_F(LocksTest, WhoComesAloneFindsAllFree) {
  CELERIAC_TEST_FORKS();
  ASSERT_TRUE(core->close());
  core.reset();
  Child dies = Child::run([&] {
    const std::shared_ptr<LocalCore> c = test::open_core(options);
    const OwnerTag tag = must(c->enter());
    for (const char* text : {"lock:a", "lock:a", "lock:b"}) {
      static_cast<void>(must(c->locks().enter(c->locks().name(text, 1), 0, true, tag)));
    }
    ::kill(getpid(), SIGKILL);
    return true;
  });
  EXPECT_EQ(dies.wait(), test::kKilled);
  core = test::open_core(options);
  EXPECT_NE(enter("lock:a").token, 0U);
  EXPECT_NE(enter("lock:b").token, 0U);
}

TEST_F(LocksTest, DamagedRingsAreMadeAnew) {
  const LockEntered a = enter("lock:a");
  const LockEntered b = enter("lock:a");
  const LockEntered c = enter("lock:a");
  auto* buckets = core->arena().fixed<layout::LockBucket>(layout::kLockBuckets);
  LockSeats seats(core->base());
  for (std::uint32_t wrong : {0U, 77U, 0xFFFFFFFFU, a.place.index + 1}) {
    seats.at(a.place.index)->next.store(wrong);
    seats.at(c.place.index)->previous.store(wrong);
    EXPECT_EQ(count("lock:a"), (std::pair<std::size_t, std::uint64_t>(1, 2))) << wrong;
  }
  for (std::uint32_t i = 0; i < layout::kLockBucketCount; ++i) {
    if (buckets[i].first.load() != 0) buckets[i].first.store(12345);
  }
  ASSERT_TRUE(release(a));
  EXPECT_EQ(standing(b), Standing::kHolds);
  EXPECT_GT(core->arena().header().corrupt.load(), 0U);
}

TEST_F(LocksTest, ManyThreadsExcludeEachOther) {
  constexpr int kThreads = 6;
  const int rounds = test::kThreadSanitizer ? 150 : 1500;
  const std::unique_ptr<LockEngine> lock = engine("lock:a");
  std::uint64_t counter = 0;  // not atomic: the lock guards it
  std::uint64_t last = 0;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < rounds; ++i) {
        const LockTaken taken = must(lock->acquire(i % 3 == 0 ? 100 * kSecond : 0, kNever));
        if (taken.token <= last) ++wrong;
        last = taken.token;
        ++counter;
        if (!lock->release(taken.place)) ++wrong;
        if (i % 7 != t) continue;
        const LockTaken more = must(lock->acquire(0, i % 2 == 0 ? 0 : now_ns() + kMillisecond / 8));
        if (more.place != 0 && !lock->release(more.place)) ++wrong;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(counter, static_cast<std::uint64_t>(kThreads) * static_cast<std::uint64_t>(rounds));
}

}  // namespace
}  // namespace celeriac
