// The spare: the file of the next segment, full of zeros that are on the disk.
//
// An fdatasync of bytes where the file system has noted that nothing was ever written changes that
// note as well, which is another write at least, and a commit of its own journal where it has one.
// Bytes in place of zeros cost themselves alone. To write the zeros takes as long as to write the
// segment, so whoever has time does it before the segment is needed, in small steps; a switch that
// finds no spare allocates, as without durability=always. The first segment's is made at once.
//
//   make   once a segment (`spare` says who begins; a hint): unnamed, allocated, zeros, each step
//          with its fdatasync, then the name. Killed before: there is none.
//   take   by who switches, under `append`: its header, fdatasync, the segment's name in place of
//          its own, fsync of the directory. Killed before: who finds a spare with a header takes it
//          for none, so that no file becomes a segment twice.
#include <algorithm>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"

namespace celeriac::journal {
namespace {

constexpr char kSpareName[] = "journal.spare";
constexpr std::uint64_t kStep = 256ULL << 10U;  // what other commits may have to wait for
constexpr std::uint64_t kShare = 4;             // of the segment is used before it is worth a spare
constexpr std::uint64_t kIdle = 4;              // times as long as it works

}  // namespace

bool Journal::wants_spare() const {
  return control_.spare.load(std::memory_order_relaxed) <=
             control_.current.load(std::memory_order_relaxed) &&
         control_.end.load(std::memory_order_relaxed) > segment_size_ / kShare;
}

Status Journal::make_spare(const Pause& pause) {
  const std::uint64_t current = control_.current.load(std::memory_order_relaxed);
  std::uint64_t before = control_.spare.load(std::memory_order_relaxed);
  if (before > current || !control_.spare.compare_exchange_strong(before, current + 1)) {
    return Status::ok();
  }
  CELERIAC_CRASH_POINT("journal.spare.begun");
  if (open_spare().valid()) return Status::ok();  // of who was here before
  Result<Fd> made = create_unnamed(arena_.directory(), arena_.mode());
  if (!made) return made.status();
  const int fd = made.value().get();
  Status written = allocate_durable(fd, segment_size_, arena_.path());
  const std::string zeros(std::min(kStep, segment_size_), '\0');
  for (std::uint64_t at = 0; written && at < segment_size_; at += zeros.size()) {
    const std::uint64_t begun = now_ns();
    written = write_at(fd, zeros.data(), std::min(zeros.size(), segment_size_ - at), at);
    if (written) written = sync_data(fd);
    if (written && !pause(kIdle * (now_ns() - begun))) return Status::ok();
  }
  CELERIAC_CRASH_POINT("journal.spare.filled");
  if (written) written = publish_over(fd, arena_.directory(), kSpareName);
  CELERIAC_CRASH_POINT("journal.spare.named");
  return written;
}

// Not valid when there is none.
Fd Journal::open_spare() const {
  Result<Fd> found = open_existing(arena_.directory(), kSpareName, arena_.mode(),
                                   arena_.path() + "/" + kSpareName, true);
  if (!found) return {};
  Fd fd = found.take();
  const Result<std::uint64_t> size = file_size(fd.get());
  if (!size || size.value() != segment_size_) return {};
  std::string page(kFirstRecord, '\0');
  if (!read_at(fd.get(), page.data(), page.size(), 0)) return {};
  const bool fresh = page.find_first_not_of('\0') == std::string::npos;
  return fresh ? std::move(fd) : Fd();
}

Status Journal::publish_spare(const std::string& name) const {
  return rename_name(arena_.directory(), kSpareName, name);
}

}  // namespace celeriac::journal
