// The heap under deaths: at random moments, and at each named point.
#include <gtest/gtest.h>

#include <random>

#include "arena/crash_point.hpp"
#include "memory/heap.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::Child;
using test::HeapPicture;
using test::look_at_heap;

struct Member : Attachment {
  explicit Member(const ArenaOptions& o) : Attachment(o), heap(*arena, *owners), me(join()) {}
  Heap heap;
  OwnerTag me;
};

class HeapKillTest : public ::testing::Test {
 protected:
  HeapKillTest() {
    std::mt19937_64 random(5);  // blocks that stay, with gaps between them
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t b = mine->heap.allocate(random() % 700, mine->me).value();
      mine->heap.make_live(b, mine->me);
      if (i % 2 == 0) mine->heap.release(b, mine->me);
    }
    baseline = mine->heap.stats().blocks;
  }

  // Never ends on its own but by memory running out, which it doesn't.
  static bool use_for_ever(const ArenaOptions& options, std::uint64_t seed) {
    Member m(options);
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> held;
    for (;;) {
      if (held.size() < 40 && random() % 2 == 0) {
        const bool large = random() % 50 == 0;
        const Result<std::uint64_t> b = m.heap.allocate(random() % (large ? 100'000U : 500U), m.me);
        if (!b) return false;
        held.push_back(b.value());
      } else if (!held.empty()) {
        std::swap(held[random() % held.size()], held.back());
        m.heap.release(held.back(), m.me);
        held.pop_back();
      }
    }
  }

  void reap(int deaths) {
    const std::uint64_t end = now_ns() + 5 * kSecond;
    for (int reaped = 0; reaped < deaths && now_ns() < end;) reaped += mine->recovery->run();
    mine->heap.sweep(mine->me);
  }

  void expect_as_before(const std::string& when) {
    const HeapPicture p = look_at_heap(*mine->arena);
    const HeapStats s = mine->heap.stats();
    ASSERT_TRUE(p.whole) << when;
    ASSERT_EQ(p.used_blocks, baseline) << when;
    ASSERT_EQ(s.blocks, baseline) << when;
    ASSERT_EQ(s.free, p.free_bytes) << when;
    ASSERT_EQ(p.free_bytes + p.used_bytes, s.size - layout::kBlocks) << when;
    ASSERT_EQ(p.neighbours_free, 0U) << when;
    ASSERT_EQ(mine->arena->header().corrupt.load(), 0U) << when;
  }

  test::TemporaryRoot root;
  ArenaOptions options = root.options(32ULL << 20U);
  std::unique_ptr<Member> mine = std::make_unique<Member>(options);
  std::uint64_t baseline = 0;
};

TEST_F(HeapKillTest, NothingLeaksThroughTwoHundredKills) {
  CELERIAC_TEST_FORKS();
  std::mt19937_64 random(17);
  for (std::uint64_t round = 0; round < 200; ++round) {
    Child a = Child::run([&] { return use_for_ever(options, round); });
    Child b = Child::run([&] { return use_for_ever(options, round + 1000); });
    test::sleep_us(static_cast<unsigned>(500 + random() % 2500));
    a.kill();
    b.kill();
    ASSERT_TRUE(look_at_heap(*mine->arena).whole) << "H1, before any repair";
    const std::uint64_t dead = mine->owners->dead().size();
    reap(static_cast<int>(dead));
    expect_as_before("round " + std::to_string(round));
  }
}

TEST_F(HeapKillTest, TheLivingGoOnWhileOthersDie) {
  CELERIAC_TEST_FORKS();
  Child stays = Child::run([&] { return use_for_ever(options, 1); });
  for (std::uint64_t round = 0; round < 60; ++round) {
    Child dies = Child::run([&] { return use_for_ever(options, round); });
    test::sleep_us(static_cast<unsigned>(300 + round * 29));
    dies.kill();
    mine->recovery->run();
    mine->heap.sweep(mine->me);
  }
  stays.signal(SIGSTOP);  // still alive, so it didn't meet a failure
  EXPECT_EQ(stays.kill(), test::kKilled);
  reap(static_cast<int>(mine->owners->dead().size()));
  expect_as_before("the end");
}

TEST_F(HeapKillTest, SweeperKilledAtRandomIsFollowedByAnother) {
  CELERIAC_TEST_FORKS();
  for (std::uint64_t round = 0; round < 40; ++round) {
    Child user = Child::run([&] { return use_for_ever(options, round); });
    Child sweeper = Child::run([&] {
      Member m(options);
      for (;;) m.heap.sweep(m.me);
      return false;
    });
    test::sleep_us(static_cast<unsigned>(700 + round * 41));
    sweeper.kill();
    user.kill();
    ASSERT_TRUE(look_at_heap(*mine->arena).whole);
    reap(static_cast<int>(mine->owners->dead().size()));
    expect_as_before("round " + std::to_string(round));
  }
}

// Passes every point of the heap at least once.
bool pass_all_points(Member& m, const std::string& armed) {
  m.heap.sweep(m.me);
  std::vector<std::uint64_t> held;
  if (armed.find("grow") != std::string::npos) {  // ask for more than there is
    static_cast<void>(m.heap.allocate(m.heap.stats().free, m.me).is_ok());
  }
  for (int i = 0; i < 100; ++i) {
    const Result<std::uint64_t> b = m.heap.allocate(i % 40 == 7 ? 90'000 : 300, m.me);
    if (!b) break;
    held.push_back(b.value());
  }
  for (std::size_t i = 0; i < held.size(); i += 2) m.heap.release(held[i], m.me);
  for (std::size_t i = 1; i < held.size(); i += 2) m.heap.release(held[i], m.me);
  const std::uint64_t b = m.heap.allocate(64, m.me).value();
  m.heap.make_live(b, m.me);
  m.heap.release(b, m.me);
  return true;
}

TEST_F(HeapKillTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point :
       {"heap.allocate.taken", "heap.allocate.tagged", "heap.allocate.cut", "heap.allocate.split",
        "heap.make_live.done", "heap.condemn.done", "heap.free.untagged", "heap.free.merged",
        "heap.free.merged_back", "heap.grow.written", "heap.grow.merged", "arena.grow.allocated",
        "arena.grow.published", "heap.sweep.begun", "heap.sweep.freed", "heap.sweep.merged"}) {
    for (const unsigned nth : {1U, 2U, 7U}) {
      {
        Member leaves_work(options);
        for (int i = 0; i < 12; ++i) {
          ASSERT_TRUE(leaves_work.heap.allocate(500, leaves_work.me).is_ok());
        }
        leaves_work.die();
      }
      ASSERT_EQ(mine->recovery->run(), 1);
      Child child = Child::run([&] {
        Member m(options);
        arm_crash_point(point, nth, "kill");
        return pass_all_points(m, point);
      });
      const int how = child.wait();
      ASSERT_TRUE(how == test::kKilled || nth > 1) << point << " isn't passed";
      ASSERT_TRUE(look_at_heap(*mine->arena).whole) << point;
      reap(static_cast<int>(mine->owners->dead().size()));
      // Between kLive and its release nothing names the block: that is for its structure to do.
      if (std::string(point) == "heap.make_live.done" && how == test::kKilled) ++baseline;
      expect_as_before(std::string(point) + " " + std::to_string(nth));
    }
  }
}

}  // namespace
}  // namespace celeriac
