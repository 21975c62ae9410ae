// The arena: one file of a private directory, mapped by every process of the host.
//
// Life of the file
//   1. made without a name (O_TMPFILE), allocated, header and fixed regions written, then linked as
//      `arena`. Nobody ever sees a half-made one; the loser of a race opens the winner's.
//   2. grown by allocated extents: allocate behind `size`, write the first block header there, then
//      publish the new `size`. A grower that dies in between leaves a longer file only.
//   3. shrunk by one store of a smaller `size`, where a block begins (memory/heap.hpp). Only then
//      the memory behind it is given back, as a hole: the file keeps its length, and what was
//      mapped once stays mapped. So who still reads there, since it found its entry before that
//      entry left, reads zeros instead of dying of SIGBUS, as after ftruncate(), and finds that the
//      entry has changed. Growing again allocates the hole again, and says so when the file system
//      is full. One thing is left: to read a hole takes a page of the file system. Who was stopped
//      between finding an entry and copying it for longer than kGrace, in a file system that has
//      been filled to the last page since then, would find none.
//   4. never repaired in place when its header isn't ours: that is an error which names both sides.
//
// `capacity` may fall below `size`, while a resize is under way or was killed (store/resize.hpp):
// then nothing is placed above it (H6 of memory/heap.hpp), and nothing grows.
//
// What a reader may assume: offsets below its own copy of `size` are mapped. at() checks every
// offset against that copy and maps more when the shared `size` (checked itself against the file)
// has grown; follow() lets the copy fall. No offset read from the arena is used without it.
//
// `news` is what everybody looks at as an operation begins: it says that the store was removed, and
// changes when `size` falls. Who is killed between the two leaves others with a copy that is larger
// than `size` until the next news: what they could see behind it are zeros.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <string_view>

#include "arena/layout.hpp"
#include "platform/file.hpp"
#include "platform/mapping.hpp"
#include "platform/status.hpp"

namespace celeriac {

struct ArenaOptions {
  std::string root = "/dev/shm";         // a directory of the system; ours is made inside it
  std::string name;                      // the store; empty: it is in `root` itself, the user's own
  std::uint64_t memory = 256ULL << 20U;  // ceiling in bytes
  bool memory_given = false;             // the user named it: raise an existing arena's ceiling
  unsigned mode = 0600;
  bool create = true;
};

constexpr std::uint64_t kMinimumMemory = 2ULL << 20U;
// How long memory that the arena doesn't have any more stays allocated, for those who look at it.
constexpr unsigned kGrace = 20;  // milliseconds

class Arena {
 public:
  // Opens or makes the store's directory and file. Errors: kConfiguration (paths, permissions,
  // file system), kNotFound (create = false), kVersionMismatch, kCorrupt, kNotEnoughMemory.
  // Crash-safe: dies anywhere = no arena under the name, or a complete one.
  static Result<std::unique_ptr<Arena>> open(const ArenaOptions& options);

  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // A typed view of the arena at `offset`, or null when it isn't wholly inside. Thread-safe.
  template <class T>
  T* at(std::uint64_t offset, std::uint64_t bytes = sizeof(T)) {
    return reinterpret_cast<T*>(bytes_at(offset, bytes));
  }

  // For fixed regions, whose place is a constant.
  template <class T>
  T* fixed(std::uint64_t offset) {
    return reinterpret_cast<T*>(mapping_.base() + offset);
  }
  layout::Header& header() { return *fixed<layout::Header>(0); }

  std::uint64_t size() { return header().size.load(std::memory_order_acquire); }
  std::uint64_t capacity() { return header().capacity.load(std::memory_order_relaxed); }

  // Could the store have so much memory? kConfiguration, kNotEnoughMemory: no more than the file
  // system can give, and this process has address space for.
  Status check_ceiling(std::uint64_t memory);
  // The ceiling is at least `memory` from now on, for everybody.
  // Crash-safe: one CAS. What lies above a ceiling that was too low is listed again by a sweep,
  // which is due before that.
  void raise(std::uint64_t memory);

  // The first half of growth: allocates and maps an extent of at least `bytes` behind size().
  // Returns its length; publish_growth() makes it part of the arena.
  // REQUIRES: the heap mutex. kNotEnoughMemory at the ceiling or when the file system is full.
  // Crash-safe: a longer file, nothing else.
  // At most to `ceiling` bytes in all.
  Result<std::uint64_t> prepare_growth(std::uint64_t bytes, std::uint64_t ceiling);
  // Crash-safe: one store.
  void publish_growth(std::uint64_t bytes);

  // The arena ends at `size` from now on. REQUIRES: the heap mutex; a block begins there.
  // Crash-safe: one store.
  void publish_shrinking(std::uint64_t size);
  // Is there something to give back?
  bool takes_more_than_its_size();
  // Gives back up to `most` bytes of memory behind size() and behind `from`; returns where it
  // ended, 0 at the end of the file. REQUIRES: the heap mutex. Crash-safe: nothing lies there.
  std::uint64_t give_back(std::uint64_t from, std::uint64_t most);

  // Is there nothing that this process should notice? Asked as an operation begins.
  bool up_to_date() {
    return header().news.load(std::memory_order_relaxed) ==
           known_news_.load(std::memory_order_relaxed);
  }
  // The store was removed: everybody who is attached should leave. Never up to date then.
  // acquire pairs with mark_destroyed()
  bool destroyed() { return (header().news.load(std::memory_order_acquire) & kDestroyed) != 0; }
  // Crash-safe: one change of a word.
  void mark_destroyed();
  // Has this process's copy of the size fall with it.
  void follow();

  int directory() const { return directory_.get(); }
  const std::string& path() const { return path_; }
  unsigned mode() const { return mode_; }
  void after_fork_in_child() noexcept { new (&map_mutex_) std::mutex; }
  // Still the file under its name? False after destroy() by another process.
  bool is_current() const { return is_named(file_.get(), directory_.get(), "arena"); }

 private:
  static constexpr std::uint32_t kDestroyed = 1;  // in Header.news

  Arena() = default;
  Status try_open(const ArenaOptions& options, bool* vanished);
  char* bytes_at(std::uint64_t offset, std::uint64_t bytes) {
    const std::uint64_t mapped = mapped_.load(std::memory_order_acquire);
    if (offset <= mapped && bytes <= mapped - offset) return mapping_.base() + offset;
    return map_more(offset, bytes);
  }
  char* map_more(std::uint64_t offset, std::uint64_t bytes);
  Status map_to(std::uint64_t size);
  Status attach(const ArenaOptions& options);
  Status create_file(const ArenaOptions& options);
  void finish_destruction();
  Status open_directories(const ArenaOptions& options, bool* vanished);
  Status check_for_strangers() const;

  Fd directory_;
  Fd file_;
  std::string path_;
  unsigned mode_ = 0600;
  Mapping mapping_;
  std::atomic<std::uint64_t> mapped_{0};      // of size(), what is mapped
  std::atomic<std::uint32_t> known_news_{0};  // Header.news, when follow() last looked
  std::uint64_t ever_mapped_ = 0;             // that and more, after a shrink; under map_mutex_
  std::mutex map_mutex_;
};

// The directory of a store, without opening it.
std::string store_path(const std::string& root, const std::string& name);
// By its name in the store's directory.
bool is_file_of_a_store(std::string_view name);

}  // namespace celeriac
