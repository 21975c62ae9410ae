// Queues, used by one thread. Deaths: a second attachment that stops without a word.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "queue/queues.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Got;
using test::must;
using test::TestQueue;

constexpr std::uint64_t kMiB = 1ULL << 20U;
using Bodies = std::vector<std::string>;

class QueueTest : public test::LocalStoreTest {
 protected:
  QueueTest() : LocalStoreTest(32 * kMiB) {}
  static std::string number(std::uint64_t n) { return std::to_string(n); }
  void expect_counts(TestQueue& queue, QueueCounts expected) {
    const QueueCounts c = queue.counts();
    EXPECT_EQ(c.ready, expected.ready) << "ready";
    EXPECT_EQ(c.delayed, expected.delayed) << "delayed";
    EXPECT_EQ(c.reserved, expected.reserved) << "reserved";
    EXPECT_EQ(c.dead, expected.dead) << "dead";
    EXPECT_EQ(c.done, expected.done) << "done";
    EXPECT_EQ(c.dropped, expected.dropped) << "dropped";
  }

  TestQueue q{*core};
};

TEST_F(QueueTest, MessageGoesThroughItsStates) {
  expect_counts(q, {});
  q.put("hello");
  expect_counts(q, {.ready = 1});
  const Got g = q.get().value();
  EXPECT_EQ(g.body, "hello");
  EXPECT_EQ(g.delivery.deliveries, 1U);
  expect_counts(q, {.reserved = 1});
  EXPECT_TRUE(q.ack(g));
  expect_counts(q, {.done = 1});
  EXPECT_FALSE(q.get().has_value());
}

TEST_F(QueueTest, HeadersAndBodyAreAnyBytes) {
  for (const std::size_t n : {0, 1, 7, 8, 9, 5000, 300'000}) {
    const std::string headers(n % 1000, 'h');
    const std::string body(n, '\0');
    must(q.try_put({headers, body}));
    const Got g = q.get().value();
    EXPECT_EQ(g.delivery.headers, headers);
    EXPECT_EQ(g.body, body);
    EXPECT_TRUE(q.ack(g));
  }
}

TEST_F(QueueTest, AckIsForOnceAndForTheHolder) {
  q.put("m");
  const Got first = q.get().value();
  EXPECT_TRUE(q.ack(first));
  EXPECT_FALSE(q.ack(first));
  EXPECT_FALSE(q.nack(first));
  q.put("m");
  const Got second = q.get().value();
  const auto other = test::open_core(options);
  TestQueue theirs(*other);
  EXPECT_FALSE(theirs.ack(second));
  EXPECT_TRUE(q.ack(second));
}

TEST_F(QueueTest, LateAckOfARedeliveredMessageFails) {
  const std::uint64_t id = q.put("m");
  const Got first = q.get().value();
  EXPECT_EQ(first.delivery.id, id);
  EXPECT_TRUE(q.nack(first));
  const Got again = q.get().value();
  EXPECT_EQ(again.delivery.id, id) << "the same message";
  EXPECT_EQ(again.delivery.deliveries, 2U);
  EXPECT_FALSE(q.ack(first));
  EXPECT_TRUE(q.ack(again));
}

TEST_F(QueueTest, FirstInFirstOut) {
  Bodies expected;
  for (std::uint64_t i = 0; i < 500; ++i) {
    q.put(number(i));
    expected.push_back(number(i));
  }
  EXPECT_EQ(q.take_all(), expected);
}

TEST_F(QueueTest, FirstInFirstOutBeyondALanesCapacity) {
  Bodies expected;
  for (std::uint64_t i = 0; i < 5000; ++i) {
    q.put(number(i));
    expected.push_back(number(i));
  }
  expect_counts(q, {.ready = 5000});
  EXPECT_EQ(q.take_all(), expected);
  expect_counts(q, {.done = 5000});
}

TEST_F(QueueTest, OrderHoldsWhilePuttingAndTakingAlternate) {
  std::mt19937_64 random(4);
  std::uint64_t put = 0;
  std::uint64_t taken = 0;
  while (taken < 8000) {
    for (std::uint64_t n = random() % 3000; n > 0 && put < 8000; --n) q.put(number(put++));
    for (std::uint64_t n = random() % 3000; n > 0 && taken < put; --n) {
      ASSERT_EQ(q.take(), number(taken++));
    }
  }
  EXPECT_EQ(q.take(), "none");
}

TEST_F(QueueTest, HigherPrioritiesFirst) {
  q.put("low", 0);
  q.put("high", 255);
  q.put("middle", 64);
  q.put("higher middle", 65);
  q.put("high too", 255);
  EXPECT_EQ(q.take_all(), (Bodies{"high", "high too", "higher middle", "middle", "low"}));
}

TEST_F(QueueTest, GivenBackGoesInFront) {
  for (const char* m : {"a", "b", "c"}) q.put(m);
  q.nack(q.get().value());
  EXPECT_EQ(q.take_all(), (Bodies{"a", "b", "c"}));
}

TEST_F(QueueTest, DelayedWaitsUntilItsTime) {
  const std::uint64_t due = now_ns() + 20 * kMillisecond;
  q.put("later", 0, due);
  q.put("now");
  expect_counts(q, {.ready = 1, .delayed = 1});
  EXPECT_EQ(core->queues().next_due(), due);
  EXPECT_EQ(q.take_all(), Bodies{"now"});
  test::sleep_us(21'000);
  EXPECT_EQ(q.take_all(), Bodies{"later"});
  EXPECT_EQ(core->queues().next_due(), kNever);
}

TEST_F(QueueTest, ManyDelayedAllComeAndNoneTooEarly) {
  std::mt19937_64 random(8);
  const std::uint64_t start = now_ns() + kMillisecond;
  for (int i = 0; i < 3000; ++i) {
    const std::uint64_t due = start + random() % (20 * kMillisecond);
    q.put(number(due), 0, due);
  }
  int got = 0;
  for (const std::uint64_t end = now_ns() + 5 * kSecond; got < 3000 && now_ns() < end;) {
    const std::string body = q.take();
    if (body == "none") continue;
    ASSERT_LE(std::stoull(body), now_ns());
    ++got;
  }
  EXPECT_EQ(got, 3000);
  expect_counts(q, {.done = 3000});
}

TEST_F(QueueTest, NackWithADelayWaits) {
  q.put("m");
  q.nack(q.get().value(), now_ns() + 15 * kMillisecond);
  expect_counts(q, {.delayed = 1});
  EXPECT_EQ(q.take(), "none");
  test::sleep_us(16'000);
  EXPECT_EQ(q.get().value().delivery.deliveries, 2U);
}

TEST_F(QueueTest, ExpiredMessagesAreDroppedAndCounted) {
  q.put("stale", 0, 0, now_ns() + kMillisecond);
  q.put("fresh", 0, 0, now_ns() + 1000 * kSecond);
  test::sleep_us(2000);
  EXPECT_EQ(q.take_all(), Bodies{"fresh"});
  expect_counts(q, {.done = 1, .dropped = 1});
}

TEST_F(QueueTest, DeliveryLimitMakesDead) {
  TestQueue limited(*core, "limited", {.max_deliveries = 3});
  limited.put("poison");
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limited.nack(limited.get().value()));
  EXPECT_EQ(limited.take(), "none");
  expect_counts(limited, {.dead = 1});
}

TEST_F(QueueTest, FullQueueRefusesAndSaysSo) {
  TestQueue small(*core, "small", {.max_length = 3});
  for (int i = 0; i < 3; ++i) small.put("m");
  EXPECT_EQ(small.try_put({{}, "m"}).status().code(), Code::kQueueFull);
  const Got g = small.get().value();
  EXPECT_EQ(small.try_put({{}, "m"}).status().code(), Code::kQueueFull) << "reserved counts";
  small.ack(g);
  EXPECT_TRUE(small.try_put({{}, "m"}).is_ok());
}

TEST_F(QueueTest, DropOldestMakesRoom) {
  TestQueue recent(*core, "recent", {.max_length = 3, .flags = kDropOldest});
  for (std::uint64_t i = 0; i < 10; ++i) recent.put(number(i));
  expect_counts(recent, {.ready = 3, .dropped = 7});
  EXPECT_EQ(recent.take_all(), (Bodies{"7", "8", "9"}));
}

TEST_F(QueueTest, MessageLargerThanTheArenaIsRefused) {
  EXPECT_EQ(q.try_put({{}, std::string(33 * kMiB, 'x')}).status().code(), Code::kValueTooLarge);
  expect_counts(q, {});
}

TEST_F(QueueTest, FullArenaIsQueueFullAndConsumingHelps) {
  const std::string body(200'000, 'b');
  std::uint64_t n = 0;
  Status last;
  for (; last; ++n) last = q.try_put({{}, body}).status();
  EXPECT_EQ(last.code(), Code::kQueueFull);
  expect_counts(q, {.ready = n - 1});
  EXPECT_GT(n, 130U);
  EXPECT_EQ(q.take(), body);
  EXPECT_TRUE(q.try_put({{}, body}).is_ok());
}

TEST_F(QueueTest, SlotsAreUsedAgainBeforeMoreAreMade) {
  for (int i = 0; i < 20'000; ++i) {
    q.put("m");
    ASSERT_EQ(q.take(), "m");
  }
  const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
  EXPECT_EQ(slots.chunks.load(), 1U);
  EXPECT_EQ(slots.used.load(), 0U);
}

TEST_F(QueueTest, PurgeTakesReadyAndDelayedAndLeavesReserved) {
  for (int i = 0; i < 5; ++i) q.put("m");
  q.put("later", 0, now_ns() + 1000 * kSecond);
  const Got held = q.get().value();
  EXPECT_EQ(q.purge(), 5U);
  expect_counts(q, {.reserved = 1});
  EXPECT_TRUE(q.ack(held));
  EXPECT_EQ(q.take(), "none");
}

TEST_F(QueueTest, DeletedQueueIsGoneWithItsMessages) {
  const std::uint64_t before = heap().stats().blocks;
  q.put("ready");
  q.put("later", 0, now_ns() + 1000 * kSecond);
  q.put("held");
  const Got held = q.get().value();
  EXPECT_TRUE(q.remove());
  EXPECT_FALSE(q.remove());
  EXPECT_EQ(core->queues().directory().find("q").record, nullptr);
  EXPECT_EQ(q.try_put({{}, "m"}).status().code(), Code::kNotFound);
  EXPECT_TRUE(q.ack(held)) << "its holder may still finish";
  q.reopen(nullptr);
  expect_counts(q, {});
  EXPECT_EQ(q.take(), "none");
  // The lane, the chunk of slots and the timers stay for the next messages.
  EXPECT_LE(heap().stats().blocks, before + 3);
}

TEST_F(QueueTest, GivingBackToADeletedQueueEndsTheMessage) {
  q.put("m");
  const Got held = q.get().value();
  q.remove();
  EXPECT_TRUE(q.nack(held));
  q.reopen(nullptr);
  EXPECT_EQ(q.take(), "none");
  const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
  EXPECT_EQ(slots.used.load(), 0U);
}

TEST_F(QueueTest, NamesAreListedAndBounded) {
  TestQueue other(*core, "other");
  EXPECT_EQ(core->queues().directory().names(), (Bodies{"q", "other"}));
  EXPECT_EQ(core->queues().open("", nullptr, me()).status().code(), Code::kConfiguration);
  EXPECT_EQ(core->queues().open(std::string(257, 'n'), nullptr, me()).status().code(),
            Code::kConfiguration);
  EXPECT_TRUE(core->queues().open(std::string(256, 'n'), nullptr, me()).is_ok());
  Status last;
  for (std::uint64_t i = 0; last; ++i) {
    last = core->queues().open(number(i), nullptr, me()).status();
  }
  EXPECT_EQ(last.code(), Code::kNotEnoughMemory);
  EXPECT_EQ(core->queues().directory().names().size(), layout::kMaxQueues);
  other.remove();
  EXPECT_TRUE(core->queues().open("one more", nullptr, me()).is_ok());
}

TEST_F(QueueTest, DeadOwnersReservationsComeBackInFront) {
  for (std::uint64_t i = 0; i < 4; ++i) q.put(number(i));
  const auto other = test::open_core(options);
  TestQueue theirs(*other);
  const Got held = theirs.get().value();
  EXPECT_EQ(held.body, "0");
  test::die(*other);
  EXPECT_EQ(core->recovery().run(), 1);
  expect_counts(q, {.ready = 4});
  const Got again = q.get().value();
  EXPECT_EQ(again.body, "0");
  EXPECT_EQ(again.delivery.deliveries, 2U);
  EXPECT_EQ(q.take_all(), (Bodies{"1", "2", "3"}));
}

TEST_F(QueueTest, ClosingGivesReservationsBack) {
  q.put("m");
  {
    const auto other = test::open_core(options);
    TestQueue theirs(*other);
    ASSERT_TRUE(theirs.get().has_value());
    ASSERT_TRUE(other->close().is_ok());
  }
  expect_counts(q, {.ready = 1});
  EXPECT_EQ(q.take(), "m");
}

TEST_F(QueueTest, DeadOwnersLastDeliveryMakesDead) {
  TestQueue limited(*core, "limited", {.max_deliveries = 1});
  limited.put("kills its consumer");
  const auto other = test::open_core(options);
  TestQueue theirs(*other, "limited");
  ASSERT_TRUE(theirs.get().has_value());
  test::die(*other);
  recover();
  expect_counts(limited, {.dead = 1});
  EXPECT_EQ(limited.take(), "none");
}

TEST_F(QueueTest, OwnerBoundQueueGoesWithItsOwner) {
  const auto other = test::open_core(options);
  TestQueue theirs(*other, "reply", {.flags = kOwnerBound});
  TestQueue mine(*core, "reply");
  mine.put("answer");
  EXPECT_EQ(theirs.counts().ready, 1U);
  test::die(*other);
  recover();
  EXPECT_EQ(core->queues().directory().find("reply").record, nullptr);
  EXPECT_EQ(mine.try_put({{}, "m"}).status().code(), Code::kNotFound);
  const auto& slots = *core->arena().fixed<layout::SlotDirectory>(layout::kSlots);
  EXPECT_EQ(slots.used.load(), 0U);
}

TEST_F(QueueTest, OwnerBoundQueueGoesWhenItsOwnerCloses) {
  const auto other = test::open_core(options);
  const TestQueue theirs(*other, "reply", {.flags = kOwnerBound});
  ASSERT_TRUE(other->close().is_ok());
  EXPECT_EQ(core->queues().directory().find("reply").record, nullptr);
}

constexpr std::uint64_t kInBody = sizeof(layout::MessageHead) + 2;

TEST_F(QueueTest, DamagedBodyIsSetAsideAndOthersAreDelivered) {
  const std::uint64_t id = q.put("will be damaged");
  q.put("fine");
  Slots slots(core->base());
  const std::uint64_t body = slots.at(hint_index(id))->body.load();
  heap().payload(body, kInBody + 1)[kInBody] ^= 4;
  EXPECT_EQ(q.take_all(), Bodies{"fine"});
  expect_counts(q, {.dead = 1, .done = 1});
  EXPECT_EQ(core->arena().header().corrupt.load(), 1U);
}

TEST_F(QueueTest, DamagedBodiesAreLookedAtWithoutABody) {
  const std::uint64_t id = q.put("will be damaged");
  const std::uint64_t lost = q.put("will be lost");
  Slots slots(core->base());
  heap().payload(slots.at(hint_index(id))->body.load(), kInBody + 1)[kInBody] ^= 4;
  slots.at(hint_index(lost))->body.store(0xFFFFFFFFFFF0ULL);
  const auto look = [&](unsigned state) {
    std::vector<std::uint64_t> ids;
    for (const Peeked& p : core->queues().peek(q.ref(), state, 10)) {
      EXPECT_TRUE(p.damaged);
      EXPECT_EQ(p.body + p.headers, "");
      ids.push_back(p.delivery.id);
    }
    return ids;
  };
  const std::vector<std::uint64_t> both{id, lost};
  EXPECT_EQ(look(kSlotReady), both);
  EXPECT_EQ(q.take(), "none");
  EXPECT_EQ(look(kSlotDead), both);
  expect_counts(q, {.dead = 2});
}

TEST_F(QueueTest, NonsenseInSlotsHarmsNothing) {
  const std::uint64_t id = q.put("m");
  Slots slots(core->base());
  slots.at(hint_index(id))->body.store(0xFFFFFFFFFFFF0ULL);
  EXPECT_EQ(q.take(), "none");
  q.put("fine");
  EXPECT_EQ(q.take(), "fine");
}

}  // namespace
}  // namespace celeriac
