#include "arena/arena.hpp"

#include <algorithm>
#include <new>

#include "arena/crash_point.hpp"
#include "arena/header.hpp"
#include "platform/clock.hpp"
#include "platform/owner_lock.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kReservation = 16ULL << 30U;  // address space is cheap; capacity may rise
constexpr std::uint64_t kFirstExtent = 1ULL << 20U;

std::string user_directory(const std::string& root) {
  return root + "/celeriac-" + std::to_string(effective_user());
}

std::uint64_t extent_size(std::uint64_t capacity) {
  return std::clamp<std::uint64_t>(layout::align_up(capacity / 32, 1ULL << 20U), 1ULL << 20U,
                                   64ULL << 20U);
}

std::string mib(std::uint64_t bytes) { return std::to_string(bytes >> 20U) + " MiB"; }

Status check_memory(std::uint64_t memory, int directory, std::uint64_t already,
                    const std::string& path) {
  if (memory < kMinimumMemory) {
    return {Code::kConfiguration, "memory=" + std::to_string(memory) +
                                      " bytes is too small: an arena needs at least " +
                                      mib(kMinimumMemory) + " (memory=2M)"};
  }
  Result<FileSpace> space = file_space(directory);
  if (!space) return space.status();
  const std::uint64_t have = space.value().free + already;
  if (memory > have) {
    return {Code::kNotEnoughMemory, "memory=" + mib(memory) + " for the store at " + path +
                                        " is more than its file system can give: need " +
                                        mib(memory) + ", have " + mib(have) +
                                        " free; lower memory=, or enlarge the file system "
                                        "(docker run --shm-size, Kubernetes emptyDir medium: "
                                        "Memory)"};
  }
  return Status::ok();
}

// An arena of another layout, or with a damaged header, that nobody uses, and whose queues are in a
// journal beside it.
bool can_be_made_anew(const Status& why, int dir, unsigned mode, const std::string& path) {
  if (why.code() != Code::kVersionMismatch && why.code() != Code::kCorrupt) return false;
  const std::vector<std::string> names = list_directory(dir);
  const bool journal = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.substr(0, 8) == "journal.";
  });
  if (!journal) return false;
  Result<OwnerLock> lock = OwnerLock::open(dir, mode, path);
  return lock && lock.value().try_lock(OwnerLock::kPresenceByte);
}

}  // namespace

std::string store_path(const std::string& root, const std::string& name) {
  return name.empty() ? root : user_directory(root) + "/" + name;
}

bool is_file_of_a_store(std::string_view name) {
  return name == "arena" || name == "owners.lock" || name.substr(0, 5) == "wake." ||
         name.substr(0, 8) == "journal.";
}

Result<std::unique_ptr<Arena>> Arena::open(const ArenaOptions& options) {
  Status last;
  for (int attempt = 0; attempt < 16; ++attempt) {
    std::unique_ptr<Arena> arena(new Arena);
    arena->path_ = store_path(options.root, options.name);
    arena->mode_ = options.mode;
    bool vanished = false;
    last = arena->try_open(options, &vanished);
    if (last) return arena;
    if (!vanished || !options.create) return last;
  }
  return last;
}

// The store's directory, and that of the user's stores, unless the store has one of its own.
Status Arena::open_directories(const ArenaOptions& options, bool* vanished) {
  const std::string parent = user_directory(options.root);
  Fd user;
  if (!options.name.empty()) {
    Result<Fd> opened = open_directory(-1, parent, options.mode, options.create);
    if (!opened) return opened.status();
    user = opened.take();
    Status fit = check_file_system(user.get(), parent);
    if (!fit) return fit;
  }
  Result<Fd> directory = open_directory(-1, path_, options.mode, options.create);
  if (!directory) {
    *vanished = user.valid() && is_removed(user.get());
    return directory.status();
  }
  directory_ = directory.take();
  return user.valid() ? Status::ok() : check_file_system(directory_.get(), path_);
}

// A directory that the user names may be another's by mistake; destroy() would leave it in pieces.
Status Arena::check_for_strangers() const {
  for (const std::string& name : list_directory(directory_.get())) {
    if (is_file_of_a_store(name)) continue;
    return {Code::kConfiguration, "the directory " + path_ + " has files that are no store's (" +
                                      name + "): give the store a directory of its own"};
  }
  return Status::ok();
}

// `vanished`: somebody removed the store meanwhile, so that another try may well succeed.
Status Arena::try_open(const ArenaOptions& options, bool* vanished) {
  const bool named = !options.name.empty();
  const auto absent = [&] {
    *vanished = true;
    return Status(Code::kNotFound,
                  "there is no store " +
                      (named ? "\"" + options.name + "\" (no " + path_ + ")" : "at " + path_) +
                      ": start the application that makes it, or connect with "
                      "create=True");
  };
  Status opened = open_directories(options, vanished);
  if (!opened) return opened.code() == Code::kNotFound ? absent() : opened;

  // Twice: the loser of the race to make the file finds the winner's; so does whoever meets a
  // store that is being destroyed.
  for (int attempt = 0; attempt < 8; ++attempt) {
    Result<Fd> file = open_existing(directory_.get(), "arena", options.mode, path_ + "/arena");
    if (file) {
      file_ = file.take();
      if (!named && is_of_an_earlier_boot(file_.get())) {
        if (!options.create) return absent();  // who only looks leaves it to those who use it
        finish_destruction();
        continue;
      }
      Status attached = attach(options);
      if (!attached && !named && options.create &&
          can_be_made_anew(attached, directory_.get(), mode_, path_)) {
        finish_destruction();
        continue;
      }
      if (!attached) return attached;
      if (!destroyed()) return Status::ok();
      finish_destruction();
      continue;
    }
    if (file.status().code() != Code::kNotFound) return file.status();
    if (!options.create) return absent();
    Status made = named ? Status::ok() : check_for_strangers();
    if (made) made = create_file(options);
    if (!made) {
      *vanished = is_removed(directory_.get());
      if (!named) return made;
      static_cast<void>(remove_directory(path_, {}));  // unless somebody else is in it
      static_cast<void>(remove_directory(user_directory(options.root), {}));
      return made;
    }
  }
  return {Code::kSystem, "the store at " + path_ + " is made and removed all the time"};
}

// The arena is being destroyed. Waits until its name is gone; when the destroyer has died, which
// its lock on the recovery byte tells, removes the name in its place.
void Arena::finish_destruction() {
  for (int i = 0; i < 200 && is_current(); ++i) {
    Result<OwnerLock> lock = OwnerLock::open(directory_.get(), mode_, path_);
    if (lock && lock.value().try_lock(OwnerLock::kRecoveryByte) && is_current()) {
      remove_file(directory_.get(), "arena");
      CELERIAC_CRASH_POINT("arena.open.removed");
    }
    if (is_current()) pause_ms(5);
  }
  mapping_ = Mapping();
  mapped_.store(0, std::memory_order_relaxed);
  ever_mapped_ = 0;
}

Status Arena::create_file(const ArenaOptions& options) {
  Status memory = check_memory(options.memory, directory_.get(), 0, path_);
  if (!memory) return memory;
  Result<Fd> file = create_unnamed(directory_.get(), mode_);
  if (!file) return file.status();
  const std::uint64_t size = layout::align_up(layout::kBlocks + kFirstExtent, page_size());
  Status allocated = allocate(file.value().get(), 0, size, path_);
  if (!allocated) return allocated;
  CELERIAC_CRASH_POINT("arena.create.allocated");
  Result<Mapping> mapping = Mapping::reserve(size);
  if (!mapping) return mapping.status();
  Status mapped = mapping.value().map(file.value().get(), 0, size);
  if (!mapped) return mapped;

  // The file is all zeros, which is the empty state of every region but these words.
  char* base = mapping.value().base();
  auto* header = reinterpret_cast<layout::Header*>(base);
  header->fixed = make_header();
  header->capacity.store(options.memory / page_size() * page_size(), std::memory_order_relaxed);
  header->size.store(size, std::memory_order_relaxed);
  auto* timers = reinterpret_cast<layout::Timers*>(base + layout::kTimers);
  timers->next_due.store(kNever, std::memory_order_relaxed);
  // One free block covers everything behind the fixed regions; the free lists are built by the
  // first sweep, as after a crash.
  auto* block = reinterpret_cast<layout::BlockHeader*>(base + layout::kBlocks);
  block->sizes.store((size - layout::kBlocks) / 16, std::memory_order_relaxed);
  auto* heap = reinterpret_cast<layout::HeapControl*>(base + layout::kHeap);
  heap->free_bytes.store(size - layout::kBlocks, std::memory_order_relaxed);
  heap->dirty.store(1, std::memory_order_relaxed);

  CELERIAC_CRASH_POINT("arena.create.written");
  Result<bool> ours = celeriac::publish(file.value().get(), directory_.get(), "arena");
  if (!ours) return ours.status();
  CELERIAC_CRASH_POINT("arena.create.published");
  return Status::ok();
}

Status Arena::attach(const ArenaOptions& options) {
  Result<std::uint64_t> bytes = file_size(file_.get());
  if (!bytes) return bytes.status();
  if (bytes.value() < layout::kBlocks) {
    layout::HeaderFixed head{};
    if (bytes.value() >= sizeof head && read_at(file_.get(), &head, sizeof head, 0)) {
      Status is_ours = check_header(head, path_);
      if (!is_ours) return is_ours;
    }
    return {Code::kCorrupt, path_ + "/arena has " + std::to_string(bytes.value()) +
                                " bytes, fewer than any arena: it was truncated or isn't ours; "
                                "stop its processes and remove the directory " +
                                path_ + " to start with an empty store"};
  }
  layout::HeaderFixed head{};
  Status read = read_at(file_.get(), &head, sizeof head, 0);
  if (!read) return read;
  Status is_ours = check_header(head, path_);
  if (!is_ours) return is_ours;

  std::uint64_t ceiling = 0;  // Header.capacity, before anything is mapped
  read = read_at(file_.get(), &ceiling, sizeof ceiling, offsetof(layout::Header, capacity));
  if (!read) return read;
  if (options.memory < kMinimumMemory || (options.memory_given && options.memory > ceiling)) {
    const Result<std::uint64_t> has = file_allocated(file_.get());
    Status fits = check_memory(options.memory, directory_.get(), has ? has.value() : 0, path_);
    if (!fits) return fits;
  }
  Result<Mapping> mapping = Mapping::reserve(std::max(kReservation, options.memory));
  if (!mapping) {  // a process under ulimit -v: as little as can be
    mapping = Mapping::reserve(std::max(options.memory, bytes.value()));
    if (!mapping) return mapping.status();
  }
  mapping_ = mapping.take();
  Status first = mapping_.map(file_.get(), 0, layout::kBlocks);
  if (!first) return first;
  mapped_.store(layout::kBlocks, std::memory_order_release);
  ever_mapped_ = layout::kBlocks;
  const std::uint64_t size = this->size();
  bytes = file_size(file_.get());  // after `size`: it may have grown since the first look
  if (!bytes) return bytes.status();
  if (size > bytes.value() || size < layout::kBlocks || capacity() < kMinimumMemory) {
    return {Code::kCorrupt, path_ + "/arena says it has " + std::to_string(size) +
                                " bytes and has " + std::to_string(bytes.value()) +
                                ": it was truncated; stop its processes and remove the directory " +
                                path_ + " to start with an empty store"};
  }
  if (size > layout::kBlocks && map_more(layout::kBlocks, size - layout::kBlocks) == nullptr) {
    return {Code::kNotEnoughMemory, "can't map the arena at " + path_};
  }
  if (options.memory_given) raise(options.memory);
  return Status::ok();
}

Status Arena::check_ceiling(std::uint64_t memory) {
  const Result<std::uint64_t> has = file_allocated(file_.get());
  if (!has) return has.status();
  if (memory <= capacity() && memory >= kMinimumMemory) return Status::ok();
  Status fits = check_memory(memory, directory_.get(), has.value(), path_);
  if (!fits) return fits;
  if (memory <= mapping_.reserved()) return Status::ok();
  return {Code::kNotEnoughMemory,
          "memory=" + mib(memory) + " for the store at " + path_ + " is more than the " +
              mib(mapping_.reserved()) +
              " of address space that this process has reserved for it: restart the processes "
              "that use it with memory=" +
              std::to_string(memory >> 20U) + "M"};
}

void Arena::raise(std::uint64_t memory) {
  const std::uint64_t wanted = memory / page_size() * page_size();
  std::uint64_t now = capacity();
  auto* heap = fixed<layout::HeapControl>(layout::kHeap);
  const bool unlists = now < wanted && now < size();
  if (unlists) heap->dirty.store(1, std::memory_order_release);
  CELERIAC_CRASH_POINT("arena.raise.begun");
  // Relaxed: a ceiling, not a publication.
  while (now < wanted &&
         !header().capacity.compare_exchange_weak(now, wanted, std::memory_order_relaxed)) {
  }
  // Again: somebody may have swept in between, by the old ceiling.
  if (unlists) heap->dirty.store(1, std::memory_order_release);
}

char* Arena::map_more(std::uint64_t offset, std::uint64_t bytes) {
  const std::lock_guard lock(map_mutex_);
  std::uint64_t mapped = mapped_.load(std::memory_order_relaxed);
  const std::uint64_t size = this->size();  // acquire, pairs with publish_growth()
  if (size > mapped && size <= mapping_.reserved()) {
    Result<std::uint64_t> on_disk = file_size(file_.get());
    if (!on_disk || on_disk.value() < size) return nullptr;
    if (!map_to(size)) return nullptr;
    mapped = size;
    // release pairs with the acquire in bytes_at(): who sees the size sees the mapping
    mapped_.store(mapped, std::memory_order_release);
  }
  if (offset <= mapped && bytes <= mapped - offset) return mapping_.base() + offset;
  return nullptr;
}

Result<std::uint64_t> Arena::prepare_growth(std::uint64_t bytes, std::uint64_t ceiling) {
  const std::uint64_t size = this->size();
  ceiling = std::min<std::uint64_t>({ceiling, capacity(), mapping_.reserved()});
  const std::uint64_t room = ceiling > size ? (ceiling - size) / page_size() * page_size() : 0;
  std::uint64_t wanted = layout::align_up(std::max(bytes, extent_size(capacity())), page_size());
  wanted = std::min(wanted, room);
  if (wanted < bytes || wanted == 0) {
    return Status(Code::kNotEnoughMemory, "the arena at " + path_ + " has grown to " + mib(size) +
                                              " of memory=" + mib(capacity()) + "; raise memory=");
  }
  Status allocated = allocate(file_.get(), size, wanted, path_);
  if (!allocated && wanted > bytes) {  // a smaller extent may still fit
    wanted = layout::align_up(bytes, page_size());
    allocated = allocate(file_.get(), size, wanted, path_);
  }
  if (!allocated) return allocated;
  CELERIAC_CRASH_POINT("arena.grow.allocated");
  const std::lock_guard lock(map_mutex_);
  if (mapped_.load(std::memory_order_relaxed) < size + wanted) {
    Status ok = map_to(size + wanted);
    if (!ok) return ok;
    mapped_.store(size + wanted, std::memory_order_release);
  }
  return wanted;
}

Status Arena::map_to(std::uint64_t size) {
  if (size <= ever_mapped_) return Status::ok();
  Status ok = mapping_.map(file_.get(), ever_mapped_, size - ever_mapped_);
  if (ok) ever_mapped_ = size;
  return ok;
}

void Arena::publish_growth(std::uint64_t bytes) {
  // release pairs with size(): who sees the new size sees the block header written before
  header().size.store(size() + bytes, std::memory_order_release);
  CELERIAC_CRASH_POINT("arena.grow.published");
}

void Arena::publish_shrinking(std::uint64_t size) {
  // release: the block that ended behind `size` ends there, for who sees it
  header().size.store(size, std::memory_order_release);
  CELERIAC_CRASH_POINT("arena.shrink.published");
  // release pairs with the acquire in follow(): who sees the news sees the size
  header().news.fetch_add(2, std::memory_order_release);
  follow();
}

void Arena::mark_destroyed() {
  header().news.fetch_or(kDestroyed, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("store.destroy.marked");
}

void Arena::follow() {
  const std::uint32_t news = header().news.load(std::memory_order_acquire);
  const std::uint64_t size = header().size.load(std::memory_order_relaxed);
  if (size < mapped_.load(std::memory_order_relaxed) && size >= layout::kBlocks) {
    mapped_.store(size, std::memory_order_relaxed);
  }
  known_news_.store(news & ~kDestroyed, std::memory_order_relaxed);
}

bool Arena::takes_more_than_its_size() {
  const Result<std::uint64_t> has = file_allocated(file_.get());
  return has && has.value() > size();
}

std::uint64_t Arena::give_back(std::uint64_t from, std::uint64_t most) {
  const Result<std::uint64_t> end = file_size(file_.get());
  from = layout::align_up(std::max(from, size()), page_size());
  if (!end || from >= end.value()) return 0;
  const std::uint64_t bytes = std::min(end.value() - from, most);
  const Status given = punch(file_.get(), from, bytes);
  CELERIAC_CRASH_POINT("arena.shrink.punched");
  return given && from + bytes < end.value() ? from + bytes : 0;
}

}  // namespace celeriac
