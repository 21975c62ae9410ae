// The bytes of a journal, and what is read of them when some are wrong: each byte of a small one
// changed, cut at each length. Every later good record is found, and what is damaged is told with
// its place.
#include <cstring>

#include "queue/journal/format.hpp"
#include "support/journal_store.hpp"

namespace celeriac::journal {
namespace {

using test::Contents;
using test::contents;
using test::JournalSession;
using test::read_file;
using test::write_file;

std::string record(const Draft& d, std::uint64_t lsn, std::uint32_t salt) {
  std::string bytes;
  const std::uint32_t crc = begin_record(d, &bytes);
  finish_record(bytes.data(), crc, lsn, 7, salt);
  return bytes;
}

TEST(JournalFormatTest, RecordComesBack) {
  PutFixed fixed{};
  fixed.queue = 5;
  fixed.priority = 9;
  const KeyFixed taken{5, 1234, 77};
  const std::string key = std::string(piece(taken)) + "key";
  fixed.key_size = static_cast<std::uint32_t>(key.size());
  fixed.reason_size = 2;
  fixed.header_size = 4;
  fixed.body_size = 6;
  const std::string bytes =
      record({Kind::kPut, 0, 0, {piece(fixed), key, "no", "head", "a body"}}, 41, 99);
  EXPECT_EQ(bytes.size() % 8, 0U);
  const std::optional<Record> r = decode_record(bytes, 99);
  ASSERT_TRUE(r.has_value());
  EXPECT_EQ(r->lsn, 41U);
  EXPECT_EQ(r->subject, 41U) << "its own number";
  EXPECT_EQ(r->synced, 7U);
  const std::optional<Put> p = decode_put(r->payload);
  ASSERT_TRUE(p.has_value());
  EXPECT_EQ(p->fixed.queue, 5U);
  const std::optional<Key> k = decode_key(p->key);
  ASSERT_TRUE(k.has_value());
  EXPECT_EQ(k->text, "key");
  EXPECT_EQ(k->fixed.until, 1234U);
  EXPECT_EQ(k->fixed.handle, 77U);
  EXPECT_EQ(p->reason, "no");
  EXPECT_EQ(p->headers, "head");
  EXPECT_EQ(p->body, "a body");
  EXPECT_FALSE(decode_record(bytes, 98)) << "another segment's";
  EXPECT_FALSE(decode_record({}, 99));
}

TEST(JournalFormatTest, NoBitOfARecordCanChange) {
  const std::string good = record({Kind::kGone, 2, 17, {"payload.."}}, 4, 1);
  for (std::size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(decode_record(bad, 1)) << "bit " << bit;
  }
}

TEST(JournalFormatTest, PayloadsOfWrongLengthAreNone) {
  PutFixed put{};
  put.body_size = 5;
  put.header_size = 0xFFFFFFFF;
  EXPECT_FALSE(decode_put(piece(put)));
  put.header_size = 0;
  EXPECT_FALSE(decode_put(piece(put)));
  EXPECT_FALSE(decode_put("short"));
  MovedFixed moved{};
  moved.state = 9;
  EXPECT_FALSE(decode_moved(piece(moved)));
  put = {};
  put.key_size = 3;  // shorter than what stands before a key
  EXPECT_FALSE(decode_put(std::string(piece(put)) + "key"));
  EXPECT_FALSE(decode_key(piece(KeyFixed{})));
  const QueueFixed queue{0xFFFFFFFF, 1};
  EXPECT_FALSE(decode_queue(piece(queue)));
}

TEST(JournalFormatTest, NamesOfSegments) {
  EXPECT_EQ(segment_name(0x1F), "journal.000000000000001f");
  EXPECT_EQ(segment_number("journal.000000000000001f"), 0x1FU);
  for (const char* other : {"journal.1f", "journal.000000000000001f.damaged", "arena",
                            "journal.00000000000000zz", "journal."}) {
    EXPECT_FALSE(segment_number(other)) << other;
  }
}

// A journal of three segments with a few records of each kind.
class JournalDamageTest : public test::JournalTest {
 protected:
  void SetUp() override {
    CELERIAC_TEST_HAS_ONE_THREAD();
    JournalSession s(options, 4096);
    s.begin();
    const std::uint64_t q = s.queue("mail", "max_length=5\n");
    for (int i = 0; i < 9; ++i) s.put("body " + std::to_string(i) + std::string(1000, 'x'), q);
    s.gone(3);
    s.moved(4, State::kDead, "because");
    ASSERT_TRUE(s.commit(s.journal.last()));
    for (int i = 0; i < 3; ++i) s.put("late " + std::to_string(i), q);
    whole = contents(directory());
    for (const SegmentReport& r : whole.report.segments) used[r.header.number] = r.used;
    ASSERT_GE(used.size(), 3U);
    ASSERT_TRUE(whole.report.damages.empty()) << whole.report.damages[0].text();
  }

  // With some bytes of a segment different: what is missing must be told, and be in that record.
  void check(std::uint64_t number, std::uint64_t at, const std::string& when) {
    const Contents now = contents(directory());
    std::uint64_t missing = 0;
    bool told = false;
    for (const Damage& d : now.report.damages) {
      missing += d.missing;
      told = told || (d.segment == number && d.offset <= at);
    }
    ASSERT_TRUE(told) << when << ": nothing is said of it";
    // Numbers that are neither there nor told of, but those behind a torn tail, which nobody knows.
    const bool last = number == used.rbegin()->first;
    const std::uint64_t numbers = whole.report.records;
    if (!last) {
      ASSERT_EQ(now.report.records + missing, numbers) << when;
      ASSERT_EQ(now.report.next_lsn, whole.report.next_lsn) << when;
    }
    ASSERT_LE(missing, 1U) << when << ": more than the damaged record is lost";
    ASSERT_GE(now.report.records, numbers - 1 - (last ? 3 : 0)) << when;
    for (const auto& [id, body] : now.bodies) {
      const auto before = whole.bodies.find(id);
      const bool put_before = before != whole.bodies.end() ? before->second == body : id == 3;
      ASSERT_TRUE(put_before) << when << ": message " << id << " isn't what was put";
    }
    ASSERT_GE(now.bodies.size() + (last ? 3 : 1), whole.bodies.size()) << when;
  }

  Contents whole;
  std::map<std::uint64_t, std::uint64_t> used;
};

TEST_F(JournalDamageTest, EachByteOfEachSegmentChanged) {
  for (const auto& [number, end] : used) {
    const std::string good = read_file(segment(number));
    for (std::uint64_t at = 0; at < end; ++at) {
      const bool header = at < sizeof(SegmentHeader) ||
                          (at >= kHeaderCopy && at < kHeaderCopy + sizeof(SegmentHeader));
      if (at < kFirstRecord && !header) continue;                                // nothing is there
      if (at >= kFirstRecord + 100 && at % 41 != 0 && at + 300 < end) continue;  // bodies
      std::string bad = good;
      bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 8)));
      write_file(segment(number), bad);
      ASSERT_NO_FATAL_FAILURE(
          check(number, at, "byte " + std::to_string(at) + " of " + std::to_string(number)));
    }
    write_file(segment(number), good);
  }
}

TEST_F(JournalDamageTest, EachLengthThatTheLastSegmentIsCutTo) {
  const auto [number, end] = *used.rbegin();
  const std::string good = read_file(segment(number));
  for (std::uint64_t length = kFirstRecord; length <= end; ++length) {
    write_file(segment(number), good.substr(0, length));
    const Contents now = contents(directory());
    ASSERT_FALSE(now.report.damaged()) << length;
    for (const auto& [id, body] : now.bodies) {
      ASSERT_TRUE(id == 3 || whole.bodies[id] == body) << length;
    }
    ASSERT_LE(now.report.segments.back().used, length);
    ASSERT_GE(now.report.records + whole.report.segments.back().records, whole.report.records);
    const bool all = length == end;
    ASSERT_EQ(now.report.records == whole.report.records, all) << length;
  }
  write_file(segment(number), good.substr(0, 100));
  EXPECT_EQ(contents(directory()).report.damages.size(), 1U) << "the second copy is cut off";
  write_file(segment(number), "");
  const Contents now = contents(directory());
  EXPECT_TRUE(now.report.damaged());
  EXPECT_EQ(now.report.damages[0].flaw, Flaw::kBothHeaders);
}

TEST_F(JournalDamageTest, SegmentsCutInTheMiddleLoseWhatIsCutAndNoMore) {
  const std::uint64_t number = used.begin()->first;
  const std::string good = read_file(segment(number));
  for (std::uint64_t length = kFirstRecord; length < used[number]; length += 13) {
    write_file(segment(number), good.substr(0, length));
    const Contents now = contents(directory());
    std::uint64_t missing = 0;
    for (const Damage& d : now.report.damages) missing += d.missing;
    ASSERT_GE(missing, 1U);
    ASSERT_TRUE(now.report.damaged()) << "it was synced, as later records say";
    ASSERT_EQ(now.report.records + missing, whole.report.records) << length;
  }
}

TEST_F(JournalDamageTest, SegmentMissingInTheMiddle) {
  const std::uint64_t number = std::next(used.begin())->first;
  std::filesystem::remove(segment(number));
  const Contents now = contents(directory());
  ASSERT_TRUE(now.report.damaged());
  EXPECT_EQ(now.report.damages[0].flaw, Flaw::kMissingSegment);
  EXPECT_EQ(now.report.damages[0].segment, number);
  EXPECT_EQ(now.report.next_lsn, whole.report.next_lsn) << "what comes behind it is read";
}

TEST_F(JournalDamageTest, ForeignSegmentCostsNobodyElsesRecords) {
  test::TemporaryRoot elsewhere;
  ArenaOptions other = elsewhere.options(4ULL << 20U);
  JournalSession s(other, 4096);
  s.begin();
  s.put("not ours");
  const std::uint64_t number = whole.report.next_segment;
  std::string bytes = read_file(store_path(other.root, other.name) + "/" + segment_name(1));
  for (const std::uint64_t as : {number, number + 1}) {
    SegmentHeader h = decode_header(bytes)->header;
    h.number = as;
    if (as != number) bytes.replace(0, kFirstRecord, encode_header(h));
    std::filesystem::remove(segment(number));
    write_file(segment(number), bytes);  // first under its own number, then under a wrong one
    const Contents now = contents(directory());
    ASSERT_TRUE(now.report.damaged());
    EXPECT_EQ(now.report.damages.back().flaw, Flaw::kForeign);
    EXPECT_EQ(now.bodies, whole.bodies);
  }
}

// A body may hold records that look like the journal's own: a copy of a segment, for one.
TEST_F(JournalDamageTest, RecordsInsideOfABodyAreNotFound) {
  lose_arena();
  const std::string copy = read_file(segment(used.begin()->first));
  JournalSession s(options, 4096);
  s.begin();
  const std::uint64_t id = s.put(copy);
  s.put("behind it");
  const Contents good = contents(directory());
  const std::uint64_t number = good.live.find(id)->put.segment;
  std::string bytes = read_file(segment(number));
  bytes[kFirstRecord + 4] ^= 1;  // a length, so that the rest is searched
  write_file(segment(number), bytes);
  const Contents now = contents(directory());
  EXPECT_EQ(now.report.damages.size(), 1U);
  EXPECT_EQ(now.bodies.size() + 1, good.bodies.size());
}

}  // namespace
}  // namespace celeriac::journal
