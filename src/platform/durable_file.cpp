#include "platform/durable_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "platform/blocking.hpp"

namespace celeriac {
namespace {

#if defined(CELERIAC_CRASH_POINTS) && CELERIAC_CRASH_POINTS
FileHook& hook() {
  static FileHook* h = new FileHook;
  return *h;
}
int asked(const FileEvent& event) { return hook() ? hook()(event) : 0; }
#define CELERIAC_FILE_STEP(...) asked(FileEvent __VA_ARGS__)
#else
#define CELERIAC_FILE_STEP(...) 0
#endif

Status write_failure(int error) {
  if (error == ENOSPC || error == EDQUOT) {
    return {Code::kNotEnoughMemory, "write: " + Status::system("", error).message()};
  }
  return Status::system("write", error);
}

}  // namespace

void set_file_hook([[maybe_unused]] FileHook next_hook) {
#if defined(CELERIAC_CRASH_POINTS) && CELERIAC_CRASH_POINTS
  hook() = std::move(next_hook);
#endif
}

Status write_at(int fd, const void* from, std::size_t n, std::uint64_t offset) {
  if (const int error = CELERIAC_FILE_STEP({FileStep::kWrite, fd, from, n, offset, {}, {}})) {
    return write_failure(error);
  }
  const auto* p = static_cast<const char*>(from);
  while (n > 0) {
    const ssize_t done = pwrite(fd, p, n, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return write_failure(errno);
    p += done;
    n -= static_cast<std::size_t>(done);
    offset += static_cast<std::uint64_t>(done);
  }
  return Status::ok();
}

Status sync_data(int fd) {
  if (const int error = CELERIAC_FILE_STEP({FileStep::kSync, fd, nullptr, 0, 0, {}, {}})) {
    return Status::system("fdatasync", error);
  }
  const BlockingRegion region;  // others of this process go on meanwhile
  int failed = 0;
  do {
    failed = fdatasync(fd);
  } while (failed != 0 && errno == EINTR);
  return failed == 0 ? Status::ok() : Status::system("fdatasync", errno);
}

bool is_unlinked(int fd) {
  struct stat s {};
  return fstat(fd, &s) == 0 && s.st_nlink == 0;
}

Status sync_directory(int dir) {
  if (const int error =
          CELERIAC_FILE_STEP({FileStep::kSyncDirectory, dir, nullptr, 0, 0, {}, {}})) {
    return Status::system("fsync of the directory", error);
  }
  // A directory that was opened without rights to read can't be synced; ours are.
  if (fsync(dir) == 0 || errno == EINVAL) return Status::ok();
  return Status::system("fsync of the directory", errno);
}

Status allocate_durable(int fd, std::uint64_t length, const std::string& path) {
  Status allocated = Status::ok();
  if (const int error = CELERIAC_FILE_STEP({FileStep::kAllocate, fd, nullptr, length, 0, {}, {}})) {
    allocated = {error == ENOSPC ? Code::kNotEnoughMemory : Code::kSystem, ""};
  } else {
    allocated = allocate(fd, 0, length, path);
  }
  if (allocated.code() != Code::kNotEnoughMemory) return allocated;
  const Result<FileSpace> space = file_space(fd);
  const std::string have = space ? std::to_string(space.value().free >> 20U) : "less";
  return {Code::kNotEnoughMemory, "the journal at " + path + " needs " +
                                      std::to_string(length >> 20U) +
                                      " MiB more and its file system has " + have +
                                      " MiB free: make room there; nothing was put"};
}

Status publish_over(int fd, int dir, const std::string& name) {
  if (const int error = CELERIAC_FILE_STEP({FileStep::kLink, fd, nullptr, 0, 0, name, {}})) {
    return Status::system("link " + name, error);
  }
  for (int attempt = 0; attempt < 8; ++attempt) {
    Result<bool> ours = publish(fd, dir, name);
    if (!ours) return ours.status();
    if (ours.value()) return Status::ok();
    Status removed = remove_name(dir, name);
    if (!removed) return removed;
  }
  return {Code::kSystem, name + " is made and removed all the time"};
}

Status remove_name(int dir, const std::string& name) {
  if (const int error = CELERIAC_FILE_STEP({FileStep::kRemove, dir, nullptr, 0, 0, name, {}})) {
    return Status::system("remove " + name, error);
  }
  if (unlinkat(dir, name.c_str(), 0) == 0 || errno == ENOENT) return Status::ok();
  return Status::system("remove " + name, errno);
}

Result<Fd> open_plain_directory(const std::string& path) {
  Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) return fd;
  if (errno == ENOENT) return Status(Code::kNotFound, "no directory " + path);
  return Status::system("open " + path, errno);
}

Result<Fd> open_for_reading(int dir, const std::string& name) {
  Fd fd(openat(dir, name.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
  if (fd.valid()) return fd;
  if (errno == ENOENT) return Status(Code::kNotFound, "no file " + name);
  return Status::system("open " + name, errno);
}

Status rename_name(int dir, const std::string& from, const std::string& to) {
  if (const int error = CELERIAC_FILE_STEP({FileStep::kRename, dir, nullptr, 0, 0, to, from})) {
    return Status::system("rename " + from, error);
  }
  if (renameat(dir, from.c_str(), dir, to.c_str()) == 0) return Status::ok();
  return Status::system("rename " + from, errno);
}

}  // namespace celeriac
