// The arena: made once, grown by extents, opened with suspicion, read within bounds.
#include "arena/arena.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "arena/crash_point.hpp"
#include "arena/header.hpp"
#include "platform/clock.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Gate;

constexpr std::uint64_t kMiB = 1ULL << 20U;

class ArenaTest : public ::testing::Test {
 protected:
  std::unique_ptr<Arena> open(std::uint64_t memory = 16 * kMiB) {
    Result<std::unique_ptr<Arena>> a = Arena::open(root.options(memory));
    EXPECT_TRUE(a.is_ok()) << a.status().message();
    return a ? a.take() : nullptr;
  }
  Status opening() { return Arena::open(root.options()).status(); }
  std::string directory() { return store_path(root.path(), "store"); }
  std::string file() { return directory() + "/arena"; }
  void overwrite(std::uint64_t offset, const void* from, std::size_t n) {
    const Fd fd(::open(file().c_str(), O_RDWR));
    ASSERT_EQ(pwrite(fd.get(), from, n, static_cast<off_t>(offset)), static_cast<ssize_t>(n));
  }
  // What a grower does, without a heap.
  static void grow(Arena& a, std::uint64_t bytes) {
    Result<std::uint64_t> n = a.prepare_growth(bytes, kNever);
    ASSERT_TRUE(n.is_ok()) << n.status().message();
    a.publish_growth(n.value());
  }

  test::TemporaryRoot root;
};

TEST_F(ArenaTest, IsMadePrivateAndWithinItsMemory) {
  const auto a = open();
  struct stat s {};
  ASSERT_EQ(stat(file().c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 07777U, 0600U);
  EXPECT_EQ(static_cast<std::uint64_t>(s.st_size), a->size());
  EXPECT_GE(static_cast<std::uint64_t>(s.st_blocks) * 512, a->size()) << "allocated, not sparse";
  ASSERT_EQ(stat(directory().c_str(), &s), 0);
  EXPECT_EQ(s.st_mode & 07777U, 0700U);
  EXPECT_EQ(a->capacity(), 16 * kMiB);
  EXPECT_TRUE(a->is_current());
}

TEST_F(ArenaTest, SecondOpenFindsTheFirst) {
  const auto a = open();
  const auto b = open();
  a->header().corrupt.store(42);
  EXPECT_EQ(b->header().corrupt.load(), 42U);
}

TEST_F(ArenaTest, AbsentWithoutCreateIsNotFound) {
  ArenaOptions o = root.options();
  o.create = false;
  EXPECT_EQ(Arena::open(o).status().code(), Code::kNotFound);
  EXPECT_NE(access(directory().c_str(), F_OK), 0) << "and nothing was made";
  open();
  EXPECT_TRUE(Arena::open(o).is_ok());
}

TEST_F(ArenaTest, MemoryTooSmallIsRefused) {
  const Status s = Arena::open(root.options(kMinimumMemory - 1)).status();
  EXPECT_EQ(s.code(), Code::kConfiguration);
  EXPECT_NE(s.message().find("2M"), std::string::npos);
  EXPECT_NE(open(kMinimumMemory), nullptr);
}

TEST_F(ArenaTest, LargerMemoryRaisesTheCeilingAndSmallerDoesNotLowerIt) {
  const auto a = open(8 * kMiB);
  open(32 * kMiB);
  EXPECT_EQ(a->capacity(), 32 * kMiB);
  open(4 * kMiB);
  EXPECT_EQ(a->capacity(), 32 * kMiB);
}

TEST_F(ArenaTest, AtGivesNothingOutside) {
  const auto a = open();
  const std::uint64_t size = a->size();
  EXPECT_NE(a->at<char>(0, size), nullptr);
  EXPECT_NE(a->at<char>(size - 1), nullptr);
  EXPECT_EQ(a->at<char>(size), nullptr);
  EXPECT_EQ(a->at<std::uint64_t>(size - 7), nullptr);
  EXPECT_EQ(a->at<char>(0, size + 1), nullptr);
}

TEST_F(ArenaTest, AtSurvivesOverflow) {
  const auto a = open();
  EXPECT_EQ(a->at<std::uint64_t>(kNever), nullptr);
  EXPECT_EQ(a->at<std::uint64_t>(kNever - 7), nullptr);
  EXPECT_EQ(a->at<char>(1, kNever), nullptr);
  EXPECT_EQ(a->at<char>(4096, kNever - 4095), nullptr);
}

TEST_F(ArenaTest, GrowthIsSeenThroughAnOlderMapping) {
  const auto a = open();
  const auto b = open();
  const std::uint64_t before = a->size();
  grow(*a, kMiB);
  *a->at<char>(before) = 'g';
  ASSERT_NE(b->at<char>(before), nullptr);
  EXPECT_EQ(*b->at<char>(before), 'g');
  EXPECT_EQ(b->at<char>(b->size()), nullptr);
}

TEST_F(ArenaTest, GrowthThatWasNotPublishedIsDoneAgain) {
  const auto a = open();
  const std::uint64_t before = a->size();
  ASSERT_TRUE(a->prepare_growth(kMiB, kNever).is_ok());  // and dies here
  const auto b = open();
  EXPECT_EQ(b->size(), before);
  grow(*b, kMiB);
  EXPECT_GT(a->size(), before);
  EXPECT_NE(a->at<char>(a->size() - 1), nullptr);
}

TEST_F(ArenaTest, GrowthEndsAtTheCeiling) {
  const auto a = open(4 * kMiB);
  Status last;
  for (int i = 0; i < 100 && last; ++i) {
    Result<std::uint64_t> n = a->prepare_growth(100'000, kNever);
    last = n.status();
    if (n) a->publish_growth(n.value());
  }
  EXPECT_EQ(last.code(), Code::kNotEnoughMemory);
  EXPECT_LE(a->size(), 4 * kMiB);
  EXPECT_GT(a->size(), 4 * kMiB - 200'000);
  EXPECT_EQ(opening().code(), Code::kOk);
}

TEST_F(ArenaTest, SizeThatTheFileDoesNotHaveIsNotBelieved) {
  const auto a = open();
  const std::uint64_t before = a->size();
  a->header().size.store(before + 8 * kMiB);  // a stray write
  EXPECT_EQ(a->at<char>(before + kMiB), nullptr);
  EXPECT_EQ(opening().code(), Code::kCorrupt);
}

TEST_F(ArenaTest, TruncatedFileIsRefused) {
  open();
  ASSERT_EQ(truncate(file().c_str(), static_cast<off_t>(layout::kBlocks + 4096)), 0);
  const Status s = opening();
  EXPECT_EQ(s.code(), Code::kCorrupt);
  EXPECT_NE(s.message().find("truncated"), std::string::npos);
  ASSERT_EQ(truncate(file().c_str(), 300), 0);
  EXPECT_EQ(opening().code(), Code::kCorrupt);
}

TEST_F(ArenaTest, EmptyFileIsRefusedAndKept) {
  open();
  ASSERT_EQ(truncate(file().c_str(), 0), 0);
  EXPECT_EQ(opening().code(), Code::kCorrupt);
  EXPECT_EQ(access(file().c_str(), F_OK), 0) << "nothing is deleted on its own";
}

TEST_F(ArenaTest, ZeroedFileIsRefused) {
  open();
  const std::vector<char> zeros(layout::kBlocks + kMiB);
  overwrite(0, zeros.data(), zeros.size());
  EXPECT_EQ(opening().code(), Code::kCorrupt);
}

TEST_F(ArenaTest, ForeignFileIsRefused) {
  open();
  const std::vector<char> text(layout::kBlocks, 'x');
  overwrite(0, text.data(), text.size());
  const Status s = opening();
  EXPECT_EQ(s.code(), Code::kCorrupt);
  EXPECT_NE(s.message().find("isn't a celeriac arena"), std::string::npos);
}

TEST_F(ArenaTest, OtherLayoutIsRefusedEvenIfItsFileIsShorter) {
  open();
  layout::HeaderFixed other = make_header();
  other.major = 9;
  overwrite(0, &other, sizeof other);
  EXPECT_EQ(opening().code(), Code::kVersionMismatch);
  ASSERT_EQ(truncate(file().c_str(), 8192), 0);
  EXPECT_EQ(opening().code(), Code::kVersionMismatch);
}

TEST_F(ArenaTest, OtherThingsInPlaceOfTheFileAreRefused) {
  open();
  const auto replaced = [&](auto make) {
    unlink(file().c_str());
    rmdir(file().c_str());
    EXPECT_EQ(make(), 0);
    return opening().code();
  };
  EXPECT_EQ(replaced([&] { return mkfifo(file().c_str(), 0600); }), Code::kConfiguration);
  EXPECT_EQ(replaced([&] { return symlink("/dev/zero", file().c_str()); }), Code::kConfiguration);
  EXPECT_EQ(replaced([&] { return mkdir(file().c_str(), 0700); }), Code::kConfiguration);
}

TEST_F(ArenaTest, DirectoryOpenToOthersIsRefused) {
  open();
  ASSERT_EQ(chmod(directory().c_str(), 0750), 0);
  EXPECT_EQ(opening().code(), Code::kConfiguration);
}

TEST_F(ArenaTest, GroupModeMakesGroupFiles) {
  ArenaOptions o = root.options();
  o.mode = 0660;
  ASSERT_TRUE(Arena::open(o).is_ok());
  struct stat s {};
  stat(file().c_str(), &s);
  EXPECT_EQ(s.st_mode & 07777U, 0660U);
  EXPECT_EQ(opening().code(), Code::kConfiguration) << "0600 was asked for now";
}

TEST_F(ArenaTest, RemovedFileIsNoLongerCurrent) {
  const auto a = open();
  unlink(file().c_str());
  EXPECT_FALSE(a->is_current());
  const auto b = open();
  EXPECT_FALSE(a->is_current());
  EXPECT_TRUE(b->is_current());
}

TEST_F(ArenaTest, RaceOfEightProcessesMakesOneArena) {
  CELERIAC_TEST_FORKS();
  for (int round = 0; round < 20; ++round) {
    const std::string name = "race" + std::to_string(round);
    test::Shared<std::atomic<std::uint64_t>> seeds[8];
    const Gate start;
    std::vector<Child> all;
    for (auto& seed : seeds) {
      all.push_back(Child::run([&] {
        ArenaOptions o = root.options();
        o.name = name;
        if (!start.pass()) return false;
        Result<std::unique_ptr<Arena>> a = Arena::open(o);
        if (a) seed->store(a.value()->header().fixed.hash_seed);
        return a.is_ok();
      }));
    }
    for (std::size_t i = 0; i < all.size(); ++i) start.open();
    for (Child& c : all) ASSERT_EQ(c.wait(), 0);
    for (auto& seed : seeds) ASSERT_EQ(seed->load(), seeds[0]->load()) << "another file";
  }
}

TEST_F(ArenaTest, GrowthOfAnotherProcessIsSeen) {
  CELERIAC_TEST_FORKS();
  const auto a = open();
  const std::uint64_t before = a->size();
  Child other = Child::run([&] {
    Result<std::unique_ptr<Arena>> theirs = Arena::open(root.options());
    grow(*theirs.value(), kMiB);
    *theirs.value()->at<char>(before + 10) = 'c';
    return true;
  });
  ASSERT_EQ(other.wait(), 0);
  ASSERT_NE(a->at<char>(before + 10), nullptr);
  EXPECT_EQ(*a->at<char>(before + 10), 'c');
}

TEST_F(ArenaTest, DeathAtEachPointOfMakingLeavesNoneOrAWholeOne) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  int whole = 0;
  for (const char* point :
       {"arena.create.allocated", "arena.create.written", "arena.create.published"}) {
    ArenaOptions o = root.options();
    o.name = point;
    Child maker = Child::run([&] {
      arm_crash_point(point, 1, "kill");
      return Arena::open(o).is_ok();
    });
    EXPECT_EQ(maker.wait(), test::kKilled) << point;
    whole += access((store_path(root.path(), point) + "/arena").c_str(), F_OK) == 0 ? 1 : 0;
    EXPECT_TRUE(Arena::open(o).is_ok()) << point;
  }
  EXPECT_EQ(whole, 1);
}

TEST_F(ArenaTest, DeathAtEachPointOfGrowthLeavesItUsable) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  for (const char* point : {"arena.grow.allocated", "arena.grow.published"}) {
    const auto a = open(64 * kMiB);
    Child grower = Child::run([&] {
      Result<std::unique_ptr<Arena>> theirs = Arena::open(root.options(64 * kMiB));
      arm_crash_point(point, 1, "kill");
      grow(*theirs.value(), kMiB);
      return true;
    });
    EXPECT_EQ(grower.wait(), test::kKilled) << point;
    const std::uint64_t before = a->size();
    grow(*a, kMiB);
    EXPECT_GT(a->size(), before);
    EXPECT_NE(a->at<char>(a->size() - 1), nullptr);
  }
}

}  // namespace
}  // namespace celeriac
