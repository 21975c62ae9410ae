// Two attachments of one process, each with a mapping and an owner slot of its own, used by several
// threads each: all that a host's processes do to each other, in one place.
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "support/cache_verbs.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Got;
using test::Space;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;

class TwoMappingsConcurrency : public test::LocalStoreTest {
 protected:
  TwoMappingsConcurrency() : LocalStoreTest(16 * kMiB) {}

  // What a web process does: reads and writes a cache, counts, and sends messages.
  void serve(LocalCore& by, std::uint64_t seed, int rounds) {
    Space cache(by, "cache");
    Space table(by, "table", true);
    TestQueue q(by);
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
      const std::string key = "key-" + std::to_string(random() % 50);
      const std::optional<std::string> v = cache.get(key);
      torn += v && !test::is_whole(*v) ? 1 : 0;
      if (!v || random() % 3 == 0) cache.set(key, test::checkable(random(), random() % 900));
      if (random() % 10 == 0) cache.erase(key);
      std::int64_t sum = 0;
      if (table.increment("n", 1, &sum) == IncrementResult::kDone) ++increments;
      q.put(test::checkable(random(), 40), static_cast<std::uint8_t>(random() % 3),
            random() % 8 == 0 ? now_ns() + random() % kMillisecond : 0);
      ++sent;
    }
  }
  // The same with a guest who comes again and again: in four parts, each of which waits for the end
  // of one more visit, so that guests are met however the threads are scheduled.
  void serve_guests(const std::atomic<int>& visits, std::atomic<bool>& sending) {
    for (int part = 1; part <= 4; ++part) {
      serve(*core, static_cast<std::uint64_t>(part), 1000);
      while (visits < part) std::this_thread::yield();
    }
    sending = false;
  }
  // What a worker does.
  void work(LocalCore& by, const std::atomic<bool>& sending) {
    TestQueue q(by);
    while (sending || received < sent) {
      const std::optional<Got> g = q.get();
      if (!g) {
        static_cast<void>(
            by.queues().wait(q.ref(), now_ns() + kMillisecond, kNever, q.me()).is_ok());
        continue;
      }
      torn += test::is_whole(g->body) ? 0 : 1;
      if (g->delivery.deliveries < 2 && g->delivery.id % 5 == 0) {
        q.nack(*g);
      } else if (q.ack(*g)) {
        ++received;
      }
    }
  }
  // What recovery and eviction do meanwhile.
  void tidy(LocalCore& by, const std::atomic<bool>& sending) {
    while (sending) {
      by.recovery().run();
      by.base().heap.sweep(test::must(by.enter()));
      by.cache().eviction().make_room(4096, test::must(by.enter()));
      static_cast<void>(by.base().owners.list().size());
      static_cast<void>(by.queues().directory().names().size());
      std::this_thread::yield();
    }
  }

  std::atomic<int> torn{0};
  std::atomic<int> sent{0};
  std::atomic<int> received{0};
  std::atomic<std::int64_t> increments{0};
};

TEST_F(TwoMappingsConcurrency, EverythingAtOnce) {
  const auto other = test::second_core(core, options);
  Space(*core, "table", true).set_int("n", 0);
  std::atomic<bool> sending{true};
  std::vector<std::thread> senders;
  std::vector<std::thread> others;
  for (LocalCore* by : {core.get(), other.get()}) {
    senders.emplace_back([this, by] { serve(*by, 1, 4000); });
    senders.emplace_back([this, by] { serve(*by, 2, 4000); });
    others.emplace_back([this, by, &sending] { work(*by, sending); });
  }
  others.emplace_back([this, &sending] { tidy(*core, sending); });
  for (std::thread& t : senders) t.join();
  sending = false;
  for (std::thread& t : others) t.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(sent, 16000);
  EXPECT_EQ(received, 16000);
  std::int64_t sum = 0;
  Space(*other, "table", true).increment("n", 0, &sum);
  EXPECT_EQ(sum, increments);
  EXPECT_EQ(sum, 16000);
  EXPECT_EQ(TestQueue(*other).counts().done, 16000U);
  EXPECT_TRUE(test::look_at_heap(core->arena()).whole);
  EXPECT_EQ(core->arena().header().corrupt.load(), 0U);
}

TEST_F(TwoMappingsConcurrency, OneComesAndGoesWhileTheOtherWorks) {
  CELERIAC_TEST_NEEDS_TWO_MAPPINGS();
  std::atomic<bool> sending{true};
  std::atomic<int> visits{0};
  std::thread sender([&] { serve_guests(visits, sending); });
  while (sending) {
    const auto guest = test::open_core(options);
    TestQueue q(*guest);
    for (int i = 0; i < 20; ++i) {
      const std::optional<Got> g = q.get();
      if (g && i % 2 == 0 && q.ack(*g)) ++received;
    }
    ASSERT_TRUE(guest->close().is_ok());  // gives back what it holds
    ++visits;
  }
  sender.join();
  TestQueue q(*core);
  const std::uint64_t end = now_ns() + 10 * kSecond;
  while (received < sent && now_ns() < end) received += q.take() != "none" ? 1 : 0;
  EXPECT_EQ(received, 4000);
  EXPECT_GE(visits, 4);
}

TEST_F(TwoMappingsConcurrency, OneDiesAgainAndAgainWhileTheOtherWorks) {
  CELERIAC_TEST_NEEDS_TWO_MAPPINGS();
  std::atomic<bool> sending{true};
  std::atomic<int> visits{0};
  std::thread sender([&] { serve_guests(visits, sending); });
  while (sending) {
    const auto guest = test::open_core(options);
    TestQueue q(*guest);
    for (int i = 0; i < 10; ++i) static_cast<void>(q.get().has_value());
    test::die(*guest);
    core->recovery().run();
    ++visits;
  }
  sender.join();
  recover();
  TestQueue q(*core);
  const std::uint64_t end = now_ns() + 10 * kSecond;
  while (received < sent && now_ns() < end) received += q.take() != "none" ? 1 : 0;
  EXPECT_EQ(received, 4000);
  EXPECT_GE(visits, 4);
  EXPECT_EQ(q.counts().reserved, 0U);
}

}  // namespace
}  // namespace celeriac
