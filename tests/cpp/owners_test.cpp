// Owners: slots, epochs, life and death.
#include "arena/owners.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <set>
#include <thread>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::Child;
using test::Gate;

constexpr std::uint64_t kActive = 1ULL << 16U;

class OwnersTest : public ::testing::Test {
 protected:
  std::unique_ptr<Attachment> attach() { return std::make_unique<Attachment>(root.options()); }
  static bool soon(const std::function<bool()>& done) {
    const std::uint64_t end = now_ns() + 5 * kSecond;
    while (!done() && now_ns() < end) test::sleep_us(50);
    return done();
  }

  test::TemporaryRoot root;
};

TEST_F(OwnersTest, NobodyRegistersUnasked) {
  const auto a = attach();
  EXPECT_FALSE(a->owners->current().valid());
  EXPECT_TRUE(a->owners->list().empty());
}

TEST_F(OwnersTest, IdentityIsTakenOnceAndStays) {
  const auto a = attach();
  const OwnerTag tag = a->join();
  EXPECT_TRUE(tag.valid());
  EXPECT_EQ(a->join(), tag);
  EXPECT_EQ(a->owners->current(), tag);
  EXPECT_TRUE(a->owners->alive(tag));
}

TEST_F(OwnersTest, EachAttachmentHasASlotOfItsOwn) {
  const auto a = attach();
  const auto b = attach();
  EXPECT_NE(a->join().slot, b->join().slot);
  EXPECT_TRUE(a->owners->alive(b->join()));
  EXPECT_TRUE(b->owners->alive(a->join()));
  EXPECT_EQ(a->owners->list().size(), 2U);
}

TEST_F(OwnersTest, ListDescribesThisProcess) {
  const auto a = attach();
  a->join();
  const std::vector<OwnerInfo> all = a->owners->list();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].pid, static_cast<std::uint32_t>(getpid()));
  EXPECT_NE(all[0].command.find("owners_test"), std::string::npos) << all[0].command;
  EXPECT_GT(all[0].started_wall_ns, 1'600'000'000 * kSecond);
  EXPECT_TRUE(all[0].alive);
}

TEST_F(OwnersTest, LeavingFreesTheSlotAndRaisesTheEpoch) {
  const auto a = attach();
  const auto b = attach();
  const OwnerTag before = a->join();
  a->owners->leave();
  EXPECT_FALSE(b->owners->alive(before));
  EXPECT_TRUE(b->owners->reaped(before));
  EXPECT_TRUE(b->owners->dead().empty());
  const OwnerTag after = b->join();
  EXPECT_EQ(after.slot, before.slot);
  EXPECT_EQ(after.epoch, before.epoch + 1);
}

TEST_F(OwnersTest, EpochSkipsZeroWhenItWraps) {
  const auto a = attach();
  a->owners->record(0).word.store(0xFFFF);  // free, after 65,535 registrations
  EXPECT_EQ(a->join(), (OwnerTag{0, 1}));
}

TEST_F(OwnersTest, DeadSlotIsReusedOnlyAfterRecovery) {
  const auto a = attach();
  const auto b = attach();
  const OwnerTag dead = a->join();
  const OwnerTag mine = b->join();
  a->die();
  EXPECT_FALSE(b->owners->alive(dead));
  EXPECT_FALSE(b->owners->reaped(dead));
  EXPECT_EQ(b->owners->dead(), std::vector<OwnerTag>{dead});
  const auto c = attach();
  EXPECT_NE(c->join().slot, dead.slot) << "what it left isn't repaired yet";
  EXPECT_EQ(b->recovery->run(), 1);
  EXPECT_TRUE(b->owners->reaped(dead));
  const auto d = attach();
  EXPECT_EQ(d->join().slot, dead.slot);
  EXPECT_NE(d->join().epoch, dead.epoch);
  EXPECT_FALSE(d->owners->alive(dead)) << "the slot lives, that tag doesn't";
  EXPECT_EQ(b->owners->current(), mine);
}

TEST_F(OwnersTest, NonsenseTagsAreDead) {
  const auto a = attach();
  a->join();
  EXPECT_FALSE(a->owners->alive({}));
  EXPECT_FALSE(a->owners->alive({0, 0}));
  EXPECT_FALSE(a->owners->alive({2000, 1}));
  EXPECT_FALSE(a->owners->alive({7, 9}));
}

TEST_F(OwnersTest, MarkFreeIsForThatEpochOnly) {
  const auto a = attach();
  const auto b = attach();
  const OwnerTag tag = a->join();
  b->owners->mark_free({tag.slot, static_cast<std::uint16_t>(tag.epoch + 1)});
  EXPECT_FALSE(b->owners->reaped(tag));
  EXPECT_EQ(a->arena->header().reaped.load(), 0U);
}

TEST_F(OwnersTest, FullTableNamesNeedAndHave) {
  const auto a = attach();
  const auto other = attach();
  for (std::uint16_t slot = 0; slot < layout::kMaxOwners; ++slot) {
    ASSERT_TRUE(other->owners->lock().try_lock(OwnerLock::kFirstOwnerByte + slot));
    other->owners->record(slot).word.store(kActive | 1U);
  }
  int asked = 0;
  a->owners->set_recover([&] { ++asked; });
  const Result<OwnerTag> tag = a->owners->identity();
  EXPECT_EQ(tag.status().code(), Code::kNotEnoughMemory);
  EXPECT_NE(tag.status().message().find("1024"), std::string::npos) << tag.status().message();
  EXPECT_EQ(asked, 1);
  other->owners->record(1000).word.store(1U);
  other->owners->lock().unlock(OwnerLock::kFirstOwnerByte + 1000);
  EXPECT_EQ(a->join(), (OwnerTag{1000, 2}));
}

TEST_F(OwnersTest, FullTableOfTheDeadIsReapedOnTheWayIn) {
  const auto a = attach();
  for (std::uint16_t slot = 0; slot < layout::kMaxOwners; ++slot) {
    a->owners->record(slot).word.store(kActive | 5U);
  }
  a->arena->header().owner_high.store(layout::kMaxOwners);
  a->owners->set_recover([&] { a->recovery->run(); });
  EXPECT_EQ(a->join(), (OwnerTag{0, 6}));
  EXPECT_EQ(a->arena->header().reaped.load(), layout::kMaxOwners);
}

TEST_F(OwnersTest, ThreadsOfAProcessAreOneOwnerConcurrency) {
  const auto a = attach();
  std::vector<OwnerTag> tags(8);
  std::vector<std::thread> all;
  for (OwnerTag& t : tags) all.emplace_back([&] { t = a->join(); });
  for (std::thread& t : all) t.join();
  EXPECT_TRUE(std::all_of(tags.begin(), tags.end(), [&](OwnerTag t) { return t == tags[0]; }));
  EXPECT_EQ(a->owners->list().size(), 1U);
}

TEST_F(OwnersTest, ListWhileOthersComeAndGoConcurrency) {
  const auto a = attach();
  a->join();
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    while (!stop) {
      const auto b = attach();
      b->join();
      b->owners->leave();
    }
  });
  for (int i = 0; i < 300; ++i) EXPECT_LE(a->owners->list().size(), 2U);
  stop = true;
  churn.join();
}

TEST_F(OwnersTest, ManyProcessesHaveManySlots) {
  CELERIAC_TEST_FORKS();
  test::Shared<std::atomic<std::uint32_t>> slots[12];
  const Gate registered;
  const Gate leave;
  std::vector<Child> all;
  for (auto& slot : slots) {
    all.push_back(Child::run([&] {
      const auto mine = attach();
      slot->store(mine->join().slot + 1U);
      registered.open();
      return leave.pass();
    }));
  }
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_TRUE(registered.pass());
  std::set<std::uint32_t> seen;
  for (auto& slot : slots) seen.insert(slot->load());
  EXPECT_EQ(seen.size(), all.size());
  EXPECT_EQ(attach()->owners->list().size(), all.size());
  for (std::size_t i = 0; i < all.size(); ++i) leave.open();
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
}

TEST_F(OwnersTest, KilledProcessIsSeenDeadAndReaped) {
  CELERIAC_TEST_FORKS();
  const auto a = attach();
  a->join();
  for (int round = 0; round < 20; ++round) {
    const Gate registered;
    Child other = Child::run([&] {
      const auto mine = attach();
      mine->join();
      registered.open();
      for (;;) pause();
      return false;
    });
    ASSERT_TRUE(registered.pass());
    ASSERT_TRUE(a->owners->dead().empty());
    other.kill();
    ASSERT_TRUE(soon([&] { return a->owners->dead().size() == 1; }));
    ASSERT_EQ(a->recovery->run(), 1);
  }
  EXPECT_EQ(a->owners->list().size(), 1U);
  EXPECT_EQ(a->arena->header().reaped.load(), 20U);
}

TEST_F(OwnersTest, ForkedChildIsAnotherOwner) {
  CELERIAC_TEST_FORKS();
  const auto a = attach();
  const OwnerTag mine = a->join();
  Child child = Child::run([&] {
    if (a->owners->current().valid()) return 2;
    const OwnerTag own = a->join();
    return own.slot != mine.slot && a->owners->alive(mine) && a->owners->alive(own) ? 0 : 1;
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_TRUE(a->owners->alive(mine));
  EXPECT_EQ(a->join(), mine);
}

// A parent dies while the child that it forked lives on, without ever having used the store: the
// child must not keep the parent's byte.
TEST_F(OwnersTest, ParentsByteIsFreeWhenItDiesThoughAChildLives) {
  CELERIAC_TEST_FORKS();
  const auto watcher = attach();
  watcher->join();
  const Gate child_runs;
  const Gate end;
  test::Shared<std::atomic<std::uint32_t>> parents_slot;
  Child parent = Child::run([&] {
    const auto mine = attach();
    parents_slot->store(mine->join().slot);
    Child child = Child::run([&] {
      child_runs.open();
      return end.pass();
    });
    for (;;) pause();
    return false;
  });
  ASSERT_TRUE(child_runs.pass());
  parent.kill();
  EXPECT_TRUE(soon([&] { return watcher->owners->dead().size() == 1; }));
  EXPECT_EQ(watcher->owners->dead().at(0).slot, parents_slot->load());
  end.open();
}

TEST_F(OwnersTest, DeathAtEachPointOfRegistering) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  const auto a = attach();
  a->join();
  for (const char* point :
       {"owners.register.locked", "owners.register.active", "owners.leave.released"}) {
    Child other = Child::run([&] {
      const auto mine = attach();
      arm_crash_point(point, 1, "kill");
      mine->join();
      mine->owners->leave();
      return true;
    });
    ASSERT_EQ(other.wait(), test::kKilled);
    const bool active = std::string(point) != "owners.register.locked";
    EXPECT_TRUE(soon([&] { return a->owners->dead().size() == (active ? 1U : 0U); })) << point;
    EXPECT_EQ(a->recovery->run(), active ? 1 : 0) << point;
  }
}

// O4
TEST_F(OwnersTest, RebuildsWhoComesInAlone) {
  int rebuilt = 0;
  const auto counted = [&] {
    auto a = attach();
    a->owners->set_rebuild([&rebuilt] { ++rebuilt; });
    return a;
  };
  const auto a = counted();
  const auto b = counted();
  EXPECT_EQ(rebuilt, 0) << "attached only";
  a->join();
  a->join();
  EXPECT_EQ(rebuilt, 1);
  b->join();
  EXPECT_EQ(rebuilt, 1) << "not alone";
  a->owners->leave();
  a->join();
  EXPECT_EQ(rebuilt, 1) << "the other is still there";
  a->die();
  b->owners->leave();
  b->join();
  EXPECT_EQ(rebuilt, 2) << "the dead are nobody";
}

TEST_F(OwnersTest, DeathInRebuildLeavesItToTheNext) {
  Child first = Child::run([&] {
    const auto a = attach();
    a->owners->set_rebuild([] { kill(getpid(), SIGKILL); });
    a->join();
    return false;
  });
  ASSERT_EQ(first.wait(), test::kKilled);
  const auto b = attach();
  bool rebuilt = false;
  b->owners->set_rebuild([&] { rebuilt = true; });
  b->join();
  EXPECT_TRUE(rebuilt);
}

TEST_F(OwnersTest, NobodyComesInBeforeTheRebuildIsDone) {
  Gate begun;
  Gate end;
  Child first = Child::run([&] {
    const auto a = attach();
    a->owners->set_rebuild([&] {
      begun.open();
      end.pass();
    });
    a->join();
    return true;
  });
  ASSERT_TRUE(begun.pass());
  Gate in;
  Child second = Child::run([&] {
    attach()->join();
    in.open();
    return true;
  });
  test::sleep_us(20'000);
  EXPECT_FALSE(in.is_open());
  end.open();
  EXPECT_TRUE(in.pass());
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(second.wait(), 0);
}

TEST_F(OwnersTest, AStoppedProcessInTheGateIsATimeout) {
  Gate begun;
  Child first = Child::run([&] {
    const auto a = attach();
    a->owners->set_rebuild([&] {
      begun.open();
      raise(SIGSTOP);
    });
    a->join();
    return true;
  });
  ASSERT_TRUE(begun.pass());
  const auto b = attach();
  const Result<OwnerTag> tag = b->owners->identity();
  ASSERT_FALSE(tag);
  EXPECT_EQ(tag.status().code(), Code::kLockTimeout);
  EXPECT_NE(tag.status().message().find("doesn't run"), std::string::npos);
  first.kill();
  EXPECT_TRUE(soon([&] { return bool{b->owners->identity()}; })) << "the kernel opens the gate";
}

}  // namespace
}  // namespace celeriac
