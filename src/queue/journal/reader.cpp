#include "queue/journal/reader.hpp"

#include <algorithm>
#include <cstring>
#include <map>

namespace celeriac::journal {
namespace {

constexpr std::uint64_t kMostVoid = 1ULL << 16U;  // numbers that one void record stands for

std::uint64_t word_at(std::string_view bytes, std::uint64_t at) {
  std::uint64_t w = 0;
  std::memcpy(&w, bytes.data() + at, std::min<std::uint64_t>(sizeof w, bytes.size() - at));
  return w;
}

// The record at `at`, if its lsn is from `low` to `high`. Cheap where there is none.
std::optional<Record> candidate(std::string_view bytes, std::uint64_t at, std::uint64_t low,
                                std::uint64_t high, std::uint32_t salt) {
  if (at + kSmallest > bytes.size()) return std::nullopt;
  RecordHeader h{};
  std::memcpy(&h, bytes.data() + at, sizeof h);
  if (h.kind == 0 || h.length < kSmallest || padded(h.length) > bytes.size() - at)
    return std::nullopt;
  if (h.lsn < low || h.lsn > high) return std::nullopt;
  return decode_record(bytes.substr(at), salt);
}

struct Found {
  std::uint64_t at = 0;
  std::optional<Record> record;
  std::uint64_t last_nonzero = 0;  // behind the last byte that isn't zero
};

// R3: the next record behind a place where there is none.
Found search(std::string_view bytes, std::uint64_t from, std::uint64_t expected,
             std::uint32_t salt) {
  Found f;
  f.last_nonzero = from;
  for (std::uint64_t at = from; at < bytes.size(); at += 8) {
    if (word_at(bytes, at) == 0) continue;
    f.last_nonzero = std::min<std::uint64_t>(at + 8, bytes.size());
    const std::uint64_t most = expected + ((at - from) / kSmallest + 1) * kMostVoid;
    f.record = candidate(bytes, at, expected, most, salt);
    if (f.record) {
      f.at = at;
      return f;
    }
  }
  return f;
}

void add(Report* report, SegmentReport* segment, Damage damage) {
  damage.segment = segment->header.number;
  if (damage.flaw != Flaw::kTail) segment->damaged = true;
  report->damages.push_back(damage);
}

}  // namespace

std::string Damage::text() const {
  std::string where = segment_name(segment) + " at offset " + std::to_string(offset);
  const std::string lost =
      std::to_string(missing) + " record(s) from number " + std::to_string(first_lsn) + " on";
  switch (flaw) {
    case Flaw::kHole:
      return where + ": " + lost + " are missing, " + std::to_string(bytes) +
             " bytes are none of theirs; later ones are there" +
             (promised ? "; they had been written to the disk: it is damaged"
                       : "; they had not been synced when the host ended");
    case Flaw::kTail:
      return where + ": a torn tail of " + std::to_string(bytes) + " bytes, cut";
    case Flaw::kOneHeader:
      return where + ": this copy of the header is damaged, the other one is good";
    case Flaw::kBothHeaders:
      return where +
             ": both copies of the header are damaged, so that no record in it can be "
             "checked";
    case Flaw::kMissingSegment:
      return where + ": the file is missing, segments before and behind it are there";
    case Flaw::kForeign:
      return where + ": a segment of another journal";
  }
  return where;
}

bool Report::damaged() const {
  return std::any_of(damages.begin(), damages.end(), [](const Damage& d) {
    return d.flaw != Flaw::kTail && (d.flaw != Flaw::kHole || d.promised);
  });
}

std::uint64_t scan_records(std::string_view bytes, std::uint64_t base, std::uint64_t expected,
                           SegmentReport* segment, Report* report, const Visit& visit) {
  const std::uint32_t salt = segment->header.salt;
  std::uint64_t at = 0;
  while (at < bytes.size() && !segment->sealed) {
    std::optional<Record> r = candidate(bytes, at, expected, expected, salt);
    if (!r) {
      const Found found = search(bytes, at, expected, salt);
      if (!found.record) {
        if (found.last_nonzero > at) {
          add(report, segment, {Flaw::kTail, 0, base + at, found.last_nonzero - at, expected, 0});
        }
        break;
      }
      add(report, segment,
          {Flaw::kHole, 0, base + at, found.at - at, expected, found.record->lsn - expected});
      at = found.at;
      r = found.record;
    }
    r->segment = segment->header.number;
    r->offset = base + at;
    expected = r->lsn + r->numbers();
    at += padded(r->length);
    report->synced = std::max(report->synced, r->synced);
    ++segment->records;
    ++report->records;
    segment->sealed = r->kind == Kind::kSeal;
    segment->used = base + std::min<std::uint64_t>(at, bytes.size());
    visit(*r);
  }
  return expected;
}

std::vector<std::uint64_t> Reader::numbers() const {
  std::vector<std::uint64_t> all;
  for (const std::string& name : list_directory(dir_)) {
    if (const std::optional<std::uint64_t> n = segment_number(name)) all.push_back(*n);
  }
  std::sort(all.begin(), all.end());
  return all;
}

Result<Reader::Loaded> Reader::load(std::uint64_t number, std::uint64_t from,
                                    std::uint64_t to) const {
  const std::string name = segment_name(number);
  Result<Fd> fd = open_existing(dir_, name, mode_, path_ + "/" + name, false);
  if (!fd) return fd.status();
  const Result<std::uint64_t> size = file_size(fd.value().get());
  if (!size) return size.status();
  Loaded l;
  l.size = size.value();
  std::string page(std::min<std::uint64_t>(kFirstRecord, l.size), '\0');
  Status read = read_at(fd.value().get(), page.data(), page.size(), 0);
  if (!read) return read;
  if (const std::optional<DecodedHeader> h = decode_header(page)) {
    l.header = h->header;
    l.header_good = true;
    l.both_copies = h->first_good && h->second_good;
  }
  const std::uint64_t end = to == 0 ? l.size : std::min(to, l.size);
  if (from >= end) return l;
  l.bytes.resize(end - from);
  read = read_at(fd.value().get(), l.bytes.data(), l.bytes.size(), from);
  if (!read) return read;
  return l;
}

Status Reader::open(std::uint64_t number, Fd* fd, SegmentHeader* header, bool to_write) const {
  const std::string name = segment_name(number);
  Result<Fd> opened = open_existing(dir_, name, mode_, path_ + "/" + name, to_write);
  if (!opened) return opened.status();
  std::string page(kFirstRecord, '\0');
  Status read = read_at(opened.value().get(), page.data(), page.size(), 0);
  if (!read) return read;
  const std::optional<DecodedHeader> h = decode_header(page);
  if (!h || h->header.number != number) {
    return {Code::kCorrupt, path_ + "/" + name + " has no good header"};
  }
  *fd = opened.take();
  *header = h->header;
  return Status::ok();
}

Result<Report> Reader::read(const Position* until, const Visit& visit) const {
  Report report;
  std::vector<std::uint64_t> all = numbers();
  if (until != nullptr) std::erase_if(all, [&](std::uint64_t n) { return n > until->segment; });
  std::map<std::uint64_t, Loaded> headers;
  for (const std::uint64_t n : all) {
    Result<Loaded> l = load(n, kFirstRecord, 1);  // the header alone
    if (!l) return l.status();
    if (l.value().header_good && l.value().header.number == n) {
      report.oldest = std::max(report.oldest, l.value().header.oldest);
    }
    headers.emplace(n, l.take());
  }
  const auto counts_no_more = [&](std::uint64_t n) {
    return n < report.oldest || std::any_of(headers.begin(), headers.end(), [&](const auto& other) {
             const SegmentHeader& h = other.second.header;
             return h.superseded != 0 && n >= h.superseded && n < other.first;
           });
  };
  // Whose journal this is: a file that got among the others must not make all of them strangers.
  std::map<std::array<std::uint8_t, 16>, std::size_t> uuids;
  for (const auto& [n, l] : headers) {
    if (l.header_good && l.header.number == n) ++uuids[std::to_array(l.header.uuid)];
  }
  for (const auto& [uuid, count] : uuids) {
    if (uuids[report.uuid] < count) report.uuid = uuid;
  }
  std::uint64_t expected = 0;  // not known before the first segment
  std::uint64_t wanted = report.oldest;
  for (const auto& [n, head] : headers) {
    report.next_segment = std::max(report.next_segment, n + 1);
    if (counts_no_more(n)) {
      report.leftovers.push_back(n);
      if (n >= wanted) wanted = n + 1;
      continue;
    }
    if (n > wanted && !counts_no_more(wanted)) {
      report.damages.push_back({Flaw::kMissingSegment, wanted, 0, 0, expected, n - wanted});
    }
    wanted = n + 1;
    SegmentReport segment;
    segment.header = head.header;
    segment.header.number = n;
    if (!head.header_good) {
      add(&report, &segment, {Flaw::kBothHeaders, 0, 0, head.size, expected, 0});
      report.segments.push_back(segment);
      continue;
    }
    if (head.header.number != n || std::to_array(head.header.uuid) != report.uuid) {
      add(&report, &segment, {Flaw::kForeign, 0, 0, head.size, expected, 0});
      report.segments.push_back(segment);
      continue;
    }
    if (!head.both_copies) {
      add(&report, &segment, {Flaw::kOneHeader, 0, 0, kFirstRecord, expected, 0});
    }
    const bool last = until != nullptr && n == until->segment;
    Result<Loaded> l = load(n, kFirstRecord, last ? until->offset : 0);
    if (!l) return l.status();
    // R4: numbers that are missing between the segment before and this one. Lower than expected:
    // a segment that was made and never used.
    // One that supersedes others goes on behind their numbers.
    if (expected != 0 && head.header.first_lsn > expected && head.header.superseded == 0 &&
        !report.segments.empty()) {
      SegmentReport& before = report.segments.back();
      add(&report, &before,
          {Flaw::kHole, 0, before.used, 0, expected, head.header.first_lsn - expected});
    }
    segment.used = kFirstRecord;
    const std::uint64_t behind = scan_records(l.value().bytes, kFirstRecord, head.header.first_lsn,
                                              &segment, &report, visit);
    expected = std::max(expected, behind);
    report.segments.push_back(segment);
    report.next_lsn = std::max(report.next_lsn, expected);
  }
  for (Damage& d : report.damages) d.promised = d.missing > 0 && report.synced >= d.first_lsn;
  return report;
}

Status Reader::read_on(Position* at, const Position& until, const Visit& visit) const {
  while (at->segment < until.segment ||
         (at->segment == until.segment && at->offset < until.offset)) {
    Result<Loaded> l =
        load(at->segment, at->offset, at->segment == until.segment ? until.offset : 0);
    if (!l) return l.status();
    SegmentReport segment;
    segment.header = l.value().header;
    segment.used = at->offset;
    Report report;
    at->lsn = scan_records(l.value().bytes, at->offset, at->lsn, &segment, &report, visit);
    if (!l.value().header_good || !report.damages.empty() ||
        (at->segment == until.segment && segment.used < until.offset)) {
      return {Code::kCorrupt,
              "the journal at " + path_ + " isn't as it was written: " + segment_name(at->segment) +
                  " at offset " + std::to_string(segment.used) + "; celeriac verify says more"};
    }
    at->offset = segment.used;
    if (at->segment < until.segment) *at = {at->segment + 1, kFirstRecord, at->lsn};
  }
  return Status::ok();
}

}  // namespace celeriac::journal
