// Backup, restore and verify. A backup is one segment with all that was alive at a moment, sealed.
#include "arena/crash_point.hpp"
#include "memory/base.hpp"
#include "platform/durable_file.hpp"
#include "queue/journal/journal.hpp"

namespace celeriac::journal {
namespace {

// Writes records one behind the other into a file that nobody else sees.
class Writer {
 public:
  Writer(int fd, std::uint32_t salt, std::uint64_t lsn) : fd_(fd), salt_(salt), lsn_(lsn) {}

  Status add(const Draft& draft) {
    const std::size_t at = buffer_.size();
    const std::uint32_t crc = begin_record(draft, &buffer_);
    finish_record(buffer_.data() + at, crc, lsn_++, 0, salt_);
    return buffer_.size() < (1ULL << 20U) ? Status::ok() : flush();
  }
  Status flush() {
    Status written = write_at(fd_, buffer_.data(), buffer_.size(), at_);
    at_ += buffer_.size();
    buffer_.clear();
    return written;
  }
  std::uint64_t end() const { return at_; }

 private:
  int fd_;
  std::uint32_t salt_;
  std::uint64_t lsn_;
  std::uint64_t at_ = kFirstRecord;
  std::string buffer_;
};

struct SplitPath {
  std::string directory;
  std::string name;
};

SplitPath split(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return {".", path};
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

Result<Report> verify_file(int dir, const std::string& name, LiveSet* live) {
  Result<Fd> fd = open_for_reading(dir, name);
  if (!fd) return fd.status();
  const Result<std::uint64_t> size = file_size(fd.value().get());
  if (!size) return size.status();
  std::string bytes(size.value(), '\0');
  Status read = read_at(fd.value().get(), bytes.data(), bytes.size(), 0);
  if (!read) return read;
  const std::optional<DecodedHeader> h = decode_header(bytes);
  if (!h) {
    return Status(Code::kCorrupt, name +
                                      " is no journal's segment and no backup, or its header "
                                      "is damaged");
  }
  Report report;
  SegmentReport segment;
  segment.header = h->header;
  segment.used = kFirstRecord;
  if (!h->first_good || !h->second_good) {
    report.damages.push_back({Flaw::kOneHeader, h->header.number, 0, kFirstRecord, 0, 0});
  }
  const std::string_view records =
      std::string_view(bytes).substr(std::min<std::size_t>(kFirstRecord, bytes.size()));
  report.next_lsn =
      scan_records(records, kFirstRecord, h->header.first_lsn, &segment, &report, live->applier());
  for (Damage& d : report.damages) d.promised = d.missing > 0;
  report.oldest = h->header.oldest;
  report.next_segment = h->header.number + 1;
  report.segments.push_back(segment);
  return report;
}

}  // namespace

Status Journal::backup(const std::string& path, OwnerTag me) {
  const SplitPath to = split(path);
  Result<Fd> dir = open_plain_directory(to.directory);
  if (!dir) return dir.status();
  const MutexGuard alone(OwnerMutex(control_.compact, owners_),
                         OwnerMutex(control_.compact, owners_).lock(me, now_ns() + 60 * kSecond));
  if (!alone.held()) return mutex_timeout("the journal's compaction");
  const Result<Position> at = position(me);
  if (!at) return at.status();
  LiveSet live;
  const Result<Report> read = reader().read(&at.value(), live.applier());
  if (!read) return read.status();
  live.finish();

  Result<Fd> file = create_unnamed(dir.value().get(), 0600);
  if (!file) return file.status();
  const int fd = file.value().get();
  SegmentHeader h{};
  random_bytes(&h.salt, sizeof h.salt);
  random_bytes(h.uuid, sizeof h.uuid);
  h.number = 1;
  h.oldest = 1;
  h.first_lsn = at.value().lsn;
  h.created_wall_ns = wall_ns();
  Writer writer(fd, h.salt, h.first_lsn);
  Status written;
  for (const auto& [id, q] : live.queues()) {
    const QueueFixed fixed{static_cast<std::uint32_t>(q.name.size()),
                           static_cast<std::uint32_t>(q.config.size())};
    if (written) written = writer.add({Kind::kQueue, 0, id, {piece(fixed), q.name, q.config}});
  }
  const Reader from = reader();
  MessageReader messages(from);
  for (const std::uint64_t id : live.ids()) {
    WholeMessage m;
    if (written) written = messages.read(id, *live.find(id), &m);
    if (!written) return written;
    written = writer.add({Kind::kPut, 0, id, {piece(m.fixed), m.key, m.reason, m.headers, m.body}});
  }
  for (const auto& [id, key] : live.keys()) {
    if (!written || !live.outlives(id, key)) continue;
    written = writer.add({Kind::kKey, 0, id, {piece(key.fixed), key.text}});
  }
  if (written) written = writer.add({Kind::kSeal, 0, 2, {}});
  if (written) written = writer.flush();
  h.size = writer.end();
  const std::string page = encode_header(h);
  if (written) written = write_at(fd, page.data(), page.size(), 0);
  if (written) written = sync_data(fd);
  if (!written) return written;
  CELERIAC_CRASH_POINT("journal.backup.written");
  const Result<bool> named = publish(fd, dir.value().get(), to.name);
  if (!named) return named.status();
  if (!named.value()) {
    return {Code::kConfiguration, path + " exists already: a backup never replaces a file"};
  }
  return sync_directory(dir.value().get());
}

Result<Report> verify(const std::string& path, LiveSet* live) {
  if (Result<Fd> dir = open_plain_directory(path)) {
    Result<Report> report = Reader(dir.value().get(), path).read(nullptr, live->applier());
    if (report) live->finish();
    return report;
  }
  const SplitPath at = split(path);
  Result<Fd> dir = open_plain_directory(at.directory);
  if (!dir) return dir.status();
  Result<Report> report = verify_file(dir.value().get(), at.name, live);
  if (report) live->finish();
  return report;
}

Status restore(const std::string& directory, const std::string& backup, unsigned mode) {
  LiveSet live;
  const Result<Report> checked = verify(backup, &live);
  if (!checked) return checked.status();
  const Report& report = checked.value();
  if (report.segments.size() != 1 || !report.segments[0].sealed || !report.damages.empty() ||
      report.segments[0].header.number != 1) {
    return {Code::kCorrupt, backup + " is no whole backup" +
                                (report.damages.empty() ? std::string(": it has no end")
                                                        : ": " + report.damages[0].text())};
  }
  Result<Fd> dir = open_directory(-1, directory, mode, true);
  if (!dir) return dir.status();
  Status local = check_file_system(dir.value().get(), directory);
  if (!local) return local;
  const std::vector<std::string> there = list_directory(dir.value().get());
  if (!there.empty()) {
    return {Code::kConfiguration, "the directory " + directory + " isn't empty (" + there[0] +
                                      "): restore into a new one"};
  }
  const SplitPath from = split(backup);
  Result<Fd> source_dir = open_plain_directory(from.directory);
  if (!source_dir) return source_dir.status();
  Result<Fd> source = open_for_reading(source_dir.value().get(), from.name);
  if (!source) return source.status();
  Result<Fd> file = create_unnamed(dir.value().get(), mode);
  if (!file) return file.status();
  const Result<std::uint64_t> size = file_size(source.value().get());
  if (!size) return size.status();
  std::string bytes(1ULL << 20U, '\0');
  for (std::uint64_t at = 0; at < size.value(); at += bytes.size()) {
    const std::uint64_t n = std::min<std::uint64_t>(bytes.size(), size.value() - at);
    Status copied = read_at(source.value().get(), bytes.data(), n, at);
    if (copied) copied = write_at(file.value().get(), bytes.data(), n, at);
    if (!copied) return copied;
  }
  Status written = sync_data(file.value().get());
  if (!written) return written;
  const Result<bool> named = publish(file.value().get(), dir.value().get(), segment_name(1));
  if (!named) return named.status();
  if (!named.value()) return {Code::kConfiguration, directory + " is being restored by another"};
  return sync_directory(dir.value().get());
}

}  // namespace celeriac::journal
