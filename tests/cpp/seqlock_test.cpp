// Seqlock: readers see one write or another, never a mixture, and never wait for the dead.
#include "sync/seqlock.hpp"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <vector>

#include "arena/crash_point.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::Child;

constexpr std::size_t kWords = 11;
using Payload = std::array<std::uint64_t, kWords>;

Payload all_of(std::uint64_t n) {
  Payload p;
  p.fill(n);
  return p;
}

bool mixed(const Payload& p) { return p != all_of(p[0]); }

// The lock and its payload, in the arena where nothing else is in an empty store.
struct Protected {
  layout::SequenceWord lock;
  std::uint64_t payload[kWords];
};

class SeqlockTest : public ::testing::Test {
 protected:
  static Protected& place(Attachment& a) { return *a.arena->fixed<Protected>(layout::kSignals); }
  static SeqRead read(Attachment& a, Payload& to) {
    return Seqlock(place(a).lock, *a.owners).read(place(a).payload, to.data(), kWords);
  }
  static void write(Attachment& a, std::uint64_t n) {
    const Payload p = all_of(n);
    Seqlock(place(a).lock, *a.owners).write(a.join(), place(a).payload, p.data(), kWords);
  }
  // What a writer leaves that dies with half of its words copied.
  static void die_writing(Attachment& a, std::uint64_t n) {
    const OwnerTag tag = a.join();
    Protected& p = place(a);
    const std::uint64_t sequence = (p.lock.word.load() >> 32U) + 1;
    p.lock.word.store(sequence << 32U | (tag.slot + 1ULL) << 16U | tag.epoch);
    for (std::size_t i = 0; i < kWords / 2; ++i) p.payload[i] = n;
    a.die();
  }
  std::unique_ptr<Attachment> attach() { return std::make_unique<Attachment>(root.options()); }

  test::TemporaryRoot root;
  std::unique_ptr<Attachment> mine = attach();
};

TEST_F(SeqlockTest, ReadsWhatWasWritten) {
  Payload got;
  EXPECT_EQ(read(*mine, got), SeqRead::kOk);
  EXPECT_EQ(got, all_of(0));
  write(*mine, 7);
  EXPECT_EQ(read(*mine, got), SeqRead::kOk);
  EXPECT_EQ(got, all_of(7));
}

TEST_F(SeqlockTest, SequenceIsEvenAndNamesNobodyAtRest) {
  write(*mine, 1);
  write(*mine, 2);
  EXPECT_EQ(place(*mine).lock.word.load(), 4ULL << 32U);
}

TEST_F(SeqlockTest, DeadWritersPayloadIsKnownToBeTorn) {
  mine->join();
  write(*mine, 1);
  die_writing(*attach(), 2);
  Payload got;
  EXPECT_EQ(read(*mine, got), SeqRead::kTorn);
}

TEST_F(SeqlockTest, NextWriterTakesOverFromTheDead) {
  write(*mine, 1);
  die_writing(*attach(), 2);
  write(*mine, 3);
  Payload got;
  EXPECT_EQ(read(*mine, got), SeqRead::kOk);
  EXPECT_EQ(got, all_of(3));
  EXPECT_EQ(place(*mine).lock.word.load() >> 32U & 1U, 0U);
}

TEST_F(SeqlockTest, ReaderWaitsForALivingWriter) {
  const auto writer = attach();
  const OwnerTag tag = writer->join();
  Protected& p = place(*writer);
  p.lock.word.store(1ULL << 32U | (tag.slot + 1ULL) << 16U | tag.epoch);
  Payload got;
  std::thread reader([&] { EXPECT_EQ(read(*mine, got), SeqRead::kOk); });
  test::sleep_us(3000);
  for (std::uint64_t& w : p.payload) std::atomic_ref(w).store(9, std::memory_order_relaxed);
  p.lock.word.store(2ULL << 32U);
  reader.join();
  EXPECT_EQ(got, all_of(9));
}

using SeqlockConcurrency = SeqlockTest;

TEST_F(SeqlockConcurrency, ReadersNeverSeeAMixture) {
  mine->join();
  std::atomic<bool> stop{false};
  std::atomic<int> torn{0};
  std::atomic<std::uint64_t> reads{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        Payload got;
        torn += read(*mine, got) != SeqRead::kOk || mixed(got) ? 1 : 0;
        ++reads;
      }
    });
  }
  const std::uint64_t end = now_ns() + 300 * kMillisecond;
  for (std::uint64_t n = 1; now_ns() < end; ++n) write(*mine, n);
  stop = true;
  for (std::thread& t : readers) t.join();
  EXPECT_EQ(torn, 0);
  EXPECT_GT(reads, 100U);
}

TEST_F(SeqlockConcurrency, WritersTakeTurns) {
  mine->join();
  std::vector<std::thread> writers;
  for (std::uint64_t i = 1; i <= 3; ++i) {
    writers.emplace_back([&, i] {
      for (std::uint64_t k = 0; k < 2000; ++k) write(*mine, i << 32U | k);
    });
  }
  for (std::thread& t : writers) t.join();
  Payload got;
  EXPECT_EQ(read(*mine, got), SeqRead::kOk);
  EXPECT_FALSE(mixed(got));
  EXPECT_EQ(place(*mine).lock.word.load() >> 32U, 2U * 3 * 2000);
}

TEST_F(SeqlockTest, WritersOfOtherProcessesKilledAtRandom) {
  CELERIAC_TEST_FORKS();
  mine->join();
  write(*mine, 1);
  int torn = 0;
  for (unsigned round = 0; round < 60; ++round) {
    Child writer = Child::run([&] {
      const auto theirs = attach();
      for (std::uint64_t n = 1;; ++n) write(*theirs, round << 20U | n);
      return false;
    });
    const std::uint64_t end = now_ns() + (1500 + round * 37) * 1000;
    Payload got;
    while (now_ns() < end) ASSERT_TRUE(read(*mine, got) == SeqRead::kOk && !mixed(got));
    writer.kill();
    const SeqRead after = read(*mine, got);
    ASSERT_TRUE(after == SeqRead::kTorn || !mixed(got));
    torn += after == SeqRead::kTorn ? 1 : 0;
    write(*mine, round);
    ASSERT_EQ(read(*mine, got), SeqRead::kOk);
    ASSERT_EQ(got, all_of(round));
  }
  RecordProperty("torn", torn);
}

TEST_F(SeqlockTest, DeathAtEachPointOfWritingIsTorn) {
  CELERIAC_TEST_NEEDS_CRASH_POINTS();
  mine->join();
  for (const char* point : {"seqlock.write.begun", "seqlock.write.copied"}) {
    write(*mine, 5);
    Child writer = Child::run([&] {
      const auto theirs = attach();
      theirs->join();
      arm_crash_point(point, 1, "kill");
      write(*theirs, 6);
      return true;
    });
    ASSERT_EQ(writer.wait(), test::kKilled);
    Payload got;
    EXPECT_EQ(read(*mine, got), SeqRead::kTorn) << point;
  }
}

}  // namespace
}  // namespace celeriac
