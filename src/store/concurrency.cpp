#include "store/concurrency.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"
#include "sync/owner_mutex.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

// Places of a chunk, and in all chunks before it.
constexpr std::uint32_t places_of(std::uint32_t chunk) { return chunk == 0 ? 64 : 32U << chunk; }
constexpr std::uint32_t places_before(std::uint32_t chunk) { return chunk == 0 ? 0 : 32U << chunk; }

}  // namespace

layout::ConcurrencyRecord* Concurrency::at(std::uint32_t index) {
  // acquire pairs with the release in fresh_record(): the record is complete
  const std::uint64_t block = directory_.offsets[index].load(std::memory_order_acquire);
  return block == 0 ? nullptr : base_.arena.at<layout::ConcurrencyRecord>(aligned_object(block));
}

layout::Word* Concurrency::place(layout::ConcurrencyRecord& r, std::uint32_t number) {
  const std::uint32_t chunk =
      number < 64 ? 0 : static_cast<std::uint32_t>(std::bit_width(number)) - 6;
  if (chunk >= layout::kConcurrencyChunks) return nullptr;
  // acquire pairs with the release in add_chunks(): its words are zero, or what became of them
  const std::uint64_t block = r.chunks[chunk].load(std::memory_order_acquire);
  if (block == 0) return nullptr;
  auto* words = base_.arena.at<layout::Word>(aligned_object(block), places_of(chunk) * 8ULL);
  return words == nullptr ? nullptr : words + (number - places_before(chunk));
}

std::uint32_t Concurrency::count(layout::ConcurrencyRecord& r, std::uint32_t from,
                                 std::uint32_t to) {
  std::uint32_t n = 0;
  for (std::uint32_t i = from; i < to; ++i) {
    const layout::Word* p = place(r, i);
    if (p == nullptr) break;
    // seq_cst: C2
    if (TaggedWord{p->load(std::memory_order_seq_cst)}.state() == kIn) ++n;
  }
  return n;
}

bool Concurrency::current(const ConcurrencyRef& ref) const {
  const TaggedWord w{ref.record->word.load(std::memory_order_seq_cst)};  // C2
  return w.state() == kUsed && w.generation() == ref.generation;
}

// ------------------------------------------------------------------------------- in and out

// REQUIRES, while some are in behind the limit: the record's mutex.
Result<Concurrency::Entered> Concurrency::take(const ConcurrencyRef& ref, std::uint32_t limit,
                                               OwnerTag me, ConcurrencyPlace* taken) {
  for (std::uint32_t i = 0; i < limit; ++i) {
    layout::Word* p = place(*ref.record, i);
    if (p == nullptr) break;
    TaggedWord w{p->load(std::memory_order_relaxed)};
    if (w.state() == kIn) continue;
    const TaggedWord mine = TaggedWord::make(kIn, me, w.generation() + 1);
    // seq_cst: C2, and pairs with the waiter's look after await()
    if (!p->compare_exchange_strong(w.bits, mine.bits, std::memory_order_seq_cst)) {
      --i;  // once more: it may be out again
      continue;
    }
    *taken = {ref, i, mine};
    CELERIAC_CRASH_POINT("concurrency.enter.taken");
    // seq_cst: C1
    if (current(ref) && i < ref.record->limit.load(std::memory_order_seq_cst)) return Entered::kIn;
    static_cast<void>(leave(*taken, me));
    return Entered::kGone;
  }
  return current(ref) ? Entered::kFull : Entered::kGone;
}

Result<Concurrency::Entered> Concurrency::enter(const ConcurrencyRef& ref, OwnerTag me,
                                                ConcurrencyPlace* taken) {
  layout::ConcurrencyRecord& r = *ref.record;
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint32_t most = r.limit.load(std::memory_order_seq_cst);
  if (count(r, most, kMostPlaces) == 0) return take(ref, most, me, taken);
  OwnerMutex mutex(r.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("a concurrency limit");
  if (guard.recovered()) settle_chunks(r, me);
  const std::uint32_t now = limit(ref);
  if (count(r, 0, kMostPlaces) >= now) return current(ref) ? Entered::kFull : Entered::kGone;
  return take(ref, now, me, taken);
}

Status Concurrency::leave(const ConcurrencyPlace& taken, OwnerTag me) {
  layout::Word* p = place(*taken.in.record, taken.number);
  std::uint64_t word = taken.word.bits;
  const TaggedWord out = TaggedWord::make(kOut, {}, taken.word.generation());
  // seq_cst: made_room() requires it
  if (taken.word.owner() != me || p == nullptr ||
      !p->compare_exchange_strong(word, out.bits, std::memory_order_seq_cst)) {
    return {Code::kNotOwner,
            "this place of the concurrency limit isn't held by this process (any more)"};
  }
  CELERIAC_CRASH_POINT("concurrency.leave.left");
  tell(*taken.in.record);
  return Status::ok();
}

std::uint32_t Concurrency::inside(const ConcurrencyRef& ref) {
  return count(*ref.record, 0, kMostPlaces);
}

std::vector<ConcurrencyUse> Concurrency::list() {
  std::vector<ConcurrencyUse> all;
  for (std::uint32_t i = 0; i < high(); ++i) {
    layout::ConcurrencyRecord* r = at(i);
    if (r == nullptr) continue;
    const TaggedWord w{r->word.load(std::memory_order_acquire)};
    ConcurrencyUse use;
    use.limit = r->limit.load(std::memory_order_relaxed);
    use.inside = count(*r, 0, kMostPlaces);
    use.name.resize(std::min(r->name_length.load(std::memory_order_relaxed), layout::kNameBytes));
    copy_out(use.name.data(), r->name, use.name.size());
    const bool same = TaggedWord{r->word.load(std::memory_order_acquire)} == w;
    if (same && w.state() == kUsed && use.inside > 0) all.push_back(std::move(use));
  }
  return all;
}

Status Concurrency::wait(const ConcurrencyRef& ref, std::uint32_t seen, std::uint64_t deadline_ns,
                         std::uint64_t poll_ns) {
  const std::uint64_t until =
      poll_ns == kNever ? deadline_ns : std::min(deadline_ns, now_ns() + poll_ns);
  if (park_until(ref.record->room.signal, seen, until) == Parked::kInterrupted) {
    return {Code::kInterrupted, "interrupted while waiting for a place"};
  }
  return Status::ok();
}

void Concurrency::wake_all() {
  for (std::uint32_t i = 0; i < high(); ++i) {
    if (layout::ConcurrencyRecord* r = at(i); r != nullptr) tell(*r);
  }
}

void Concurrency::repair(const DeadOwners& dead) {
  for (std::uint32_t i = 0; i < high(); ++i) {
    layout::ConcurrencyRecord* r = at(i);
    if (r == nullptr) continue;
    for (std::uint32_t n = 0; n < kMostPlaces; ++n) {
      layout::Word* p = place(*r, n);
      if (p == nullptr) break;
      TaggedWord w{p->load(std::memory_order_acquire)};
      if (w.state() != kIn || !dead.contains(w.owner())) continue;
      const TaggedWord out = TaggedWord::make(kOut, {}, w.generation());
      p->compare_exchange_strong(w.bits, out.bits, std::memory_order_seq_cst);
      CELERIAC_CRASH_POINT("concurrency.repair.left");
    }
    tell(*r);  // C4
  }
}

// ------------------------------------------------------------------------------------- records

ConcurrencyRef Concurrency::find(std::string_view name) {
  for (std::uint32_t i = 0; i < high(); ++i) {
    layout::ConcurrencyRecord* r = at(i);
    if (r == nullptr) continue;
    const TaggedWord w = load(r->word);
    if (w.state() == kUsed && r->name_length.load(std::memory_order_relaxed) == name.size() &&
        std::memcmp(r->name, name.data(), name.size()) == 0) {
      return {r, i, w.generation()};
    }
  }
  return {};
}

Result<ConcurrencyRef> Concurrency::open(std::string_view name, std::uint32_t limit, bool set,
                                         OwnerTag me) {
  if (name.empty() || name.size() > layout::kNameBytes) {
    return Status(Code::kConfiguration, "a concurrency limit's name has 1 to " +
                                            std::to_string(layout::kNameBytes) + " bytes, not " +
                                            std::to_string(name.size()));
  }
  if (limit == 0 || limit > kMostPlaces) {
    return Status(Code::kConfiguration, "limit=" + std::to_string(limit) + ": 1 to " +
                                            std::to_string(kMostPlaces) + " at once");
  }
  const OperationScope operation(base_.owners.record(me.slot));
  OwnerMutex mutex(directory_.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("the directory of concurrency limits");
  if (guard.recovered()) settle(me);
  if (const ConcurrencyRef there = find(name); there.record != nullptr) {
    Status limited = set ? set_limit(*there.record, limit, me) : Status::ok();
    if (!limited) return limited;
    return there;
  }
  Result<ConcurrencyRef> made = make(name, me);
  if (!made) return made;
  const ConcurrencyRef ref = made.value();
  Status limited = set_limit(*ref.record, limit, me);
  if (!limited) return limited;
  CELERIAC_CRASH_POINT("concurrency.open.written");
  // seq_cst: C2; and pairs with find(): the record is complete
  ref.record->word.store(TaggedWord::make(kUsed, {}, ref.generation).bits,
                         std::memory_order_seq_cst);
  if (ref.index >= high()) directory_.high.store(ref.index + 1, std::memory_order_release);
  CELERIAC_CRASH_POINT("concurrency.open.used");
  return made;
}

// A record with that name, vacant still.
Result<ConcurrencyRef> Concurrency::make(std::string_view name, OwnerTag me) {
  std::uint32_t index = 0;
  layout::ConcurrencyRecord* r = vacant(&index);
  if (r == nullptr) {
    Result<layout::ConcurrencyRecord*> fresh =
        index < layout::kMaxConcurrencies
            ? fresh_record(index, me)
            : Status(Code::kNotEnoughMemory,
                     "the store has " + std::to_string(index) +
                         " concurrency limits in which somebody is: need one more, have none");
    if (!fresh) return fresh.status();
    r = fresh.value();
  }
  r->name_length.store(0, std::memory_order_relaxed);
  std::memcpy(r->name, name.data(), name.size());
  // release pairs with settle(): a length means a name
  r->name_length.store(static_cast<std::uint32_t>(name.size()), std::memory_order_release);
  r->limit.store(0, std::memory_order_relaxed);
  return ConcurrencyRef{r, index, load(r->word).generation()};
}

// One that is vacant; null, and the index of one to be made; null and none.
layout::ConcurrencyRecord* Concurrency::vacant(std::uint32_t* index) {
  const std::uint32_t n = high();
  for (*index = 0; *index < n; ++*index) {
    layout::ConcurrencyRecord* r = at(*index);
    if (r == nullptr) return nullptr;
    if (load(r->word).state() != kUsed && make_vacant(*r)) return r;
  }
  if (*index < layout::kMaxConcurrencies) return at(*index);  // one whose maker died, or null
  const std::uint32_t hand = directory_.hand.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < n; ++i) {
    *index = (hand + i) % n;
    layout::ConcurrencyRecord* r = at(*index);
    if (r == nullptr || !make_vacant(*r)) continue;
    directory_.hand.store(*index + 1, std::memory_order_relaxed);
    return r;
  }
  *index = layout::kMaxConcurrencies;
  return nullptr;
}

// C2. True when it is nobody's.
bool Concurrency::make_vacant(layout::ConcurrencyRecord& r) {
  const TaggedWord w = load(r.word);
  if (count(r, 0, kMostPlaces) != 0) return false;
  if (w.state() != kUsed) return true;
  tell(r);  // nobody waits for long where nobody is in; `waiting` may be left by one who gave up
  const TaggedWord vacant = TaggedWord::make(kVacant, {}, w.generation() + 1);
  r.word.store(vacant.bits, std::memory_order_seq_cst);
  CELERIAC_CRASH_POINT("concurrency.open.vacant");
  if (count(r, 0, kMostPlaces) == 0 && r.room.waiting.load(std::memory_order_seq_cst) == 0) {
    return true;
  }
  r.word.store(w.bits, std::memory_order_seq_cst);
  return false;
}

Result<layout::ConcurrencyRecord*> Concurrency::fresh_record(std::uint32_t index, OwnerTag me) {
  constexpr std::uint64_t kBytes = sizeof(layout::ConcurrencyRecord);
  Result<std::uint64_t> block = base_.allocate(aligned_bytes(kBytes), me);
  if (!block) return block.status();
  auto* r = base_.arena.at<layout::ConcurrencyRecord>(aligned_object(block.value()));
  if (r == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  r = new (r) layout::ConcurrencyRecord{};
  r->word.store(TaggedWord::make(kVacant, {}, 1).bits, std::memory_order_relaxed);
  layout::Word& pending = directory_.mutex.pending[0];
  pending.store(base_.heap.ticket(block.value()), std::memory_order_release);
  base_.heap.make_live(block.value(), me);
  CELERIAC_CRASH_POINT("concurrency.open.live");
  directory_.offsets[index].store(block.value(), std::memory_order_release);  // pairs with at()
  pending.store(0, std::memory_order_release);
  return r;
}

// What a dead holder of the directory mutex was linking. Crash-safe: idempotent.
void Concurrency::settle(OwnerTag me) {
  layout::Word& pending = directory_.mutex.pending[0];
  const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
  bool linked = false;
  for (const layout::Word& o : directory_.offsets) {
    linked = linked || o.load(std::memory_order_relaxed) == left;
  }
  if (left != 0 && !linked) base_.heap.release(left, me);
  pending.store(0, std::memory_order_release);
  for (std::uint32_t i = 0; i < high(); ++i) {  // C2
    layout::ConcurrencyRecord* r = at(i);
    if (r == nullptr) continue;
    const TaggedWord w = load(r->word);
    const bool named = r->name_length.load(std::memory_order_acquire) != 0;
    if (w.state() != kVacant || !named || count(*r, 0, kMostPlaces) == 0) continue;
    r->word.store(TaggedWord::make(kUsed, {}, w.generation() - 1).bits, std::memory_order_seq_cst);
  }
}

// ------------------------------------------------------------------------------------- limits

Status Concurrency::set_limit(layout::ConcurrencyRecord& r, std::uint32_t limit, OwnerTag me) {
  const std::uint32_t old = r.limit.load(std::memory_order_relaxed);
  if (old == limit) return Status::ok();
  OwnerMutex mutex(r.mutex, base_.owners);
  const MutexGuard guard(mutex, mutex.lock_within(me, kMutexPatience));
  if (!guard.held()) return mutex_timeout("a concurrency limit");
  if (guard.recovered()) settle_chunks(r, me);
  Status room = add_chunks(r, limit, me);
  if (!room) return room;
  r.limit.store(limit, std::memory_order_seq_cst);  // made_room() requires it
  CELERIAC_CRASH_POINT("concurrency.open.limit");
  if (limit > old) tell(r);
  return Status::ok();
}

Status Concurrency::add_chunks(layout::ConcurrencyRecord& r, std::uint32_t places, OwnerTag me) {
  for (std::uint32_t c = 0; c < layout::kConcurrencyChunks && places_before(c) < places; ++c) {
    if (r.chunks[c].load(std::memory_order_relaxed) != 0) continue;
    const std::uint64_t bytes = places_of(c) * sizeof(layout::Word);
    Result<std::uint64_t> block = base_.allocate(aligned_bytes(bytes), me);
    if (!block) return block.status();
    auto* words = base_.arena.at<layout::Word>(aligned_object(block.value()), bytes);
    if (words == nullptr) return {Code::kCorrupt, "the heap gave a block that isn't one"};
    for (std::uint32_t i = 0; i < places_of(c); ++i) new (words + i) layout::Word(0);
    r.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_release);
    base_.heap.make_live(block.value(), me);
    CELERIAC_CRASH_POINT("concurrency.chunk.live");
    r.chunks[c].store(block.value(), std::memory_order_release);  // pairs with place()
    r.mutex.pending[0].store(0, std::memory_order_release);
  }
  return Status::ok();
}

// What a dead holder of the record's mutex was linking. Crash-safe: idempotent.
void Concurrency::settle_chunks(layout::ConcurrencyRecord& r, OwnerTag me) {
  layout::Word& pending = r.mutex.pending[0];
  const std::uint64_t left = base_.heap.still_live(pending.load(std::memory_order_acquire));
  bool linked = false;
  for (const layout::Word& c : r.chunks) {
    linked = linked || c.load(std::memory_order_relaxed) == left;
  }
  if (left != 0 && !linked) base_.heap.release(left, me);
  pending.store(0, std::memory_order_release);
}

void Concurrency::forget(const LiveBlocks& live) {
  for (std::uint32_t i = 0; i < layout::kMaxConcurrencies; ++i) {
    layout::Word& offset = directory_.offsets[i];
    const std::uint64_t block = offset.load(std::memory_order_relaxed);
    if (block != 0 && !live.has(block)) offset.store(0, std::memory_order_relaxed);
    layout::ConcurrencyRecord* r = at(i);
    if (r == nullptr) continue;
    for (layout::Word& c : r->chunks) {
      const std::uint64_t chunk = c.load(std::memory_order_relaxed);
      if (chunk != 0 && !live.has(chunk)) c.store(0, std::memory_order_relaxed);
    }
  }
}

}  // namespace celeriac
