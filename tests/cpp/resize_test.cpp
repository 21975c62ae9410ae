// The ceiling moves while threads and processes read and write, and die.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Child;
using test::Space;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;

std::string key(std::uint64_t n) { return "key-" + std::to_string(n); }

class ResizeTest : public test::LocalStoreTest {
 protected:
  ResizeTest() : LocalStoreTest(24 * kMiB) { options.memory_given = false; }

  std::uint64_t resize(std::uint64_t memory) {
    return test::must(core->cache().resize(memory, me()));
  }
  void expect_sound() {
    if (heap().dirty()) heap().sweep(me());
    const test::HeapPicture p = test::look_at_heap(core->arena());
    EXPECT_TRUE(p.whole);
    EXPECT_EQ(p.used_blocks, heap().stats().blocks);
    EXPECT_EQ(p.free_bytes, heap().stats().free);
    EXPECT_EQ(p.wrong_back_links, 0U);
    EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
  }
  std::uint64_t file_bytes() {
    struct stat s {};
    EXPECT_EQ(stat((core->arena().path() + "/arena").c_str(), &s), 0);
    return static_cast<std::uint64_t>(s.st_blocks) * 512;
  }

  Space cache{*core, "cache"};
};

// Values of all sizes; each is whole whenever it is read.
TEST_F(ResizeTest, ReadersAndWritersGoOn) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> torn{0};
  std::atomic<std::uint64_t> hits{0};
  std::vector<std::shared_ptr<LocalCore>> cores;
  std::vector<std::thread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    cores.push_back(test::second_core(core, options));
    threads.emplace_back([&, t, mine = cores.back()] {
      std::mt19937_64 random(t);
      Space space(*mine, "cache");
      while (!stop) {
        const std::uint64_t k = random() % 20'000;
        if (t % 2 == 0) {
          const std::uint64_t bits = random() % 100 == 0 ? 18 : 11;
          static_cast<void>(space.store(key(k), test::checkable(k, 8 + random() % (1ULL << bits)),
                                        StoreMode::kSet));
        } else if (const auto v = space.get(key(k))) {
          ++hits;
          if (!test::is_whole(*v) || test::seed_of(*v) != k) ++torn;
        }
      }
    });
  }
  for (int round = 0; round < 16; ++round) {
    const std::uint64_t size = (round % 2 == 0 ? 4 + round % 5 : 24) * kMiB;
    EXPECT_EQ(resize(size), size);
    EXPECT_LE(core->arena().size(), size);
    test::sleep_us(20'000);
  }
  stop = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(torn, 0U);
  EXPECT_GT(hits, 100U);
  expect_sound();
  std::uint64_t n = 0;
  core->cache().each(cache.index(), me(), [&](auto, const auto&) { return ++n, true; });
  EXPECT_EQ(n, cache.counts().entries);
}

// Chunks of segment records lie above the new ceiling, and their entries are read meanwhile.
TEST_F(ResizeTest, RecordsMoveUnderReaders) {
  TestQueue queue(*core);
  for (int round = 0; round < 2; ++round) {
    resize(24 * kMiB);
    for (std::uint64_t i = 0; i < 12'000; ++i) {
      cache.set(key(i), test::checkable(i, 2000));
      if (i % 20 == 0) queue.put(std::string(1500, 'm'), static_cast<std::uint8_t>(i % 3));
    }
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> torn{0};
    std::thread reader([&] {
      Space space(*core, "cache");
      for (std::uint64_t i = 0; !stop; i += 7) {
        const auto v = space.get(key(i % 12'000));
        if (v && !test::is_whole(*v)) ++torn;
      }
    });
    const Result<std::uint64_t> resized = core->cache().resize(6 * kMiB, me());
    stop = true;
    reader.join();
    // Once in a while a message has found no room but above: then nothing has changed.
    const bool in_the_way = resized.status().code() == Code::kNotEnoughMemory;
    ASSERT_TRUE(resized.is_ok() || in_the_way) << resized.status().message();
    EXPECT_EQ(core->arena().capacity(), (in_the_way ? 24 : 6) * kMiB);
    EXPECT_EQ(queue.counts().ready, 600U);
    EXPECT_EQ(queue.purge(), 600U);
    EXPECT_EQ(resize(6 * kMiB), 6 * kMiB);
    EXPECT_EQ(torn, 0U);
    EXPECT_LE(file_bytes(), 6 * kMiB);
    EXPECT_GT(cache.counts().entries, 500U);
    expect_sound();
  }
}

TEST_F(ResizeTest, WhoDiesResizingLeavesAStoreThatWorks) {
  CELERIAC_TEST_FORKS();
  TestQueue queue(*core);
  for (int i = 0; i < 100; ++i) queue.put(test::checkable(static_cast<std::uint64_t>(i), 900));
  for (std::uint64_t round = 0; round < 60; ++round) {
    std::vector<Child> children;
    for (std::uint64_t c = 0; c < 3; ++c) {
      children.push_back(Child::run([&] {
        std::mt19937_64 random(round * 3 + c);
        for (;;) {
          if (c == 0) {
            static_cast<void>(core->cache().resize((3 + random() % 20) * kMiB, me()));
          }
          for (int i = 0; i < 300; ++i) {
            const std::uint64_t k = random() % 20'000;
            const auto v = cache.get(key(k));
            if (v && !test::is_whole(*v)) return false;
            static_cast<void>(
                cache.store(key(k), test::checkable(k, random() % 4000), StoreMode::kSet));
          }
        }
      }));
    }
    test::sleep_us(2000 + static_cast<unsigned>(round * 7919 % 30'000));
    ASSERT_EQ(children[0].kill(), test::kKilled) << "a torn value";
    ASSERT_EQ(children[1].kill(), test::kKilled) << "a torn value";
    ASSERT_EQ(children[2].kill(), test::kKilled) << "a torn value";
    recover();
    expect_sound();
    if (round % 5 == 4) {
      EXPECT_EQ(resize(5 * kMiB), 5 * kMiB);
      EXPECT_LE(file_bytes(), 5 * kMiB);
      expect_sound();
    }
  }
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(queue.take(), test::checkable(static_cast<std::uint64_t>(i), 900));
  }
  cache.clear();
  EXPECT_EQ(resize(kMinimumMemory), kMinimumMemory);
  EXPECT_LE(file_bytes(), kMinimumMemory);
}

}  // namespace
}  // namespace celeriac
