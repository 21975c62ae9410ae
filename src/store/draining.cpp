// The half of Eviction that takes entries out of memory, whoever decided that they must go.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "store/eviction.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kMostBytes = 1ULL << 32U;  // a walk over more is over nonsense
constexpr std::uint64_t kRecent = 3ULL << 29U;     // three eighths of a log, as a share

void copy_across(char* to, const char* from, std::uint64_t n) {
  std::uint64_t buffer[32];
  while (n > 0) {
    const std::uint64_t step = std::min<std::uint64_t>(n, sizeof buffer);
    copy_out_packed(buffer, from, step);
    copy_in_packed(to, buffer, step);
    from += step, to += step, n -= step;
  }
}

}  // namespace

void Eviction::count_out(const Found& entry, OwnerTag me) {
  if (!index_.current(entry.word, entry.head)) return;  // cleared, or an earlier name's
  const std::size_t size = entry.head.key_size;
  char short_key[256];
  std::string long_key(size > sizeof short_key ? size : 0, 0);
  char* key = size > sizeof short_key ? long_key.data() : short_key;
  copy_out_packed(key, entry.place.payload + entry.place.at + kEntryHead, size);
  layout::CounterStripe& c = spaces_.counters(entry.head.space, {key, size}, me);
  const bool absent = !index_.present(entry.word, entry.head);
  (absent ? c.expirations : c.evictions).fetch_add(1, std::memory_order_relaxed);
}

Eviction::Step Eviction::drain(std::uint32_t number, Fate fate, OwnerTag me) {
  for (std::uint64_t looked_at = 0; looked_at < kMostBytes;) {
    const Step s = step(number, fate, me);
    if (s.what != Step::kMore) return s;
    looked_at += s.bytes;
  }
  return {Step::kStuck, 0};
}

// Decides about the entry at the segment's cursor; gives the segment back behind the last.
Eviction::Step Eviction::step(std::uint32_t number, Fate fate, OwnerTag me) {
  layout::SegmentRecord* r = segments_.record(number);
  if (r == nullptr) return {Step::kGone, 0};
  const TaggedWord word{r->word.load(std::memory_order_relaxed)};
  if (word.state() == Segments::kFree) return {Step::kGone, 0};
  if (word.state() == Segments::kWritable) segments_.seal(number);
  const std::uint64_t size = r->size.load(std::memory_order_relaxed);
  const std::uint64_t used = std::min<std::uint64_t>(r->used.load(std::memory_order_acquire), size);
  const std::uint64_t cursor = r->cursor.load(std::memory_order_relaxed);
  if (cursor >= used) {
    if (segments_.being_written(number)) return {Step::kBusy, 0};
    // A window is for somebody else.
    segments_.remove(number, me, fate == Fate::kPolicy || fate == Fate::kKeep);
    return {Step::kGone, size};
  }
  Found entry;
  const Location here = Location::in_segment(number, cursor);
  if (!index_.entry(IndexWord{here.bits}, &entry.place, &entry.head) ||
      entry.head.end > used) {  // damaged: nothing behind it can be found
    base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
    r->cursor.store(static_cast<std::uint32_t>(used), std::memory_order_relaxed);
    return {Step::kMore, used - cursor};
  }
  const Place place(index_.hash_of(entry.place, entry.head));
  bool moved_whole = false;
  {
    const ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) return {Step::kStuck, 0};
    entry.way = index_.find_at(place, here);
    if (entry.way != nullptr) {
      entry.word = {entry.way->load(std::memory_order_relaxed)};
      judge(number, entry, place, fate, me);
      const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
      moved_whole = at.single && index_.find_at(place, here) != nullptr;
    }
  }
  CELERIAC_CRASH_POINT("eviction.step.judged");
  if (moved_whole) {
    layout::HalfWord& victim = segments_.directory().victim;
    if (victim.load(std::memory_order_relaxed) == number)
      victim.store(0, std::memory_order_relaxed);
    return {Step::kMoved, entry.head.end - cursor};
  }
  r->cursor.store(static_cast<std::uint32_t>(entry.head.end), std::memory_order_relaxed);
  return {Step::kMore, entry.head.end - cursor};
}

void Eviction::judge(std::uint32_t number, Found& entry, const Place& place, Fate fate,
                     OwnerTag me) {
  const SegmentPlace at =
      SegmentPlace::unpack(segments_.record(number)->place.load(std::memory_order_relaxed));
  const unsigned frequency = entry.word.frequency();
  const bool absent = !index_.present(entry.word, entry.head);
  if (!absent && (fate == Fate::kKeep || fate == Fate::kPush) &&
      relocate(number, entry, place, at.queue, frequency, fate, me)) {
    return;
  }
  if (!absent && fate == Fate::kPolicy && frequency > 0) {
    const bool recent = segments_.log(at.log).small_share.load(std::memory_order_relaxed) > kRecent;
    const bool main = at.queue == kMainQueue || (frequency >= 2 && !recent);
    const unsigned left = at.queue == kMainQueue && !recent ? frequency - 1 : 0;
    if (relocate(number, entry, place, main ? kMainQueue : kSmallQueue, left, fate, me)) return;
  }
  count_out(entry, me);
  index_.unlink(place.shard, entry.way, me);
  CELERIAC_CRASH_POINT("eviction.judge.unlinked");
  if (!absent && fate == Fate::kPolicy) {
    Ghosts(base_, segments_.log(at.log), segments_.directory()).push(at.queue, place.hash);
  }
}

// To the young end of a queue. REQUIRES: directory's and shard's mutexes.
bool Eviction::relocate(std::uint32_t number, Found& entry, const Place& place, std::uint32_t queue,
                        unsigned frequency, Fate fate, OwnerTag me) {
  SegmentPlace to =
      SegmentPlace::unpack(segments_.record(number)->place.load(std::memory_order_relaxed));
  const std::uint32_t log = log_of(entry.head.space);  // the cache may have got a limit since
  if (to.single && (fate == Fate::kPolicy || log != to.log)) {
    segments_.move(number, log, queue);
  } else {
    to.log = log;
    to.queue = queue;
    to.life = 0;
    if (to.log == 0) to.life = Segments::life_class(entry.head.expires, now_ns());
    const RoomFor what = fate == Fate::kPush ? RoomFor::kPushed : RoomFor::kDrained;
    const Result<Reserved> room = room_for(to, entry.head, what, me);
    if (!room) return false;
    const Reserved& r = room.value();
    const char* from = entry.place.payload + entry.place.at + kEntryHead;
    copy_across(r.place.payload + r.place.at + kEntryHead, from, entry.head.key_size);
    copy_across(r.place.payload + r.head.value_at, entry.place.payload + entry.head.value_at,
                entry.head.value_size);
    complete_head(r.place, r.head);
    CELERIAC_CRASH_POINT("eviction.relocate.copied");
    index_.link(place.shard, entry.way,
                IndexWord::make(r.location, place.tag, entry.word.generation(), frequency), r.head,
                &entry, me);
    return true;
  }
  std::uint64_t word = entry.way->load(std::memory_order_relaxed);
  while (!entry.way->compare_exchange_weak(
      word, IndexWord{word}.identity() | static_cast<std::uint64_t>(frequency) << 62U,
      std::memory_order_relaxed)) {
  }
  return true;
}

void Eviction::repair(const DeadOwners& dead, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return;
  for (std::uint32_t number = 1; number < segments_.high(); ++number) {
    const layout::SegmentRecord* r = segments_.record(number);
    if (r == nullptr) break;
    const TaggedWord word{r->word.load(std::memory_order_relaxed)};
    if (word.state() == Segments::kFree || segments_.is_open(number)) continue;
    bool leads_nowhere = load_live(r->live).entries() == 0;
    if (!leads_nowhere && word.owner().valid() && dead.contains(word.owner())) {
      const Location here = Location::in_segment(number, kSinglePlace);
      EntryPlace p;
      EntryHead h;
      if (!index_.entry(IndexWord{here.bits}, &p, &h)) continue;
      const Place place(index_.hash_of(p, h));
      const ShardGuard shard(base_, index_, place.shard, me);
      leads_nowhere = shard.held() && index_.find_at(place, here) == nullptr;
    }
    CELERIAC_CRASH_POINT("eviction.repair.looked");
    if (leads_nowhere) segments_.remove(number, me);
  }
}

// ------------------------------------------------------------------------------- a first limit

void Eviction::gather(std::uint32_t space, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::vector<std::uint32_t> numbers;  // of the common log, the oldest first
  {
    const LogGuard guard(base_, segments_, me);
    for (const layout::SegmentQueue& queue : segments_.log(0).queues) {
      std::uint32_t number = guard.held() ? queue.head.load(std::memory_order_relaxed) : 0;
      for (std::uint32_t i = 0; number != 0 && i < segments_.high(); ++i) {
        const layout::SegmentRecord* r = segments_.record(number);
        if (r == nullptr) break;
        numbers.push_back(number);
        number = r->next.load(std::memory_order_relaxed);
      }
    }
  }
  for (const std::uint32_t number : numbers) gather_from(number, space, me);
}

void Eviction::gather_from(std::uint32_t number, std::uint32_t space, OwnerTag me) {
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return;
  if (!base_.heap.may_fit(segments_.ordinary())) reclaim(me);  // for what is copied
  const layout::SegmentRecord* r = segments_.record(number);
  const auto common = [&] {
    return r != nullptr &&
           TaggedWord{r->word.load(std::memory_order_relaxed)}.state() != Segments::kFree &&
           SegmentPlace::unpack(r->place.load(std::memory_order_relaxed)).log == 0;
  };
  if (!common()) return;
  const std::uint32_t generation = spaces_.generation(space);
  const SegmentPlace from = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  bool sealed = false;
  for (std::uint64_t at = r->cursor.load(std::memory_order_relaxed);
       common() && at < r->used.load(std::memory_order_acquire);) {
    const Location here = Location::in_segment(number, at);
    Found entry;
    if (!index_.entry(IndexWord{here.bits}, &entry.place, &entry.head)) break;
    at = entry.head.end;
    if (entry.head.space != space_index(space)) continue;
    if (!sealed) segments_.seal(number);  // what isn't linked yet will be, in the cache's own log
    sealed = true;
    const Place place(index_.hash_of(entry.place, entry.head));
    const ShardGuard shard(base_, index_, place.shard, me);
    entry.way = shard.held() ? index_.find_at(place, here) : nullptr;
    if (entry.way == nullptr) continue;
    entry.word = {entry.way->load(std::memory_order_relaxed)};
    if (!Index::belongs(entry.word, entry.head, space, generation)) continue;
    const unsigned frequency = entry.word.frequency();
    if (!relocate(number, entry, place, from.queue, frequency, Fate::kKeep, me)) {
      count_out(entry, me);
      index_.unlink(place.shard, entry.way, me);
    }
    CELERIAC_CRASH_POINT("eviction.gather.moved");
  }
  if (common() && sealed && load_live(r->live).entries() == 0 && !segments_.being_written(number)) {
    segments_.remove(number, me);
  }
}

// ------------------------------------------------------------------------------- room for others

std::uint32_t Eviction::segment_of(std::uint64_t block) {
  const char* payload = base_.heap.payload(block, sizeof(layout::BlockHead));
  if (payload == nullptr) return 0;
  const std::uint64_t mark =
      reinterpret_cast<const layout::BlockHead*>(payload)->mark.load(std::memory_order_relaxed);
  if (mark == 0 || mark >= segments_.high()) return 0;
  const auto number = static_cast<std::uint32_t>(mark);
  const layout::SegmentRecord* r = segments_.record(number);
  const bool its = r != nullptr && r->block.load(std::memory_order_relaxed) == block &&
                   TaggedWord{r->word.load(std::memory_order_relaxed)}.state() != Segments::kFree;
  return its ? number : 0;
}

std::vector<std::uint64_t> Eviction::window(std::uint64_t bytes, Fit fit, OwnerTag me) {
  const auto is_segment = [this](std::uint64_t block) { return segment_of(block) != 0; };
  auto blocks = base_.heap.window(bytes, fit, is_segment, me);
  // The spare ones are in the way, maybe: for a value half as large as memory, four are enough.
  if (!blocks.empty() || !segments_.give_up_spares(me)) return blocks;
  return base_.heap.window(bytes, fit, is_segment, me);
}

std::uint64_t Eviction::clear_window(std::uint64_t bytes, Fit fit, OwnerTag me) {
  std::uint64_t freed = 0;
  for (const std::uint64_t block : window(bytes, fit, me)) {
    const std::uint32_t number = segment_of(block);
    if (number != 0)
      freed += drain(number, fit == Fit::kCache ? Fate::kDrop : Fate::kPush, me).bytes;
    CELERIAC_CRASH_POINT("eviction.window.drained");
  }
  return freed;
}

std::uint64_t Eviction::push(std::uint64_t bytes, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return 0;
  const std::uint64_t freed = clear_window(bytes, Fit::kProper, me);
  CELERIAC_CRASH_POINT("eviction.push.freed");
  return freed;
}

std::uint64_t Eviction::make_room(std::uint64_t bytes, OwnerTag me) {
  const std::uint64_t freed = push(bytes, me);
  if (freed != 0) return freed;
  const OperationScope operation(base_.owners.record(me.slot));
  return drop_expired_blocks(me);
}

std::uint64_t Eviction::evict(OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const LogGuard guard(base_, segments_, me);
  return guard.held() ? reclaim(me) : 0;
}

Eviction::Vacated Eviction::vacate(std::uint32_t number, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const LogGuard guard(base_, segments_, me);
  if (!guard.held()) return Vacated::kStuck;
  const layout::SegmentRecord* r = segments_.record(number);
  const auto gone = [&] {
    return r == nullptr ||
           TaggedWord{r->word.load(std::memory_order_relaxed)}.state() == Segments::kFree ||
           !base_.heap.beyond(r->block.load(std::memory_order_relaxed));
  };
  if (gone()) return Vacated::kGone;
  const std::uint64_t size = r->size.load(std::memory_order_relaxed);
  for (std::uint64_t given = 0; given < 2 * size && !base_.heap.may_fit(size + size / 8);) {
    const std::uint64_t freed = reclaim(me);
    if (gone()) return Vacated::kGone;
    if (freed == 0) break;
    given += freed;
  }
  const Step last = drain(number, Fate::kKeep, me);
  CELERIAC_CRASH_POINT("eviction.vacate.drained");
  if (gone()) return Vacated::kGone;
  return last.what == Step::kStuck ? Vacated::kStuck : Vacated::kBusy;
}

void Eviction::vacate_ghosts(OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const LogGuard guard(base_, segments_, me);
  for (std::uint32_t i = 0; guard.held() && i < layout::kLogCount; ++i) {
    layout::LogRecord& log = segments_.log(i);
    const std::uint64_t block = log.ghosts.load(std::memory_order_relaxed);
    if (block == 0 || !base_.heap.beyond(block)) continue;
    Ghosts(base_, log, segments_.directory()).drop(me);
  }
}

// Unlinks entries of a shard for which `gone` says so; how many bytes or entries, as it counts.
// Nothing when the shard's mutex couldn't be had.
template <class Gone>
std::optional<std::uint64_t> Eviction::sweep_shard(std::uint32_t shard_index, OwnerTag me,
                                                   Gone gone) {
  std::uint64_t sum = 0;
  std::vector<Leftover> left;
  {
    const ShardGuard guard(base_, index_, shard_index, me);
    if (!guard.held()) return std::nullopt;
    const TableWord t{index_.shard(shard_index).table.load(std::memory_order_relaxed)};
    layout::Bucket* buckets = index_.buckets(t);
    for (std::uint64_t i = 0; buckets != nullptr && i < t.size(); ++i) {
      for (layout::Word& way : buckets[i].ways) {
        Found entry{&way, {way.load(std::memory_order_relaxed)}, {}, {}};
        if (entry.word.free() || !index_.entry(entry.word, &entry.place, &entry.head)) continue;
        const std::uint64_t n = gone(entry);
        if (n == 0) continue;
        sum += n;
        count_out(entry, me);
        left.push_back(index_.unlink(shard_index, &way, me));
      }
    }
  }
  CELERIAC_CRASH_POINT("eviction.sweep.unlinked");
  for (const Leftover& l : left) collect(l, me);
  return sum;
}

std::uint64_t Eviction::drop_expired_blocks(OwnerTag me) {
  std::uint64_t freed = 0;
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const auto bytes = sweep_shard(shard, me, [&](const Found& entry) {
      const bool goes = entry.word.location().pinned() && !index_.present(entry.word, entry.head);
      return goes ? entry_cost(entry.head) : 0;
    });
    freed += bytes.value_or(0);
  }
  return freed;
}

void Eviction::sweep_on(std::uint32_t shard_index, SweptBucket* left, OwnerTag me) {
  layout::Shard& shard = index_.shard(shard_index);
  const TableWord t{shard.table.load(std::memory_order_relaxed)};
  layout::Bucket* buckets = index_.buckets(t);
  if (buckets == nullptr) return;
  const std::uint64_t at = shard.hand.load(std::memory_order_relaxed) % t.size();
  shard.hand.store(at + 1, std::memory_order_relaxed);
  for (std::size_t i = 0; i < left->size(); ++i) {
    layout::Word& way = buckets[at].ways[i];
    Found entry{&way, {way.load(std::memory_order_relaxed)}, {}, {}};
    if (entry.word.free() || !entry.word.location().pinned()) continue;
    if (!index_.entry(entry.word, &entry.place, &entry.head)) continue;
    if (index_.present(entry.word, entry.head)) continue;
    count_out(entry, me);
    (*left)[i] = index_.unlink(shard_index, &way, me);
    CELERIAC_CRASH_POINT("eviction.sweep.one");
  }
}

bool Eviction::drop_absent(OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  // Before the first look: what is linked later is of these generations or later ones (N7).
  std::array<std::uint32_t, layout::kMaxNamespaces> generations{};
  for (std::uint32_t i = 0; i < generations.size(); ++i) generations[i] = spaces_.generation_now(i);
  const std::uint64_t now = now_ns();
  bool all = true;
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const auto swept = sweep_shard(shard, me, [&](const Found& entry) {
      return index_.present(entry.word, entry.head, now) ? 0U : 1U;
    });
    all = all && swept.has_value();
  }
  for (std::uint32_t i = 0; all && i < generations.size(); ++i) spaces_.swept(i, generations[i]);
  return all;
}

std::uint64_t Eviction::cull(std::uint32_t space, std::uint64_t n, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::uint64_t culled = 0;
  const std::uint32_t generation = spaces_.generation(space);
  if (generation == 0) return 0;  // nothing is left of it
  std::vector<Leftover> left;
  {
    const LogGuard guard(base_, segments_, me);
    if (!guard.held()) return 0;
    for (const std::uint32_t log : {log_of(space), 0U}) {
      for (const std::uint32_t queue : {kSmallQueue, kMainQueue}) {
        std::uint32_t number =
            segments_.log(log).queues[queue].head.load(std::memory_order_relaxed);
        for (std::uint32_t i = 0; culled < n && number != 0 && i < segments_.high(); ++i) {
          const layout::SegmentRecord* r = segments_.record(number);
          if (r == nullptr) break;
          culled += cull_segment(number, space, generation, n - culled, &left, me);
          number = r->next.load(std::memory_order_relaxed);
        }
      }
      if (log == 0) break;
    }
  }
  CELERIAC_CRASH_POINT("eviction.cull.unlinked");
  for (const Leftover& l : left) collect(l, me);
  for (std::uint32_t shard = 0; spaces_.pinned(space) && shard < layout::kShardCount; ++shard) {
    const std::uint64_t before = culled;
    std::uint64_t more = 0;
    const auto gone = sweep_shard(shard, me, [&](const Found& entry) {
      const bool goes =
          before + more < n && Index::belongs(entry.word, entry.head, space, generation);
      more += goes ? 1 : 0;
      return goes ? 1U : 0U;
    });
    culled += gone.value_or(0);
  }
  return culled;
}

// Unlinks up to n of the segment's entries that are the namespace's.
std::uint64_t Eviction::cull_segment(std::uint32_t number, std::uint32_t space,
                                     std::uint32_t generation, std::uint64_t n,
                                     std::vector<Leftover>* left, OwnerTag me) {
  const layout::SegmentRecord* r = segments_.record(number);
  std::uint64_t culled = 0;
  for (std::uint64_t at = r->cursor.load(std::memory_order_relaxed);
       culled < n && at < r->used.load(std::memory_order_acquire);) {
    const Location here = Location::in_segment(number, at);
    EntryPlace p;
    EntryHead h;
    if (!index_.entry(IndexWord{here.bits}, &p, &h)) break;
    at = h.end;
    if (h.space != space_index(space)) continue;
    const Place place(index_.hash_of(p, h));
    const ShardGuard guard(base_, index_, place.shard, me);
    layout::Word* way = guard.held() ? index_.find_at(place, here) : nullptr;
    if (way == nullptr) continue;
    const IndexWord w{way->load(std::memory_order_relaxed)};
    const bool current = index_.current(w, h);
    if (current && !Index::belongs(w, h, space, generation)) continue;  // another name's by now
    culled += current ? 1 : 0;
    count_out({way, w, p, h}, me);
    left->push_back(index_.unlink(place.shard, way, me));
  }
  return culled;
}

}  // namespace celeriac
