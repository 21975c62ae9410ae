// Files and directories of a store: what is published, and what is refused.
#include "platform/file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "platform/clock.hpp"
#include "support/process.hpp"
#include "support/temporary_root.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::TemporaryRoot;

class FileTest : public ::testing::Test {
 protected:
  FileTest() : dir(open(root.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

  void write_file(const std::string& name, mode_t mode) {
    const Fd fd(openat(dir.get(), name.c_str(), O_RDWR | O_CREAT, mode));
    ASSERT_TRUE(fd.valid());
    ASSERT_EQ(fchmod(fd.get(), mode), 0);
  }
  Code opening(const std::string& name, unsigned mode = 0600) {
    return open_existing(dir.get(), name, mode, root.file(name)).status().code();
  }
  Code opening_directory(const std::string& name, unsigned file_mode = 0600) {
    return open_directory(dir.get(), name, file_mode, false).status().code();
  }

  TemporaryRoot root;
  Fd dir;
};

TEST_F(FileTest, FdClosesOnceAndMoves) {
  Fd a(dup(dir.get()));
  const int number = a.get();
  Fd b(std::move(a));
  EXPECT_EQ(b.get(), number);
  b.reset();
  EXPECT_FALSE(b.valid());
  EXPECT_EQ(fcntl(number, F_GETFD), -1);
}

TEST_F(FileTest, UnnamedFileAppearsWholeUnderItsName) {
  Result<Fd> fd = create_unnamed(dir.get(), 0600);
  ASSERT_TRUE(fd.is_ok()) << fd.status().message();
  ASSERT_TRUE(allocate(fd.value().get(), 0, 1 << 20, "x").is_ok());
  EXPECT_EQ(opening("arena"), Code::kNotFound);
  Result<bool> ours = publish(fd.value().get(), dir.get(), "arena");
  ASSERT_TRUE(ours.is_ok()) << ours.status().message();
  EXPECT_TRUE(ours.value());
  EXPECT_TRUE(is_named(fd.value().get(), dir.get(), "arena"));
  EXPECT_EQ(file_size(fd.value().get()).value(), 1U << 20U);
  EXPECT_EQ(opening("arena"), Code::kOk);
}

TEST_F(FileTest, SecondToPublishIsToldSo) {
  Result<Fd> first = create_unnamed(dir.get(), 0600);
  Result<Fd> second = create_unnamed(dir.get(), 0600);
  EXPECT_TRUE(publish(first.value().get(), dir.get(), "arena").value());
  EXPECT_FALSE(publish(second.value().get(), dir.get(), "arena").value());
  EXPECT_TRUE(is_named(first.value().get(), dir.get(), "arena"));
  EXPECT_FALSE(is_named(second.value().get(), dir.get(), "arena"));
}

TEST_F(FileTest, MakerKilledBeforePublishingLeavesNothing) {
  CELERIAC_TEST_FORKS();
  Child maker = Child::run([&] {
    const Result<Fd> fd = create_unnamed(dir.get(), 0600);
    static_cast<void>(allocate(fd.value().get(), 0, 1 << 20, "x").is_ok());
    raise(SIGKILL);
    return false;
  });
  EXPECT_EQ(maker.wait(), test::kKilled);
  EXPECT_TRUE(list_directory(dir.get()).empty());
}

TEST_F(FileTest, OneOfManyProcessesPublishes) {
  CELERIAC_TEST_FORKS();
  std::vector<Child> makers;
  for (int i = 0; i < 8; ++i) {
    makers.push_back(Child::run([&] {
      const Result<Fd> fd = create_unnamed(dir.get(), 0600);
      const Result<bool> ours = publish(fd.value().get(), dir.get(), "arena");
      return ours.is_ok() && ours.value() ? 1 : 0;
    }));
  }
  int winners = 0;
  for (Child& c : makers) winners += c.wait();
  EXPECT_EQ(winners, 1);
}

TEST_F(FileTest, RefusesSymbolicLink) {
  write_file("real", 0600);
  ASSERT_EQ(symlinkat("real", dir.get(), "link"), 0);
  EXPECT_EQ(opening("link"), Code::kConfiguration);
}

TEST_F(FileTest, RefusesDanglingSymbolicLinkToo) {
  ASSERT_EQ(symlinkat("nowhere", dir.get(), "link"), 0);
  EXPECT_EQ(opening("link"), Code::kConfiguration);
  EXPECT_EQ(open_or_create(dir.get(), "link", 0600, "link").status().code(), Code::kConfiguration);
  EXPECT_EQ(opening("nowhere"), Code::kNotFound);
}

TEST_F(FileTest, RefusesFifoWithoutHanging) {
  ASSERT_EQ(mkfifoat(dir.get(), "fifo", 0600), 0);
  EXPECT_EQ(opening("fifo"), Code::kConfiguration);
}

TEST_F(FileTest, RefusesDirectoryInPlaceOfFile) {
  ASSERT_EQ(mkdirat(dir.get(), "folder", 0700), 0);
  EXPECT_EQ(opening("folder"), Code::kConfiguration);
}

TEST_F(FileTest, RefusesHardLink) {
  write_file("one", 0600);
  ASSERT_EQ(linkat(dir.get(), "one", dir.get(), "two", 0), 0);
  EXPECT_EQ(opening("one"), Code::kConfiguration);
}

TEST_F(FileTest, RefusesFileOpenToOthers) {
  write_file("group", 0660);
  write_file("world", 0604);
  EXPECT_EQ(opening("group"), Code::kConfiguration);
  EXPECT_EQ(opening("group", 0660), Code::kOk);
  EXPECT_EQ(opening("world", 0660), Code::kConfiguration);
}

TEST_F(FileTest, RefusesAnothersFile) {
  if (geteuid() != 0) GTEST_SKIP() << "only root can give a file away: run the tests as root";
  write_file("theirs", 0600);
  ASSERT_EQ(fchownat(dir.get(), "theirs", 12345, 12345, 0), 0);
  const Result<Fd> r = open_existing(dir.get(), "theirs", 0600, "theirs");
  EXPECT_EQ(r.status().code(), Code::kConfiguration);
  EXPECT_NE(r.status().message().find("12345"), std::string::npos);
}

TEST_F(FileTest, DirectoryIsMadePrivateWhateverTheUmask) {
  const mode_t before = umask(0277);
  const Result<Fd> made = open_directory(dir.get(), "private", 0600, true);
  umask(before);
  ASSERT_TRUE(made.is_ok()) << made.status().message();
  struct stat s {};
  fstat(made.value().get(), &s);
  EXPECT_EQ(s.st_mode & 07777U, 0700U);
}

TEST_F(FileTest, DirectoryIsRefused) {
  ASSERT_EQ(mkdirat(dir.get(), "open", 0700), 0);
  ASSERT_EQ(fchmodat(dir.get(), "open", 0770, 0), 0);
  ASSERT_EQ(symlinkat("open", dir.get(), "link"), 0);
  write_file("file", 0600);
  EXPECT_EQ(opening_directory("open"), Code::kConfiguration);
  EXPECT_EQ(opening_directory("open", 0660), Code::kOk);
  EXPECT_EQ(opening_directory("link"), Code::kConfiguration);
  EXPECT_EQ(opening_directory("file"), Code::kConfiguration);
  EXPECT_EQ(opening_directory("absent"), Code::kNotFound);
}

TEST_F(FileTest, NetworkFileSystemsAreRefusedByName) {
  const std::int64_t local[] = {TMPFS_MAGIC, EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
                                OVERLAYFS_SUPER_MAGIC};
  for (const std::int64_t type : local) EXPECT_TRUE(check_file_system_type(type, "x").is_ok());
  const std::pair<std::int64_t, const char*> remote[] = {
      {NFS_SUPER_MAGIC, "NFS"}, {SMB_SUPER_MAGIC, "SMB"}, {0xFF534D42, "CIFS"},
      {0xFE534D42, "SMB2"},     {0x65735546, "FUSE"},     {V9FS_MAGIC, "9p"},
      {0x00C36400, "Ceph"}};
  for (const auto& [type, name] : remote) {
    const Status s = check_file_system_type(type, "/mnt/x");
    EXPECT_EQ(s.code(), Code::kConfiguration) << name;
    EXPECT_NE(s.message().find(name), std::string::npos) << s.message();
  }
  EXPECT_TRUE(check_file_system(dir.get(), root.path()).is_ok());
}

TEST_F(FileTest, ReadAtSaysWhenTheFileEndsEarly) {
  write_file("short", 0600);
  const Result<Fd> fd = open_existing(dir.get(), "short", 0600, "short");
  ASSERT_EQ(pwrite(fd.value().get(), "abcd", 4, 0), 4);
  char to[8] = {};
  EXPECT_TRUE(read_at(fd.value().get(), to, 4, 0).is_ok());
  EXPECT_EQ(std::string(to, 4), "abcd");
  EXPECT_EQ(read_at(fd.value().get(), to, 8, 0).code(), Code::kCorrupt);
}

TEST_F(FileTest, RemoveDirectoryTakesTheNamedFilesOnly) {
  ASSERT_EQ(mkdirat(dir.get(), "d", 0700), 0);
  write_file("d/a", 0600);
  write_file("d/b", 0600);
  EXPECT_TRUE(remove_directory(root.file("d"), {"a", "absent"}).is_ok());
  EXPECT_EQ(access(root.file("d/b").c_str(), F_OK), 0);
  EXPECT_TRUE(remove_directory(root.file("d"), {"b"}).is_ok());
  EXPECT_NE(access(root.file("d").c_str(), F_OK), 0);
}

TEST_F(FileTest, CommandNamesThisProgram) {
  char command[88];
  process_command(command, sizeof command);
  EXPECT_NE(std::strstr(command, "file_test"), nullptr) << command;
  char tiny[5];
  process_command(tiny, sizeof tiny);
  EXPECT_LE(std::strlen(tiny), 4U);
}

// A tmpfs of a given size in a mount namespace of a child's own.
enum : int { kAsExpected = 0, kWrong = 1, kNoNamespace = 77 };

template <class Body>
int on_small_tmpfs(const std::string& at, const char* size, Body body) {
  return Child::run([&]() -> int {
           if (unshare(CLONE_NEWNS) != 0) return kNoNamespace;
           if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNoNamespace;
           if (mount("tmpfs", at.c_str(), "tmpfs", 0, size) != 0) return kNoNamespace;
           if (chmod(at.c_str(), 0700) != 0) return kNoNamespace;
           return body() ? kAsExpected : kWrong;
         })
      .wait();
}

#define SKIP_WITHOUT_NAMESPACE(status)                                                 \
  if ((status) == kNoNamespace) {                                                      \
    GTEST_SKIP() << "may not mount a small tmpfs: run as root with CAP_SYS_ADMIN, or " \
                    "docker run --cap-add SYS_ADMIN";                                  \
  }                                                                                    \
  static_cast<void>(0)

bool says(const Status& s, std::initializer_list<const char*> words) {
  bool all = true;
  for (const char* w : words) all = all && s.message().find(w) != std::string::npos;
  if (!all) std::fprintf(stderr, "message was: %s\n", s.message().c_str());
  return all;
}

TEST_F(FileTest, FullFileSystemNamesNeedAndHave) {
  CELERIAC_TEST_FORKS();
  const int status = on_small_tmpfs(root.path(), "size=2M", [&] {
    const Fd small(open(root.path().c_str(), O_RDONLY | O_DIRECTORY));
    const Result<Fd> fd = create_unnamed(small.get(), 0600);
    const Status s = allocate(fd.value().get(), 0, 5 << 20, "/the/store");
    return s.code() == Code::kNotEnoughMemory &&
           says(s, {"/the/store", "5.0 MiB", "2.0 MiB free", "memory="});
  });
  SKIP_WITHOUT_NAMESPACE(status);
  EXPECT_EQ(status, kAsExpected);
}

TEST_F(FileTest, ArenaTooLargeForTheFileSystemIsRefusedBeforeItIsMade) {
  CELERIAC_TEST_FORKS();
  const int status = on_small_tmpfs(root.path(), "size=8M", [&] {
    const Result<std::unique_ptr<Arena>> a = Arena::open(root.options(64ULL << 20U));
    return a.status().code() == Code::kNotEnoughMemory &&
           says(a.status(), {"need 64 MiB", "have", "memory=", "--shm-size"}) &&
           access(root.file("celeriac-0/store/arena").c_str(), F_OK) != 0;
  });
  SKIP_WITHOUT_NAMESPACE(status);
  EXPECT_EQ(status, kAsExpected);
}

TEST_F(FileTest, GrowthMeetsAFileSystemThatOthersFilled) {
  CELERIAC_TEST_FORKS();
  const int status = on_small_tmpfs(root.path(), "size=16M", [&] {
    Result<std::unique_ptr<Arena>> a = Arena::open(root.options(12ULL << 20U));
    if (!a) return false;
    const Fd hog(open(root.file("hog").c_str(), O_RDWR | O_CREAT, 0600));
    for (std::uint64_t n = 16 << 20; n >= 4096; n /= 2) {
      while (posix_fallocate(hog.get(), lseek(hog.get(), 0, SEEK_END), static_cast<off_t>(n)) ==
             0) {
      }
    }
    const std::uint64_t before = a.value()->size();
    const Result<std::uint64_t> grown = a.value()->prepare_growth(1 << 20, kNever);
    return grown.status().code() == Code::kNotEnoughMemory && says(grown.status(), {"free"}) &&
           a.value()->size() == before && a.value()->at<char>(before - 1) != nullptr;
  });
  SKIP_WITHOUT_NAMESPACE(status);
  EXPECT_EQ(status, kAsExpected);
}

}  // namespace
}  // namespace celeriac
