// Queues, after a death: repair, exact counts, and hints made anew.
#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>

#include "arena/crash_point.hpp"
#include "queue/common.hpp"
#include "queue/queues.hpp"

namespace celeriac {

// What all queues' counters say.
std::vector<Queues::Counters> Queues::counters() {
  std::vector<Counters> all(directory_.high());
  for (std::uint32_t i = 0; i < all.size(); ++i) {
    if (layout::QueueRecord* q = directory_.at(i); q != nullptr) {
      all[i] = {Counter{&q->ready}, Counter{&q->delayed}, Counter{&q->reserved}, Counter{&q->dead},
                Counter{&q->length}};
      for (Counter& c : all[i]) c.value = c.word->load(std::memory_order_seq_cst);
    }
  }
  return all;
}

// True when nobody did anything meanwhile, so that the counters are exact now.
bool Queues::try_recount(OwnerTag me) {
  const Owners::Activity before = base_.owners.activity(me);
  if (!before.quiet) return false;
  std::vector<Counters> all = counters();
  std::vector<std::array<std::uint64_t, 16>> sums(all.size());
  slots_.each([&](std::uint32_t, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (of_meta(meta).record != nullptr && meta.queue() < sums.size()) {
      ++sums[meta.queue()][w.state()];
    }
  });
  if (base_.owners.activity(me) != before) return false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& sum = sums[i];
    const std::uint64_t reserved = sum[kSlotReserved] + sum[kSlotReturning];
    const std::uint64_t unfinished = sum[kSlotReady] + sum[kSlotDelayed] + reserved;
    const std::uint64_t right[] = {sum[kSlotReady], sum[kSlotDelayed], reserved, sum[kSlotDead],
                                   unfinished};
    for (std::size_t c = 0; c < all[i].size(); ++c) {
      Counter& counter = all[i][c];
      // By the difference to what it was then, so that what others count from here on is kept.
      if (counter.word != nullptr) {
        counter.word->fetch_add(right[c] - counter.value, std::memory_order_relaxed);
      }
    }
    CELERIAC_CRASH_POINT("queue.recount.corrected");
  }
  return true;
}

void Queues::recount(OwnerTag me) {
  layout::HalfWord& dirty = directory_.counts_dirty();
  if (dirty.load(std::memory_order_acquire) == 0) return;
  // One at a time, or two would add the same difference.
  OwnerMutex mutex(directory_.recount(), base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, 20 * kMillisecond));
  if (!guard.held() || dirty.load(std::memory_order_acquire) == 0) return;
  // Whoever dies in here dies inside of an operation, and so makes the counts dirty again.
  const OperationScope operation(base_.owners.record(me.slot));
  for (int i = 0; i < 16; ++i) {
    dirty.store(0, std::memory_order_seq_cst);  // before the look: a death after it sets it again
    if (try_recount(me)) return;
    dirty.store(1, std::memory_order_seq_cst);
    cpu_relax();
  }
}

void Queues::repair_slot(const DeadOwners& dead, std::uint32_t index, layout::Slot& s,
                         TaggedWord w) {
  if (!w.owner().valid() || !dead.contains(w.owner())) return;
  if (w.state() == kSlotWriting) {  // put() didn't return
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, w.owner(), w.generation());
    if (change(s.word, w, taken)) slots_.reclaim(s, taken, {});
    return;
  }
  if (w.state() == kSlotReclaim) {  // ack() was decided
    slots_.reclaim(s, w, {});
    return;
  }
  if (w.state() != kSlotReserved && w.state() != kSlotReturning) return;
  const SlotMeta meta{s.meta.load(std::memory_order_acquire)};
  const QueueRef q = of_meta(meta);
  if (q.record == nullptr) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, w.owner(), w.generation());
    if (change(s.word, w, taken)) slots_.reclaim(s, taken, {});
    return;
  }
  const OwnerTag me = base_.owners.current();
  if (me.valid() && spent(q, s, w)) {
    const TaggedWord mine = TaggedWord::make(kSlotReturning, me, w.generation());
    if (!change(s.word, w, mine)) return;
    CELERIAC_CRASH_POINT("queue.repair.taken");
    static_cast<void>(bury(q, {index, &s}, mine, End::kOwnerDied, me));
    return;
  }
  // The journal may have heard where it was to go, and not that it didn't get there.
  if (w.state() == kSlotReturning) static_cast<void>(tell_moved(s, w, meta, kSlotReady, 0));
  // Who has no identity can't bury it: then it is delivered once more.
  if (!change(s.word, w, TaggedWord::make(kSlotReady, {}, w.generation()))) return;
  CELERIAC_CRASH_POINT("queue.repair.returned");
  add(q.record->reserved, -1);
  add(q.record->ready, 1);
  make_ready(*q.record, meta, make_hint(index, w.generation()), true, me);
}

void Queues::repair_queue(const DeadOwners& dead, std::uint32_t index, OwnerTag me) {
  layout::QueueRecord* q = directory_.at(index);
  for (const OwnerTag& t : dead.tags()) parking_.forget(*q, t);
  const TaggedWord w = load(q->word);
  if (w.state() != kQueueActive) {
    if (me.valid()) dedup_.clear(*q, me);  // its deleter died before it did
    return;
  }
  if (w.owner().valid() && dead.contains(w.owner())) {  // bound to the dead
    if (!directory_.remove({q, index, w.generation()})) return;
    parking_.wake_all(*q);
    if (me.valid()) lanes_.give_back(*q, me);
    if (me.valid()) dedup_.clear(*q, me);
    return;
  }
  if (dead.interrupted()) {
    lanes_.distrust(*q);
    Retained::distrust(*q);
  }
  // The dead may have been woken for a message that is still there, or have taken a delayed one
  // from the timers that no lane knows yet: then who sleeps has to look at them again. Or it was to
  // wake all when it resumed the queue.
  if (q->paused.load(std::memory_order_seq_cst) != 0) return;
  if (dead.interrupted()) {
    parking_.wake_all(*q);
  } else if (Lanes::maybe_ready(*q)) {
    parking_.wake_one(*q);
  }
}

void Queues::repair(const DeadOwners& dead) {
  const OwnerTag me = base_.owners.current();
  std::optional<OperationScope> operation;  // L3
  if (me.valid()) operation.emplace(base_.owners.record(me.slot));
  if (dead.interrupted()) {
    directory_.counts_dirty().store(1, std::memory_order_release);
    timers_.distrust();
  }
  slots_.each([&](std::uint32_t index, layout::Slot& s, TaggedWord w) {
    repair_slot(dead, index, s, w);
    // A putter that died right after it published may have been the first of its priority: there
    // is no lane yet that could be distrusted, and nothing says that there is something to get.
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (!dead.interrupted() || w.state() != kSlotReady) return;
    if (const QueueRef q = of_meta(meta); q.record != nullptr) {
      q.record->active[meta.priority() / 64].fetch_or(1ULL << (meta.priority() % 64),
                                                      std::memory_order_seq_cst);
    }
  });
  CELERIAC_CRASH_POINT("queue.repair.slots");
  for (std::uint32_t i = 0; i < directory_.high(); ++i) {
    layout::QueueRecord* q = directory_.at(i);
    if (q != nullptr) repair_queue(dead, i, me);
  }
  // Messages of queues that are gone, and of a deleter that died.
  slots_.each([&](std::uint32_t, layout::Slot& s, TaggedWord w) {
    const bool idle = w.state() == kSlotReady || w.state() == kSlotDelayed ||
                      w.state() == kSlotDead || w.state() == kSlotDone;
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (me.valid() && idle && of_meta(meta).record == nullptr) reclaim_if(s, w, me);
  });
  if (dead.interrupted()) {
    slots_.recount_used();
    wake_putters();  // the dead may have been about to
  }
}

void Queues::rebuild(const LiveBlocks& live) {
  directory_.counts_dirty().store(1, std::memory_order_release);
  if (live.strange()) {
    slots_.forget(live);
    timers_.forget(live);
  }
  timers_.rebuild_alone();
  std::unordered_set<std::uint64_t> taken;
  for (std::uint32_t i = 0; i < directory_.high(); ++i) {
    layout::QueueRecord* q = directory_.at(i);
    if (q == nullptr) continue;
    if (live.strange()) Dedup::forget(*q, live);
    Retained::distrust(*q);
    lanes_.rebuild(*q, live, &taken);
    for (layout::Word& w : q->active) w.store(0, std::memory_order_relaxed);
  }
  CELERIAC_CRASH_POINT("queue.rebuild.lanes");
  slots_.each([&](std::uint32_t, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    const QueueRef q = w.state() == kSlotReady ? of_meta(meta) : QueueRef{};
    if (q.record == nullptr) return;
    q.record->active[meta.priority() / 64].fetch_or(1ULL << (meta.priority() % 64),
                                                    std::memory_order_relaxed);
  });
}

}  // namespace celeriac
