// Ready lanes: boost::lockfree::queue as a hint, and what makes its weaknesses harmless.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <set>

#include "queue/lanes.hpp"
#include "support/process.hpp"
#include "support/queue_verbs.hpp"

namespace celeriac {
namespace {

using test::Got;
using test::TestQueue;

// The words of the tail: {index:16 | tag:16} in its first half, as tagged_index lays it out.
std::uint32_t raw_tail_or_head(const layout::FrontLane& lane, std::size_t line) {
  std::uint32_t word = 0;
  std::memcpy(&word, reinterpret_cast<const char*>(&lane) + line * 64, sizeof word);
  return word;
}

// Boost before 1.74 delivers out of order, and an optimiser may drop the tag: then a node that was
// freed and used again would look as if nothing had happened (ABA). The tag must count on.
TEST(BoostQueue, TagCountsReusesOfANode) {
  const auto lane = std::make_unique<layout::FrontLane>();
  layout::Hint out = 0;
  std::set<std::uint32_t> heads;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(lane->bounded_push(i));
    ASSERT_TRUE(lane->pop(out));
    ASSERT_EQ(out, i);
    heads.insert(raw_tail_or_head(*lane, 0));
  }
  EXPECT_GE(heads.size(), 1000U) << "the same index with the same tag came back";
}

TEST(BoostQueue, KeepsOrderThroughReuse) {
  const auto lane = std::make_unique<layout::MainLane>();
  std::uint64_t in = 0;
  std::uint64_t next = 0;
  layout::Hint out = 0;
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 700; ++i) ASSERT_TRUE(lane->bounded_push(in++));
    for (int i = 0; i < 700; ++i) {
      ASSERT_TRUE(lane->pop(out));
      ASSERT_EQ(out, next++);
    }
  }
}

TEST(BoostQueue, HoldsWhatItsCapacitySaysAndNoMore) {
  const auto lane = std::make_unique<layout::MainLane>();
  std::uint32_t n = 0;
  while (lane->bounded_push(n)) ++n;
  EXPECT_GE(n, layout::kLaneCapacity);
  EXPECT_LE(n, layout::kLaneCapacity + 1);
}

TEST(BoostQueue, IsLockFreeAndHasNoPointers) {
  const layout::MainLane lane;
  EXPECT_TRUE(lane.is_lock_free());
  // Used at another address after a move of its bytes: offsets only.
  const auto a = std::make_unique<layout::FrontLane>();
  const auto b = std::make_unique<layout::FrontLane>();
  for (layout::Hint i = 0; i < 50; ++i) a->bounded_push(i);
  std::memcpy(static_cast<void*>(b.get()), a.get(), sizeof *a);
  layout::Hint out = 0;
  for (layout::Hint i = 0; i < 50; ++i) {
    ASSERT_TRUE(b->pop(out));
    ASSERT_EQ(out, i);
  }
}

class LaneTest : public test::LocalStoreTest {
 protected:
  layout::Lane& lane(std::uint8_t priority = 0) {
    const std::uint64_t block = q.ref().record->lanes[priority].load();
    return *core->arena().at<layout::Lane>(aligned_object(block));
  }
  layout::Hint empty_lane() {
    layout::Hint hint = 0;
    while (lane().front.pop(hint) || lane().main.pop(hint)) {
    }
    return hint;
  }
  void distrust() { lane().overflow.store(1); }

  TestQueue q{*core};
};

TEST_F(LaneTest, LostHintsAreFoundByARefill) {
  for (const char* m : {"a", "b", "c"}) q.put(m);
  empty_lane();  // as a consumer that dies after popping, again and again
  distrust();    // as recovery does
  EXPECT_EQ(q.take_all(), (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(LaneTest, DoubledHintsDeliverOnce) {
  const std::uint64_t id = q.put("once");
  for (int i = 0; i < 10; ++i) lane().main.bounded_push(id);
  EXPECT_EQ(q.take_all(), std::vector<std::string>{"once"});
}

TEST_F(LaneTest, StaleHintsDeliverNothing) {
  const std::uint64_t id = q.put("old");
  EXPECT_EQ(q.take(), "old");
  for (std::uint32_t g = 0; g < 4; ++g) {
    lane().main.bounded_push(make_hint(hint_index(id), hint_generation(id) + g));
  }
  lane().main.bounded_push(make_hint(0xFFFFFFFF, 1));
  lane().main.bounded_push(~0ULL);
  q.ref().record->active[0].store(1);
  EXPECT_EQ(q.take(), "none");
  q.put("new");
  EXPECT_EQ(q.take(), "new");
}

TEST_F(LaneTest, HintOfAnotherQueueDeliversNothingAndLosesNothing) {
  TestQueue other(*core, "other");
  const std::uint64_t theirs = other.put("theirs");
  q.put("ours");
  lane().main.bounded_push(theirs);
  EXPECT_EQ(q.take_all(), std::vector<std::string>{"ours"});
  EXPECT_EQ(other.take_all(), std::vector<std::string>{"theirs"});
}

TEST_F(LaneTest, ReservedMessageIsNotDeliveredByItsOldHint) {
  const std::uint64_t id = q.put("m");
  const Got held = q.get().value();
  lane().main.bounded_push(id);
  q.ref().record->active[0].store(1);
  EXPECT_EQ(q.take(), "none");
  EXPECT_TRUE(q.ack(held));
}

TEST_F(LaneTest, NothingOvertakesWhatWaitsInTheSlots) {
  q.put("first");
  empty_lane();
  distrust();
  q.put("second");
  EXPECT_EQ(q.take_all(), (std::vector<std::string>{"first", "second"}));
}

TEST_F(LaneTest, StoppedRefillerKeepsNobodyFromItsMessages) {
  q.put("first");
  empty_lane();
  distrust();
  const auto stopped = test::open_core(options);
  OwnerMutex mutex(lane().refill, stopped->base().owners);
  ASSERT_EQ(mutex.lock(test::must(stopped->enter()), kNever), Locked::kAcquired);
  lane().overflow.store(2);  // it was in the middle of refilling
  q.put("second");
  EXPECT_EQ(q.take_all(), (std::vector<std::string>{"first", "second"}));
  EXPECT_TRUE(core->queues().maybe_ready(q.ref())) << "not sure, so not denied";
  mutex.unlock();
  EXPECT_EQ(q.take(), "none");
  EXPECT_FALSE(core->queues().maybe_ready(q.ref()));
}

TEST_F(LaneTest, LaneFullOfHintsThatLeadNowhereStillDelivers) {
  q.put("warm");
  q.take();
  while (lane().main.bounded_push(make_hint(1'000'000, 1))) {
  }
  std::vector<std::string> expected;
  for (int i = 0; i < 20; ++i) {
    q.put(std::to_string(i));
    expected.push_back(std::to_string(i));
  }
  EXPECT_EQ(q.take_all(), expected);
}

}  // namespace
}  // namespace celeriac
