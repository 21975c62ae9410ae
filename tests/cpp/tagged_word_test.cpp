// The tagged word: state, owner and generation change together or not at all.
#include "sync/tagged_word.hpp"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Child;

constexpr unsigned kIdle = 1;
constexpr unsigned kTaken = 2;

TEST(TaggedWord, KeepsItsParts) {
  std::mt19937_64 random(7);
  for (int i = 0; i < 10'000; ++i) {
    const auto state = static_cast<unsigned>(random() % 16);
    const OwnerTag owner{static_cast<std::uint16_t>(random() % layout::kMaxOwners),
                         static_cast<std::uint16_t>(random() % 65535 + 1)};
    const auto generation = static_cast<std::uint32_t>(random());
    const TaggedWord w = TaggedWord::make(state, owner, generation);
    ASSERT_EQ(w.state(), state);
    ASSERT_EQ(w.owner(), owner);
    ASSERT_EQ(w.generation(), generation);
  }
}

TEST(TaggedWord, NobodyIsNotSlotZero) {
  EXPECT_FALSE(TaggedWord::make(kIdle, {}, 1).owner().valid());
  EXPECT_EQ(TaggedWord::make(kIdle, {0, 1}, 1).owner(), (OwnerTag{0, 1}));
  EXPECT_EQ(TaggedWord{}.state(), 0U) << "a zeroed word is the free state";
}

TEST(TaggedWord, ChangeNeedsTheExactWord) {
  const TaggedWord idle = TaggedWord::make(kIdle, {}, 7);
  const TaggedWord taken = TaggedWord::make(kTaken, {3, 1}, 8);
  layout::Word w{idle.bits};
  EXPECT_FALSE(change(w, TaggedWord::make(kIdle, {}, 6), taken));
  EXPECT_TRUE(change(w, idle, taken));
  EXPECT_FALSE(change(w, idle, taken)) << "taken already";
  EXPECT_EQ(load(w), taken);
}

TEST(TaggedWord, LateFinishFailsAfterTheNextTake) {
  layout::Word w{TaggedWord::make(kIdle, {}, 7).bits};
  const TaggedWord first = TaggedWord::make(kTaken, {3, 1}, 8);
  ASSERT_TRUE(change(w, load(w), first));
  ASSERT_TRUE(change(w, first, TaggedWord::make(kIdle, {}, 8)));  // recovery gives it back
  ASSERT_TRUE(change(w, load(w), TaggedWord::make(kTaken, {3, 1}, 9)));
  EXPECT_FALSE(change(w, first, TaggedWord::make(kIdle, {}, 8))) << "same owner, other life";
}

// Takes and finishes; returns how often. `inside` is true while somebody has it.
int take_and_finish(layout::Word& w, OwnerTag me, std::atomic<int>& inside, int rounds) {
  int violations = 0;
  while (rounds > 0) {
    const TaggedWord seen = load(w);
    const TaggedWord mine = TaggedWord::make(kTaken, me, seen.generation() + 1);
    if (seen.state() != kIdle || !change(w, seen, mine)) continue;
    violations += inside.fetch_add(1, std::memory_order_relaxed) != 0 ? 1 : 0;
    inside.fetch_sub(1, std::memory_order_relaxed);
    violations += change(w, mine, TaggedWord::make(kIdle, {}, mine.generation())) ? 0 : 1;
    --rounds;
  }
  return violations;
}

TEST(TaggedWordConcurrency, OneHasItAtATime) {
  layout::Word w{TaggedWord::make(kIdle, {}, 0).bits};
  std::atomic<int> inside{0};
  std::atomic<int> violations{0};
  std::vector<std::thread> all;
  for (std::uint16_t i = 0; i < 4; ++i) {
    all.emplace_back([&, i] { violations += take_and_finish(w, {i, 1}, inside, 5000); });
  }
  for (std::thread& t : all) t.join();
  EXPECT_EQ(violations, 0);
  EXPECT_EQ(load(w).generation(), 20'000U) << "one for each take";
}

struct SharedWord {
  layout::Word word{TaggedWord::make(kIdle, {}, 0).bits};
  std::atomic<int> inside{0};
};

TEST(TaggedWord, OneProcessHasItAtATime) {
  CELERIAC_TEST_FORKS();
  const test::Shared<SharedWord> shared;
  std::vector<Child> all;
  for (std::uint16_t i = 0; i < 3; ++i) {
    all.push_back(Child::run([&, i] {
      return take_and_finish(shared->word, {i, 1}, shared->inside, 5000);
    }));
  }
  for (Child& c : all) EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ(load(shared->word).generation(), 15'000U);
}

// Killed at any moment: the word says who had it, and one CAS gives it back.
TEST(TaggedWord, KilledHolderIsNamedByTheWord) {
  CELERIAC_TEST_FORKS();
  const test::Shared<SharedWord> shared;
  for (std::uint16_t round = 1; round <= 50; ++round) {
    const OwnerTag theirs{5, round};
    Child other =
        Child::run([&] { return take_and_finish(shared->word, theirs, shared->inside, 1 << 30); });
    test::sleep_us(300U + round * 13U);
    other.kill();
    const TaggedWord left = load(shared->word);
    if (left.state() == kIdle) {
      ASSERT_FALSE(left.owner().valid());
      continue;
    }
    ASSERT_EQ(left.owner(), theirs);
    ASSERT_TRUE(change(shared->word, left, TaggedWord::make(kIdle, {}, left.generation())));
  }
}

}  // namespace
}  // namespace celeriac
