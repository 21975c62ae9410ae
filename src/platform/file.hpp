// Files and directories of a store, opened with suspicion: ours, private, regular, local.
//
// A store's directory belongs to the effective user, nobody else may write it (or, with a group
// mode, only its group), and it isn't on a network file system, where locks and mappings don't
// keep their promises. Files are opened without following links, checked after opening (never
// before), and appear under their name only when they are complete (O_TMPFILE, then link).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "platform/status.hpp"

namespace celeriac {

// Owns a descriptor.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  ~Fd() { reset(); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release();
  void reset();

 private:
  int fd_ = -1;
};

struct FileSpace {
  std::uint64_t free = 0;   // bytes this user may still allocate
  std::uint64_t total = 0;  // bytes of the whole file system
};

// Opens a private directory, making it first if `create`. `file_mode` 0600 asks for 0700, a mode
// with group bits (0660) for 0770. kNotFound when absent; kConfiguration when it is a link, not a
// directory, another user's, or open to others.
Result<Fd> open_directory(int parent, const std::string& path, unsigned file_mode, bool create);

// kConfiguration for a network or user-space file system; by its statfs type.
Status check_file_system(int dir, const std::string& path);
Status check_file_system_type(std::int64_t type, const std::string& path);

Result<FileSpace> file_space(int fd);

// A file without a name in `dir`, read-write, with exactly this mode.
Result<Fd> create_unnamed(int dir, unsigned mode);

// Allocates [offset, offset + length): afterwards no access there can fail for want of space.
// kNotEnoughMemory with need, have and the setting to change when there is too little.
// Crash-safe: a file made longer and not used is allocated again by the next caller.
Status allocate(int fd, std::uint64_t offset, std::uint64_t length, const std::string& path);

// Gives the memory of [offset, offset + length) back; the file keeps its length, and what is read
// there is zeros. A file system that can't keeps it: then the file is as it was.
// Crash-safe: who is killed has given back all of it, or some.
Status punch(int fd, std::uint64_t offset, std::uint64_t length);

// Gives an unnamed file its name. True: ours is there now. False: another was first.
// Crash-safe: the name appears in one step, or not.
Result<bool> publish(int fd, int dir, const std::string& name);

// Opens an existing regular file read-write. kNotFound; kConfiguration when it isn't a regular
// file, is linked elsewhere, another user's, or open to others.
Result<Fd> open_existing(int dir, const std::string& name, unsigned mode, const std::string& path,
                         bool to_write = true);

// Opens the file, making it first (empty) when it isn't there. Same checks.
Result<Fd> open_or_create(int dir, const std::string& name, unsigned mode, const std::string& path);

Result<std::uint64_t> file_size(int fd);
// What it takes of its file system: less than its size, where it has holes.
Result<std::uint64_t> file_allocated(int fd);
Status read_at(int fd, void* to, std::size_t n, std::uint64_t offset);
// True when the name in `dir` still leads to this very file.
bool is_named(int fd, int dir, const std::string& name);

// True when the directory has been removed since it was opened.
bool is_removed(int dir);

void remove_file(int dir, const std::string& name);

// Removes the files of a directory by name; absent ones are fine.
Status remove_files(const std::string& path, const std::vector<std::string>& names);
// The same, and then the directory itself.
Status remove_directory(const std::string& path, const std::vector<std::string>& names);
std::vector<std::string> list_directory(int dir);

// This process for people: command line with blanks, without the directories of an interpreter and
// its script, shortened to n - 1 characters; its id.
void process_command(char* to, std::size_t n);
std::uint32_t process_id();
std::uint32_t effective_user();

}  // namespace celeriac
