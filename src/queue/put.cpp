// Queues: put, and what makes room for it.
#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "queue/common.hpp"
#include "queue/queues.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

constexpr int kEverybody = 1 << 30;
constexpr int kRaces = 1000;  // lost to other putters for the last place

Status full(std::uint64_t max_length) {
  return {Code::kQueueFull, "the queue holds its max_length of " + std::to_string(max_length) +
                                " messages: consume some, or raise max_length"};
}

Status deleted() { return {Code::kNotFound, "the queue was deleted"}; }

}  // namespace

Result<std::uint64_t> Queues::write_body(const Outgoing& m, OwnerTag me) {
  const std::uint64_t bytes = body_offset(m.headers.size()) + m.body.size();
  const std::uint64_t capacity = base_.arena.capacity();
  if (bytes + bytes / 8 > capacity - std::min(capacity, layout::kBlocks)) {
    return Status(Code::kValueTooLarge, "a message of " + std::to_string(m.body.size()) +
                                            " bytes is larger than the arena can hold (memory=" +
                                            std::to_string(capacity) +
                                            "): raise memory= or send less");
  }
  Result<std::uint64_t> block = base_.allocate(bytes, me);
  if (!block) {
    if (block.status().code() != Code::kNotEnoughMemory) return block.status();
    return Status(Code::kQueueFull, "no memory for another message: " + block.status().message());
  }
  char* p = base_.heap.payload(block.value(), bytes);
  if (p == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  const layout::MessageHead head{static_cast<std::uint32_t>(m.headers.size()),
                                 checksum(m.headers, m.body), m.body.size(), 0, 0};
  copy_in(p, &head, sizeof head);
  copy_in(p + sizeof head, m.headers.data(), m.headers.size());
  copy_in(p + body_offset(m.headers.size()), m.body.data(), m.body.size());
  CELERIAC_CRASH_POINT("queue.put.written");
  return block;
}

bool Queues::drop_oldest(const QueueRef& queue, OwnerTag me) {
  Delivery oldest;
  if (!take_ready(queue, &oldest, me)) return false;
  layout::Slot* s = slots_.at(oldest.index);
  if (s == nullptr) return false;
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, oldest.word.generation());
  if (!change(s->word, oldest.word, taken)) return false;
  slots_.reclaim(*s, taken, me);
  add(queue.record->reserved, -1);
  add(queue.record->dropped, 1);
  left(*queue.record);
  return true;
}

// One message less that isn't done: tells who waits for room. seq_cst: room.hpp.
void Queues::left(layout::QueueRecord& q) {
  q.length.fetch_sub(1, std::memory_order_seq_cst);
  made_room(q.room, 1);
  made_room(directory_.room(), kEverybody);
}

// Memory and slots were given back, and nobody was counted out.
void Queues::freed() {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // room.hpp
  made_room(directory_.room(), kEverybody);
}

// Counts one more message in, if there is a place.
Status Queues::count_in(const QueueRef& queue, const QueueLimits& limits, OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  for (int i = 0; i < kRaces; ++i) {
    // Below zero for a moment, or after a death: see add(). Nothing is counted before it is seen
    // that there is room: who waits would wake himself.
    const auto length = static_cast<std::int64_t>(q.length.load(std::memory_order_seq_cst));
    const auto most = static_cast<std::int64_t>(limits.max_length);
    if (most != 0 && length >= most) {
      if ((limits.flags & kDropOldest) == 0 || !drop_oldest(queue, me)) break;
      continue;
    }
    const auto before = static_cast<std::int64_t>(q.length.fetch_add(1, std::memory_order_seq_cst));
    if (most == 0 || before < most) return Status::ok();
    q.length.fetch_sub(1, std::memory_order_seq_cst);
    made_room(q.room, 1);
  }
  return full(limits.max_length);
}

// A message that nobody sees yet, in a slot of its own; in that of `was`, if it is free.
Result<Queues::Prepared> Queues::prepare(const QueueRef& queue, const Outgoing& m, const Was& was,
                                         OwnerTag me) {
  if (m.due != 0) {
    Status room = timers_.reserve(me);
    if (!room) {
      return Status(Code::kQueueFull, "no memory for another delayed message: " + room.message());
    }
  }
  Result<std::uint64_t> block = write_body(m, me);
  if (!block) return block.status();
  SlotRef ref;
  if (was.id != 0) {
    ref = slots_.acquire_at(hint_index(was.id), hint_generation(was.id) + was.deliveries, me);
  }
  if (ref.slot == nullptr) {
    Result<SlotRef> any = slots_.acquire(me);
    if (!any) {
      base_.heap.release(block.value(), me);
      return any.status();
    }
    ref = any.value();
  }
  layout::Slot& s = *ref.slot;
  const TaggedWord writing = load(s.word);
  const std::uint32_t first = writing.generation() - was.deliveries;
  const SlotMeta meta =
      SlotMeta::make(queue.index, static_cast<std::uint16_t>(queue.generation), m.priority);
  s.meta.store(meta.bits, std::memory_order_relaxed);
  s.due.store(m.due == 0 ? 0 : make_due(m.due, writing.generation()), std::memory_order_relaxed);
  s.expires.store(m.expires, std::memory_order_relaxed);
  s.first.store(make_first(first, first), std::memory_order_relaxed);
  s.enqueued.store(now_ns(), std::memory_order_relaxed);
  s.body.store(block.value(), std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.put.body");
  base_.heap.make_live(block.value(), me);
  return Prepared{ref, writing, make_hint(ref.index, first)};
}

// Ready, or delayed until `due`; the word that it has then.
TaggedWord Queues::publish(const QueueRef& queue, const Prepared& p, std::uint64_t due,
                           OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  layout::Slot& s = *p.ref.slot;
  const SlotMeta meta{s.meta.load(std::memory_order_relaxed)};
  const unsigned state = due == 0 ? kSlotReady : kSlotDelayed;
  const TaggedWord published = TaggedWord::make(state, {}, p.writing.generation());
  const layout::Hint hint = make_hint(p.ref.index, p.writing.generation());
  s.sequence.store(q.next_sequence.fetch_add(1, std::memory_order_relaxed),
                   std::memory_order_relaxed);
  add(due == 0 ? q.ready : q.delayed, 1);
  // L1: seq_cst, before the look at the lane's overflow. Q4: from here on the message exists.
  s.word.store(published.bits, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.put.published");
  if (due == 0) {
    make_ready(q, meta, hint, false, me);
  } else if (timers_.insert(due, hint, me)) {
    wake_one(q);  // somebody must set his alarm anew
  }
  CELERIAC_CRASH_POINT("queue.put.woken");
  return published;
}

void Queues::abandon(const Prepared& p, OwnerTag me) {
  const TaggedWord taken = TaggedWord::make(kSlotReclaim, me, p.writing.generation());
  if (change(p.ref.slot->word, p.writing, taken)) slots_.reclaim(*p.ref.slot, taken, me);
}

// REQUIRES: the message is counted in. `*put`: it is there, and no other with its key.
Result<std::uint64_t> Queues::put_counted(const QueueRef& queue, const Outgoing& m, bool* put,
                                          OwnerTag me) {
  const Result<Prepared> prepared = prepare(queue, m, {}, me);
  if (!prepared) return prepared.status();
  const Prepared& p = prepared.value();
  TaggedWord published;
  const auto show = [&]() -> Status {
    Status told = tell_put(queue, {&m, 1}, {&p, 1});
    if (told) published = publish(queue, p, m.due, me);
    return told;
  };
  Result<std::uint64_t> holder = p.id;
  if (m.key.given()) {
    holder = dedup_.put(queue, m.key, m.key_ns, p.id, show, me);
  } else if (Status shown = show(); !shown) {
    holder = shown;
  }
  if (!holder || holder.value() != p.id) {
    abandon(p, me);
    return holder;
  }
  // Deleted meanwhile: whoever deleted may have scanned before the message was there. If it can't
  // be taken back, it was consumed, or purged by the deleter: then it was put.
  if (!directory_.current(queue) && reclaim_if(*p.ref.slot, published, me)) return deleted();
  *put = true;
  return p.id;
}

std::size_t Queues::put_together(const QueueRef& queue, std::span<const Outgoing> messages,
                                 std::vector<std::uint64_t>* ids, OwnerTag me) {
  layout::QueueRecord& q = *queue.record;
  if (!directory_.current(queue)) return 0;
  const QueueLimits limits = directory_.limits(q);
  if (limits.max_length != 0) recount(me);
  const OperationScope operation(base_.owners.record(me.slot));
  std::vector<Prepared> all;
  all.reserve(messages.size());
  const auto count_out = [&] {
    q.length.fetch_sub(1, std::memory_order_seq_cst);
    made_room(q.room, 1);
  };
  for (const Outgoing& m : messages) {
    if (!count_in(queue, limits, me)) break;
    const Result<Prepared> p = prepare(queue, m, {}, me);
    if (!p) {
      count_out();
      break;
    }
    all.push_back(p.value());
  }
  if (all.empty()) return 0;
  if (!tell_put(queue, messages.first(all.size()), all)) {
    for (const Prepared& p : all) {
      abandon(p, me);
      count_out();
    }
    return 0;
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    const TaggedWord published = publish(queue, all[i], messages[i].due, me);
    if (!directory_.current(queue)) reclaim_if(*all[i].ref.slot, published, me);
    ids->push_back(all[i].id);
  }
  return all.size();
}

Result<std::uint64_t> Queues::put(const QueueRef& queue, const Outgoing& m, OwnerTag me,
                                  layout::RoomWord** lacking) {
  layout::QueueRecord& q = *queue.record;
  if (!directory_.current(queue)) return deleted();
  const QueueLimits limits = directory_.limits(q);
  if (limits.max_length != 0) recount(me);  // a death may have left the length too high
  const OperationScope operation(base_.owners.record(me.slot));
  if (m.key.given()) {  // the message that is there costs no place
    Result<std::uint64_t> there = dedup_.find(queue, m.key, me);
    if (!there || there.value() != 0) return there;
  }
  Status counted = count_in(queue, limits, me);
  if (!counted) {
    if (lacking != nullptr) *lacking = &q.room;
    return counted;
  }
  for (;;) {
    bool done = false;
    Result<std::uint64_t> id = put_counted(queue, m, &done, me);
    if (done) return id;
    const Code code = id ? Code::kOk : id.status().code();
    if (code == Code::kQueueFull && give_way(me)) continue;  // G7
    if (code != Code::kNotFound) {                           // else it has been counted out
      q.length.fetch_sub(1, std::memory_order_seq_cst);
      made_room(q.room, 1);
    }
    if (code == Code::kQueueFull && lacking != nullptr) *lacking = &directory_.room();
    return id;
  }
}

Status Queues::wait_for_room(layout::RoomWord& room, std::uint32_t seen, std::uint64_t deadline_ns,
                             std::uint64_t poll_ns) {
  const std::uint64_t poll = poll_ns == kNever ? kNever : now_ns() + poll_ns;
  const Parked how = park_until(room.signal, seen, std::min(deadline_ns, poll));
  if (how != Parked::kInterrupted) return Status::ok();
  made_room(room, 1);  // we may have been the one woken
  return {Code::kInterrupted, "interrupted by a signal"};
}

void Queues::wake_putters() {
  const auto wake = [](layout::RoomWord& room) {
    room.signal.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(&room.signal, kEverybody);
  };
  wake(directory_.room());
  for (std::uint32_t i = 0; i < directory_.high(); ++i) {
    if (layout::QueueRecord* q = directory_.at(i); q != nullptr) wake(q->room);
  }
}

}  // namespace celeriac
