#include "queue/lanes.hpp"

#include <algorithm>
#include <new>
#include <utility>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "platform/futex.hpp"

namespace celeriac {
namespace {

using Candidate = std::pair<std::uint64_t, layout::Hint>;  // sequence number first: it orders

// Lane.overflow
constexpr std::uint32_t kInLane = 0;
constexpr std::uint32_t kInSlots = 1;
constexpr std::uint32_t kRefilling = 2;
constexpr std::uint32_t kInBacklog = 3;

constexpr int kRefillSpins = 4000;  // longer than most refills take
constexpr std::uint64_t kRefillPatience = 20 * kMillisecond;

// An empty lane, told to look into the slots for whatever came before it.
void construct(layout::Lane* at) {
  at = new (at) layout::Lane;
  at->refill.word.store(0, std::memory_order_relaxed);
  for (layout::Word& p : at->refill.pending) p.store(0, std::memory_order_relaxed);
  at->overflow.store(kInSlots, std::memory_order_relaxed);
  for (layout::Word* w : {&at->backlog, &at->backlog_next, &at->backlog_end}) {
    w->store(0, std::memory_order_relaxed);
  }
}

}  // namespace

layout::Lane* Lanes::lane(layout::QueueRecord& q, std::uint8_t priority) {
  return lane_at(q.lanes[priority].load(std::memory_order_acquire));
}

layout::Lane* Lanes::lane_at(std::uint64_t block) {
  // The offset may have been overwritten: a lane is a live block that has room for one.
  const layout::Word* word = block == 0 ? nullptr : base_.heap.word(block);
  if (word == nullptr || load(*word).state() != kBlockLive ||
      base_.heap.payload(block, aligned_bytes(sizeof(layout::Lane))) == nullptr) {
    return nullptr;
  }
  return base_.arena.at<layout::Lane>(aligned_object(block));
}

// The blocks that a dead holder of the mutex was linking (pending[0]) or replacing (pending[1]).
// False while an old lane may still be in use by somebody who is inside an operation.
// REQUIRES: lanes_mutex.
bool Lanes::settle(layout::QueueRecord& q, OwnerTag me) {
  layout::Word* pending = q.lanes_mutex.pending;
  for (int which = 0; which < 2; ++which) {
    const std::uint64_t left =
        base_.heap.still_live(pending[which].load(std::memory_order_acquire));
    const bool linked =
        left != 0 && std::any_of(std::begin(q.lanes), std::end(q.lanes), [&](const auto& l) {
          return l.load(std::memory_order_relaxed) == left;
        });
    if (left != 0 && !linked) {
      if (which == 1 && !nobody_inside(me)) return false;  // L3
      layout::Lane* l = which == 1 ? lane_at(left) : nullptr;
      if (l != nullptr) drop_backlog(*l, me);
      base_.heap.release(left, me);
    }
    pending[which].store(0, std::memory_order_release);
  }
  return true;
}

layout::Lane* Lanes::make_lane(layout::QueueRecord& q, std::uint8_t priority, std::uint64_t old,
                               OwnerTag me) {
  OwnerMutex mutex(q.lanes_mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return nullptr;
  const bool settled = settle(q, me);
  if (q.lanes[priority].load(std::memory_order_relaxed) != old) return lane(q, priority);
  if (old != 0 && !settled) return nullptr;  // one at a time
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(sizeof(layout::Lane)), me);
  if (!block) return nullptr;  // pop() works without a lane, from the slots
  auto* fresh = base_.arena.at<layout::Lane>(aligned_object(block.value()));
  if (fresh == nullptr) return nullptr;
  construct(fresh);
  layout::Word* pending = q.lanes_mutex.pending;
  pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
  if (old != 0) pending[1].store(base_.heap.ticket(old), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.lane.live");
  // release pairs with the acquire in lane(): the lane is built before it is found
  q.lanes[priority].store(block.value(), std::memory_order_release);
  pending[0].store(0, std::memory_order_release);
  if (old != 0) {
    CELERIAC_CRASH_POINT("queue.lane.replaced");
    if (settle(q, me)) {
      // What late pushers put into the old one. (While it isn't settled, push() sees to that.)
      fresh->overflow.store(kInSlots, std::memory_order_seq_cst);
      q.active[priority / 64].fetch_or(1ULL << (priority % 64), std::memory_order_seq_cst);
    }
  }
  return fresh;
}

// L1. False when a refill must find the message.
bool Lanes::push_main(layout::Lane& lane, layout::Hint hint, bool front) {
  // A fence between the slot's publication and this load.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  std::uint32_t where = lane.overflow.load(std::memory_order_seq_cst);
  for (int i = 0; where == kRefilling && i < kRefillSpins; ++i) {
    cpu_relax();
    where = lane.overflow.load(std::memory_order_seq_cst);
  }
  if (where == kInLane) return lane.main.bounded_push(hint);
  // The slot was published before the scan to come; but for what goes before a backlog, that comes
  // too late.
  return where == kInSlots || (where == kInBacklog && !front);
}

void Lanes::push(layout::QueueRecord& q, SlotMeta meta, layout::Hint hint, bool front,
                 OwnerTag me) {
  const std::uint8_t priority = meta.priority();
  layout::Lane* l = lane(q, priority);
  if (l == nullptr && me.valid()) l = make_lane(q, priority, 0, me);
  if (l != nullptr) {
    bool pushed = front && l->front.bounded_push(hint);
    if (!pushed && !push_main(*l, hint, front))
      l->overflow.store(kInSlots, std::memory_order_seq_cst);
    CELERIAC_CRASH_POINT("queue.push.pushed");
    layout::Lane* now = lane(q, priority);
    if (now != l && now != nullptr) {  // replaced
      now->overflow.store(kInSlots, std::memory_order_seq_cst);
    }
  }
  q.active[priority / 64].fetch_or(1ULL << (priority % 64), std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("queue.push.active");
}

bool Lanes::lane_has_something(layout::QueueRecord& q, std::uint32_t queue_generation,
                               std::uint8_t priority) {
  layout::Lane* l = lane(q, priority);
  if (l == nullptr) {
    return !ready_slots(SlotMeta::make(q.index.load(std::memory_order_relaxed),
                                       static_cast<std::uint16_t>(queue_generation), priority))
                .empty();
  }
  return !l->front.empty() || !l->main.empty() ||
         l->overflow.load(std::memory_order_seq_cst) != kInLane;
}

void Lanes::abandon_lane(layout::QueueRecord& q, std::uint8_t priority) {
  base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
  q.lanes[priority].store(0, std::memory_order_release);  // its block is lost; the slots are not
}

void Lanes::give_back(layout::QueueRecord& q, OwnerTag me) {
  OwnerMutex mutex(q.lanes_mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held() || !settle(q, me)) return;
  for (std::uint32_t p = 0; p < layout::kPriorities; ++p) {
    if (lane(q, static_cast<std::uint8_t>(p)) == nullptr) continue;
    const std::uint64_t block = q.lanes[p].load(std::memory_order_relaxed);
    q.lanes_mutex.pending[1].store(base_.heap.ticket(block), std::memory_order_release);
    q.lanes[p].store(0, std::memory_order_seq_cst);
    CELERIAC_CRASH_POINT("queue.delete.lane");
    if (!settle(q, me)) return;
  }
}

void Lanes::rebuild(layout::QueueRecord& q, const LiveBlocks& live,
                    std::unordered_set<std::uint64_t>* taken) {
  constexpr std::uint64_t kBytes = aligned_bytes(sizeof(layout::Lane));
  for (std::uint32_t p = 0; p < layout::kPriorities; ++p) {
    const std::uint64_t block = q.lanes[p].load(std::memory_order_acquire);
    if (block == 0) continue;
    layout::Lane* l = lane(q, static_cast<std::uint8_t>(p));
    // As large as a lane is, but for what may be left at a block's end; and no other's.
    if (l == nullptr || !live.has(block) || base_.heap.room(block) >= kBytes + 256 ||
        !taken->insert(block).second) {
      abandon_lane(q, static_cast<std::uint8_t>(p));
      continue;
    }
    // Its backlog is void; the next refill gives the block back.
    std::uint64_t ticket = l->backlog.load(std::memory_order_relaxed);
    if (base_.heap.still_live(ticket) == 0) {  // who died between linking it and unlinking it
      ticket = l->refill.pending[0].load(std::memory_order_relaxed);
    }
    const std::uint64_t backlog = base_.heap.still_live(ticket);
    const bool whole = backlog != 0 && live.has(backlog) && taken->insert(backlog).second;
    construct(l);
    if (whole) l->backlog.store(ticket, std::memory_order_relaxed);
    CELERIAC_CRASH_POINT("queue.rebuild.lane");
  }
}

void Lanes::distrust(layout::QueueRecord& q) {
  for (std::uint32_t p = 0; p < layout::kPriorities; ++p) {
    layout::Lane* l = lane(q, static_cast<std::uint8_t>(p));
    if (l == nullptr) continue;
    l->overflow.store(kInSlots, std::memory_order_seq_cst);
    q.active[p / 64].fetch_or(1ULL << (p % 64), std::memory_order_seq_cst);
  }
}

std::vector<Candidate> Lanes::ready_slots(SlotMeta meta) {
  std::vector<Candidate> found;
  slots_.each([&](std::uint32_t index, const layout::Slot& s, TaggedWord w) {
    if (w.state() == kSlotReady && meta.same_lane({s.meta.load(std::memory_order_acquire)})) {
      found.emplace_back(s.sequence.load(std::memory_order_relaxed),
                         make_hint(index, w.generation()));
    }
  });
  return found;
}

std::optional<layout::Hint> Lanes::oldest(SlotMeta meta) {
  const std::vector<Candidate> found = ready_slots(meta);
  const auto first = std::min_element(found.begin(), found.end());
  if (first == found.end()) return std::nullopt;
  return first->second;
}

// REQUIRES: the lane's refill mutex, or that nobody else has the lane; as do the next two.
void Lanes::drop_backlog(layout::Lane& l, OwnerTag me) {
  layout::Word& pending = l.refill.pending[0];
  const std::uint64_t block = base_.heap.still_live(l.backlog.load(std::memory_order_relaxed));
  const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
  // By ticket: whoever dies in here leaves a block that is garbage, or that pending names.
  if (left != 0 && left != block) base_.heap.release(left, me);
  pending.store(l.backlog.load(std::memory_order_relaxed), std::memory_order_release);
  l.backlog.store(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("queue.backlog.dropped");
  if (block != 0) base_.heap.release(block, me);
  pending.store(0, std::memory_order_release);
}

bool Lanes::keep_backlog(layout::Lane& l, const std::vector<Candidate>& all, std::size_t from,
                         OwnerTag me) {
  const std::uint64_t bytes = (all.size() - from) * sizeof(layout::Hint);
  Result<std::uint64_t> block = base_.allocate(bytes, me);
  if (!block) return false;
  char* p = base_.heap.payload(block.value(), bytes);
  if (p == nullptr) return false;
  auto* hints = reinterpret_cast<layout::Word*>(p);
  for (std::size_t i = from; i < all.size(); ++i) {
    hints[i - from].store(all[i].second, std::memory_order_relaxed);
  }
  const std::uint64_t ticket = base_.heap.ticket(block.value());
  l.refill.pending[0].store(ticket, std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("queue.backlog.live");
  l.backlog_next.store(0, std::memory_order_relaxed);
  l.backlog_end.store(all.size() - from, std::memory_order_relaxed);
  l.backlog.store(ticket, std::memory_order_release);
  l.refill.pending[0].store(0, std::memory_order_release);
  return true;
}

// The next ones that are READY still; how many. What is killed in here pushes some twice.
std::size_t Lanes::push_backlog(layout::Lane& l) {
  const std::uint64_t block = base_.heap.still_live(l.backlog.load(std::memory_order_relaxed));
  std::uint64_t next = l.backlog_next.load(std::memory_order_relaxed);
  const std::uint64_t end = l.backlog_end.load(std::memory_order_relaxed);
  const std::uint64_t room = block == 0 ? 0 : base_.heap.room(block) / sizeof(layout::Hint);
  const char* p = room < end ? nullptr : base_.heap.payload(block, end * sizeof(layout::Hint));
  std::size_t pushed = 0;
  for (; p != nullptr && next < end && pushed < layout::kLaneCapacity; ++next) {
    const layout::Hint hint =
        reinterpret_cast<const layout::Word*>(p)[next].load(std::memory_order_relaxed);
    const layout::Slot* s = slots_.at(hint_index(hint));
    if (s == nullptr) continue;
    const TaggedWord w = load(s->word);
    if (w.state() != kSlotReady || w.generation() != hint_generation(hint)) continue;
    if (!l.main.bounded_push(hint)) break;
    ++pushed;
  }
  l.backlog_next.store(next, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("queue.backlog.pushed");
  std::uint32_t expected = kInBacklog;
  if (p == nullptr || next >= end) {
    l.overflow.compare_exchange_strong(expected, kInSlots, std::memory_order_seq_cst);
  }
  return pushed;
}

std::optional<layout::Hint> Lanes::refill(layout::QueueRecord& q, SlotMeta meta, OwnerTag me,
                                          bool* stuck) {
  const std::uint64_t block = q.lanes[meta.priority()].load(std::memory_order_acquire);
  if (block == 0) return oldest(meta);
  layout::Lane* l = lane(q, meta.priority());
  if (l == nullptr) return oldest(meta);
  OwnerMutex mutex(l->refill, base_.owners);
  MutexGuard guard(mutex, mutex.lock_within(me, kRefillPatience));
  *stuck = !guard.held();
  if (*stuck) return oldest(meta);       // whoever refills is stopped: do without the lane
  if (!l->main.empty()) return kPushed;  // another refilled it
  if (l->overflow.load(std::memory_order_seq_cst) == kInBacklog && push_backlog(*l) > 0) {
    return kPushed;
  }
  drop_backlog(*l, me);
  l->overflow.store(kRefilling, std::memory_order_seq_cst);  // L1: before the scan
  CELERIAC_CRASH_POINT("queue.refill.cleared");
  const std::uint64_t limit = q.next_sequence.load(std::memory_order_seq_cst);
  std::vector<Candidate> found = ready_slots(meta);
  std::erase_if(found, [limit](const Candidate& c) { return c.first >= limit; });
  const std::size_t n = std::min<std::size_t>(found.size(), layout::kLaneCapacity);
  std::sort(found.begin(), found.end());
  std::size_t pushed = 0;
  while (pushed < n && l->main.bounded_push(found[pushed].second)) ++pushed;
  CELERIAC_CRASH_POINT("queue.refill.pushed");
  std::uint32_t next = pushed < found.size() ? kInSlots : kInLane;
  if (next == kInSlots && pushed > 0 && keep_backlog(*l, found, pushed, me)) next = kInBacklog;
  std::uint32_t expected = kRefilling;
  l->overflow.compare_exchange_strong(expected, next, std::memory_order_seq_cst);
  if (found.empty()) return std::nullopt;
  const layout::Hint first = found.front().second;
  if (pushed < n && pushed < layout::kLaneCapacity - layout::kLaneCapacity / 8) {
    guard.unlock();
    make_lane(q, meta.priority(), block, me);  // the dead have leaked too many of its nodes
  }
  return pushed > 0 ? kPushed : first;
}

// Everybody who may have found a lane's address before now has left its operation since.
bool Lanes::nobody_inside(OwnerTag me) {
  const std::uint64_t deadline = now_ns() + 5 * kMillisecond;
  for (const OwnerInfo& o : base_.owners.list()) {
    const std::uint32_t own = o.tag == me ? 1 : 0;
    while (o.alive &&
           base_.owners.record(o.tag.slot).inflight.load(std::memory_order_acquire) > own) {
      if (now_ns() > deadline) return false;
      cpu_relax();
    }
  }
  return true;
}

}  // namespace celeriac
