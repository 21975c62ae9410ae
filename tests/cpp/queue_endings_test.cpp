// How messages end, under threads: keys, reservations that end by themselves, what is kept, and
// putters that wait for room.
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <thread>

#include "support/queue_verbs.hpp"
#include "sync/room.hpp"

namespace celeriac {
namespace {

using test::Got;
using test::must;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;

class QueueEndings : public test::LocalStoreTest {
 protected:
  QueueEndings() : LocalStoreTest(32 * kMiB) {}

  static Outgoing keyed(std::string_view body, std::uint64_t key, std::uint64_t window = 0) {
    return {{}, body, 0, 0, kNever, {key * 0x9E3779B97F4A7C15ULL, key + 1}, window};
  }
};

// Threads of two attachments put the same keys, and take and acknowledge: at every moment there is
// at most one message of a key.
TEST_F(QueueEndings, AtMostOneMessageOfAKey) {
  constexpr std::size_t kKeys = 50;
  const auto other = test::second_core(core, options);
  std::array<std::atomic<int>, kKeys> there{};
  std::atomic<int> doubled{0}, put{0}, done{0};
  std::vector<std::thread> all;
  const std::uint64_t end = now_ns() + kSecond;
  for (unsigned t = 0; t < 4; ++t) {
    all.emplace_back([&, t] {
      TestQueue q(t % 2 == 0 ? *core : *other);
      std::mt19937_64 random(t);
      while (now_ns() < end) {
        const std::size_t key = random() % kKeys;
        static_cast<void>(must(q.try_put(keyed(std::to_string(key), key))));
        ++put;
        if (random() % 2 == 0) continue;
        const std::optional<Got> g = q.get();
        if (!g) continue;
        std::atomic<int>& mine = there[std::stoul(g->body)];
        if (++mine != 1) ++doubled;
        --mine;
        EXPECT_TRUE(q.ack(*g));
        ++done;
      }
    });
  }
  for (std::thread& t : all) t.join();
  TestQueue q(*core);
  std::set<std::string> left;
  std::size_t n = 0;
  for (std::string body = q.take(); body != "none"; body = q.take(), ++n) left.insert(body);
  EXPECT_EQ(left.size(), n);
  EXPECT_EQ(doubled, 0);
  EXPECT_GT(done, 100);
  EXPECT_LT(done, put);
}

// Reservations that end while their owners are at it: each message is acknowledged exactly once.
TEST_F(QueueEndings, OneAckOfAMessageThatIsRedelivered) {
  constexpr std::size_t kMessages = 3000;
  QueueConfig config;
  config.visibility_ns = kMillisecond;
  const auto other = test::second_core(core, options);
  TestQueue(*core, "q", config);
  std::array<std::atomic<int>, kMessages> acked{};
  std::atomic<std::size_t> done{0}, late{0};
  {
    TestQueue q(*core);
    for (std::size_t i = 0; i < kMessages; ++i) q.put(std::to_string(i));
  }
  std::vector<std::thread> all;
  const std::uint64_t end = now_ns() + 60 * kSecond;
  for (unsigned t = 0; t < 4; ++t) {
    all.emplace_back([&, t] {
      TestQueue q(t % 2 == 0 ? *core : *other);
      std::mt19937_64 random(t);
      while (done < kMessages && now_ns() < end) {
        const std::optional<Got> g = q.get();
        if (!g) continue;
        if (random() % 16 == 0) {
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
        } else if (random() % 16 == 0) {
          q.nack(*g, 0, "a reason");
          continue;
        }
        if (random() % 8 == 0) {
          static_cast<void>(q.extend(*g, now_ns() + kMillisecond));
        }
        if (q.ack(*g)) {
          ++acked[std::stoul(g->body)];
          ++done;
        } else {
          ++late;
        }
      }
    });
  }
  for (std::thread& t : all) t.join();
  for (std::size_t i = 0; i < kMessages; ++i) ASSERT_EQ(acked[i], 1) << i;
  EXPECT_GT(late, 0U);
  TestQueue q(*core);
  std::this_thread::sleep_for(std::chrono::milliseconds(3));
  EXPECT_EQ(q.take(), "none");
  const QueueCounts c = q.counts();
  EXPECT_EQ(c.ready + c.delayed + c.reserved + c.dead, 0U);
  EXPECT_EQ(c.done, kMessages);
}

// Acks, deaths, retries, purges and looks at once: every message is accounted for, and no block
// stays behind.
TEST_F(QueueEndings, KeptAndDeadUnderThreads) {
  QueueConfig config;
  config.limits.max_deliveries = 1;
  config.done.most = 20;
  const auto other = test::second_core(core, options);
  TestQueue(*core, "q", config).put("warm up");
  EXPECT_EQ(TestQueue(*core).take(), "warm up");
  std::atomic<std::uint64_t> put{1}, done{1}, purged{0};
  std::vector<std::thread> all;
  const std::uint64_t end = now_ns() + kSecond;
  for (unsigned t = 0; t < 4; ++t) {
    all.emplace_back([&, t] {
      LocalCore& c = t % 2 == 0 ? *core : *other;
      TestQueue q(c);
      std::mt19937_64 random(t);
      while (now_ns() < end) {
        q.put("m");
        ++put;
        const std::optional<Got> g = q.get();
        if (g && random() % 2 == 0) {
          EXPECT_TRUE(q.ack(*g));
          ++done;
        } else if (g) {
          EXPECT_TRUE(q.nack(*g, 0, "because"));
        }
        const std::uint64_t what = random() % 50;
        if (what == 0) c.queues().retry_dead(q.ref(), nullptr, q.me());
        if (what == 1) purged += c.queues().purge_dead(q.ref(), q.me());
        if (what == 2) static_cast<void>(c.queues().peek(q.ref(), kSlotDone, 100));
      }
    });
  }
  for (std::thread& t : all) t.join();
  TestQueue q(*core);
  const QueueCounts c = q.counts();
  EXPECT_EQ(c.reserved, 0U);
  EXPECT_EQ(c.done, done);
  EXPECT_EQ(c.ready + c.dead + done + purged, put);
  EXPECT_LE(core->queues().peek(q.ref(), kSlotDone, 1000).size(), 20U + 4U);
  EXPECT_EQ(core->queues().peek(q.ref(), kSlotDead, 1 << 20).size(), c.dead);
  EXPECT_EQ(core->queues().retry_dead(q.ref(), nullptr, q.me()), c.dead);
  EXPECT_EQ(q.counts().dead, 0U);
  EXPECT_TRUE(q.remove());
  const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
  EXPECT_EQ(slots.used.load(), 0U);
}

// Two put and wait, two take: nobody sleeps for ever, and the bound holds.
TEST_F(QueueEndings, PuttersThatWaitAreWoken) {
  constexpr int kMessages = 20'000;
  QueueConfig config;
  config.limits.max_length = 2;
  const auto other = test::second_core(core, options);
  TestQueue(*core, "q", config);
  std::atomic<int> put{0}, taken{0}, slept{0};
  std::vector<std::thread> all;
  const std::uint64_t end = now_ns() + 60 * kSecond;
  for (unsigned t = 0; t < 4; ++t) {
    all.emplace_back([&, t] {
      LocalCore& c = t % 2 == 0 ? *core : *other;
      TestQueue q(c);
      while (t < 2 && put++ < kMessages) {
        layout::RoomWord* lacking = nullptr;
        while (!c.queues().put(q.ref(), {{}, "m", 0, 0, kNever, {}, 0}, q.me(), &lacking)) {
          ASSERT_NE(lacking, nullptr);
          const std::uint32_t seen = await_room(*lacking);
          if (c.queues().put(q.ref(), {{}, "m", 0, 0, kNever, {}, 0}, q.me())) break;
          ASSERT_TRUE(c.queues().wait_for_room(*lacking, seen, end, kNever));
          ++slept;
        }
      }
      while (t >= 2 && taken < kMessages && now_ns() < end) {
        if (q.take() == "m") ++taken;
      }
    });
  }
  for (std::thread& t : all) t.join();
  EXPECT_EQ(taken, kMessages);
  EXPECT_GT(slept, 0);
  EXPECT_LT(now_ns(), end);
}

// A backlog of many thousand, taken by two while more comes and some are given back.
TEST_F(QueueEndings, ABacklogIsTakenInOrder) {
  constexpr int kMessages = 20'000;
  TestQueue q(*core);
  for (int i = 0; i < kMessages; ++i) q.put(std::to_string(i));
  int expected = 0;
  std::vector<Got> held;
  for (int i = 0; i < kMessages; ++i) {
    std::optional<Got> g = q.get();
    ASSERT_TRUE(g);
    ASSERT_EQ(g->body, std::to_string(expected++));
    if (i == kMessages / 2) {  // more than the front lane holds: they go first all the same
      held.push_back(*g);
      for (int k = 0; k < 500; ++k) held.push_back(*q.get());
      for (const Got& h : held) EXPECT_TRUE(q.nack(h));
      std::set<int> again;
      for (std::size_t k = 0; k < held.size(); ++k) again.insert(std::stoi(q.take()));
      // The lane's own thousand were on their way already.
      EXPECT_LE(*again.begin(), kMessages / 2);
      while (q.counts().ready > 0) q.take();
      break;
    }
    EXPECT_TRUE(q.ack(*g));
  }
  EXPECT_EQ(q.counts().done, static_cast<std::uint64_t>(kMessages));
  EXPECT_TRUE(q.remove());
}

}  // namespace
}  // namespace celeriac
