#include "platform/file.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace celeriac {
namespace {

std::string octal(unsigned mode) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%04o", mode & 07777U);
  return text.data();
}

std::string mebibytes(std::uint64_t bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f MiB", static_cast<double>(bytes) / 1048576.0);
  return text.data();
}

// Bits that nobody but us (and the group, if asked for) may have.
unsigned forbidden_bits(unsigned file_mode) { return (file_mode & 060U) != 0 ? 0007U : 0077U; }

Status check_ours(const struct stat& s, unsigned file_mode, const std::string& path,
                  const char* what) {
  if (s.st_uid != geteuid()) {
    return {Code::kConfiguration, std::string(what) + " " + path + " belongs to user " +
                                      std::to_string(s.st_uid) + ", not to this process's user " +
                                      std::to_string(geteuid()) +
                                      ": use a store of your own, or run as that user"};
  }
  const unsigned open_to = s.st_mode & forbidden_bits(file_mode);
  if (open_to != 0) {
    const std::string right = octal((s.st_mode & 07777U) & ~forbidden_bits(file_mode));
    // A directory may be anybody's, /etc for instance: to change or remove it isn't the advice.
    const std::string advice = S_ISDIR(s.st_mode)
                                   ? "name a directory that is the store's alone, or, if this one "
                                     "is, chmod it to " +
                                         right
                                   : "chmod it to " + right + " or remove it";
    return {Code::kConfiguration, std::string(what) + " " + path + " has mode " + octal(s.st_mode) +
                                      ", so others could write or read it: " + advice};
  }
  return Status::ok();
}

Result<Fd> check_regular(Fd fd, unsigned mode, const std::string& path) {
  struct stat s {};
  if (fstat(fd.get(), &s) != 0) return Status::system("fstat " + path, errno);
  if (!S_ISREG(s.st_mode)) {
    return Status(Code::kConfiguration,
                  path +
                      " is not a regular file: something else has taken the store's name; "
                      "remove it or choose another store");
  }
  Status ours = check_ours(s, mode, path, "file");
  if (!ours) return ours;
  if (s.st_nlink > 1) {
    return Status(Code::kConfiguration, path + " has a second name (hard link): remove it");
  }
  return fd;
}

Status open_failure(int error, const std::string& path) {
  if (error == ENOENT) return {Code::kNotFound, "no store at " + path};
  if (error == ELOOP) {
    return {Code::kConfiguration, path + " is a symbolic link, which celeriac never follows"};
  }
  if (error == EISDIR || error == ENXIO) {
    return {Code::kConfiguration, path +
                                      " is not a regular file: something else has taken the "
                                      "store's name; remove it or choose another store"};
  }
  if (error == EACCES || error == EPERM) {
    return {Code::kConfiguration,
            path + " can't be opened by user " + std::to_string(geteuid()) + ": permission denied"};
  }
  return Status::system("open " + path, error);
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    reset();
    fd_ = other.release();
  }
  return *this;
}

int Fd::release() { return std::exchange(fd_, -1); }

void Fd::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

Result<Fd> open_directory(int parent, const std::string& path, unsigned file_mode, bool create) {
  const unsigned mode = 0700U | ((file_mode & 060U) != 0 ? 0070U : 0U);
  const int at = parent < 0 ? AT_FDCWD : parent;
  bool made = false;
  if (create) {
    made = mkdirat(at, path.c_str(), mode) == 0;
    if (!made && errno != EEXIST) {
      return Status(Code::kConfiguration,
                    "can't make directory " + path + ": " + std::generic_category().message(errno));
    }
  }
  Fd fd(openat(at, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOTDIR) {
      struct stat s {};
      const bool link =
          fstatat(at, path.c_str(), &s, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(s.st_mode);
      return link ? open_failure(ELOOP, path)
                  : Status(Code::kConfiguration, path + " is not a directory");
    }
    return open_failure(errno, path);
  }
  if (made) fchmod(fd.get(), mode);  // whatever the umask took away
  struct stat s {};
  if (fstat(fd.get(), &s) != 0) return Status::system("fstat " + path, errno);
  Status ours = check_ours(s, file_mode, path, "directory");
  if (!ours) return ours;
  return fd;
}

Status check_file_system_type(std::int64_t type, const std::string& path) {
  struct Named {
    std::int64_t type;
    const char* name;
  };
  static constexpr std::array<Named, 11> kRefused{{{NFS_SUPER_MAGIC, "NFS"},
                                                   {SMB_SUPER_MAGIC, "SMB"},
                                                   {0xFE534D42, "SMB2"},
                                                   {0xFF534D42, "CIFS"},
                                                   {V9FS_MAGIC, "9p"},
                                                   {0x65735546, "FUSE"},
                                                   {0x00C36400, "Ceph"},
                                                   {AFS_SUPER_MAGIC, "AFS"},
                                                   {0x5346414F, "OpenAFS"},
                                                   {0x01161970, "GFS2"},
                                                   {0x7461636F, "OCFS2"}}};
  for (const Named& n : kRefused) {
    if (n.type == type) {
      return {Code::kConfiguration,
              path + " is on a " + n.name +
                  " file system, where locks and shared mappings aren't dependable: use a local "
                  "file system, or redis:// to share between hosts"};
    }
  }
  return Status::ok();
}

Status check_file_system(int dir, const std::string& path) {
  struct statfs s {};
  if (fstatfs(dir, &s) != 0) return Status::system("statfs " + path, errno);
  return check_file_system_type(static_cast<std::int64_t>(s.f_type), path);
}

Result<FileSpace> file_space(int fd) {
  struct statvfs s {};
  if (fstatvfs(fd, &s) != 0) return Status::system("statvfs", errno);
  return FileSpace{s.f_bavail * s.f_frsize, s.f_blocks * s.f_frsize};
}

Result<Fd> create_unnamed(int dir, unsigned mode) {
  Fd fd(openat(dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, mode));
  if (!fd.valid()) return Status::system("open an unnamed file (O_TMPFILE)", errno);
  if (fchmod(fd.get(), mode) != 0) return Status::system("fchmod", errno);
  return fd;
}

Status allocate(int fd, std::uint64_t offset, std::uint64_t length, const std::string& path) {
  int error = 0;
  do {
    error = posix_fallocate(fd, static_cast<off_t>(offset), static_cast<off_t>(length));
  } while (error == EINTR);
  if (error == 0) return Status::ok();
  if (error == ENOSPC || error == EDQUOT || error == ENOMEM || error == EFBIG) {
    Result<FileSpace> space = file_space(fd);
    const std::string have = space ? mebibytes(space.value().free) : "less";
    return {Code::kNotEnoughMemory,
            "the store at " + path + " needs " + mebibytes(length) +
                " more and its file system has " + have +
                " free: lower memory=, or enlarge the file system (docker run --shm-size, "
                "Kubernetes emptyDir medium: Memory)"};
  }
  return Status::system("allocate " + path, error);
}

Status punch(int fd, std::uint64_t offset, std::uint64_t length) {
  int failed = 0;
  do {
    failed = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                       static_cast<off_t>(length));
  } while (failed != 0 && errno == EINTR);
  if (failed == 0 || errno == EOPNOTSUPP) return Status::ok();
  return Status::system("give memory back", errno);
}

Result<bool> publish(int fd, int dir, const std::string& name) {
  const std::string self = "/proc/self/fd/" + std::to_string(fd);
  if (linkat(AT_FDCWD, self.c_str(), dir, name.c_str(), AT_SYMLINK_FOLLOW) == 0) return true;
  if (errno == EEXIST) return false;
  return Status::system("link " + name, errno);
}

Result<Fd> open_existing(int dir, const std::string& name, unsigned mode, const std::string& path,
                         bool to_write) {
  // O_NONBLOCK: a FIFO in place of the file must not hang us.
  const int access = to_write ? O_RDWR : O_RDONLY;
  Fd fd(openat(dir, name.c_str(), access | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return open_failure(errno, path);
  return check_regular(std::move(fd), mode, path);
}

Result<Fd> open_or_create(int dir, const std::string& name, unsigned mode,
                          const std::string& path) {
  Fd fd(openat(dir, name.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_CREAT | O_EXCL,
               mode));
  if (fd.valid()) {
    fchmod(fd.get(), mode);
    return fd;
  }
  if (errno != EEXIST) return open_failure(errno, path);
  return open_existing(dir, name, mode, path);
}

Result<std::uint64_t> file_size(int fd) {
  struct stat s {};
  if (fstat(fd, &s) != 0) return Status::system("fstat", errno);
  return static_cast<std::uint64_t>(s.st_size);
}

Result<std::uint64_t> file_allocated(int fd) {
  struct stat s {};
  if (fstat(fd, &s) != 0) return Status::system("fstat", errno);
  return static_cast<std::uint64_t>(s.st_blocks) * 512;
}

Status read_at(int fd, void* to, std::size_t n, std::uint64_t offset) {
  auto* p = static_cast<char*>(to);
  while (n > 0) {
    const ssize_t got = pread(fd, p, n, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return Status::system("read", errno);
    if (got == 0) return {Code::kCorrupt, "the file ends early"};
    p += got;
    n -= static_cast<std::size_t>(got);
    offset += static_cast<std::uint64_t>(got);
  }
  return Status::ok();
}

bool is_named(int fd, int dir, const std::string& name) {
  struct stat ours {};
  struct stat there {};
  return fstat(fd, &ours) == 0 && fstatat(dir, name.c_str(), &there, AT_SYMLINK_NOFOLLOW) == 0 &&
         ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

bool is_removed(int dir) {
  struct stat s {};
  return dir >= 0 && fstat(dir, &s) == 0 && s.st_nlink == 0;
}

std::vector<std::string> list_directory(int dir) {
  std::vector<std::string> names;
  const int again = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (again < 0) return names;
  DIR* d = fdopendir(again);
  if (d == nullptr) {
    close(again);
    return names;
  }
  while (const dirent* e = readdir(d)) {  // NOLINT(concurrency-mt-unsafe): the stream is ours
    const std::string name = e->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  closedir(d);
  return names;
}

void remove_file(int dir, const std::string& name) { unlinkat(dir, name.c_str(), 0); }

Status remove_files(const std::string& path, const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    std::string full = path;
    full.append("/").append(name);
    if (unlink(full.c_str()) != 0 && errno != ENOENT) {
      return Status::system("remove " + full, errno);
    }
  }
  return Status::ok();
}

Status remove_directory(const std::string& path, const std::vector<std::string>& names) {
  Status removed = remove_files(path, names);
  if (!removed) return removed;
  if (rmdir(path.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY) {
    return Status::system("remove " + path, errno);
  }
  return Status::ok();
}

void process_command(char* to, std::size_t n) {
  std::memset(to, 0, n);
  const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char line[4096];
  const ssize_t got = read(fd, line, sizeof line);
  close(fd);
  std::size_t used = 0;
  const char* word = line;
  const char* const end = line + std::max<ssize_t>(got, 0);
  for (int i = 0; word < end && used + 1 < n; ++i) {
    const char* const after = std::find(word, end, '\0');
    // Of an interpreter and its script the names only: where they are would take the whole place.
    const bool path = i < 2 && *word == '/' && std::find(word, after, ' ') == after;
    const char* const name =
        path ? static_cast<const char*>(memrchr(word, '/', after - word)) + 1 : word;
    if (i > 0) to[used++] = ' ';
    for (const char* c = name; c < after && used + 1 < n; ++c) to[used++] = *c == '\n' ? ' ' : *c;
    word = after + 1;
  }
}

std::uint32_t process_id() { return static_cast<std::uint32_t>(getpid()); }

std::uint32_t effective_user() { return geteuid(); }

}  // namespace celeriac
