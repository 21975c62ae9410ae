#include "queue/journal/format.hpp"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "platform/crc32c.hpp"

namespace celeriac::journal {
namespace {

constexpr std::string_view kPrefix = "journal.";
constexpr std::size_t kDigits = 16;
constexpr std::size_t kAfterCrc = sizeof(std::uint32_t);

template <class T>
bool take(std::string_view* from, T* to) {
  if (from->size() < sizeof(T)) return false;
  std::memcpy(to, from->data(), sizeof(T));
  from->remove_prefix(sizeof(T));
  return true;
}

std::string_view cut(std::string_view* from, std::uint64_t n) {
  const std::string_view front = from->substr(0, n);
  from->remove_prefix(front.size());
  return front;
}

// The payload's checksum is made before the record's place is known; the header's goes on from it.
std::uint32_t record_crc(const char* at, std::uint32_t payload_crc, std::uint32_t salt) {
  return crc32c(at + kAfterCrc, sizeof(RecordHeader) - kAfterCrc, payload_crc ^ salt);
}

std::optional<SegmentHeader> one_header(std::string_view bytes) {
  SegmentHeader h{};
  if (!take(&bytes, &h)) return std::nullopt;
  const bool good = std::string_view(h.magic, sizeof h.magic) == kMagic &&
                    h.crc == crc32c(&h, offsetof(SegmentHeader, crc));
  return good ? std::optional(h) : std::nullopt;
}

}  // namespace

std::optional<Put> decode_put(std::string_view payload) {
  Put put;
  if (!take(&payload, &put.fixed)) return std::nullopt;
  const PutFixed& f = put.fixed;
  const std::uint64_t small = std::uint64_t{f.key_size} + f.reason_size + f.header_size;
  if (small > payload.size() || f.body_size != payload.size() - small) return std::nullopt;
  if (f.state > kHighestState) return std::nullopt;
  put.key = cut(&payload, f.key_size);
  if (!put.key.empty() && !decode_key(put.key)) return std::nullopt;
  put.reason = cut(&payload, f.reason_size);
  put.headers = cut(&payload, f.header_size);
  put.body = payload;
  return put;
}

std::optional<Moved> decode_moved(std::string_view payload) {
  Moved moved;
  if (!take(&payload, &moved.fixed) || moved.fixed.reason_size != payload.size() ||
      moved.fixed.state > kHighestState) {
    return std::nullopt;
  }
  moved.reason = payload;
  return moved;
}

std::optional<QueueNamed> decode_queue(std::string_view payload) {
  QueueFixed f{};
  if (!take(&payload, &f) || std::uint64_t{f.name_size} + f.config_size != payload.size()) {
    return std::nullopt;
  }
  QueueNamed queue;
  queue.name = cut(&payload, f.name_size);
  queue.config = payload;
  return queue;
}

std::optional<Key> decode_key(std::string_view payload) {
  Key key;
  if (!take(&payload, &key.fixed) || payload.empty()) return std::nullopt;
  key.text = payload;
  return key;
}

std::uint64_t record_bytes(const Draft& draft) {
  std::uint64_t n = sizeof(RecordHeader);
  for (const std::string_view p : draft.pieces) n += p.size();
  return n;
}

std::uint32_t begin_record(const Draft& draft, std::string* to) {
  RecordHeader h{};
  const std::uint64_t length = record_bytes(draft);
  h.length = static_cast<std::uint32_t>(length);
  h.subject = draft.subject;
  h.kind = static_cast<std::uint8_t>(draft.kind);
  h.how = draft.how;
  to->append(piece(h));
  const std::size_t payload = to->size();
  for (const std::string_view p : draft.pieces) to->append(p);
  to->append(padded(length) - length, '\0');
  return crc32c(to->data() + payload, to->size() - payload);
}

void finish_record(char* at, std::uint32_t payload_crc, std::uint64_t lsn, std::uint64_t synced,
                   std::uint32_t salt) {
  RecordHeader h{};
  std::memcpy(&h, at, sizeof h);
  h.lsn = lsn;
  h.synced = synced;
  if (h.subject == 0 && h.kind != static_cast<std::uint8_t>(Kind::kGone)) h.subject = lsn;
  std::memcpy(at, &h, sizeof h);
  h.crc = record_crc(at, payload_crc, salt);
  std::memcpy(at, &h.crc, sizeof h.crc);
}

std::optional<Record> decode_record(std::string_view bytes, std::uint32_t salt) {
  RecordHeader h{};
  std::string_view rest = bytes;
  if (!take(&rest, &h)) return std::nullopt;
  if (h.length < kSmallest || padded(h.length) > bytes.size() || h.kind == 0) return std::nullopt;
  if (std::any_of(std::begin(h.zero), std::end(h.zero), [](auto b) { return b != 0; })) {
    return std::nullopt;
  }
  const std::string_view payload = bytes.substr(sizeof h, h.length - sizeof h);
  const std::uint32_t crc = crc32c(payload.data(), padded(h.length) - sizeof h);
  if (h.crc != record_crc(bytes.data(), crc, salt)) {
    return std::nullopt;
  }
  Record r;
  r.lsn = h.lsn;
  r.synced = h.synced;
  r.subject = h.subject;
  r.length = h.length;
  r.kind = static_cast<Kind>(h.kind);
  r.how = h.how;
  r.payload = payload;
  return r;
}

std::string encode_header(SegmentHeader header) {
  std::memcpy(header.magic, kMagic.data(), sizeof header.magic);
  header.version = kVersion;
  header.crc = crc32c(&header, offsetof(SegmentHeader, crc));
  std::string page(kFirstRecord, '\0');
  std::memcpy(page.data(), &header, sizeof header);
  std::memcpy(page.data() + kHeaderCopy, &header, sizeof header);
  return page;
}

std::optional<DecodedHeader> decode_header(std::string_view page) {
  const std::optional<SegmentHeader> first = one_header(page);
  const std::optional<SegmentHeader> second =
      page.size() > kHeaderCopy ? one_header(page.substr(kHeaderCopy)) : std::nullopt;
  if (!first && !second) return std::nullopt;
  return DecodedHeader{first ? *first : *second, first.has_value(), second.has_value()};
}

std::string segment_name(std::uint64_t number) {
  std::array<char, kDigits + 1> digits{};
  std::snprintf(digits.data(), digits.size(), "%016llx", static_cast<unsigned long long>(number));
  return std::string(kPrefix) + digits.data();
}

std::optional<std::uint64_t> segment_number(std::string_view name) {
  if (name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  std::uint64_t number = 0;
  const char* end = name.data() + name.size();
  const auto [stop, wrong] = std::from_chars(name.data(), end, number, 16);
  if (name.size() != kDigits || wrong != std::errc() || stop != end) return std::nullopt;
  return number;
}

}  // namespace celeriac::journal
