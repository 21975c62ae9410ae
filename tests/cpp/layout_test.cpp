// The layout of shared memory, written down a second time.
//
// Processes of different builds meet in one file. When a number below changes, they can't share it
// any more, and the fingerprint makes them refuse. If you meant to change the layout: raise kMinor
// (new meaning for bytes that were reserved) or kMajor (anything else) in src/arena/layout.hpp, put
// the new numbers here, and say so in the change log. If you didn't: you have just found out.
#include "arena/layout.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "arena/header.hpp"
#include "arena/layout_fingerprint.hpp"
#include "platform/crc32c.hpp"

namespace celeriac {
namespace {

using layout::HeaderFixed;

constexpr std::uint64_t kFingerprint = 0x0B47FEF03ED523F1ULL;

TEST(Layout, FingerprintIsTheOneWrittenDown) {
  EXPECT_EQ(layout::fingerprint(), kFingerprint) << std::hex << layout::fingerprint();
}

TEST(Layout, SizesOfStructs) {
  EXPECT_EQ(sizeof(HeaderFixed), 104U);
  EXPECT_EQ(sizeof(layout::OwnerRecord), 128U);
  EXPECT_EQ(sizeof(layout::NamespaceRecord), 272U);
  EXPECT_EQ(sizeof(layout::CellRecord), 16U);
  EXPECT_EQ(sizeof(layout::CounterStripe), 64U);
  EXPECT_EQ(sizeof(layout::PrefixTable), 4480U);
  EXPECT_EQ(sizeof(layout::Shard), 64U);
  EXPECT_EQ(sizeof(layout::Bucket), 64U);
  EXPECT_EQ(sizeof(layout::BlockHead), 16U);
  EXPECT_EQ(sizeof(layout::SegmentRecord), 64U);
  EXPECT_EQ(sizeof(layout::SegmentQueue), 48U);
  EXPECT_EQ(sizeof(layout::LogRecord), 144U);
  EXPECT_EQ(sizeof(layout::Signal), 64U);
  EXPECT_EQ(sizeof(layout::BlockHeader), 16U);
  EXPECT_EQ(sizeof(layout::Slot), 64U);
  EXPECT_EQ(sizeof(layout::DedupEntry), 32U);
  EXPECT_EQ(sizeof(layout::QueueConfigWords), 336U);
  EXPECT_EQ(sizeof(layout::MessageHead), 32U);
  EXPECT_EQ(sizeof(layout::TimerEntry), 16U);
  EXPECT_EQ(sizeof(layout::MutexWord), 24U);
  EXPECT_EQ(sizeof(layout::JournalControl), 224U);
  EXPECT_EQ(sizeof(layout::LockSeat), 256U);
  EXPECT_EQ(sizeof(layout::LockDirectory), 8232U);
  EXPECT_EQ(sizeof(layout::LockBucket), 64U);
  EXPECT_EQ(sizeof(layout::MetricFamily), 64U);
  EXPECT_EQ(sizeof(layout::MetricSlot), 56U);
  EXPECT_EQ(sizeof(layout::MetricStripe), 8200U);
}

TEST(Layout, PlacesInsideStructs) {
  EXPECT_EQ(offsetof(HeaderFixed, fingerprint), 16U);
  EXPECT_EQ(offsetof(HeaderFixed, boot_id), 40U);
  EXPECT_EQ(offsetof(HeaderFixed, checksum), 100U);
  EXPECT_EQ(offsetof(layout::Header, capacity), 104U);
  EXPECT_EQ(offsetof(layout::Header, size), 112U);
  EXPECT_EQ(offsetof(layout::OwnerRecord, info), 16U);
  EXPECT_EQ(offsetof(layout::OwnerRecord, command), 40U);
  EXPECT_EQ(offsetof(layout::NamespaceRecord, name), 32U);
  EXPECT_EQ(offsetof(layout::PrefixTable, records), 640U);
  EXPECT_EQ(offsetof(layout::Shard, table), 24U);
  EXPECT_EQ(offsetof(layout::SegmentRecord, place), 60U);
  EXPECT_EQ(offsetof(layout::LogRecord, ghosts), 104U);
  EXPECT_EQ(offsetof(layout::Slot, body), 40U);
  EXPECT_EQ(offsetof(layout::JournalControl, current), 96U);
}

TEST(Layout, RegionsFollowOneAnotherOnPages) {
  const std::uint64_t places[] = {
      layout::kOwners,        layout::kNamespaces,  layout::kCells,          layout::kCounters,
      layout::kOtherCounters, layout::kPrefixTable, layout::kPrefixCounters, layout::kShards,
      layout::kLogs,          layout::kSegments,    layout::kSignals,        layout::kQueues,
      layout::kSlots,         layout::kTimers,      layout::kHeap,           layout::kLocks,
      layout::kLockBuckets,   layout::kMetrics,     layout::kBlocks};
  const std::uint64_t golden[] = {4096,   135168, 172032, 303104, 368640, 385024, 393216,
                                  434176, 438272, 458752, 495616, 499712, 512000, 524288,
                                  528384, 573440, 585728, 618496, 634880};
  for (std::size_t i = 0; i < std::size(places); ++i) {
    EXPECT_EQ(places[i], golden[i]) << i;
    EXPECT_EQ(places[i] % 4096, 0U) << i;
  }
}

// A valid header with one thing wrong, and its checksum right again.
template <class Change>
Status check_with(Change change, bool fix_checksum = true) {
  HeaderFixed h = make_header();
  change(h);
  if (fix_checksum) h.checksum = crc32c(&h, offsetof(HeaderFixed, checksum));
  return check_header(h, "/the/store");
}

TEST(Header, FreshOneIsGood) {
  EXPECT_TRUE(check_header(make_header(), "/the/store").is_ok());
  EXPECT_NE(make_header().hash_seed, make_header().hash_seed);
  EXPECT_NE(std::memcmp(make_header().uuid, make_header().uuid, 16), 0);
}

TEST(Header, WrongMagicIsNotOurs) {
  const Status s = check_with([](HeaderFixed& h) { h.magic ^= 1; });
  EXPECT_EQ(s.code(), Code::kCorrupt);
  EXPECT_NE(s.message().find("/the/store"), std::string::npos);
}

TEST(Header, OtherMajorIsNamedEvenIfItsChecksumIsComputedOtherwise) {
  const Status s = check_with([](HeaderFixed& h) { h.major = 7; }, false);
  EXPECT_EQ(s.code(), Code::kVersionMismatch);
  EXPECT_NE(s.message().find("layout 7."), std::string::npos) << s.message();
  EXPECT_NE(s.message().find("this process has 4."), std::string::npos) << s.message();
}

TEST(Header, OtherMinorIsWelcome) {
  EXPECT_TRUE(check_with([](HeaderFixed& h) { h.minor += 1; }).is_ok());
  EXPECT_TRUE(check_with([](HeaderFixed& h) { h.features_compatible = 1; }).is_ok());
}

TEST(Header, OtherFingerprintNamesBoth) {
  const Status s = check_with([](HeaderFixed& h) { h.fingerprint = 0xABCDEF; });
  EXPECT_EQ(s.code(), Code::kVersionMismatch);
  EXPECT_NE(s.message().find("0000000000abcdef"), std::string::npos) << s.message();
}

TEST(Header, UnknownFeatureOtherBaseAndOtherPagesAreMismatches) {
  const auto code = [](auto change) { return check_with(change).code(); };
  EXPECT_EQ(code([](HeaderFixed& h) { h.features_incompatible = 4; }), Code::kVersionMismatch);
  EXPECT_EQ(code([](HeaderFixed& h) { h.base_size += 4096; }), Code::kVersionMismatch);
  EXPECT_EQ(code([](HeaderFixed& h) { h.page_size *= 4; }), Code::kVersionMismatch);
}

TEST(Header, EveryFlippedBitIsFound) {
  for (std::size_t bit = 0; bit < sizeof(HeaderFixed) * 8; ++bit) {
    HeaderFixed h = make_header();
    reinterpret_cast<unsigned char*>(&h)[bit / 8] ^= static_cast<unsigned char>(1U << bit % 8);
    EXPECT_FALSE(check_header(h, "x").is_ok()) << bit;
  }
}

TEST(Header, OtherBootIsFound) {
  const Status s = check_with([](HeaderFixed& h) { h.boot_id[3] ^= 0x10; });
  EXPECT_EQ(s.code(), Code::kCorrupt);
  EXPECT_NE(s.message().find("boot"), std::string::npos);
}

}  // namespace
}  // namespace celeriac
