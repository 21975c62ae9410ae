// Reading a journal: every good record in order, and a report of all that isn't one.
//
// Replay decides by these rules (docs/journal-format.md, "Replay"):
//   R1  Segments in the order of their numbers; those below the highest `oldest` that a header
//       names, and those that a header supersedes, count no more.
//   R2  A record counts when its checksum fits with its segment's salt and its lsn is the expected
//       one. A segment ends at its seal.
//   R3  Where there is no such record, the rest of the segment is searched, at each multiple of 8,
//       for one with a later lsn. There is one: what lies between is a hole, reported with its
//       offset and with how many numbers are missing, and reading goes on behind it.
//   R4  There is none: the segment's good part ends here. Bytes behind it that aren't zero are a
//       torn tail, reported. Numbers that are missing before the next segment begins are a hole.
//   R5  Whether a hole is damage or what a crash of the host may take is told by `synced`: if a
//       good record says that the missing numbers were on the disk, they were promised.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "platform/file.hpp"
#include "platform/status.hpp"
#include "queue/journal/format.hpp"

namespace celeriac::journal {

enum class Flaw : std::uint8_t {
  kHole,            // records are missing, later ones are there
  kTail,            // bytes behind the last good record of a segment
  kOneHeader,       // one of the two copies is bad
  kBothHeaders,     // both are: nothing in the segment can be checked
  kMissingSegment,  // a number between others has no file
  kForeign,         // a segment of another journal, or under another's name
};

struct Damage {
  Flaw flaw = Flaw::kHole;
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
  std::uint64_t first_lsn = 0;  // the first that is missing
  std::uint64_t missing = 0;    // how many
  bool promised = false;        // R5
  std::string text() const;
};

struct SegmentReport {
  SegmentHeader header{};
  std::uint64_t used = 0;  // where its good part ends
  std::uint64_t records = 0;
  bool sealed = false;
  bool damaged = false;
};

struct Position {
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;
  std::uint64_t lsn = 0;  // of the record that is or will be there
};

struct Report {
  std::vector<SegmentReport> segments;
  std::vector<std::uint64_t> leftovers;  // segments that count no more (R1)
  std::vector<Damage> damages;
  std::uint64_t records = 0;
  std::uint64_t next_lsn = 1;      // higher than all
  std::uint64_t next_segment = 1;  // higher than all
  std::uint64_t oldest = 1;
  std::uint64_t synced = 0;             // the highest that a record names
  std::array<std::uint8_t, 16> uuid{};  // that most segments have

  // Something is missing or unreadable: not a torn tail, nor what a crash of the host may take.
  bool damaged() const;
};

using Visit = std::function<void(const Record&)>;

class Reader {
 public:
  // REQUIRES: the directory stays open.
  Reader(int dir, std::string path, unsigned mode = 0600)
      : dir_(dir), path_(std::move(path)), mode_(mode) {}

  // All segments, up to `until` (not beyond it; null = all there is). Fails only where the system
  // does: damage is in the report.
  Result<Report> read(const Position* until, const Visit& visit) const;

  // From `*at` to `until`, which others have written meanwhile; moves `*at`. kCorrupt when
  // something isn't there as it was written.
  Status read_on(Position* at, const Position& until, const Visit& visit) const;

  // The bytes of a segment from `from` on, at most to `to` (0 = its end), and its header.
  struct Loaded {
    SegmentHeader header{};
    bool header_good = false;
    bool both_copies = false;
    std::string bytes;
    std::uint64_t size = 0;
  };
  Result<Loaded> load(std::uint64_t number, std::uint64_t from, std::uint64_t to) const;

  // The file of a segment, and its header. kCorrupt when that isn't good.
  Status open(std::uint64_t number, Fd* fd, SegmentHeader* header, bool to_write = false) const;

  // Numbers of all files that are named like segments.
  std::vector<std::uint64_t> numbers() const;

 private:
  int dir_;
  std::string path_;
  unsigned mode_;
};

// The records of one segment's bytes, beginning at file offset `base`; adds to the report. Returns
// the lsn that is expected behind the last one.
std::uint64_t scan_records(std::string_view bytes, std::uint64_t base, std::uint64_t expected,
                           SegmentReport* segment, Report* report, const Visit& visit);

}  // namespace celeriac::journal
