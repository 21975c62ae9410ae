// A heap whose ceiling falls: nothing is placed above it, the end is cut off, and H1 holds.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <vector>

#include "memory/heap.hpp"
#include "platform/clock.hpp"
#include "support/attachment.hpp"
#include "support/heap_walk.hpp"
#include "support/process.hpp"

namespace celeriac {
namespace {

using test::Attachment;
using test::HeapPicture;
using test::look_at_heap;

constexpr std::uint64_t kMiB = 1ULL << 20U;
constexpr std::uint64_t kPage = 4096;

struct Member : Attachment {
  explicit Member(const ArenaOptions& o) : Attachment(o), heap(*arena, *owners), me(join()) {}
  Heap heap;
  OwnerTag me;
};

bool stays(std::uint64_t) { return false; }

class HeapShrinkTest : public ::testing::Test {
 protected:
  std::unique_ptr<Member> attach() { return std::make_unique<Member>(root.options(memory)); }
  std::uint64_t allocate(std::uint64_t bytes, Fit fit = Fit::kAnyHole) {
    const Result<std::uint64_t> b = mine->heap.allocate(bytes, mine->me, fit);
    return b ? b.value() : 0;
  }
  // The cache's blocks, up to the ceiling.
  std::vector<std::uint64_t> fill(std::uint64_t bytes) {
    std::vector<std::uint64_t> all;
    while (const std::uint64_t b = allocate(bytes, Fit::kMoved)) {
      mine->heap.make_live(b, mine->me);
      all.push_back(b);
    }
    std::sort(all.begin(), all.end());
    return all;
  }
  std::uint64_t end_of(std::uint64_t block) {
    return block + sizes_of(*mine->arena->at<layout::BlockHeader>(block)).own * 16;
  }
  std::uint64_t file_bytes() const {
    struct stat s {};
    EXPECT_EQ(stat((mine->arena->path() + "/arena").c_str(), &s), 0);
    return static_cast<std::uint64_t>(s.st_blocks) * 512;
  }
  void expect_sound() {
    const HeapPicture p = look_at_heap(*mine->arena);
    const HeapStats s = mine->heap.stats();
    EXPECT_TRUE(p.whole);
    EXPECT_EQ(p.free_bytes + p.used_bytes, s.size - layout::kBlocks);
    EXPECT_EQ(p.free_bytes, s.free);
    EXPECT_EQ(p.used_blocks, s.blocks);
    EXPECT_EQ(p.wrong_back_links, 0U);
  }

  static constexpr std::uint64_t memory = 16 * kMiB;
  test::TemporaryRoot root;
  std::unique_ptr<Member> mine = attach();
};

TEST_F(HeapShrinkTest, ABlockThatStaysAboveIsAReasonToRefuse) {
  mine->heap.release(fill(50'000).back(), mine->me);
  const std::uint64_t staying = allocate(40'000);
  ASSERT_NE(staying, 0U);
  const std::uint64_t size = mine->arena->size();
  const std::uint64_t low = staying / kPage * kPage;
  const Status refused = mine->heap.lower(low, stays, mine->me);
  EXPECT_EQ(refused.code(), Code::kNotEnoughMemory);
  EXPECT_NE(refused.message().find("need"), std::string::npos);
  EXPECT_EQ(mine->arena->capacity(), memory);
  EXPECT_TRUE(mine->heap
                  .lower(
                      low, [&](auto b) { return b == staying; }, mine->me)
                  .is_ok());
  EXPECT_EQ(mine->arena->capacity(), low);
  EXPECT_EQ(mine->arena->size(), size) << "nothing has left yet";
  expect_sound();
}

TEST_F(HeapShrinkTest, NothingIsPlacedAboveTheCeiling) {
  const std::vector<std::uint64_t> cached = fill(50'000);
  const std::uint64_t low = 8 * kMiB + 3 * kPage;
  // A free block on both sides of what is to be the ceiling, and free ones above and below.
  for (const std::uint64_t b : cached) {
    const bool on_both_sides = b < low && low < end_of(b);
    if (on_both_sides || b / 50'000 % 3 == 0) mine->heap.release(b, mine->me);
  }
  ASSERT_TRUE(mine->heap.lower(low, stays, mine->me).is_ok());
  expect_sound();
  std::uint64_t placed = 0;
  for (const std::uint64_t bytes : {40'000U, 3000U, 100U}) {
    for (const Fit fit : {Fit::kCache, Fit::kMoved, Fit::kProper, Fit::kAnyHole}) {
      while (const std::uint64_t b = allocate(bytes, fit)) {
        ASSERT_LE(end_of(b), low);
        ++placed;
      }
    }
  }
  EXPECT_GT(placed, 100U);
  const std::uint64_t free = mine->heap.stats().free;
  for (const std::uint64_t b : cached) {
    if (b < low) continue;
    mine->heap.release(b, mine->me);
    ASSERT_EQ(allocate(100), 0U) << "what becomes free above it, too";
  }
  EXPECT_GT(mine->heap.stats().free, free);
  expect_sound();
  EXPECT_EQ(mine->heap
                .window(
                    50'000, Fit::kProper, [](auto) { return false; }, mine->me)
                .size(),
            0U);
  EXPECT_EQ(mine->heap.trim(mine->me), low);
  expect_sound();
  mine->arena->raise(memory);
  EXPECT_NE(allocate(40'000), 0U) << "and grows again";
  expect_sound();
}

TEST_F(HeapShrinkTest, ANestThatLiesHighDrawsNothingWhileThereIsRoomBelow) {
  const std::vector<std::uint64_t> cached = fill(50'000);
  for (const std::uint64_t bytes : {2000U, 16U}) fill(bytes);  // what is left between
  EXPECT_EQ(allocate(100, Fit::kProper), 0U);
  mine->heap.release(cached.back(), mine->me);
  const std::uint64_t high = allocate(100);
  EXPECT_GT(high, cached[cached.size() - 2]) << "a nest, where there is room";
  EXPECT_EQ(allocate(100, Fit::kProper), 0U);
  mine->heap.release(cached.front(), mine->me);
  const std::uint64_t low = allocate(100, Fit::kProper);
  EXPECT_NE(low, 0U);
  EXPECT_LT(low, cached[1]);
  EXPECT_LT(allocate(100), cached[1]);
  expect_sound();
}

TEST_F(HeapShrinkTest, ACeilingThatRisesBeforeTheEndIsCutGivesAllBack) {
  const std::vector<std::uint64_t> cached = fill(50'000);
  for (std::size_t i = 0; i < cached.size(); i += 2) mine->heap.release(cached[i], mine->me);
  ASSERT_TRUE(mine->heap.lower(4 * kMiB, stays, mine->me).is_ok());
  for (std::size_t i = 1; i < cached.size(); i += 2) mine->heap.release(cached[i], mine->me);
  mine->arena->raise(memory);
  EXPECT_NE(allocate(10 * kMiB), 0U) << "in one piece";
  expect_sound();
}

TEST_F(HeapShrinkTest, TheFileGivesBackWhatIsCutOffAndGrowsAgain) {
  for (const std::uint64_t b : fill(50'000)) {
    std::memset(mine->heap.payload(b, 50'000), 'x', 50'000);
    mine->heap.release(b, mine->me);
  }
  const std::uint64_t before = mine->arena->size();
  EXPECT_GE(file_bytes(), before);
  const std::uint64_t kept = allocate(50'000);
  std::memset(mine->heap.payload(kept, 50'000), 'k', 50'000);
  const auto other = attach();
  const char* stale = other->arena->at<char>(before - 100);
  ASSERT_NE(stale, nullptr);
  ASSERT_TRUE(mine->heap.lower(4 * kMiB, stays, mine->me).is_ok());
  const std::uint64_t size = mine->heap.trim(mine->me);
  EXPECT_LT(size, 4 * kMiB);
  EXPECT_EQ(size, mine->arena->size());
  EXPECT_EQ(size % kPage, 0U);
  mine->heap.give_back(mine->me);
  EXPECT_LE(file_bytes(), size);
  expect_sound();
  // Who looked there before reads zeros; who looks now is told that there is nothing.
  EXPECT_EQ(*stale, 0);
  EXPECT_EQ(mine->arena->at<char>(before - 100), nullptr);
  EXPECT_FALSE(other->arena->up_to_date());
  other->arena->follow();
  EXPECT_TRUE(other->arena->up_to_date());
  EXPECT_EQ(other->arena->at<char>(before - 100), nullptr);
  EXPECT_EQ(other->heap.payload(before - 4096, 1), nullptr);
  EXPECT_EQ(allocate(5 * kMiB), 0U) << "the ceiling";
  mine->arena->raise(memory);
  const std::uint64_t large = allocate(10 * kMiB);
  ASSERT_NE(large, 0U);
  EXPECT_GE(file_bytes(), mine->arena->size());
  std::memset(other->heap.payload(large, 10 * kMiB), 'l', 10 * kMiB);
  const char* p = mine->heap.payload(kept, 50'000);
  EXPECT_TRUE(std::all_of(p, p + 50'000, [](char c) { return c == 'k'; }));
  expect_sound();
}

TEST_F(HeapShrinkTest, AnEmptyHeapKeepsALittle) {
  mine->heap.release(allocate(10 * kMiB), mine->me);
  ASSERT_TRUE(mine->heap.lower(kMinimumMemory, stays, mine->me).is_ok());
  EXPECT_EQ(mine->heap.trim(mine->me), layout::kBlocks + kMiB);
  EXPECT_EQ(mine->heap.trim(mine->me), layout::kBlocks + kMiB) << "nothing more";
  EXPECT_NE(allocate(kMiB / 2), 0U);
  expect_sound();
}

TEST_F(HeapShrinkTest, AnArenaLargerThanItsCeilingIsAttached) {
  fill(50'000);
  ASSERT_TRUE(mine->heap.lower(4 * kMiB, stays, mine->me).is_ok());
  ArenaOptions options = root.options(memory);
  options.memory_given = false;
  const Member other(options);
  EXPECT_EQ(other.arena->capacity(), 4 * kMiB) << "who names no memory leaves it";
  options.memory_given = true;
  const Member third(options);
  EXPECT_EQ(other.arena->capacity(), memory) << "who does raises it";
}

TEST_F(HeapShrinkTest, RandomUseAgainstAModel) {
  std::mt19937_64 random(5);
  std::map<std::uint64_t, std::uint64_t> model;  // block to size
  const auto letter = [](std::uint64_t b) { return static_cast<char>(b / 16 * 7); };
  std::uint64_t lowered = 0;
  std::uint64_t refused = 0;
  for (int i = 0; i < 40'000; ++i) {
    const std::uint64_t what = random() % 1000;
    if (what < 4) {
      const std::uint64_t to = layout::align_up(kMinimumMemory + random() % memory, kPage);
      if (to > mine->arena->capacity()) {
        mine->arena->raise(std::min(to, memory));
      } else {
        const std::uint64_t highest = model.empty() ? 0 : end_of(model.rbegin()->first);
        const bool does = mine->heap.lower(to, stays, mine->me).is_ok();
        ASSERT_EQ(does, highest <= to);
        ++(does ? lowered : refused);
      }
    } else if (what < 8) {
      const std::uint64_t size = mine->heap.trim(mine->me);
      ASSERT_LE(model.empty() ? 0 : end_of(model.rbegin()->first), size);
      if (random() % 2 == 0) mine->heap.give_back(mine->me);
    } else if (what < (i / 4000 % 2 == 0 ? 750U : 300U)) {
      const std::uint64_t bytes = random() % 4 == 0 ? random() % 60'000 : random() % 300;
      const Fit fit = random() % 4 == 0 ? Fit::kAnyHole : Fit::kProper;
      const std::uint64_t b = allocate(bytes, fit);
      if (b == 0) continue;
      ASSERT_LE(end_of(b), mine->arena->capacity());
      std::memset(mine->heap.payload(b, bytes), letter(b), bytes);
      model[b] = bytes;
    } else if (!model.empty()) {
      auto it = model.lower_bound(layout::kBlocks + random() % (mine->arena->size()));
      if (it == model.end()) it = model.begin();
      const char* p = mine->heap.payload(it->first, it->second);
      ASSERT_TRUE(std::all_of(p, p + it->second, [&](char c) { return c == letter(it->first); }));
      mine->heap.release(it->first, mine->me);
      model.erase(it);
    }
    if (i % 2000 == 0) expect_sound();
  }
  EXPECT_GT(lowered, 10U);
  EXPECT_GT(refused, 10U);
  for (const auto& [b, bytes] : model) mine->heap.release(b, mine->me);
  mine->arena->raise(memory);
  mine->heap.sweep(mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 1U);
  expect_sound();
}

}  // namespace
}  // namespace celeriac
