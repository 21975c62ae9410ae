// Recovery: the routine that anyone may run, twice, half, or while another is at it.
#include "arena/recovery.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::Child;

class RecoveryTest : public ::testing::Test {
 protected:
  std::unique_ptr<Attachment> attach() { return std::make_unique<Attachment>(root.options()); }
  // An owner that registered and died.
  OwnerTag dead_owner(std::uint32_t inside_operations = 0) {
    const auto a = attach();
    const OwnerTag tag = a->join();
    a->owners->record(tag.slot).inflight.store(inside_operations);
    a->die();
    return tag;
  }

  test::TemporaryRoot root;
  std::unique_ptr<Attachment> mine = attach();
  OwnerTag me = mine->join();
};

TEST_F(RecoveryTest, NobodyDeadNothingRuns) {
  int calls = 0;
  mine->recovery->add([&](const DeadOwners&) { ++calls; });
  EXPECT_EQ(mine->recovery->run(), 0);
  EXPECT_EQ(calls, 0);
}

TEST_F(RecoveryTest, RepairersThenFreeThenFinishers) {
  const OwnerTag dead = dead_owner();
  std::string order;
  mine->recovery->add([&](const DeadOwners& d) {
    order += d.contains(dead) && !mine->owners->reaped(dead) ? "1" : "?";
  });
  mine->recovery->add([&](const DeadOwners&) { order += "2"; });
  mine->recovery->add_finisher(
      [&](const DeadOwners&) { order += mine->owners->reaped(dead) ? "f" : "?"; });
  EXPECT_EQ(mine->recovery->run(), 1);
  EXPECT_EQ(order, "12f");
  EXPECT_EQ(mine->recovery->run(), 0);
  EXPECT_EQ(order, "12f");
}

TEST_F(RecoveryTest, TheLivingAreNotTouched) {
  const auto other = attach();
  const OwnerTag alive = other->join();
  dead_owner();
  mine->recovery->add([&](const DeadOwners& d) {
    EXPECT_FALSE(d.contains(alive));
    EXPECT_FALSE(d.contains(me));
  });
  EXPECT_EQ(mine->recovery->run(), 1);
  EXPECT_TRUE(mine->owners->alive(alive));
}

TEST_F(RecoveryTest, SaysWhetherSomebodyDiedInsideAnOperation) {
  bool interrupted = true;
  mine->recovery->add([&](const DeadOwners& d) { interrupted = d.interrupted(); });
  dead_owner();
  mine->recovery->run();
  EXPECT_FALSE(interrupted);
  dead_owner(0);
  dead_owner(1);
  EXPECT_EQ(mine->recovery->run(), 2);
  EXPECT_TRUE(interrupted);
}

TEST_F(RecoveryTest, OperationScopeCountsWhileItLasts) {
  layout::OwnerRecord& record = mine->owners->record(me.slot);
  {
    const OperationScope outer(record);
    const OperationScope inner(record);
    EXPECT_EQ(record.inflight.load(), 2U);
  }
  EXPECT_EQ(record.inflight.load(), 0U);
}

TEST_F(RecoveryTest, OneAtATimeAcrossProcesses) {
  dead_owner();
  const auto other = attach();
  ASSERT_TRUE(other->owners->lock().try_lock(OwnerLock::kRecoveryByte));
  EXPECT_EQ(mine->recovery->run(), 0) << "another is at it";
  other->owners->lock().unlock(OwnerLock::kRecoveryByte);
  EXPECT_EQ(mine->recovery->run(), 1);
  EXPECT_TRUE(other->owners->lock().try_lock(OwnerLock::kRecoveryByte)) << "given back";
}

TEST_F(RecoveryTest, NeedsNoIdentityToRun) {
  dead_owner();
  const auto doctor = attach();
  EXPECT_EQ(doctor->recovery->run(), 1);
  EXPECT_FALSE(doctor->owners->current().valid());
}

TEST_F(RecoveryTest, ReleaseOwnRepairsForTheLeaver) {
  OwnerTag released;
  mine->recovery->add([&](const DeadOwners& d) { released = d.tags().at(0); });
  mine->recovery->release_own(me);
  EXPECT_EQ(released, me);
  EXPECT_FALSE(mine->owners->reaped(me)) << "leave() does that";
}

TEST_F(RecoveryTest, ThreadsReapEachDeathOnceConcurrency) {
  std::atomic<int> reaped{0};
  std::atomic<bool> stop{false};
  std::vector<std::thread> all;
  for (int i = 0; i < 3; ++i) {
    all.emplace_back([&] {
      while (!stop) reaped += mine->recovery->run();
    });
  }
  for (int i = 0; i < 50; ++i) dead_owner();
  const std::uint64_t end = now_ns() + 5 * kSecond;
  while (reaped < 50 && now_ns() < end) test::sleep_us(100);
  stop = true;
  for (std::thread& t : all) t.join();
  EXPECT_EQ(reaped, 50);
  EXPECT_EQ(mine->arena->header().reaped.load(), 50U);
}

TEST_F(RecoveryTest, ProcessesReapEachDeathOnce) {
  CELERIAC_TEST_FORKS();
  for (int i = 0; i < 30; ++i) dead_owner();
  std::vector<Child> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(Child::run([&] { return attach()->recovery->run(); }));
  }
  int sum = 0;
  for (Child& c : all) sum += c.wait();
  EXPECT_EQ(sum, 30);
}

TEST_F(RecoveryTest, RunnerKilledInTheMiddleIsFollowedByAWholeRun) {
  CELERIAC_TEST_FORKS();
  const OwnerTag dead = dead_owner();
  Child runner = Child::run([&] {
    const auto theirs = attach();
    theirs->recovery->add([](const DeadOwners&) { raise(SIGKILL); });
    return theirs->recovery->run();
  });
  EXPECT_EQ(runner.wait(), test::kKilled);
  EXPECT_FALSE(mine->owners->reaped(dead));
  int calls = 0;
  mine->recovery->add([&](const DeadOwners& d) { calls += d.contains(dead) ? 1 : 0; });
  const std::uint64_t end = now_ns() + 5 * kSecond;
  while (mine->recovery->run() == 0 && now_ns() < end) test::sleep_us(50);
  EXPECT_EQ(calls, 1);
  EXPECT_TRUE(mine->owners->reaped(dead));
}

// Who repairs half of what the dead left and dies too leaves it to the next to look everywhere.
TEST_F(RecoveryTest, RunnerKilledInTheMiddleCountsAsInterrupted) {
  CELERIAC_TEST_FORKS();
  const OwnerTag dead = dead_owner();
  Child runner = Child::run([&] {
    const auto theirs = attach();
    theirs->recovery->add([](const DeadOwners&) { raise(SIGKILL); });
    return theirs->recovery->run();
  });
  EXPECT_EQ(runner.wait(), test::kKilled);
  bool interrupted = false;
  mine->recovery->add([&](const DeadOwners& d) { interrupted = d.interrupted(); });
  const std::uint64_t end = now_ns() + 5 * kSecond;
  while (!mine->owners->reaped(dead) && now_ns() < end) mine->recovery->run();
  EXPECT_TRUE(interrupted);
}

TEST_F(RecoveryTest, DeathAtEachPointIsRepairedByTheNext) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point : {"recovery.run.found", "recovery.run.repaired", "recovery.run.freed"}) {
    const OwnerTag a = dead_owner();
    const OwnerTag b = dead_owner();
    Child runner = Child::run([&] {
      const auto theirs = attach();
      theirs->recovery->add([](const DeadOwners&) {});
      arm_crash_point(point, 1, "kill");
      return theirs->recovery->run();
    });
    ASSERT_EQ(runner.wait(), test::kKilled) << point;
    const std::uint64_t end = now_ns() + 5 * kSecond;
    while (!mine->owners->dead().empty() && now_ns() < end) mine->recovery->run();
    EXPECT_TRUE(mine->owners->reaped(a) && mine->owners->reaped(b)) << point;
  }
}

}  // namespace
}  // namespace celeriac
