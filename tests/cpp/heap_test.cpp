// The heap: blocks that walk, merge, and belong to somebody until they are free.
#include "memory/heap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include "memory/copy.hpp"
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

struct Member : Attachment {
  explicit Member(const ArenaOptions& o) : Attachment(o), heap(*arena, *owners), me(join()) {}
  Heap heap;
  OwnerTag me;
};

class HeapTest : public ::testing::Test {
 protected:
  std::unique_ptr<Member> attach() { return std::make_unique<Member>(root.options(memory)); }
  std::uint64_t allocate(std::uint64_t bytes) {
    Result<std::uint64_t> b = mine->heap.allocate(bytes, mine->me);
    EXPECT_TRUE(b.is_ok()) << b.status().message();
    return b ? b.value() : 0;
  }
  unsigned state(std::uint64_t block) { return load(*mine->heap.word(block)).state(); }
  // Everything adds up, in the walk and in the counts.
  void expect_sound() {
    if (mine->heap.dirty()) mine->heap.sweep(mine->me);  // a free() that couldn't wait any longer
    const HeapPicture p = look_at_heap(*mine->arena);
    const HeapStats s = mine->heap.stats();
    EXPECT_TRUE(p.whole);
    EXPECT_EQ(p.free_bytes + p.used_bytes, s.size - layout::kBlocks);
    EXPECT_EQ(p.free_bytes, s.free);
    EXPECT_EQ(p.used_blocks, s.blocks);
    EXPECT_EQ(p.wrong_back_links, 0U);
  }

  static constexpr std::uint64_t memory = 8 * kMiB;
  test::TemporaryRoot root;
  std::unique_ptr<Member> mine = attach();
};

TEST_F(HeapTest, AllocatedBlockIsOursAndRoomy) {
  const std::uint64_t b = allocate(100);
  EXPECT_EQ(b % 16, 0U);
  EXPECT_EQ(load(*mine->heap.word(b)).owner(), mine->me);
  EXPECT_EQ(state(b), kBlockWriting);
  ASSERT_NE(mine->heap.payload(b, 100), nullptr);
  EXPECT_EQ(mine->heap.payload(b, Heap::cost(100)), nullptr) << "the header takes its part";
  expect_sound();
}

TEST_F(HeapTest, LifeOfABlock) {
  const std::uint64_t b = allocate(100);
  const OwnerTag other{900, 7};
  EXPECT_FALSE(mine->heap.make_live(b, other));
  EXPECT_TRUE(mine->heap.make_live(b, mine->me));
  EXPECT_FALSE(mine->heap.make_live(b, mine->me)) << "once";
  EXPECT_TRUE(mine->heap.condemn(b, mine->me));
  EXPECT_FALSE(mine->heap.condemn(b, mine->me)) << "once";
  mine->heap.free(b, other);
  EXPECT_EQ(state(b), kBlockGarbage) << "not theirs to free";
  mine->heap.free(b, mine->me);
  EXPECT_EQ(state(b), kBlockFree);
  mine->heap.free(b, mine->me);
  expect_sound();
  EXPECT_EQ(mine->heap.stats().blocks, 0U);
}

TEST_F(HeapTest, NonsenseOffsetsAreRefused) {
  allocate(64);
  for (const std::uint64_t bad : {std::uint64_t{0}, std::uint64_t{16}, layout::kBlocks + 8,
                                  mine->arena->size(), kNever - 15}) {
    EXPECT_EQ(mine->heap.payload(bad, 1), nullptr) << bad;
    EXPECT_EQ(mine->heap.ticket(bad), 0U) << bad;
    EXPECT_FALSE(mine->heap.condemn(bad, mine->me)) << bad;
    mine->heap.free(bad, mine->me);
  }
  expect_sound();
}

TEST_F(HeapTest, NeighboursMergeBothWays) {
  const std::uint64_t a = allocate(1000);
  const std::uint64_t b = allocate(1000);
  const std::uint64_t c = allocate(1000);
  const std::uint64_t wall = allocate(1000);
  mine->heap.release(a, mine->me);
  mine->heap.release(c, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 4U) << "two, and the ends of nest and heap";
  mine->heap.release(b, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 3U) << "the three are one again";
  mine->heap.release(wall, mine->me);
  const HeapPicture p = look_at_heap(*mine->arena);
  EXPECT_EQ(p.free_blocks, 1U);
  EXPECT_EQ(p.neighbours_free, 0U);
  expect_sound();
}

TEST_F(HeapTest, SmallBlocksLieInNestsAtTheLowEndAndTheCacheAtTheHighEnd) {
  const std::uint64_t nest = mine->heap.piece(1);
  EXPECT_EQ(nest, 8192U);
  EXPECT_EQ(mine->heap.piece(nest / 4), Heap::cost(nest / 4));
  const std::uint64_t cached = mine->heap.allocate(nest - 16, mine->me, Fit::kCache).value();
  EXPECT_EQ(cached, mine->arena->size() - nest);
  const std::uint64_t first = allocate(100);
  EXPECT_EQ(first, layout::kBlocks);
  std::vector<std::uint64_t> small;
  while (look_at_heap(*mine->arena).nests == 1) small.push_back(allocate(100));
  EXPECT_EQ(small.size(), nest / Heap::cost(100)) << "with one in the second nest";
  EXPECT_EQ(small.back(), layout::kBlocks + nest);
  const std::uint64_t large = allocate(nest);
  EXPECT_EQ(large, layout::kBlocks + 2 * nest);
  for (const std::uint64_t b : small) mine->heap.release(b, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).nests, 1U) << "the empty one is open again";
  for (const std::uint64_t b : {large, first, cached}) mine->heap.release(b, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 1U);
  expect_sound();
}

// The cache has all but a little in the middle; what isn't the cache's has it leave the low end.
TEST_F(HeapTest, TheWindowForOthersIsTheLowest) {
  std::vector<std::uint64_t> cached;
  for (;;) {
    const Result<std::uint64_t> b = mine->heap.allocate(30'000, mine->me, Fit::kMoved);
    if (!b) break;
    cached.push_back(b.value());
    mine->heap.make_live(b.value(), mine->me);
  }
  std::sort(cached.begin(), cached.end());
  mine->heap.release(cached[cached.size() / 2], mine->me);
  EXPECT_FALSE(mine->heap.allocate(29'500, mine->me, Fit::kProper).is_ok()) << "above the line";
  const auto all = [](std::uint64_t) { return true; };
  const auto low = mine->heap.window(50'000, Fit::kProper, all, mine->me);
  EXPECT_TRUE(low == std::vector(cached.begin(), cached.begin() + 2) ||
              low == std::vector(cached.begin(), cached.begin() + 1))
      << "with a free rest below them";
  for (const std::uint64_t b : low) mine->heap.release(b, mine->me);
  EXPECT_LE(mine->heap.allocate(50'000, mine->me, Fit::kProper).value(), cached[0]);
  EXPECT_TRUE(mine->heap.window(memory, Fit::kProper, all, mine->me).empty());
  expect_sound();
}

TEST_F(HeapTest, NoPlaceButAHoleIsUsedAtTheEnd) {
  const auto more = [&](std::uint64_t bytes, Fit fit) {
    const Result<std::uint64_t> b = mine->heap.allocate(bytes, mine->me, fit);
    return b ? b.value() : 0;
  };
  while (more(100'000, Fit::kProper) != 0) {
  }
  while (more(4000, Fit::kProper) != 0) {
  }
  EXPECT_EQ(more(100, Fit::kProper), 0U) << "no nest";
  int n = 0;
  while (more(100, Fit::kAnyHole) != 0) ++n;
  EXPECT_GT(n, 0) << "but holes";
  EXPECT_LT(mine->heap.largest_piece(mine->me), Heap::cost(100));
  expect_sound();
}

TEST_F(HeapTest, ASweepOpensEmptyNests) {
  const auto dead = attach();
  const std::uint64_t theirs = dead->heap.allocate(100, dead->me).value();
  EXPECT_EQ(look_at_heap(*mine->arena).nests, 1U);
  dead->die();
  ASSERT_EQ(mine->recovery->run(), 1);
  mine->heap.sweep(mine->me);
  EXPECT_EQ(state(theirs), kBlockFree);
  EXPECT_EQ(look_at_heap(*mine->arena).nests, 0U);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 1U);
  expect_sound();
}

TEST_F(HeapTest, SidesThatMakeNoSenseDoNoHarm) {
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 200; ++i) all.push_back(allocate(100 + (i % 7) * 500));
  std::mt19937_64 random(9);
  for (const std::uint64_t b : all) {
    layout::Word& sizes = mine->arena->at<layout::BlockHeader>(b)->sizes;
    sizes.store((sizes.load() & ~(3ULL << 30U)) | (random() % 4) << 30U);
  }
  for (std::size_t i = 0; i < all.size(); i += 2) mine->heap.release(all[i], mine->me);
  mine->heap.sweep(mine->me);
  for (int i = 0; i < 200; ++i) allocate(200);
  expect_sound();
}

TEST_F(HeapTest, GrowsByExtentsUpToTheCeilingThenSaysSo) {
  std::vector<std::uint64_t> all;
  for (;;) {
    const Result<std::uint64_t> b = mine->heap.allocate(50'000, mine->me);
    if (!b) {
      EXPECT_EQ(b.status().code(), Code::kNotEnoughMemory);
      EXPECT_NE(b.status().message().find("memory="), std::string::npos);
      break;
    }
    all.push_back(b.value());
  }
  EXPECT_GT(all.size(), (memory - layout::kBlocks) / 50'100 * 9 / 10);
  EXPECT_LE(mine->arena->size(), memory);
  expect_sound();
  for (const std::uint64_t b : all) mine->heap.release(b, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).neighbours_free, 0U);
  EXPECT_EQ(mine->heap.stats().blocks, 0U);
  EXPECT_TRUE(mine->heap.allocate(memory - layout::kBlocks - kMiB, mine->me).is_ok());
}

TEST_F(HeapTest, LargerThanTheArenaIsRefusedAtOnce) {
  const Result<std::uint64_t> b = mine->heap.allocate(memory + 1, mine->me);
  EXPECT_EQ(b.status().code(), Code::kNotEnoughMemory);
  EXPECT_FALSE(mine->heap.allocate(kNever - 100, mine->me).is_ok());
  expect_sound();
}

TEST_F(HeapTest, TicketNamesOneLifeOfABlock) {
  const std::uint64_t b = allocate(100);
  mine->heap.make_live(b, mine->me);
  const std::uint64_t ticket = mine->heap.ticket(b);
  EXPECT_EQ(mine->heap.still_live(ticket), b);
  mine->heap.release(b, mine->me);
  EXPECT_EQ(mine->heap.still_live(ticket), 0U);
  ASSERT_EQ(allocate(100), b);
  mine->heap.make_live(b, mine->me);
  EXPECT_EQ(mine->heap.still_live(ticket), 0U) << "the same place, another life";
}

// Blocks merge and are cut anew, so that a header may be written over what was payload: the next
// life of the place must still differ from all before it.
TEST_F(HeapTest, TicketsNeverRepeatThroughMergesAndSplits) {
  std::mt19937_64 random(11);
  std::set<std::uint64_t> seen;
  std::vector<std::uint64_t> held;
  for (int i = 0; i < 30'000; ++i) {
    if (held.size() < 20 && random() % 2 == 0) {
      held.push_back(allocate(16 + random() % 400));
      ASSERT_TRUE(seen.insert(mine->heap.ticket(held.back())).second) << "round " << i;
    } else if (!held.empty()) {
      std::swap(held[random() % held.size()], held.back());
      mine->heap.release(held.back(), mine->me);
      held.pop_back();
    }
  }
}

TEST_F(HeapTest, RandomUseAgainstAModel) {
  std::mt19937_64 random(3);
  std::map<std::uint64_t, std::uint64_t> model;  // block to size
  const auto fill = [](std::uint64_t b) { return static_cast<char>(b / 16 * 7); };
  for (int i = 0; i < 40'000; ++i) {
    if (random() % 100 < (i / 4000 % 2 == 0 ? 60 : 40)) {
      const std::uint64_t bytes = random() % 10 == 0 ? random() % 60'000 : random() % 300;
      const Result<std::uint64_t> b = mine->heap.allocate(bytes, mine->me);
      if (!b) continue;
      const auto next = model.lower_bound(b.value());
      ASSERT_TRUE(next == model.end() || b.value() + Heap::cost(bytes) <= next->first);
      ASSERT_TRUE(next == model.begin() ||
                  std::prev(next)->first + Heap::cost(std::prev(next)->second) <= b.value());
      std::memset(mine->heap.payload(b.value(), bytes), fill(b.value()), bytes);
      model[b.value()] = bytes;
    } else if (!model.empty()) {
      auto it = model.lower_bound(layout::kBlocks + random() % (mine->arena->size()));
      if (it == model.end()) it = model.begin();
      const char* p = mine->heap.payload(it->first, it->second);
      ASSERT_TRUE(std::all_of(p, p + it->second, [&](char c) { return c == fill(it->first); }));
      mine->heap.release(it->first, mine->me);
      model.erase(it);
    }
    if (i % 5000 == 0) expect_sound();
  }
  EXPECT_EQ(mine->heap.stats().blocks, model.size());
  for (const auto& [b, bytes] : model) mine->heap.release(b, mine->me);
  EXPECT_EQ(look_at_heap(*mine->arena).free_blocks, 1U);
  expect_sound();
}

TEST_F(HeapTest, SweepFreesWhatReapedOwnersLeftAndNothingElse) {
  const auto dead = attach();
  const std::uint64_t ours = allocate(100);
  const std::uint64_t writing = dead->heap.allocate(200, dead->me).value();
  const std::uint64_t garbage = dead->heap.allocate(300, dead->me).value();
  const std::uint64_t live = dead->heap.allocate(400, dead->me).value();
  dead->heap.condemn(garbage, dead->me);
  dead->heap.make_live(live, dead->me);
  dead->die();
  mine->heap.sweep(mine->me);
  EXPECT_EQ(state(writing), kBlockWriting) << "dead, but not reaped yet";
  ASSERT_EQ(mine->recovery->run(), 1);
  mine->heap.sweep(mine->me);
  EXPECT_EQ(state(writing), kBlockFree);
  EXPECT_EQ(state(garbage), kBlockFree);
  EXPECT_EQ(state(live), kBlockLive);
  EXPECT_EQ(state(ours), kBlockWriting);
  EXPECT_EQ(mine->heap.stats().blocks, 2U);
  expect_sound();
}

TEST_F(HeapTest, SweepRebuildsDamagedFreeLists) {
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 50; ++i) all.push_back(allocate(100));
  for (std::size_t i = 0; i < all.size(); i += 2) mine->heap.release(all[i], mine->me);
  auto& control = *mine->arena->fixed<layout::HeapControl>(layout::kHeap);
  for (auto& row : control.lists[0].heads) {
    for (layout::Word& head : row) head.store(0xDEADBEEF);
  }
  mine->heap.sweep(mine->me);
  expect_sound();
  allocate(100);
  expect_sound();
}

TEST_F(HeapTest, DamagedFreeListIsCutAndSweptByTheNextAllocation) {
  const std::uint64_t a = allocate(500);
  allocate(16);
  mine->heap.release(a, mine->me);
  auto& control = *mine->arena->fixed<layout::HeapControl>(layout::kHeap);
  for (auto& row : control.lists[0].heads) {
    for (layout::Word& head : row) {
      if (head.load() != 0) head.store(7);
    }
  }
  EXPECT_TRUE(mine->heap.allocate(500, mine->me).is_ok());
  EXPECT_TRUE(mine->heap.allocate(500, mine->me).is_ok());
  expect_sound();
}

TEST_F(HeapTest, DamagedSizeEndsTheWalkWithoutEndingTheProcess) {
  const std::uint64_t a = allocate(500);
  const std::uint64_t b = allocate(500);
  mine->arena->at<layout::BlockHeader>(b)->sizes.store(0);
  mine->heap.sweep(mine->me);
  EXPECT_EQ(mine->arena->header().corrupt.load(), 1U);
  mine->heap.release(a, mine->me);
  EXPECT_TRUE(mine->heap.allocate(kMiB, mine->me).is_ok()) << "from a new extent";
  EXPECT_TRUE(look_at_heap(*mine->arena).whole);
}

TEST_F(HeapTest, FreeBehindAStoppedHolderIsLeftToASweep) {
  const auto stopped = attach();
  const std::uint64_t b = allocate(100);
  auto& control = *mine->arena->fixed<layout::HeapControl>(layout::kHeap);
  OwnerMutex mutex(control.mutex, *stopped->owners);
  ASSERT_EQ(mutex.lock(stopped->me, now_ns() + kSecond), Locked::kAcquired);
  mine->heap.release(b, mine->me);
  EXPECT_EQ(state(b), kBlockGarbage);
  EXPECT_TRUE(mine->heap.dirty());
  mutex.unlock();
  mine->heap.sweep(mine->me);
  EXPECT_EQ(state(b), kBlockFree);
}

TEST(Copy, AnyLengthInAndOutAndCompared) {
  alignas(8) std::uint64_t shared[16];
  for (std::size_t n = 0; n <= 100; ++n) {
    std::string text(n, ' ');
    for (std::size_t i = 0; i < n; ++i) text[i] = static_cast<char>('a' + i % 26);
    copy_in(shared, text.data(), n);
    std::string back(n, '?');
    copy_out(back.data(), shared, n);
    ASSERT_EQ(back, text);
    ASSERT_TRUE(equal(shared, text.data(), n));
    if (n == 0) continue;
    text[n - 1] = '!';
    ASSERT_FALSE(equal(shared, text.data(), n));
  }
}

// Random use by one owner; every block says whose it is, all over.
void use_at_random(Member& m, std::uint64_t seed, int rounds, std::atomic<int>& failures) {
  std::mt19937_64 random(seed);
  std::vector<std::pair<std::uint64_t, std::uint64_t>> held;
  for (int i = 0; i < rounds; ++i) {
    if (held.size() < 30 && random() % 2 == 0) {
      const std::uint64_t words = 1 + random() % 60;
      const Result<std::uint64_t> b = m.heap.allocate(words * 8, m.me);
      if (!b) continue;
      auto* p = reinterpret_cast<std::uint64_t*>(m.heap.payload(b.value(), words * 8));
      for (std::uint64_t w = 0; w < words; ++w) {
        std::atomic_ref(p[w]).store(seed, std::memory_order_relaxed);
      }
      held.emplace_back(b.value(), words);
    } else if (!held.empty()) {
      const auto [b, words] = held.back();
      held.pop_back();
      const auto* p = reinterpret_cast<const std::uint64_t*>(m.heap.payload(b, words * 8));
      for (std::uint64_t w = 0; w < words; ++w) failures += relaxed_load(p + w) != seed ? 1 : 0;
      m.heap.release(b, m.me);
    }
  }
  for (const auto& [b, words] : held) m.heap.release(b, m.me);
}

using HeapConcurrency = HeapTest;

TEST_F(HeapConcurrency, ThreadsOfOneMapping) {
  std::atomic<int> failures{0};
  std::vector<std::thread> all;
  for (std::uint64_t i = 1; i <= 4; ++i) {
    all.emplace_back([&, i] { use_at_random(*mine, i, 3000, failures); });
  }
  for (std::thread& t : all) t.join();
  EXPECT_EQ(failures, 0);
  expect_sound();
  EXPECT_EQ(mine->heap.stats().blocks, 0U);
}

TEST_F(HeapConcurrency, ThreadsOfTwoMappings) {
  const auto other = attach();
  std::atomic<int> failures{0};
  std::vector<std::thread> all;
  for (std::uint64_t i = 1; i <= 4; ++i) {
    all.emplace_back([&, i] { use_at_random(i % 2 ? *mine : *other, i, 3000, failures); });
  }
  for (std::thread& t : all) t.join();
  EXPECT_EQ(failures, 0);
  expect_sound();
  EXPECT_EQ(mine->heap.stats().blocks, 0U);
}

}  // namespace
}  // namespace celeriac
