// The spare: made ahead, taken by a switch, and what is left where somebody dies or fails at it.
#include <sys/stat.h>

#include <cerrno>

#include "arena/crash_point.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"
#include "support/journal_store.hpp"

namespace celeriac::journal {
namespace {

using test::Child;
using test::Contents;
using test::contents;
using test::JournalSession;

class JournalSpareTest : public test::JournalTest {
 protected:
  void TearDown() override { set_file_hook({}); }

  std::string spare() const { return directory() + "/journal.spare"; }
  static std::uint64_t inode(const std::string& path) {
    struct stat s {};
    return stat(path.c_str(), &s) == 0 ? s.st_ino : 0;
  }
  static bool going_on(std::uint64_t /*ns*/) { return true; }
  // Into the next segment; its number.
  static std::uint64_t switches(JournalSession& s) {
    const std::uint64_t before = s.journal.control().current;
    while (s.journal.control().current == before) s.put(std::string(900, 's'));
    return s.journal.control().current;
  }
  void expect_whole(JournalSession& s) {
    const std::uint64_t id = s.put("after it");
    EXPECT_TRUE(s.commit(id));
    const Contents c = contents(directory());
    EXPECT_TRUE(c.report.damages.empty()) << c.report.damages[0].text();
    EXPECT_EQ(c.bodies.at(id), "after it");
  }
};

TEST_F(JournalSpareTest, SwitchTakesIt) {
  JournalSession s(options);
  s.begin();
  EXPECT_EQ(s.journal.wants_spare(), test::kSmallSegment / 4 < kFirstRecord);
  while (!s.journal.wants_spare()) s.put(std::string(900, 'q'));
  int steps = 0;
  ASSERT_TRUE(s.journal.make_spare([&](std::uint64_t) { return ++steps > 0; }));
  EXPECT_EQ(steps, 1);
  EXPECT_FALSE(s.journal.wants_spare());
  EXPECT_EQ(test::read_file(spare()), std::string(test::kSmallSegment, '\0'));
  const std::uint64_t file = inode(spare());
  const std::uint64_t next = switches(s);
  EXPECT_EQ(inode(segment(next)), file);
  EXPECT_FALSE(std::filesystem::exists(spare()));
  expect_whole(s);
  const std::uint64_t without = switches(s);
  EXPECT_NE(inode(segment(without)), file);
  while (!s.journal.wants_spare()) s.put("more");
  expect_whole(s);
}

TEST_F(JournalSpareTest, OneIsMadeForASegment) {
  JournalSession s(options);
  s.begin();
  s.put(std::string(900, 'q'));
  ASSERT_TRUE(s.journal.make_spare([](std::uint64_t) { return false; })) << "given up";
  EXPECT_FALSE(std::filesystem::exists(spare()));
  ASSERT_TRUE(s.journal.make_spare(going_on));
  EXPECT_FALSE(std::filesystem::exists(spare())) << "others think that it was begun";
  switches(s);
  ASSERT_TRUE(s.journal.make_spare(going_on));
  const std::uint64_t file = inode(spare());
  EXPECT_NE(file, 0U);
  // The arena is lost, and with it who began what: the spare is as good as a new one.
  lose_arena();
  JournalSession again(options);
  again.begin();
  EXPECT_EQ(inode(segment(again.journal.control().current)), file);
  expect_whole(again);
}

TEST_F(JournalSpareTest, FileThatIsNoneIsntTaken) {
  JournalSession s(options);
  s.begin();
  for (const std::string& bytes :
       {std::string(test::kSmallSegment - 4096, '\0'), std::string(test::kSmallSegment, 'x')}) {
    test::write_file(spare(), bytes);
    const std::uint64_t file = inode(spare());
    EXPECT_NE(inode(segment(switches(s))), file);
    EXPECT_EQ(inode(spare()), file);
    expect_whole(s);
    ASSERT_TRUE(s.journal.make_spare(going_on));
    EXPECT_NE(inode(spare()), file) << "a good one is in its place";
    switches(s);
  }
}

TEST_F(JournalSpareTest, FailuresLeaveTheJournalAsItWas) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  for (const FileStep step :
       {FileStep::kAllocate, FileStep::kWrite, FileStep::kSync, FileStep::kLink}) {
    const int error = step == FileStep::kAllocate ? ENOSPC : EIO;
    set_file_hook([=](const FileEvent& e) { return e.step == step ? error : 0; });
    EXPECT_FALSE(s.journal.make_spare(going_on));
    set_file_hook({});
    EXPECT_FALSE(std::filesystem::exists(spare()));
    EXPECT_TRUE(s.journal.health());
    expect_whole(s);
    switches(s);
  }
  for (const FileStep step :
       {FileStep::kWrite, FileStep::kSync, FileStep::kRename, FileStep::kSyncDirectory}) {
    ASSERT_TRUE(s.journal.make_spare(going_on));
    const std::uint64_t current = s.journal.control().current;
    const std::string body(1000, 's');
    while (s.journal.control().end + 1200 + test::kSmallSegment / 16 < test::kSmallSegment) {
      s.put(body);
    }
    set_file_hook(
        [=, n = 0](const FileEvent& e) mutable { return e.step == step && n++ == 0 ? EIO : 0; });
    EXPECT_EQ(s.try_put(body).status().code(), Code::kSystem);
    set_file_hook({});
    EXPECT_EQ(s.journal.control().current, current);
    EXPECT_TRUE(s.journal.health());
    EXPECT_EQ(switches(s), current + 1);
    expect_whole(s);
  }
}

TEST_F(JournalSpareTest, DeathAtEachPoint) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  JournalSession s(options);
  s.begin();
  s.put("before");
  for (const char* point : {"journal.spare.begun", "journal.spare.filled", "journal.spare.named",
                            "journal.create.written", "journal.create.named",
                            "journal.switch.intended", "journal.switch.decided"}) {
    Child child = Child::run([&] {
      JournalSession dies(options);
      arm_crash_point(point, 1, "kill");
      const bool made = dies.journal.make_spare(going_on).is_ok();
      return made && switches(dies) != 0;
    });
    ASSERT_EQ(child.wait(), test::kKilled) << point;
    s.at.recovery->run();
    ASSERT_NO_FATAL_FAILURE(expect_whole(s)) << point;
    const std::uint64_t last = switches(s);
    ASSERT_NO_FATAL_FAILURE(expect_whole(s)) << point;
    ASSERT_TRUE(s.journal.make_spare(going_on)) << point;
    const std::uint64_t file = inode(spare());
    ASSERT_NE(file, 0U) << point;
    ASSERT_EQ(switches(s), last + 1);
    EXPECT_EQ(inode(segment(last + 1)), file) << point;
  }
}

}  // namespace
}  // namespace celeriac::journal
