#include "store/eviction.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kOne = 1ULL << 32U;  // a share of one
constexpr std::uint64_t kFirstShare = kOne / 10;
constexpr std::uint64_t kLeastShare = kOne / 100;
constexpr std::uint64_t kMostShare = kOne - kOne / 100;

constexpr std::uint64_t kTries = 64;

Live live_of(layout::LogRecord& log, std::uint32_t queue) {
  return load_live(log.queues[queue].live);
}

}  // namespace

// ------------------------------------------------------------------------------- where to

Result<Reserved> Eviction::reserve(const EntryHead& head, std::uint64_t hash, IndexWord old,
                                   std::uint64_t now, OwnerTag me) {
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return mutex_timeout("the memory of the cache");
  SegmentPlace to;
  const std::uint64_t limit = spaces_.max_entries(head.space);  // once: it may change at any time
  to.log = limit == 0 ? 0 : head.space + 1U;
  if (limit == 0) {
    to.life = Segments::life_class(head.expires, now);
  } else {
    notice_clear(to.log, head.space, now);
  }
  const layout::SegmentRecord* r =
      old.free() ? nullptr : segments_.record(old.location().segment());
  const SegmentPlace was = r == nullptr
                               ? SegmentPlace{}
                               : SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  if (r != nullptr && was.log == to.log) {
    to.queue = was.queue;
  } else {
    to.queue = queue_for(to.log, hash, limit);
    if (limit != 0) hold_limit(to.log, limit, me);
  }
  return room_for(to, head, RoomFor::kNew, me);
}

// A key that nobody has: its queue, by the ghosts; moves the share.
std::uint32_t Eviction::queue_for(std::uint32_t log_number, std::uint64_t hash,
                                  std::uint64_t limit) {
  layout::LogRecord& log = segments_.log(log_number);
  Ghosts ghosts(base_, log, segments_.directory());
  const std::uint64_t all =
      limit != 0 ? limit : live_of(log, kSmallQueue).entries() + live_of(log, kMainQueue).entries();
  const std::uint64_t small = std::max(ghosts.entries(kSmallQueue), 1U);
  const std::uint64_t main = std::max(ghosts.entries(kMainQueue), 1U);
  std::uint64_t share = log.small_share.load(std::memory_order_relaxed);
  if (share == 0) share = kFirstShare;
  const std::uint64_t entry = kOne / std::max<std::uint64_t>(all, 1);
  if (ghosts.take(kSmallQueue, hash)) {
    share += std::min(kOne, std::max(entry, entry * main / small));
  } else if (ghosts.take(kMainQueue, hash)) {
    share -= std::min(share, std::max(entry, entry * small / main));
  } else {
    return kSmallQueue;
  }
  const std::uint64_t least = std::min(std::max(kLeastShare, entry), kMostShare);
  log.small_share.store(std::clamp(share, least, kMostShare), std::memory_order_relaxed);
  return kMainQueue;
}

Result<Reserved> Eviction::room_for(SegmentPlace to, const EntryHead& head, RoomFor what,
                                    OwnerTag me) {
  const bool evict = what == RoomFor::kNew;
  const std::uint64_t bytes = kEntryHead + head.key_size + head.value_size + 8;
  to.single = head.raw_value_size == kSingleSize;
  if (evict && !to.single) pay(bytes, me);
  Status last;
  // At the very end, what there is left is less than a segment: a small one, then.
  // What came from a larger segment may be larger than one is now, after a resize.
  for (std::uint64_t size = std::max(segments_.ordinary(), bytes + 8);;
       size = std::max(size / 2, bytes + 8)) {
    if (to.single) size = layout::align_up(kSinglePlace + bytes, 8);
    std::uint64_t given = 0;
    for (std::uint64_t i = 0; i < kTries + 2 * size / segments_.ordinary(); ++i) {
      if (!to.single) {
        if (const std::optional<Reserved> r = segments_.append(to, head, me)) return *r;
      }
      const Result<std::uint32_t> added = segments_.add(to, size, what, me);
      if (added && to.single) return segments_.fill_single(added.value(), head, me);
      if (added) continue;
      last = added.status();
      if (last.code() != Code::kNotEnoughMemory || !evict) return last;
      // Nothing is evicted in vain. The oldest go first; where that leaves holes of other sizes
      // than a large value needs, or much of the memory is such holes, what lies side by side.
      const bool large = size > segments_.ordinary();
      if (large && given == 0 && window(Heap::cost(size), Fit::kCache, me).empty()) break;
      const HeapStats heap = base_.heap.stats();
      const bool in_holes = large && (given >= size || heap.free >= size + heap.capacity / 8);
      const std::uint64_t freed =
          in_holes ? clear_window(Heap::cost(size), Fit::kCache, me) : reclaim(me);
      given += freed;
      if (freed == 0) break;
    }
    if (to.single || size <= bytes + 8) break;
  }
  return base_.no_room(Heap::cost(kSinglePlace + bytes), last, me);
}

bool Eviction::being_written(OwnerTag me) {
  const LogGuard guard(base_, segments_, me);
  for (std::uint32_t number = 1; guard.held() && number < segments_.high(); ++number) {
    if (segments_.being_written(number)) return true;
  }
  return false;
}

void Eviction::abandon(const Reserved& r, OwnerTag me) {
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return;
  const std::uint32_t number = r.location.segment();
  layout::SegmentRecord* record = segments_.record(number);
  if (record == nullptr || record->word.load(std::memory_order_relaxed) != r.word) return;
  const Live one = Live::one(r.head.end - r.place.at);
  const SegmentPlace at = SegmentPlace::unpack(record->place.load(std::memory_order_relaxed));
  subtract_live(segments_.log(at.log).queues[at.queue].live, one);
  CELERIAC_CRASH_POINT("eviction.abandon.counted");
  segments_.take_back(r);
  if (subtract_live(record->live, one).entries() == 0 && !segments_.is_open(number)) {
    segments_.remove(number, me);
  }
}

void Eviction::collect(const Leftover& left, OwnerTag me) {
  if (left.block != 0) base_.heap.free(left.block, me);
  if (left.segment == 0 || segments_.is_open(left.segment)) return;
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return;
  const layout::SegmentRecord* r = segments_.record(left.segment);
  if (r == nullptr || segments_.is_open(left.segment)) return;
  CELERIAC_CRASH_POINT("eviction.collect.locked");
  if (load_live(r->live).entries() == 0) segments_.remove(left.segment, me);  // S4
}

// ------------------------------------------------------------------------------- the policy

std::uint32_t Eviction::queue_to_drain(std::uint32_t log_number, std::uint64_t limit) {
  layout::LogRecord& log = segments_.log(log_number);
  const Live small = live_of(log, kSmallQueue);
  const Live main = live_of(log, kMainQueue);
  std::uint64_t share = log.small_share.load(std::memory_order_relaxed);
  if (share == 0) share = kFirstShare;
  const bool has_small = log.queues[kSmallQueue].head.load(std::memory_order_relaxed) != 0;
  const bool has_main = log.queues[kMainQueue].head.load(std::memory_order_relaxed) != 0;
  if (!has_small || !has_main) return has_small ? kSmallQueue : kMainQueue;
  const std::uint64_t all = limit != 0 ? limit : (small.bytes() + main.bytes()) >> 8U;
  const std::uint64_t has = limit != 0 ? small.entries() : small.bytes() >> 8U;
  if (has == 0) return kMainQueue;
  if ((limit != 0 ? main.entries() : main.bytes()) == 0) return kSmallQueue;
  __extension__ using Wide = unsigned __int128;
  return static_cast<Wide>(has) * kOne >= static_cast<Wide>(share) * all ? kSmallQueue : kMainQueue;
}

// What a clear() or an earlier name of the place (N9) has left counts as long as it is linked. So
// that it goes before what comes now, the two have no segment in common.
void Eviction::notice_clear(std::uint32_t log_number, std::uint32_t space, std::uint64_t now) {
  layout::LogRecord& log = segments_.log(log_number);
  const std::uint32_t generation = spaces_.generation_now(space);
  if (log.generation.load(std::memory_order_relaxed) == generation) return;
  for (layout::SegmentQueue& queue : log.queues) {
    for (layout::HalfWord& open : queue.open) segments_.seal(open.load(std::memory_order_relaxed));
  }
  log.cleared.store(now, std::memory_order_relaxed);
  log.generation.store(generation, std::memory_order_relaxed);
}

// Ghosts for so many entries. The cache moves out of their way as it does for others.
void Eviction::fit_ghosts(layout::LogRecord& log, std::uint64_t entries, OwnerTag me) {
  if (without_ghosts_ > 0) {
    --without_ghosts_;
    return;
  }
  Ghosts ghosts(base_, log, segments_.directory());
  if (ghosts.fit(entries, me)) return;
  const std::uint64_t bytes = base_.heap.piece(Ghosts::bytes(entries));
  if (clear_window(bytes, Fit::kProper, me) != 0 && ghosts.fit(entries, me)) return;
  without_ghosts_ = 100;  // full of what can't move: not soon again
}

// Before another entry comes: evicts until there is room for it by number.
void Eviction::hold_limit(std::uint32_t log_number, std::uint64_t limit, OwnerTag me) {
  layout::LogRecord& log = segments_.log(log_number);
  const auto entries = [&] {
    return live_of(log, kSmallQueue).entries() + live_of(log, kMainQueue).entries();
  };
  if (entries() < limit) return;
  fit_ghosts(log, limit, me);
  const std::uint64_t cleared = log.cleared.load(std::memory_order_relaxed);
  // Each entry comes by at most five times before it goes.
  for (std::uint64_t i = 0, most = 8 * entries() + (1U << 20U); i < most && entries() >= limit;
       ++i) {
    std::uint32_t head = 0;
    for (const std::uint32_t queue : {kSmallQueue, kMainQueue}) {
      const std::uint32_t number = segments_.oldest(log_number, queue);
      const layout::SegmentRecord* r = segments_.record(number);
      const bool left = r != nullptr && r->base.load(std::memory_order_relaxed) < cleared;
      if (left) head = number;
    }
    if (head == 0) head = segments_.oldest(log_number, queue_to_drain(log_number, limit));
    if (head == 0 || step(head, Fate::kPolicy, me).what == Step::kStuck) return;
  }
}

// What to drain for its memory; 0 when there is nothing.
std::uint32_t Eviction::choose_victim(Fate* fate, OwnerTag me) {
  layout::LogRecord& shared = segments_.log(0);
  fit_ghosts(shared, live_of(shared, kSmallQueue).entries() + live_of(shared, kMainQueue).entries(),
             me);
  const std::uint64_t now = now_ns();
  std::uint32_t dirtiest = 0;
  std::uint64_t garbage = 0;
  for (std::uint32_t number = 1; number < segments_.high(); ++number) {
    const layout::SegmentRecord* r = segments_.record(number);
    if (r == nullptr) break;
    if (TaggedWord{r->word.load(std::memory_order_relaxed)}.state() == Segments::kFree) continue;
    if (Segments::drained(*r) && segments_.being_written(number)) continue;
    if (r->latest.load(std::memory_order_relaxed) <= now) {
      *fate = Fate::kPolicy;
      return number;
    }
    const std::uint64_t used = r->used.load(std::memory_order_relaxed);
    const std::uint64_t live = load_live(r->live).bytes();
    const std::uint64_t dead = used > live ? used - live : 0;
    if (dead > garbage && dead * 4 >= used && !segments_.is_open(number)) {
      dirtiest = number;
      garbage = dead;
    }
  }
  *fate = dirtiest != 0 ? Fate::kKeep : Fate::kPolicy;
  if (dirtiest != 0) return dirtiest;
  std::uint32_t largest = 0;
  std::uint64_t most = 0;
  for (std::uint32_t i = 0; i < layout::kLogCount; ++i) {
    layout::LogRecord& log = segments_.log(i);
    if (log.queues[0].head.load(std::memory_order_relaxed) == 0 &&
        log.queues[1].head.load(std::memory_order_relaxed) == 0) {
      continue;
    }
    const std::uint64_t bytes =
        live_of(log, kSmallQueue).bytes() + live_of(log, kMainQueue).bytes() + 1;
    if (bytes <= most) continue;
    most = bytes;
    largest = i;
  }
  if (most == 0) return 0;
  const std::uint32_t queue = queue_to_drain(largest, 0);
  const std::uint32_t oldest = segments_.oldest(largest, queue);
  return oldest != 0 ? oldest : segments_.oldest(largest, 1 - queue);
}

// Drains segments until one is given back; its bytes, 0 when there is nothing.
std::uint64_t Eviction::reclaim(OwnerTag me) {
  layout::SegmentDirectory& d = segments_.directory();
  // Large values come by at most five times before they go.
  for (std::uint64_t i = 0; i < 8ULL * segments_.high() + 8; ++i) {
    auto fate = static_cast<Fate>(d.fate.load(std::memory_order_relaxed) % 3);
    std::uint32_t victim = d.victim.load(std::memory_order_relaxed);
    if (victim == 0) victim = choose_victim(&fate, me);
    if (victim == 0) return 0;
    d.victim.store(0, std::memory_order_relaxed);
    const Step s = drain(victim, fate, me);
    if (s.what == Step::kGone && s.bytes != 0) return s.bytes;
    if (s.what == Step::kStuck) return 0;
  }
  return 0;
}

// While memory is short: as much of the next victim as will be needed soon.
void Eviction::pay(std::uint64_t bytes, OwnerTag me) {
  if (!segments_.scarce()) return;
  layout::SegmentDirectory& d = segments_.directory();
  auto fate = static_cast<Fate>(d.fate.load(std::memory_order_relaxed) % 3);
  std::uint32_t victim = d.victim.load(std::memory_order_relaxed);
  if (victim == 0) {
    victim = choose_victim(&fate, me);
    d.fate.store(static_cast<std::uint32_t>(fate), std::memory_order_relaxed);
    d.victim.store(victim, std::memory_order_relaxed);
  }
  for (std::uint64_t paid = 0; victim != 0 && paid < 2 * bytes;) {
    const Step s = step(victim, fate, me);
    if (s.what == Step::kBusy) d.victim.store(0, std::memory_order_relaxed);
    if (s.what != Step::kMore) return;
    paid += s.bytes;
  }
}

}  // namespace celeriac
