// Queues, the slow side: peek, purge, delete, exact counts, and repair after a death.
#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>

#include "arena/crash_point.hpp"
#include "queue/queues.hpp"

namespace celeriac {

bool Queues::reclaim_if(std::uint32_t index, layout::Slot& s, TaggedWord w, OwnerTag me) {
  static_cast<void>(index);
  const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, w.generation());
  if (!change(s.word, w, taken)) return false;
  CELERIAC_CRASH_POINT("queue.purge.taken");
  slots_.reclaim(s, taken, me);
  if (const QueueRef q = of_meta(meta); q.record != nullptr) {
    layout::Word& counter = w.state() == kSlotReady     ? q.record->ready
                            : w.state() == kSlotDelayed ? q.record->delayed
                                                        : q.record->dead;
    counter.fetch_sub(1, std::memory_order_relaxed);
    if (w.state() != kSlotDead) q.record->length.fetch_sub(1, std::memory_order_relaxed);
  }
  return true;
}

std::uint64_t Queues::purge_where(OwnerTag me,
                                  const std::function<bool(SlotMeta, TaggedWord)>& which) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::uint64_t n = 0;
  slots_.each([&](std::uint32_t index, layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (which(meta, w) && reclaim_if(index, s, w, me)) ++n;
  });
  return n;
}

std::vector<Peeked> Queues::peek(const QueueRef& queue, unsigned state, std::size_t limit) {
  struct Candidate {
    std::uint64_t order;
    std::uint32_t index;
    TaggedWord word;
  };
  std::vector<Candidate> found;
  slots_.each([&](std::uint32_t index, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (w.state() != state || !meta.of(queue.index, queue.generation)) return;
    const layout::Word& order = state == kSlotDelayed ? s.due : s.sequence;
    found.push_back({order.load(std::memory_order_relaxed), index, w});
  });
  const std::size_t n = std::min(limit, found.size());
  std::partial_sort(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(n), found.end(),
                    [](const Candidate& a, const Candidate& b) { return a.order < b.order; });
  std::vector<Peeked> result;
  for (std::size_t i = 0; i < n; ++i) {
    layout::Slot* s = slots_.at(found[i].index);
    Peeked p;
    if (s == nullptr) continue;
    p.damaged = !read_body(*s, &p.delivery);
    if (p.damaged) {
      p.delivery.headers = p.delivery.body = {};  // they may lead anywhere
    }
    p.headers = p.delivery.headers;
    p.body = p.delivery.body;
    // A body is given back only after its slot's word changed: the same word, a whole copy.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(s->word) != found[i].word) continue;
    const auto first = static_cast<std::uint32_t>(s->first.load(std::memory_order_relaxed));
    const std::uint64_t number = s->journal.load(std::memory_order_relaxed);
    p.delivery.id = number != 0 ? number : make_hint(found[i].index, first);
    p.delivery.deliveries = found[i].word.generation() - first;
    p.delivery.priority = SlotMeta{s->meta.load(std::memory_order_relaxed)}.priority();
    p.due = s->due.load(std::memory_order_relaxed);
    result.push_back(std::move(p));
  }
  return result;
}

std::uint64_t Queues::purge(const QueueRef& queue, OwnerTag me) {
  return purge_where(me, [&](SlotMeta meta, TaggedWord w) {
    return meta.of(queue.index, queue.generation) &&
           (w.state() == kSlotReady || w.state() == kSlotDelayed);
  });
}

bool Queues::remove(const QueueRef& queue, OwnerTag me) {
  if (!directory_.remove(queue)) return false;
  parking_.wake_all(*queue.record);
  purge_where(me, [&](SlotMeta meta, TaggedWord w) {
    return meta.of(queue.index, queue.generation) &&
           (w.state() == kSlotReady || w.state() == kSlotDelayed || w.state() == kSlotDead);
  });
  const OperationScope operation(base_.owners.record(me.slot));
  lanes_.give_back(*queue.record, me);
  return true;
}

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
  std::vector<std::array<std::uint64_t, 8>> sums(all.size());
  slots_.each([&](std::uint32_t, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (of_meta(meta).record != nullptr && meta.queue() < sums.size()) {
      ++sums[meta.queue()][w.state() & 7U];
    }
  });
  if (base_.owners.activity(me) != before) return false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& sum = sums[i];
    const std::uint64_t unfinished = sum[kSlotReady] + sum[kSlotDelayed] + sum[kSlotReserved];
    const std::uint64_t right[] = {sum[kSlotReady], sum[kSlotDelayed], sum[kSlotReserved],
                                   sum[kSlotDead], unfinished};
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

QueueCounts Queues::counts(const QueueRef& queue, OwnerTag me) {
  recount(me);
  const layout::QueueRecord& q = *queue.record;
  const auto shown = [](const layout::Word& counter) {
    const std::uint64_t n = counter.load(std::memory_order_relaxed);
    return static_cast<std::int64_t>(n) < 0 ? 0 : n;  // on its way back from below zero
  };
  return {shown(q.ready), shown(q.delayed), shown(q.reserved),
          shown(q.dead),  shown(q.done),    shown(q.dropped)};
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
  if (w.state() != kSlotReserved) return;
  const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
  const QueueRef q = of_meta(meta);
  if (q.record == nullptr) {
    const TaggedWord taken = TaggedWord::make(kSlotReclaim, w.owner(), w.generation());
    if (change(s.word, w, taken)) slots_.reclaim(s, taken, {});
    return;
  }
  const std::uint64_t limit = directory_.config(*q.record).max_deliveries;
  const auto first = static_cast<std::uint32_t>(s.first.load(std::memory_order_relaxed));
  const bool spent = limit != 0 && w.generation() - first >= limit;
  if (!change(s.word, w, TaggedWord::make(spent ? kSlotDead : kSlotReady, {}, w.generation()))) {
    return;
  }
  CELERIAC_CRASH_POINT("queue.repair.returned");
  q.record->reserved.fetch_sub(1, std::memory_order_relaxed);
  if (spent) {
    q.record->dead.fetch_add(1, std::memory_order_relaxed);
    q.record->length.fetch_sub(1, std::memory_order_relaxed);
  } else {
    q.record->ready.fetch_add(1, std::memory_order_relaxed);
    make_ready(*q.record, meta, make_hint(index, w.generation()), true, base_.owners.current());
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
    if (q == nullptr) continue;
    for (const OwnerTag& t : dead.tags()) parking_.forget(*q, t);
    const TaggedWord w = load(q->word);
    if (w.state() != kQueueActive) continue;
    if (w.owner().valid() && dead.contains(w.owner())) {  // bound to the dead
      const QueueRef ref{q, i, w.generation()};
      if (!directory_.remove(ref)) continue;
      parking_.wake_all(*q);
      if (me.valid()) lanes_.give_back(*q, me);
      continue;
    }
    if (dead.interrupted()) lanes_.distrust(*q);
    // The dead may have been woken for a message that is still there, or have taken a delayed one
    // from the timers that no lane knows yet: then who sleeps has to look at them again.
    if (dead.interrupted() || Lanes::maybe_ready(*q)) parking_.wake_one(*q);
  }
  // Messages of queues that are gone, and of a deleter that died.
  slots_.each([&](std::uint32_t index, layout::Slot& s, TaggedWord w) {
    const bool idle =
        w.state() == kSlotReady || w.state() == kSlotDelayed || w.state() == kSlotDead;
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (me.valid() && idle && of_meta(meta).record == nullptr) reclaim_if(index, s, w, me);
  });
  if (dead.interrupted()) slots_.recount_used();
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
