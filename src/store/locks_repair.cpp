// Locks, after a death: who is dead holds nothing and waits for nothing, and rings are made anew.
#include <algorithm>

#include "arena/crash_point.hpp"
#include "platform/futex.hpp"
#include "store/locks.hpp"
#include "store/locks_section.hpp"

namespace celeriac {
namespace {

// A repair waits no longer for a mutex: others wait for the repair.
constexpr std::uint64_t kRepairPatience = 20 * kMillisecond;

void ring(layout::LockSeat& s) {
  // release pairs with the acquire in Locks::look()
  s.signal.fetch_add(1, std::memory_order_release);
  futex_wake(&s.signal, 1 << 30);
}

}  // namespace

// REQUIRES: the bucket's mutex. Crash-safe: N5.
void Locks::relink(layout::LockBucket& b) {
  struct InLine {
    std::uint64_t order;
    std::uint32_t index;
    bool operator<(const InLine& other) const { return order < other.order; }
  };
  std::vector<InLine> all;
  b.first.store(0, std::memory_order_relaxed);
  seats_.each([&](std::uint32_t i, const layout::LockSeat& s, TaggedWord w) {
    if (w.state() == kSeatWriting || &bucket_of(s.first.load(std::memory_order_relaxed)) != &b)
      return;
    all.push_back({s.order.load(std::memory_order_relaxed), i});
  });
  CELERIAC_CRASH_POINT("lock.relink.found");
  std::sort(all.begin(), all.end());
  for (const InLine& f : all) {
    layout::LockSeat* s = seats_.at(f.index);
    std::uint32_t first = 0;
    if (s == nullptr || !find(b, s->first.load(std::memory_order_relaxed),
                              s->second.load(std::memory_order_relaxed), &first)) {
      continue;
    }
    b.next_order.store(f.order, std::memory_order_relaxed);  // join() gives it the place it had
    join(b, first, f.index);
  }
  CELERIAC_CRASH_POINT("lock.relink.joined");
}

void Locks::damaged(layout::LockBucket& b) {
  base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
  relink(b);
}

// Settles all locks of the bucket. False: its mutex isn't to be had.
bool Locks::tidy(layout::LockBucket& b, OwnerTag me) {
  Section s(*this, b, me, kRepairPatience);
  if (!s.held()) return false;
  for (int tries = 0; tries < 2; ++tries) {
    std::vector<std::uint32_t> rings;
    bool whole = true;
    for (std::uint32_t at = b.first.load(std::memory_order_relaxed); at != 0;) {
      layout::LockSeat* seat = seats_.at(at - 1);
      whole = seat != nullptr && rings.size() <= seats_.count();
      if (!whole) break;
      rings.push_back(at);
      at = seat->chain.load(std::memory_order_relaxed);
    }
    for (const std::uint32_t first : rings) {
      Ring settled;
      whole = whole && settle(s, first, &settled);
    }
    if (whole) return true;
    damaged(b);
  }
  return true;
}

void Locks::wake_bucket(const layout::LockBucket& b) {
  seats_.each([&](std::uint32_t, layout::LockSeat& s, TaggedWord) {
    if (&bucket_of(s.first.load(std::memory_order_relaxed)) == &b) ring(s);
  });
}

void Locks::wake(OwnerTag whose) {
  seats_.each([&](std::uint32_t, layout::LockSeat& s, TaggedWord w) {
    if (w.state() == kSeatWriting || (whose.valid() && w.owner() != whose)) return;
    ring(s);
    CELERIAC_CRASH_POINT("lock.wake.woken");
  });
}

void Locks::repair(const DeadOwners& dead) {
  const OwnerTag me = base_.owners.current();
  std::vector<layout::LockBucket*> buckets;
  seats_.each([&](std::uint32_t, layout::LockSeat& s, TaggedWord w) {
    if (!dead.contains(w.owner())) return;
    if (w.state() == kSeatWriting) {
      // One of our own that a thread is at, as we leave, that thread takes further; it is nobody's
      // by then, and goes when its lock is settled next.
      if (w.owner() != me) seats_.give_back(s, w);
      return;
    }
    const TaggedWord left = TaggedWord::make(kSeatLeft, w.owner(), w.generation());
    if (w.state() != kSeatLeft && !change(s.word, w, left)) return;
    CELERIAC_CRASH_POINT("lock.repair.marked");
    buckets.push_back(&bucket_of(s.first.load(std::memory_order_relaxed)));
  });
  if (dead.interrupted()) {  // one may have died with a mutex
    for (std::uint32_t i = 0; i < layout::kLockBucketCount; ++i) {
      if (buckets_[i].mutex.word.load(std::memory_order_relaxed) != 0)
        buckets.push_back(&buckets_[i]);
    }
  }
  std::sort(buckets.begin(), buckets.end());
  buckets.erase(std::unique(buckets.begin(), buckets.end()), buckets.end());
  for (layout::LockBucket* b : buckets) {
    // Who has no identity, or can't have the mutex, leaves it to those who wait.
    if (!me.valid() || !tidy(*b, me)) wake_bucket(*b);
    CELERIAC_CRASH_POINT("lock.repair.settled");
  }
  if (dead.interrupted()) wake_all();  // those whom the dead would have woken
}

void Locks::rebuild(const LiveBlocks& live) {
  seats_.clear(live);
  for (std::uint32_t i = 0; i < layout::kLockBucketCount; ++i) {
    layout::HalfWord& first = buckets_[i].first;
    if (first.load(std::memory_order_relaxed) != 0) first.store(0, std::memory_order_relaxed);
  }
  CELERIAC_CRASH_POINT("lock.rebuild.cleared");
}

}  // namespace celeriac
