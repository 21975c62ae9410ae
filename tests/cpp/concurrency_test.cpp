// Concurrency limits: who is in, records that come and go, deaths.
#include "store/concurrency.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/local_store.hpp"

namespace celeriac {
namespace {

using test::must;
using Entered = Concurrency::Entered;

class ConcurrencyTest : public test::LocalStoreTest {
 protected:
  Concurrency& all() { return core->concurrency(); }
  ConcurrencyRef open(const std::string& name, std::uint32_t limit, bool set = true) {
    return must(all().open(name, limit, set, me()));
  }
  // How many get in, and stay.
  std::uint32_t fill(const ConcurrencyRef& ref, std::vector<ConcurrencyPlace>* places = nullptr) {
    std::uint32_t n = 0;
    for (ConcurrencyPlace p; must(all().enter(ref, me(), &p)) == Entered::kIn; ++n) {
      if (places != nullptr) places->push_back(p);
    }
    return n;
  }
};

TEST_F(ConcurrencyTest, AsManyAsTheLimit) {
  for (const std::uint32_t limit : {1U, 5U, 64U, 65U, 200U, 1000U, 65'536U}) {
    const ConcurrencyRef ref = open("c" + std::to_string(limit), limit);
    std::vector<ConcurrencyPlace> places;
    if (limit <= 1000) {
      EXPECT_EQ(fill(ref, &places), limit);
      EXPECT_EQ(all().inside(ref), limit);
      for (const ConcurrencyPlace& p : places) EXPECT_TRUE(all().leave(p, me()));
      for (const ConcurrencyPlace& p : places) {
        EXPECT_EQ(all().leave(p, me()).code(), Code::kNotOwner);
      }
    }
    EXPECT_EQ(all().inside(ref), 0U);
  }
  EXPECT_EQ(all().open("c", 0, true, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(all().open("c", 65'537, true, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(all().open("", 1, true, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(all().open(std::string(257, 'x'), 1, true, me()).status().code(), Code::kConfiguration);
}

TEST_F(ConcurrencyTest, ALoweredLimitCountsThoseWhoAreInBehindIt) {
  const ConcurrencyRef ref = open("c", 10);
  std::vector<ConcurrencyPlace> places;
  EXPECT_EQ(fill(ref, &places), 10U);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(all().leave(places[static_cast<std::size_t>(i)], me()));
  open("c", 7);  // six are in, three of them behind
  EXPECT_EQ(fill(ref), 1U);
  EXPECT_EQ(all().inside(ref), 7U);
  ASSERT_TRUE(all().leave(places[9], me()));
  EXPECT_EQ(fill(ref), 1U);
  open("c", 20, false);
  EXPECT_EQ(fill(ref), 0U);
  open("c", 70);
  EXPECT_EQ(fill(ref), 63U);
}

TEST_F(ConcurrencyTest, NamesComeAndGo) {
  const ConcurrencyRef kept = open("kept", 1);
  EXPECT_EQ(fill(kept), 1U);
  const ConcurrencyRef early = open("early", 2);
  for (int i = 0; i < 3000; ++i) open("n" + std::to_string(i), 1);
  EXPECT_TRUE(all().current(kept));
  EXPECT_FALSE(all().current(early));
  ConcurrencyPlace place;
  EXPECT_EQ(must(all().enter(early, me(), &place)), Entered::kGone);
  EXPECT_EQ(fill(open("early", 2, false)), 2U);
  EXPECT_EQ(fill(open("kept", 5, false)), 0U);
}

TEST_F(ConcurrencyTest, TooManyNamesAtOnceAreAnError) {
  Status last;
  int n = 0;
  for (; last && n < 5000; ++n) {
    const Result<ConcurrencyRef> ref = all().open("n" + std::to_string(n), 1, true, me());
    last = ref.status();
    if (ref) {
      EXPECT_EQ(fill(ref.value()), 1U);
    }
  }
  EXPECT_EQ(last.code(), Code::kNotEnoughMemory);
  EXPECT_EQ(n, 1025);
}

TEST_F(ConcurrencyTest, ThreadsAreNeverMoreThanTheLimit) {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  std::atomic<int> turns{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 1000; ++i) {
        // Others open names that take the record away in between, and change the limit.
        if (t == 0 && i % 100 == 0) open("c", 1 + static_cast<std::uint32_t>(i / 100 % 2));
        ConcurrencyPlace place;
        const Entered entered = must(all().enter(open("c", 2, false), me(), &place));
        if (entered != Entered::kIn) continue;
        const int now = ++inside;
        for (int old = most; old < now && !most.compare_exchange_weak(old, now);) {
        }
        ++turns;
        --inside;
        EXPECT_TRUE(all().leave(place, me()));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_LE(most, 2);
  EXPECT_GT(turns, 100);
  EXPECT_EQ(all().inside(open("c", 2)), 0U);
}

TEST_F(ConcurrencyTest, PlacesOfTheDeadAreFree) {
  CELERIAC_TEST_FORKS();
  const ConcurrencyRef ref = open("c", 3);
  const test::Gate in;
  test::Child child = test::Child::run([&] {
    fill(ref);
    in.open();
    pause();
    return true;
  });
  ASSERT_TRUE(in.pass());
  EXPECT_EQ(fill(ref), 0U);
  child.kill();
  EXPECT_EQ(recover(), 1);
  EXPECT_EQ(fill(ref), 3U);
}

TEST_F(ConcurrencyTest, WhoWaitsIsWokenByWhoLeaves) {
  const ConcurrencyRef ref = open("c", 1);
  std::vector<ConcurrencyPlace> places;
  ASSERT_EQ(fill(ref, &places), 1U);
  std::thread waiter([&] {
    ConcurrencyPlace mine;
    for (;;) {
      const std::uint32_t seen = Concurrency::await(ref);
      if (must(all().enter(ref, me(), &mine)) == Entered::kIn) break;
      static_cast<void>(Concurrency::wait(ref, seen, kNever, kNever));
    }
    EXPECT_TRUE(all().leave(mine, me()));
  });
  while (ref.record->room.waiting.load() == 0) std::this_thread::yield();
  EXPECT_TRUE(all().leave(places[0], me()));
  waiter.join();
  EXPECT_EQ(all().inside(ref), 0U);
}

}  // namespace
}  // namespace celeriac
