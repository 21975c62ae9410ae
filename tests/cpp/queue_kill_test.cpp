// Queues under deaths, with an exact ledger: nothing put is lost, nothing acknowledged twice.
#include <gtest/gtest.h>

#include <array>
#include <random>

#include "arena/crash_point.hpp"
#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Got;
using test::must;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::size_t kMost = 1 << 20;

// What the processes of a test wrote down, each word before or after what it speaks of.
struct Ledger {
  std::atomic<std::uint32_t> next{0};
  std::atomic<std::uint32_t> broken{0};  // a body that wasn't what was put
  struct Line {
    std::atomic<std::uint8_t> put_returned{0};
    std::atomic<std::uint8_t> ack_begun{0};
    std::atomic<std::uint8_t> acked{0};
  };
  std::array<Line, kMost> lines{};
};

class QueueKillTest : public test::LocalStoreTest {
 protected:
  QueueKillTest() : LocalStoreTest(64 * kMiB) {
    for (std::uint8_t p = 0; p < 3; ++p) q.put("warm", p);  // lanes, slots and timers are made
    q.put("warm", 0, 1);
    q.take_all();
    baseline = heap().stats().blocks;
  }

  bool produce_for_ever(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (;;) {
      const std::uint32_t n = ledger->next++;
      if (n >= kMost) return false;
      const std::string body = test::checkable(n, 8 + random() % 300);
      const std::uint64_t due = random() % 5 == 0 ? now_ns() + random() % kMillisecond : 0;
      const auto priority = static_cast<std::uint8_t>(random() % 3);
      for (;;) {
        const Result<std::uint64_t> id = q.try_put({"headers", body, priority, due, kNever, {}, 0});
        if (id) break;
        if (id.status().code() != Code::kQueueFull) return false;
      }
      ledger->lines[n].put_returned = 1;
    }
  }
  void finish(const Got& g) {
    if (!test::is_whole(g.body) || g.delivery.headers != "headers") {
      ++ledger->broken;
      return;
    }
    Ledger::Line& line = ledger->lines[test::seed_of(g.body)];
    line.ack_begun = 1;
    if (q.ack(g)) ++line.acked;
  }
  bool consume_for_ever(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    for (;;) {
      const std::optional<Got> g = q.get();
      if (!g) continue;
      if (random() % 10 == 0) {
        q.nack(*g, random() % 2 == 0 ? now_ns() + random() % kMillisecond : 0);
      } else {
        finish(*g);
      }
    }
  }

  // Takes what is left, and compares with what was written down.
  void settle(const std::string& when) {
    const std::uint64_t end = now_ns() + 20 * kSecond;
    for (;;) {
      recover();
      while (const std::optional<Got> g = q.get()) {
        const std::uint64_t n = test::seed_of(g->body);
        ASSERT_EQ(ledger->lines[n].acked, 0) << when << ": " << n << " comes after its ack";
        finish(*g);
      }
      const QueueCounts c = q.counts();
      if (c.ready + c.delayed + c.reserved == 0 && core->base().owners.dead().empty()) break;
      ASSERT_LT(now_ns(), end) << when << ": ready " << c.ready << " delayed " << c.delayed
                               << " reserved " << c.reserved << " and nothing comes";
    }
    ASSERT_EQ(ledger->broken, 0U) << when;
    for (std::uint32_t n = settled; n < ledger->next; ++n) {
      const Ledger::Line& line = ledger->lines[n];
      ASSERT_LE(line.acked, 1) << when << ": " << n << " was acknowledged twice";
      // Who died in ack() may have had it done.
      const bool accounted = line.acked == 1 || line.ack_begun == 1;
      ASSERT_TRUE(accounted || line.put_returned == 0) << when << ": " << n << " is lost";
    }
    settled = ledger->next;
    heap().sweep(me());
    const test::HeapPicture p = test::look_at_heap(core->arena());
    ASSERT_TRUE(p.whole) << when;
    const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
    const std::uint64_t more_chunks = slots.chunks.load() - 1;
    ASSERT_EQ(p.used_blocks, baseline + more_chunks) << when << ": a block leaked";
    ASSERT_EQ(core->arena().header().corrupt.load(), 0U) << when;
  }

  TestQueue q{*core, "q", QueueConfig{.limits = {.max_length = 2000}}};
  test::Shared<Ledger> ledger;
  std::uint32_t settled = 0;
  std::uint64_t baseline = 0;
};

TEST_F(QueueKillTest, ExactLedgerThroughHundredsOfKills) {
  CELERIAC_TEST_FORKS();
  std::mt19937_64 random(5);
  for (std::uint64_t round = 0; round < 100; ++round) {
    Child producer = Child::run([&] { return produce_for_ever(round); });
    Child consumer = Child::run([&] { return consume_for_ever(round); });
    Child consumer_too = Child::run([&] { return consume_for_ever(round + 1000); });
    test::sleep_us(static_cast<unsigned>(300 + random() % 3000));
    ASSERT_EQ(consumer.kill(), test::kKilled);
    test::sleep_us(static_cast<unsigned>(random() % 500));
    ASSERT_EQ(producer.kill(), test::kKilled);
    ASSERT_EQ(consumer_too.kill(), test::kKilled);
    ASSERT_NO_FATAL_FAILURE(settle("round " + std::to_string(round)));
  }
}

TEST_F(QueueKillTest, TheLivingGoOnWhileOthersDie) {
  CELERIAC_TEST_FORKS();
  Child producer = Child::run([&] { return produce_for_ever(1); });
  Child consumer = Child::run([&] { return consume_for_ever(2); });
  for (std::uint64_t round = 0; round < 60; ++round) {
    Child dies = Child::run(
        [&] { return round % 2 == 0 ? produce_for_ever(round) : consume_for_ever(round); });
    test::sleep_us(static_cast<unsigned>(300 + round * 40));
    ASSERT_EQ(dies.kill(), test::kKilled);
    core->recovery().run();
  }
  producer.kill();
  consumer.kill();
  settle("the end");
}

TEST_F(QueueKillTest, SleeperIsWokenWhenAHolderDies) {
  CELERIAC_TEST_FORKS();
  for (int round = 0; round < 10; ++round) {
    q.put("m");
    const test::Gate holds;
    Child holder = Child::run([&] {
      const bool got = q.get().has_value();
      holds.open();
      for (;;) pause();
      return got;
    });
    ASSERT_TRUE(holds.pass());
    const std::uint64_t poll = core->poll_interval();  // starts the death watch
    holder.signal(SIGKILL);
    const std::uint64_t end = now_ns() + 10 * kSecond;
    std::optional<Got> g;
    while (!(g = q.get()) && now_ns() < end) {
      static_cast<void>(core->queues().wait(q.ref(), end, poll, me()).is_ok());
      if (poll != kNever) core->recovery().run();
    }
    holder.wait();
    ASSERT_TRUE(g.has_value());
    EXPECT_EQ(g->delivery.deliveries, 2U);
    ASSERT_TRUE(q.ack(*g));
  }
}

TEST_F(QueueKillTest, DeadSleepersMarkDoesNotKeepMessagesFromOthers) {
  CELERIAC_TEST_FORKS();
  const test::Gate sleeps;
  Child sleeper = Child::run([&] {
    sleeps.open();
    return core->queues().wait(q.ref(), kNever, kNever, q.me()).is_ok();
  });
  ASSERT_TRUE(sleeps.pass());
  test::sleep_us(3000);
  sleeper.kill();
  q.put("m");
  EXPECT_EQ(q.take(), "m");
  recover();
  for (const layout::Word& w : q.ref().record->blocked_owners) EXPECT_EQ(w.load(), 0U);
}

// Everything that queues do, so that each point is passed.
void pass_all_points(LocalCore& core, TestQueue& q, std::uint64_t extra) {
  TestQueue temporary(core, "temporary" + std::to_string(extra));
  for (std::uint64_t i = 0; i < 3; ++i) temporary.put("m", static_cast<std::uint8_t>(extra + i));
  temporary.take();  // from a new lane, so that it is refilled
  temporary.remove();
  for (std::uint64_t i = 0; i < 6; ++i) {
    q.put(test::checkable(i, 40), 1, i % 2 == 0 ? now_ns() + 1000 : 0);
  }
  test::sleep_us(50);
  while (const std::optional<Got> g = q.get()) {
    if (g->delivery.deliveries == 1) {
      q.nack(*g, g->delivery.id % 2 == 0 ? now_ns() + 1000 : 0);
    } else {
      q.ack(*g);
    }
  }
  for (int i = 0; i < 3; ++i) q.put(test::checkable(1, 40));
  q.purge();
}

TEST_F(QueueKillTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  std::uint64_t extra = 0;
  for (const char* point :
       {"queue.open.live",      "queue.open.written",      "queue.open.active",
        "queue.lane.live",      "queue.put.written",       "queue.put.acquired",
        "queue.put.body",       "queue.put.published",     "queue.push.pushed",
        "queue.push.active",    "queue.put.woken",         "queue.get.reserved",
        "queue.ack.decided",    "queue.ack.counted",       "queue.nack.decided",
        "queue.nack.counted",   "queue.reclaim.condemned", "queue.reclaim.bodyless",
        "queue.reclaim.freed",  "queue.promote.ready",     "queue.purge.taken",
        "queue.delete.marked",  "queue.refill.cleared",    "queue.refill.pushed",
        "timers.insert.pushed", "timers.due.taken"}) {
    for (const unsigned nth : {1U, 2U, 5U}) {
      Child child = Child::run([&] {
        arm_crash_point(point, nth, "kill");
        pass_all_points(*core, q, extra);
        return true;
      });
      const int how = child.wait();
      ASSERT_TRUE(how == test::kKilled || nth > 1) << point << " isn't passed";
      const std::string when = std::string(point) + " " + std::to_string(nth);
      recover();
      const std::uint64_t end = now_ns() + 5 * kSecond;
      QueueCounts c = q.counts();
      while (c.ready + c.delayed + c.reserved > 0 && now_ns() < end) {
        while (const std::optional<Got> g = q.get()) {
          ASSERT_TRUE(test::is_whole(g->body)) << when;
          ASSERT_TRUE(q.ack(*g)) << when;
        }
        c = q.counts();
      }
      ASSERT_EQ(c.ready + c.delayed + c.reserved, 0U) << when;
      pass_all_points(*core, q, extra);  // works as before
      const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
      ASSERT_EQ(slots.used.load(), 0U) << when;
      extra += 1;
    }
  }
}

// Who repairs for the dead may die at any point too; then another does it.
TEST_F(QueueKillTest, DeathOfTheRepairerAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point :
       {"recovery.run.found", "queue.repair.returned", "queue.push.pushed", "queue.repair.slots",
        "recovery.run.repaired", "recovery.run.freed", "queue.reclaim.bodyless"}) {
    for (std::uint64_t i = 0; i < 6; ++i) q.put(test::checkable(i, 40));
    Child holder = Child::run([&] {
      for (int i = 0; i < 4; ++i) static_cast<void>(q.get().has_value());
      arm_crash_point("queue.put.body", 1, "kill");
      q.put("not put");
      return true;
    });
    ASSERT_EQ(holder.wait(), test::kKilled);
    Child repairer = Child::run([&] {
      static_cast<void>(q.me());
      arm_crash_point(point, 1, "kill");
      return core->recovery().run();
    });
    ASSERT_EQ(repairer.wait(), test::kKilled) << point << " isn't passed";
    const std::uint64_t end = now_ns() + 5 * kSecond;
    while (!core->base().owners.dead().empty() && now_ns() < end) recover();
    EXPECT_EQ(q.counts().ready, 6U) << point;
    EXPECT_EQ(q.take_all().size(), 6U) << point;
    EXPECT_EQ(q.counts().reserved, 0U) << point;
    recover();
    EXPECT_EQ(heap().stats().blocks, baseline) << point;
  }
}

TEST_F(QueueKillTest, RepairerThatDiesForAnOwnerThatDiedIdle) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  q.put(test::checkable(1, 40));
  Child holder = Child::run([&] { return q.get().has_value(); });
  ASSERT_EQ(holder.wait(), 0);
  Child repairer = Child::run([&] {
    static_cast<void>(q.me());
    arm_crash_point("queue.repair.returned", 1, "kill");
    return core->recovery().run();
  });
  ASSERT_EQ(repairer.wait(), test::kKilled);
  const std::uint64_t end = now_ns() + 5 * kSecond;
  while (!core->base().owners.dead().empty() && now_ns() < end) recover();
  EXPECT_EQ(q.counts().ready, 1U);
  EXPECT_EQ(q.take(), test::checkable(1, 40)) << "ready, and no lane knew";
}

}  // namespace
}  // namespace celeriac
