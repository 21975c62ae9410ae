// Steps that make bytes and names of a file survive the host, each with its error.
//
// What the kernel promises, and what is built on: bytes written are there for every process at
// once; after sync_data() they are on the disk; a name that was made, replaced or removed is so on
// the disk after sync_directory(). Before that, each 512 bytes may be there or not, in any order. A
// sync_data() that fails leaves pages that look written and aren't: it isn't tried again.
//
// In builds with crash points a test can look at each step, and have it fail (set_file_hook).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "platform/file.hpp"
#include "platform/status.hpp"

namespace celeriac {

// All n bytes, or an error after some of them.
Status write_at(int fd, const void* from, std::size_t n, std::uint64_t offset);

// The file's bytes, and what it takes to find them, are on the disk afterwards.
Status sync_data(int fd);
// It has no name any more.
bool is_unlinked(int fd);
// The names in a directory are on the disk afterwards.
Status sync_directory(int dir);

// allocate() with the error of who writes a journal: kNotEnoughMemory says what to do.
Status allocate_durable(int fd, std::uint64_t length, const std::string& path);

// Gives an unnamed file its name, in place of one that is there. The name appears in one step.
Status publish_over(int fd, int dir, const std::string& name);
// An absent one is fine.
Status remove_name(int dir, const std::string& name);
// In place of a file that has the name `to`; in one step, after a crash of the host, too.
Status rename_name(int dir, const std::string& from, const std::string& to);

// A directory that needn't be private: where backups lie.
Result<Fd> open_plain_directory(const std::string& path);

// A regular file of anybody's, without following a link.
Result<Fd> open_for_reading(int dir, const std::string& name);

enum class FileStep : std::uint8_t {
  kAllocate,
  kWrite,
  kSync,
  kSyncDirectory,
  kLink,
  kRemove,
  kRename
};

struct FileEvent {
  FileStep step{};
  int fd = -1;  // the file, or the directory of a name
  const void* data = nullptr;
  std::size_t size = 0;
  std::uint64_t offset = 0;
  std::string name;  // kLink, kRemove, kRename
  std::string from;  // kRename: the name before
};

// Called before each step: 0 = go on, else the errno with which it fails, undone.
using FileHook = std::function<int(const FileEvent&)>;
// An empty one takes it away. REQUIRES: crash points compiled in, else nothing calls it; nobody
// else is writing.
void set_file_hook(FileHook next_hook);

}  // namespace celeriac
