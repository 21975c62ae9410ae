// Queues: looking, counting, and what removes messages that nobody has reserved.
#include <algorithm>
#include <array>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "queue/common.hpp"
#include "queue/queues.hpp"

namespace celeriac {
namespace {

void copied(std::string* to, std::string_view shared) {
  to->resize(shared.size());
  copy_out(to->data(), shared.data(), shared.size());
}

}  // namespace

// What nobody has reserved, and isn't done: gone.
bool Queues::reclaim_if(layout::Slot& s, TaggedWord w, OwnerTag me) {
  const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, w.generation());
  if (!change(s.word, w, taken)) return false;
  CELERIAC_CRASH_POINT("queue.purge.taken");
  slots_.reclaim(s, taken, me);
  if (const QueueRef q = of_meta(meta); q.record != nullptr) {
    if (w.state() == kSlotReady) add(q.record->ready, -1);
    if (w.state() == kSlotDelayed) add(q.record->delayed, -1);
    if (w.state() == kSlotDead) add(q.record->dead, -1);
    if (w.state() == kSlotReady || w.state() == kSlotDelayed) left(*q.record);
  }
  return true;
}

std::uint64_t Queues::purge_where(OwnerTag me,
                                  const std::function<bool(SlotMeta, TaggedWord)>& which) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::uint64_t n = 0;
  slots_.each([&](std::uint32_t, layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (which(meta, w) && reclaim_if(s, w, me)) ++n;
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
    const layout::Word& order = state == kSlotReady ? s.sequence : s.due;
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
    // The body isn't ours: it may be given back, and be another's, while it is copied.
    std::uint32_t crc = 0;
    p.damaged = !find_body(*s, &p.delivery, &crc);
    if (!p.damaged) {
      copied(&p.headers, p.delivery.headers);
      copied(&p.body, p.delivery.body);
      p.damaged = checksum(p.headers, p.body) != crc;
    }
    p.delivery.headers = p.delivery.body = {};
    if (p.damaged) p.headers = p.body = {};
    if (state == kSlotDead) p.reason = described(*s);
    const std::uint32_t put = put_generation(*s);
    p.delivery.deliveries = deliveries_of(*s, found[i].word);
    p.delivery.priority = SlotMeta{s->meta.load(std::memory_order_relaxed)}.priority();
    p.ended = s->due.load(std::memory_order_relaxed);
    p.due = due_of(p.ended, found[i].word.generation());
    p.due -= std::min(p.due, kMillisecond);  // it was rounded up: show no more than was asked for
    // A body is given back only after its slot's word changed: the same word, a whole copy.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(s->word) != found[i].word) continue;
    p.delivery.id = make_hint(found[i].index, put);
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
           (w.state() == kSlotReady || w.state() == kSlotDelayed || w.state() == kSlotDead ||
            w.state() == kSlotDone);
  });
  const OperationScope operation(base_.owners.record(me.slot));
  lanes_.give_back(*queue.record, me);
  dedup_.clear(*queue.record, me);
  freed();
  made_room(queue.record->room, 1 << 30);
  return true;
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

bool Queues::cancel(const QueueRef& queue, std::uint64_t id, OwnerTag me) {
  layout::Slot* s = slots_.at(hint_index(id));
  if (s == nullptr) return false;
  const OperationScope operation(base_.owners.record(me.slot));
  for (;;) {
    const TaggedWord w = load(s->word);
    if (w.state() != kSlotReady && w.state() != kSlotDelayed) return false;
    if (put_generation(*s) != hint_generation(id)) return false;
    if (!SlotMeta{s->meta.load(std::memory_order_relaxed)}.of(queue.index, queue.generation)) {
      return false;
    }
    // Its hints in lane and timers stay until they come up, or the timers are full of such.
    if (reclaim_if(*s, w, me)) return true;
  }
}

Status Queues::pause(const QueueRef& queue, OwnerTag me) {
  Status told = directory_.tell_paused(queue, true, me);
  if (!told) return told;
  queue.record->paused.store(1, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.pause.stored");
  return Status::ok();
}

Status Queues::resume(const QueueRef& queue, OwnerTag me) {
  Status told = directory_.tell_paused(queue, false, me);
  if (!told) return told;
  queue.record->paused.store(0, std::memory_order_seq_cst);  // G6
  CELERIAC_CRASH_POINT("queue.resume.stored");
  parking_.wake_all(*queue.record);
  return Status::ok();
}

std::uint64_t Queues::oldest(const QueueRef& queue) {
  std::uint64_t when = kNever;
  slots_.each([&](std::uint32_t, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (w.state() != kSlotReady || !meta.of(queue.index, queue.generation)) return;
    when = std::min(when, s.enqueued.load(std::memory_order_relaxed));
  });
  return when;
}

std::vector<QueueConsumer> Queues::consumers(const QueueRef& queue) {
  std::vector<QueueConsumer> all;
  std::vector<std::uint64_t> reserved(layout::kMaxOwners);
  slots_.each([&](std::uint32_t, const layout::Slot& s, TaggedWord w) {
    const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
    if (w.state() != kSlotReserved || !meta.of(queue.index, queue.generation)) return;
    if (w.owner().valid()) ++reserved[w.owner().slot % layout::kMaxOwners];
  });
  const auto marked = [](const layout::Word* words, std::uint16_t slot) {
    return (words[slot / 64].load(std::memory_order_relaxed) >> (slot % 64) & 1U) != 0;
  };
  for (const OwnerInfo& o : base_.owners.list()) {
    const bool waiting = marked(queue.record->blocked_owners, o.tag.slot) ||
                         marked(queue.record->parked_owners, o.tag.slot);
    const std::uint64_t n = reserved[o.tag.slot];
    if (waiting || n != 0) all.push_back({o.tag, n, waiting});
  }
  return all;
}

}  // namespace celeriac
