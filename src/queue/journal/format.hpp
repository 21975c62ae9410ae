// The bytes of a journal (docs/journal-format.md, which is enough to write a reader from).
//
// A segment is a file `journal.` and its number in 16 hexadecimal digits: a page with two copies of
// its header, then records back to back, each at a multiple of 8, then zeros. All numbers are
// little-endian, as are the hosts; times are nanoseconds of the wall clock since 1970, so that they
// mean the same after a reboot.
//
// These structs are bytes of files, not of shared memory: no process writes one that another reads
// at the same moment.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace celeriac::journal {

static_assert(std::endian::native == std::endian::little);

constexpr std::string_view kMagic = "CELJRNL1";
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kHeaderCopy = 2048;   // where the second copy of the header is
constexpr std::uint64_t kFirstRecord = 4096;  // where records begin
constexpr std::uint64_t kMaxRecord = 1ULL << 30U;

struct SegmentHeader {
  char magic[8];
  std::uint32_t version;
  std::uint32_t salt;        // begins the checksum of each record: those of other files don't fit
  std::uint64_t number;      // as in the file's name
  std::uint64_t first_lsn;   // of the first record here
  std::uint64_t size;        // of the file
  std::uint64_t oldest;      // segments below this number count no more
  std::uint64_t superseded;  // not 0: nor do those from here up to this segment
  std::uint8_t uuid[16];     // of the journal
  std::uint64_t created_wall_ns;
  std::uint32_t reserved;
  std::uint32_t crc;  // crc32c of all bytes before it
};
static_assert(sizeof(SegmentHeader) == 88);

enum class Kind : std::uint8_t {
  kNothing = 0,    // no record here
  kQueue = 1,      // a queue was made or configured
  kQueueGone = 2,  // deleted, with its messages
  kPut = 3,        // a message, or the copy of one that a compaction made
  kMoved = 4,      // given back, delayed again, done, dead, retried, in another queue
  kGone = 5,       // messages that are no more: RecordHeader.how says why
  kVoid = 6,       // numbers given out for records that weren't written
  kSeal = 7,       // the end of the segment
  kKey = 8,        // a key that outlives its message, again
};

enum class Why : std::uint8_t { kAcked = 0, kPurged = 1, kExpired = 2, kDropped = 3, kAborted = 4 };
enum class State : std::uint8_t { kReady = 0, kDelayed = 1, kDead = 2, kDone = 3 };
constexpr std::uint8_t kHighestState = 3;

struct RecordHeader {
  std::uint32_t crc;
  std::uint32_t length;   // of header and payload; zeros follow, up to the next multiple of 8
  std::uint64_t lsn;      // one more than the record before it
  std::uint64_t synced;   // all records up to this lsn were on the disk when this one was written
  std::uint64_t subject;  // what it is about: queue or message, named by the lsn that made it
  std::uint8_t kind;
  std::uint8_t how;  // kGone: Why
  std::uint8_t zero[6];
};
static_assert(sizeof(RecordHeader) == 40);
constexpr std::uint64_t kSmallest = sizeof(RecordHeader);

constexpr std::uint64_t padded(std::uint64_t length) { return (length + 7) / 8 * 8; }

// Payload of kPut; key, reason, headers and body follow it, in this order.
struct PutFixed {
  std::uint64_t queue;
  std::uint64_t due;       // kDelayed: when it is; kDead, kDone: since when
  std::uint64_t expires;   // 0 = never
  std::uint64_t enqueued;  // when it was put
  std::uint64_t place;     // its place in its queue: the lsn that put it there; 0 = its own
  std::uint64_t handle;    // what put() returned
  std::uint64_t body_size;
  std::uint32_t header_size;
  std::uint32_t key_size;  // of KeyFixed and the key's text; 0 = none
  std::uint32_t reason_size;
  std::uint32_t deliveries;
  std::uint8_t priority;
  std::uint8_t state;
  std::uint8_t end;  // queue/slots.hpp, End: why it is dead, or came into a dead letter queue
  std::uint8_t end_deliveries;
  std::uint8_t zero[4];
};
static_assert(sizeof(PutFixed) == 80);

// A key of deduplication; its text follows. In a kPut, and the payload of kKey.
struct KeyFixed {
  std::uint64_t queue;   // where it is taken
  std::uint64_t until;   // 0 = as long as its message is neither done nor dead nor gone
  std::uint64_t handle;  // of its message
};
static_assert(sizeof(KeyFixed) == 24);

// Payload of kMoved; the reason follows it.
struct MovedFixed {
  std::uint64_t due;    // as in PutFixed
  std::uint64_t queue;  // 0 = the same
  std::uint32_t deliveries;
  std::uint32_t reason_size;
  std::uint8_t state;
  std::uint8_t end;
  std::uint8_t end_deliveries;
  std::uint8_t behind;  // 1: it is the last of its queue now, and never expires
  std::uint8_t zero[4];
};
static_assert(sizeof(MovedFixed) == 32);

// Payload of kQueue; name and configuration ("key=value" lines) follow it.
struct QueueFixed {
  std::uint32_t name_size;
  std::uint32_t config_size;
};
static_assert(sizeof(QueueFixed) == 8);

// A record as it was found; the payload leads into the buffer that was read.
struct Record {
  std::uint64_t lsn = 0;
  std::uint64_t synced = 0;
  std::uint64_t subject = 0;
  std::uint64_t segment = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  Kind kind = Kind::kNothing;
  std::uint8_t how = 0;
  std::string_view payload;

  // How many numbers it stands for.
  std::uint64_t numbers() const { return kind == Kind::kVoid ? subject : 1; }
};

struct Put {
  PutFixed fixed{};
  std::string_view key, reason, headers, body;
};
struct Moved {
  MovedFixed fixed{};
  std::string_view reason;
};
struct QueueNamed {
  std::string_view name, config;
};
struct Key {
  KeyFixed fixed{};
  std::string_view text;
};

// Nothing when the payload isn't one of that kind.
std::optional<Put> decode_put(std::string_view payload);
std::optional<Moved> decode_moved(std::string_view payload);
std::optional<QueueNamed> decode_queue(std::string_view payload);
std::optional<Key> decode_key(std::string_view payload);

// What is to be written: its payload is all pieces, one after the other.
struct Draft {
  Kind kind = Kind::kNothing;
  std::uint8_t how = 0;
  std::uint64_t subject = 0;  // 0 = its own lsn
  std::array<std::string_view, 5> pieces{};
};

// The bytes of fixed parts, as the first piece of a draft.
template <class Fixed>
std::string_view piece(const Fixed& fixed) {
  return {reinterpret_cast<const char*>(&fixed), sizeof fixed};
}

// A draft as it stands in the file but for what finish() fills in; appended to `to`.
// Returns the crc of the payload. REQUIRES: at most kMaxRecord bytes.
std::uint32_t begin_record(const Draft& draft, std::string* to);
std::uint64_t record_bytes(const Draft& draft);
// Numbers and checksum of the record at `at`.
void finish_record(char* at, std::uint32_t payload_crc, std::uint64_t lsn, std::uint64_t synced,
                   std::uint32_t salt);

// The record at the beginning of `bytes`, if there is a whole one with this salt.
std::optional<Record> decode_record(std::string_view bytes, std::uint32_t salt);

// The page before the records.
std::string encode_header(SegmentHeader header);
struct DecodedHeader {
  SegmentHeader header{};
  bool first_good = false;
  bool second_good = false;
};
// Nothing when neither copy is good.
std::optional<DecodedHeader> decode_header(std::string_view page);

std::string segment_name(std::uint64_t number);
// Nothing for other files.
std::optional<std::uint64_t> segment_number(std::string_view name);

}  // namespace celeriac::journal
