// Queues under threads: each message acknowledged exactly once, nobody left asleep.
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <thread>

#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Got;
using test::must;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::size_t kMessages = 12'000;

class QueueConcurrency : public test::LocalStoreTest {
 protected:
  QueueConcurrency() : LocalStoreTest(32 * kMiB) {}

  struct Ledger {
    std::array<std::atomic<int>, kMessages> acked{};
    std::atomic<std::size_t> next{0};
    std::atomic<std::size_t> done{0};
    std::atomic<int> refused{0};
  };

  // `mind` decides what to do with a message: 0 = ack, 1 = give back, 2 = give back with a delay.
  template <class Mind>
  static void consume(TestQueue& q, Ledger& ledger, Mind mind) {
    const std::uint64_t end = now_ns() + 60 * kSecond;
    while (ledger.done < kMessages && now_ns() < end) {
      const std::optional<Got> g = q.get();
      if (!g) {
        std::this_thread::yield();
        continue;
      }
      const int what = mind();
      if (what == 0) {
        ledger.refused += q.ack(*g) ? 0 : 1;
        ++ledger.acked[std::stoul(g->body)];
        ++ledger.done;
      } else {
        ledger.refused += q.nack(*g, what == 2 ? now_ns() + kMillisecond : 0) ? 0 : 1;
      }
    }
  }
  static void produce(TestQueue& q, Ledger& ledger, std::uint8_t priorities) {
    for (std::size_t n = ledger.next++; n < kMessages; n = ledger.next++) {
      q.put(std::to_string(n), static_cast<std::uint8_t>(n % priorities),
            n % 7 == 0 ? now_ns() + kMillisecond : 0);
    }
  }
  void expect_each_once(TestQueue& q, const Ledger& ledger) {
    EXPECT_EQ(ledger.refused, 0);
    for (std::size_t i = 0; i < kMessages; ++i) ASSERT_EQ(ledger.acked[i], 1) << i;
    const QueueCounts c = q.counts();
    EXPECT_EQ(c.ready + c.delayed + c.reserved + c.dead, 0U);
    EXPECT_EQ(c.done, kMessages);
    const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
    EXPECT_EQ(slots.used.load(), 0U);
  }
  void run(std::vector<LocalCore*> cores, std::uint8_t priorities) {
    const auto ledger = std::make_unique<Ledger>();
    std::vector<std::unique_ptr<TestQueue>> queues;
    for (LocalCore* c : cores) queues.push_back(std::make_unique<TestQueue>(*c));
    std::vector<std::thread> all;
    for (std::size_t i = 0; i < 4; ++i) {
      TestQueue& q = *queues[i / 2 % queues.size()];
      if (i % 2 == 0) {
        all.emplace_back([&] { produce(q, *ledger, priorities); });
      } else {
        all.emplace_back([&, i] {
          std::mt19937_64 random(i);
          consume(q, *ledger,
                  [&] { return random() % 10 < 8 ? 0 : static_cast<int>(random() % 3); });
        });
      }
    }
    for (std::thread& t : all) t.join();
    expect_each_once(*queues[0], *ledger);
  }
};

TEST_F(QueueConcurrency, EachMessageIsAcknowledgedOnce) { run({core.get()}, 1); }

TEST_F(QueueConcurrency, AlsoWithPriorities) { run({core.get()}, 9); }

TEST_F(QueueConcurrency, AlsoThroughTwoMappings) {
  const auto other = test::second_core(core, options);
  run({core.get(), other.get()}, 3);
}

TEST_F(QueueConcurrency, OneConsumerSeesEachProducersOrder) {
  TestQueue q(*core);
  constexpr std::uint64_t kEach = 4000;
  std::vector<std::thread> producers;
  for (std::uint64_t p = 0; p < 3; ++p) {
    producers.emplace_back([&, p] {
      for (std::uint64_t i = 0; i < kEach; ++i) q.put(std::to_string(i * 3 + p));
    });
  }
  std::array<std::uint64_t, 3> next{};
  int out_of_order = 0;
  for (std::uint64_t n = 0; n < 3 * kEach;) {
    const std::string body = q.take();
    if (body == "none") continue;
    const std::uint64_t v = std::stoull(body);
    out_of_order += v / 3 == next[v % 3] ? 0 : 1;
    next[v % 3] = v / 3 + 1;
    ++n;
  }
  for (std::thread& t : producers) t.join();
  EXPECT_EQ(out_of_order, 0);
}

TEST_F(QueueConcurrency, SleepersAreWokenForEachMessage) {
  TestQueue q(*core);
  constexpr int kRounds = 1500;
  std::atomic<int> taken{0};
  std::atomic<int> late{0};
  std::atomic<int> asleep{3};
  std::vector<std::thread> sleepers;
  for (int i = 0; i < 3; ++i) {
    sleepers.emplace_back([&] {
      while (taken < kRounds) {
        if (q.take() != "none") {
          ++taken;
          continue;
        }
        const std::uint64_t deadline = now_ns() + 10 * kSecond;
        static_cast<void>(core->queues().wait(q.ref(), deadline, kNever, q.me()).is_ok());
        late += now_ns() >= deadline && taken < kRounds ? 1 : 0;
      }
      --asleep;
    });
  }
  for (int i = 0; i < kRounds; ++i) {
    q.put("m");
    if (i % 3 == 0) std::this_thread::yield();
  }
  while (taken < kRounds) std::this_thread::yield();
  while (asleep > 0) core->queues().parking().wake_all(*q.ref().record);
  for (std::thread& t : sleepers) t.join();
  EXPECT_EQ(late, 0) << "somebody slept though there was a message";
  EXPECT_EQ(q.counts().done, static_cast<std::uint64_t>(kRounds));
}

TEST_F(QueueConcurrency, SleeperSeesADelayedMessageInTime) {
  TestQueue q(*core);
  const std::uint64_t due = now_ns() + 20 * kMillisecond;
  q.put("later", 0, due);
  std::string got = "none";
  const std::uint64_t give_up = now_ns() + 10 * kSecond;
  while (got == "none" && now_ns() < give_up) {
    static_cast<void>(core->queues().wait(q.ref(), give_up, kNever, q.me()).is_ok());
    got = q.take();
  }
  EXPECT_EQ(got, "later");
  EXPECT_GE(now_ns(), due);
}

TEST_F(QueueConcurrency, WaitEndsAtItsDeadline) {
  TestQueue q(*core);
  const std::uint64_t deadline = now_ns() + 10 * kMillisecond;
  EXPECT_TRUE(core->queues().wait(q.ref(), deadline, kNever, q.me()).is_ok());
  EXPECT_GE(now_ns(), deadline);
}

TEST_F(QueueConcurrency, DroppingOldestUnderPressureKeepsTheBound) {
  TestQueue q(*core, "recent", {.max_length = 50, .flags = kDropOldest});
  std::vector<std::thread> producers;
  for (int p = 0; p < 3; ++p) {
    producers.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) static_cast<void>(q.try_put({{}, "m"}).is_ok());
    });
  }
  for (std::thread& t : producers) t.join();
  const QueueCounts c = q.counts();
  EXPECT_LE(c.ready, 50U);
  EXPECT_GE(c.ready, 1U);
  EXPECT_EQ(q.take_all().size(), c.ready);
}

TEST_F(QueueConcurrency, QueuesComeAndGoWhileOthersAreUsed) {
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    for (int i = 0; !stop; ++i) {
      TestQueue q(*core, "short-lived " + std::to_string(i % 5));
      q.put("m");
      q.put("later", 0, now_ns() + 1000 * kSecond);
      q.remove();
    }
  });
  TestQueue q(*core);
  for (int i = 0; i < 3000; ++i) {
    q.put(std::to_string(i));
    ASSERT_EQ(q.take(), std::to_string(i));
  }
  stop = true;
  churn.join();
  const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
  EXPECT_EQ(slots.used.load(), 0U);
}

}  // namespace
}  // namespace celeriac
