#include "queue/retained.hpp"

#include <algorithm>
#include <utility>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

// Links are written and read under the mutex alone.
constexpr auto kRelaxed = std::memory_order_relaxed;

std::uint32_t older(const layout::Slot& s) {
  return static_cast<std::uint32_t>(s.expires.load(kRelaxed) >> 32U);
}
std::uint32_t newer(const layout::Slot& s) {
  return static_cast<std::uint32_t>(s.expires.load(kRelaxed));
}
void link(layout::Slot& s, std::uint32_t older, std::uint32_t newer) {
  s.expires.store(static_cast<std::uint64_t>(older) << 32U | newer, kRelaxed);
}

}  // namespace

// REQUIRES: the mutex, as does all that follows.
layout::Slot* Retained::member(const QueueRef& queue, unsigned state, std::uint32_t place) {
  layout::Slot* s = place == 0 ? nullptr : slots_.at(place - 1);
  if (s == nullptr || load(s->word).state() != state) return nullptr;
  const SlotMeta meta{s->meta.load(kRelaxed)};
  return meta.of(queue.index, queue.generation) ? s : nullptr;
}

void Retained::append(layout::RetainedList& l, std::uint32_t place, layout::Slot& s) {
  const std::uint32_t last = l.youngest.load(kRelaxed);
  link(s, last, 0);
  layout::Slot* before = last == 0 ? nullptr : slots_.at(last - 1);
  if (before == nullptr) {
    l.oldest.store(place, kRelaxed);
  } else {
    link(*before, older(*before), place);
  }
  l.youngest.store(place, kRelaxed);
  l.count.fetch_add(1, kRelaxed);
}

void Retained::unlink(layout::RetainedList& l, layout::Slot& s) {
  const std::uint32_t before = older(s);
  const std::uint32_t behind = newer(s);
  layout::Slot* b = before == 0 ? nullptr : slots_.at(before - 1);
  layout::Slot* n = behind == 0 ? nullptr : slots_.at(behind - 1);
  if (b == nullptr) {
    l.oldest.store(behind, kRelaxed);
  } else {
    link(*b, older(*b), behind);
  }
  if (n == nullptr) {
    l.youngest.store(before, kRelaxed);
  } else {
    link(*n, before, newer(*n));
  }
  l.count.fetch_sub(1, kRelaxed);
}

void Retained::rebuild(const QueueRef& queue) {
  layout::QueueRecord& q = *queue.record;
  // Before the look: who comes to doubt meanwhile is heard.
  q.retained_doubt.store(0, std::memory_order_seq_cst);
  std::vector<std::pair<std::uint64_t, std::uint32_t>> found[2];
  slots_.each([&](std::uint32_t index, const layout::Slot& s, TaggedWord w) {
    if (w.state() != kSlotDone && w.state() != kSlotDead) return;
    if (!SlotMeta{s.meta.load(kRelaxed)}.of(queue.index, queue.generation)) return;
    found[w.state() == kSlotDone ? 0 : 1].emplace_back(s.due.load(kRelaxed), index);
  });
  for (int which = 0; which < 2; ++which) {
    layout::RetainedList& l = q.retained[which];
    l.oldest.store(0, kRelaxed);
    l.youngest.store(0, kRelaxed);
    l.count.store(0, kRelaxed);
    CELERIAC_CRASH_POINT("queue.retain.emptied");
    std::sort(found[which].begin(), found[which].end());
    for (const auto& [ended, index] : found[which]) append(l, index + 1, *slots_.at(index));
  }
}

void Retained::trust(const MutexGuard& guard, const QueueRef& queue) {
  if (guard.recovered() || queue.record->retained_doubt.load(std::memory_order_seq_cst) != 0) {
    rebuild(queue);
  }
}

bool Retained::add(const QueueRef& queue, SlotRef ref, TaggedWord from, unsigned state,
                   OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  OwnerMutex mutex(q.retained_mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (guard.held()) trust(guard, queue);
  if (!change(ref.slot->word, from, TaggedWord::make(state, {}, from.generation()))) return false;
  CELERIAC_CRASH_POINT("queue.retain.decided");
  if (guard.held()) {
    append(list(q, state), ref.index + 1, *ref.slot);
  } else {
    distrust(q);
  }
  CELERIAC_CRASH_POINT("queue.retain.linked");
  return true;
}

std::vector<Retained::Ended> Retained::take(
    const QueueRef& queue, unsigned state, unsigned to, std::size_t most,
    const std::function<Pick(const layout::Slot&, std::uint64_t left)>& pick, OwnerTag me) {
  std::vector<Ended> taken;
  layout::QueueRecord& q = *queue.record;
  OwnerMutex mutex(q.retained_mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return taken;
  trust(guard, queue);
  layout::RetainedList& l = list(q, state);
  std::uint32_t place = l.oldest.load(kRelaxed);
  for (std::uint32_t steps = slots_.count(); place != 0 && taken.size() < most; --steps) {
    layout::Slot* s = member(queue, state, place);
    if (s == nullptr || steps == 0) {
      distrust(q);  // R2, R3
      break;
    }
    const std::uint32_t next = newer(*s);
    if (pick(*s, l.count.load(kRelaxed)) == Pick::kStop) break;
    const TaggedWord w = load(s->word);
    const TaggedWord mine = TaggedWord::make(to, me, w.generation());
    if (w.state() == state && change(s->word, w, mine)) {
      CELERIAC_CRASH_POINT("queue.retain.taken");
      unlink(l, *s);
      taken.push_back({{place - 1, s}, mine});
    }
    place = next;
  }
  return taken;
}

std::optional<Retained::Ended> Retained::take_one(const QueueRef& queue, SlotRef ref,
                                                  unsigned state, unsigned to, OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  OwnerMutex mutex(q.retained_mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return std::nullopt;
  trust(guard, queue);
  layout::Slot* s = member(queue, state, ref.index + 1);
  if (s == nullptr) return std::nullopt;
  const TaggedWord w = load(s->word);
  const TaggedWord mine = TaggedWord::make(to, me, w.generation());
  if (w.state() != state || !change(s->word, w, mine)) return std::nullopt;
  CELERIAC_CRASH_POINT("queue.retain.one_taken");
  unlink(list(q, state), *s);
  return Ended{{ref.index, s}, mine};
}

std::uint64_t Retained::oldest(const QueueRef& queue, unsigned state) {
  if (queue.record->retained_doubt.load(kRelaxed) != 0) return 0;
  const std::uint32_t place = list(*queue.record, state).oldest.load(kRelaxed);
  const layout::Slot* s = place == 0 ? nullptr : slots_.at(place - 1);
  return s == nullptr ? kNever : s->due.load(kRelaxed);
}

}  // namespace celeriac
