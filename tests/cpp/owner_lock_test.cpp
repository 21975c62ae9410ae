// Owner locks: the kernel says who is alive.
#include "platform/owner_lock.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>

#include "platform/clock.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Gate;

constexpr std::uint64_t kByte = OwnerLock::kFirstOwnerByte + 3;

class OwnerLockTest : public ::testing::Test {
 protected:
  OwnerLock open_lock() {
    Result<OwnerLock> lock = OwnerLock::open(dir.get(), 0600, root.path());
    EXPECT_TRUE(lock.is_ok());
    return lock.take();
  }
  // The kernel frees the byte a moment after the death.
  static bool soon_free(const OwnerLock& lock, std::uint64_t byte) {
    const std::uint64_t end = now_ns() + 5 * kSecond;
    while (lock.held_by_other(byte) && now_ns() < end) test::sleep_us(50);
    return !lock.held_by_other(byte);
  }

  test::TemporaryRoot root;
  Fd dir{open(root.path().c_str(), O_RDONLY | O_DIRECTORY)};
};

TEST_F(OwnerLockTest, TwoDescriptionsExcludeEachOther) {
  OwnerLock a = open_lock();
  OwnerLock b = open_lock();
  EXPECT_TRUE(a.try_lock(kByte));
  EXPECT_FALSE(b.try_lock(kByte));
  EXPECT_TRUE(b.held_by_other(kByte));
  a.unlock(kByte);
  EXPECT_FALSE(b.held_by_other(kByte));
  EXPECT_TRUE(b.try_lock(kByte));
}

TEST_F(OwnerLockTest, BytesAreIndependent) {
  OwnerLock a = open_lock();
  OwnerLock b = open_lock();
  EXPECT_TRUE(a.try_lock(kByte));
  EXPECT_TRUE(b.try_lock(kByte + 1));
  EXPECT_TRUE(b.try_lock(OwnerLock::kRecoveryByte));
  EXPECT_FALSE(a.try_lock(kByte + 1));
}

TEST_F(OwnerLockTest, DescriptionDoesNotSeeItsOwnLock) {
  OwnerLock a = open_lock();
  EXPECT_TRUE(a.try_lock(kByte));
  EXPECT_FALSE(a.held_by_other(kByte));
}

TEST_F(OwnerLockTest, ClosingFrees) {
  OwnerLock a = open_lock();
  OwnerLock b = open_lock();
  EXPECT_TRUE(a.try_lock(kByte));
  a.close();
  EXPECT_FALSE(b.held_by_other(kByte));
}

TEST_F(OwnerLockTest, LostDescriptorDeclaresNobodyDead) {
  OwnerLock a = open_lock();
  a.close();
  EXPECT_TRUE(a.held_by_other(kByte));
  EXPECT_FALSE(a.try_lock(kByte));
}

TEST_F(OwnerLockTest, LockFileIsPrivate) {
  open_lock();
  ASSERT_EQ(chmod(root.file("owners.lock").c_str(), 0666), 0);
  EXPECT_EQ(OwnerLock::open(dir.get(), 0600, root.path()).status().code(), Code::kConfiguration);
}

TEST_F(OwnerLockTest, DeathBySigkillFrees) {
  CELERIAC_TEST_FORKS();
  const OwnerLock mine = open_lock();
  for (int round = 0; round < 20; ++round) {
    const Gate locked;
    Child holder = Child::run([&] {
      OwnerLock theirs = open_lock();
      const bool got = theirs.try_lock(kByte);
      locked.open();
      for (;;) pause();
      return got;
    });
    ASSERT_TRUE(locked.pass());
    ASSERT_TRUE(mine.held_by_other(kByte));
    holder.kill();
    ASSERT_TRUE(soon_free(mine, kByte));
  }
}

TEST_F(OwnerLockTest, StoppedProcessIsAlive) {
  CELERIAC_TEST_FORKS();
  const OwnerLock mine = open_lock();
  const Gate locked;
  Child holder = Child::run([&] {
    OwnerLock theirs = open_lock();
    const bool got = theirs.try_lock(kByte);
    locked.open();
    for (;;) pause();
    return got;
  });
  ASSERT_TRUE(locked.pass());
  holder.signal(SIGSTOP);
  test::sleep_us(2000);
  EXPECT_TRUE(mine.held_by_other(kByte));
  holder.kill();
}

TEST_F(OwnerLockTest, InheritedDescriptionOutlivesItsTakerUntilTheChildClosesIt) {
  CELERIAC_TEST_FORKS();
  auto parents = std::make_unique<OwnerLock>(open_lock());
  const OwnerLock third = open_lock();
  ASSERT_TRUE(parents->try_lock(kByte));
  const Gate close_it;
  Child child = Child::run([&] {
    const bool told = close_it.pass();
    parents->close();
    for (;;) pause();
    return told;
  });
  parents->close();  // the parent is gone, as far as this description goes
  EXPECT_TRUE(third.held_by_other(kByte)) << "the child's copy keeps it, hence the fork listener";
  close_it.open();
  EXPECT_TRUE(soon_free(third, kByte));
  child.kill();
}

TEST_F(OwnerLockTest, OneOfManyProcessesGetsTheByte) {
  CELERIAC_TEST_FORKS();
  const Gate done;
  std::vector<Child> all;
  std::vector<std::unique_ptr<Gate>> tried;
  for (int i = 0; i < 6; ++i) {
    tried.push_back(std::make_unique<Gate>());
    all.push_back(Child::run([&] {
      OwnerLock theirs = open_lock();
      const bool got = theirs.try_lock(kByte);
      tried.back()->open();
      return done.pass() && got ? 1 : 0;
    }));
  }
  for (const auto& g : tried) ASSERT_TRUE(g->pass());
  for (std::size_t i = 0; i < all.size(); ++i) done.open();
  int winners = 0;
  for (Child& c : all) winners += c.wait();
  EXPECT_EQ(winners, 1);
}

}  // namespace
}  // namespace celeriac
