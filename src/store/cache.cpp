#include "store/cache.hpp"

#include <string>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "memory/copy.hpp"
#include "platform/blocking.hpp"
#include "platform/futex.hpp"
#include "store/resize.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

// Longer than a few writers of large values need, on a busy machine; who is stopped in the midst of
// writing holds up no longer.
constexpr std::uint64_t kWritersPatience = 250 * kMillisecond;

bool is_full(const Result<Reserved>& reserved) {
  return !reserved && reserved.status().code() == Code::kNotEnoughMemory;
}

void nap() {
  const BlockingRegion region;
  pause_ms(1);
}

}  // namespace

// ------------------------------------------------------------------------------- writing

std::uint64_t Cache::version_of(const Found& entry) {
  EntryPlace p;
  layout::Word* guard = nullptr;
  std::uint64_t before = 0;
  segments_.resolve(entry.word.location(), &p, &guard, &before);
  std::uint64_t first_word = 0;
  if (entry.head.is_word()) {
    copy_out_packed(&first_word, entry.place.payload + entry.head.value_at, 8);
  }
  return mix_version(entry.word.location(), before, entry.head.is_word(), first_word);
}

Status Cache::check_size(std::uint64_t key_bytes, std::uint64_t value_bytes, bool table) const {
  const std::uint64_t bytes = kEntryHead + key_bytes + value_bytes;
  const std::uint64_t ceiling = table ? base_.arena.capacity() : base_.heap.cache_ceiling();
  const std::uint64_t room = ceiling > layout::kBlocks ? ceiling - layout::kBlocks : 0;
  if (bytes + bytes / 8 <= room && value_bytes <= 0xFFFF0000ULL) return Status::ok();
  return {Code::kValueTooLarge, "a value of " + std::to_string(value_bytes) +
                                    " bytes is larger than the arena can hold (memory=" +
                                    std::to_string(base_.arena.capacity()) +
                                    (table ? ")" : ", of which caches get seven eighths)") +
                                    ": raise memory= or store less"};
}

// The entry, in room of its own. `old`: what the key leads to now.
Result<Reserved> Cache::write(std::uint32_t space, const Place& place, std::string_view key,
                              const Value& value, std::uint64_t expires, IndexWord old,
                              std::uint64_t now, OwnerTag me) {
  EntryHead head;
  head.expires = expires;
  head.key_size = static_cast<std::uint16_t>(key.size());
  head.value_size = value.bytes.size();
  head.space = static_cast<std::uint8_t>(space_index(space));
  head.codec = value.codec;
  const bool table = spaces_.pinned(space);
  const std::uint64_t bytes = kEntryHead + key.size() + value.bytes.size();
  const bool single = table || bytes > segments_.largest_shared() || head.value_size >= kSingleSize;
  head.raw_value_size = single ? kSingleSize : static_cast<std::uint16_t>(head.value_size);
  Reserved room;
  if (table) {
    lay_out(kSinglePlace, &head);
    const Result<std::uint64_t> block = base_.allocate(head.end, me);
    if (!block) return block.status();
    char* payload = base_.heap.payload(block.value(), head.end);
    if (payload == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
    room.head = head;
    room.place = {payload, base_.heap.room(block.value()), now, kSinglePlace};
    room.location = Location::in_block(block.value());
    // As in Segments: readers of the block's last life see that its word has changed.
    std::atomic_thread_fence(std::memory_order_release);
    auto* words = reinterpret_cast<layout::BlockHead*>(payload);
    words->mark.store(room.place.base, std::memory_order_relaxed);
    words->value_size.store(head.value_size, std::memory_order_relaxed);
    write_head(room.place, head, 0);
  } else {
    Result<Reserved> reserved = eviction_.reserve(head, place.hash, old, now, me);
    // What others are writing can't give way now, and can in a moment.
    const std::uint64_t patience = now + kWritersPatience;
    for (int quiet = 0; quiet < 3 && is_full(reserved) && now_ns() < patience;) {
      if (eviction_.being_written(me)) {
        nap();
      } else {
        ++quiet;  // done meanwhile; and the next may have begun
      }
      reserved = eviction_.reserve(head, place.hash, old, now, me);
    }
    if (!reserved) return reserved.status();
    room = reserved.take();
  }
  char* payload = room.place.payload;
  copy_in_packed(payload + room.place.at + kEntryHead, key.data(), key.size());
  copy_in_packed(payload + room.head.value_at, value.bytes.data(), value.bytes.size());
  CELERIAC_CRASH_POINT("cache.set.copied");
  complete_head(room.place, room.head);
  CELERIAC_CRASH_POINT("cache.set.written");
  return room;
}

void Cache::discard(const Reserved& room, OwnerTag me) {
  if (room.location.pinned()) {
    base_.heap.release(room.location.block(), me);
  } else {
    eviction_.abandon(room, me);
  }
}

Result<bool> Cache::store(std::uint32_t space, std::string_view key, const Value& value,
                          std::uint64_t expires, StoreMode mode, std::uint64_t version,
                          OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(index_.hash(space, key));
  // Who can't have the new value of a cache shouldn't read the old one either.
  const auto refused = [&](Status why) {
    if (mode != StoreMode::kSet || spaces_.pinned(space)) return why;
    if (why.code() != Code::kValueTooLarge && why.code() != Code::kNotEnoughMemory) return why;
    const Result<Met> erased = erase(space, key, me);
    return erased ? why : erased.status();
  };
  const Status fits = check_size(key.size(), value.bytes.size(), spaces_.pinned(space));
  if (!fits) return refused(fits);
  Fit fit = Fit::kProper;  // of a larger table
  bool drained = false;
  for (int attempt = 0; attempt < 16; ++attempt) {
    // What is there now decides into which queue an entry goes, and whether there is any use in
    // writing one; both are asked again under the mutex.
    const std::uint64_t now = now_ns();
    IndexWord old;
    if (mode == StoreMode::kSet && attempt < 2) {
      old = index_.guess(place, space);
    } else {
      Hit hit;
      const Look seen = look(place, space, key, nullptr, now, &hit);
      if (mode == StoreMode::kAdd && seen == Look::kHit) return false;
      if (mode == StoreMode::kReplace && seen == Look::kMiss) return false;
      old = hit.word;
    }
    Result<Reserved> written = write(space, place, key, value, expires, old, now, me);
    if (!written) return refused(written.status());
    const Reserved& room = written.value();
    ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) {
      discard(room, me);
      return mutex_timeout("a shard of the cache");
    }
    const std::optional<Found> found = index_.find(place, space, key);
    // N4; behind find(), which has looked at the key's entry only if the id was good until then
    const std::uint32_t generation = spaces_.generation(space);
    const bool there = found && index_.present(found->word, found->head, now);
    const bool expired = found && !there && index_.current(found->word, found->head);
    const bool wanted = mode == StoreMode::kSet ||
                        (mode == StoreMode::kCompare ? version == (there ? version_of(*found) : 0)
                                                     : there == (mode == StoreMode::kReplace));
    if (generation == 0 || !wanted) {  // 0: its place is another's, nothing is stored
      guard.unlock();
      discard(room, me);
      return false;
    }
    drained = !room.location.pinned() && !segments_.writable(room);
    if (drained) continue;                        // by others, who need its room
    if (!found && !old.free() && attempt == 0) {  // another key's: this one is new
      guard.unlock();
      discard(room, me);
      attempt = 1;
      continue;
    }
    layout::Word* way = found ? found->way : index_.free_way(place, fit, me);
    if (way == nullptr && fit == Fit::kProper) {
      // The table should grow, and not into the midst of the cache: have it give way first.
      guard.unlock();
      discard(room, me);
      eviction_.push(index_.next_table(place.shard), me);
      fit = Fit::kAnyHole;
      continue;
    }
    if (way == nullptr && (way = index_.victim(place)) != nullptr) {
      Found out{way, {way->load(std::memory_order_relaxed)}, {}, {}};
      if (index_.entry(out.word, &out.place, &out.head)) eviction_.count_out(out, me);
    }
    if (way == nullptr) {
      // Neither a way nor memory for a larger table: make room for one and look again.
      guard.unlock();
      discard(room, me);
      if (eviction_.make_room(1ULL << 16U, me) > 0) continue;
      break;
    }
    const Leftover left = index_.link(
        place.shard, way, IndexWord::make(room.location, place.tag, generation, old.frequency()),
        room.head, found ? &*found : nullptr, me);
    Eviction::SweptBucket swept{};
    if (room.location.pinned()) eviction_.sweep_on(place.shard, &swept, me);
    guard.unlock();
    CELERIAC_CRASH_POINT("cache.set.unlocked");
    eviction_.collect(left, me);
    for (const Leftover& l : swept) eviction_.collect(l, me);
    if (expired)
      spaces_.counters(space, key, me).expirations.fetch_add(1, std::memory_order_relaxed);
    spaces_.counters(space, key, me).sets.fetch_add(1, std::memory_order_relaxed);
    changed(space, place.hash);
    return true;
  }
  if (drained) {  // again and again: evicted as soon as it is stored
    const Result<Met> erased = erase(space, key, me);
    return erased ? Result<bool>(true) : Result<bool>(erased.status());
  }
  return refused({Code::kNotEnoughMemory,
                  "the arena is full of tables and messages: the index can't grow; raise memory="});
}

Result<Met> Cache::erase(std::uint32_t space, std::string_view key, OwnerTag me,
                         std::uint64_t version, Which which) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(index_.hash(space, key));
  Leftover left;
  Met there = Met::kNothing;
  bool expired = false;
  {
    const ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) return mutex_timeout("a shard of the cache");
    const std::optional<Found> old = index_.find(place, space, key);
    if (!old) return there;
    if (index_.present(old->word, old->head)) there = met(old->head.codec);
    if (which == Which::kPlain && there == Met::kPacked) return there;
    if (version != 0 && (there == Met::kNothing || version_of(*old) != version)) {
      return Met::kNothing;
    }
    expired = there == Met::kNothing && index_.current(old->word, old->head);
    left = index_.unlink(place.shard, old->way, me);
  }
  CELERIAC_CRASH_POINT("cache.delete.unlocked");
  eviction_.collect(left, me);
  if (there != Met::kNothing)
    spaces_.counters(space, key, me).deletes.fetch_add(1, std::memory_order_relaxed);
  if (expired) spaces_.counters(space, key, me).expirations.fetch_add(1, std::memory_order_relaxed);
  changed(space, place.hash);
  return there;
}

Result<Met> Cache::touch(std::uint32_t space, std::string_view key, std::uint64_t expires,
                         OwnerTag me, Which which) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(index_.hash(space, key));
  const ShardGuard guard(base_, index_, place.shard, me);
  if (!guard.held()) return mutex_timeout("a shard of the cache");
  const std::optional<Found> old = index_.find(place, space, key);
  if (!old || !index_.present(old->word, old->head)) return Met::kNothing;
  const Met there = met(old->head.codec);
  if (which == Which::kPlain && there == Met::kPacked) return there;
  if (layout::SegmentRecord* r = old->word.location().pinned()
                                     ? nullptr
                                     : segments_.record(old->word.location().segment())) {
    std::uint64_t latest = r->latest.load(std::memory_order_relaxed);
    while (latest < expires &&
           !r->latest.compare_exchange_weak(latest, expires, std::memory_order_relaxed)) {
    }
  }
  CELERIAC_CRASH_POINT("cache.touch.raised");
  std::atomic_ref(expiry_word(old->place))
      .store(encode_expiry(expires, old->place.base), std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("cache.touch.stored");
  return there;
}

Result<IncrementResult> Cache::increment(std::uint32_t space, std::string_view key,
                                         std::int64_t delta, std::int64_t* result, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(index_.hash(space, key));
  {
    const ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) return mutex_timeout("a shard of the cache");
    const std::optional<Found> old = index_.find(place, space, key);
    if (!old || !index_.present(old->word, old->head)) return IncrementResult::kMissing;
    if (old->head.codec == Codec::kBigInt) return IncrementResult::kOverflow;
    if (!old->head.is_word()) return IncrementResult::kNotInteger;
    auto& word = *reinterpret_cast<std::uint64_t*>(old->place.payload + old->head.value_at);
    const auto value = static_cast<std::int64_t>(relaxed_load(&word));
    std::int64_t sum = 0;
    if (__builtin_add_overflow(value, delta, &sum)) return IncrementResult::kOverflow;
    std::atomic_ref(word).store(static_cast<std::uint64_t>(sum), std::memory_order_relaxed);
    CELERIAC_CRASH_POINT("cache.incr.stored");
    *result = sum;
  }
  changed(space, place.hash);
  return IncrementResult::kDone;
}

// ------------------------------------------------------------------------------- the rest

Result<bool> Cache::clear(std::uint32_t space, OwnerTag me) {
  if (spaces_.sweep_due(space) && !eviction_.drop_absent(me)) {
    return mutex_timeout("a shard of the cache");
  }
  return spaces_.clear(space);
}

Result<bool> Cache::limit(std::uint32_t space, std::uint32_t max_entries, OwnerTag me) {
  const std::uint32_t before = spaces_.max_entries(space);
  if (spaces_.good(space) && before == max_entries) return true;
  Result<bool> limited = spaces_.limit(space, max_entries, me);
  if (!limited || !limited.value()) return limited;
  const std::uint64_t has = entries(space);
  if (max_entries != 0 && has > max_entries) eviction_.cull(space, has - max_entries, me);
  if (max_entries != 0 && before == 0 && has != 0) eviction_.gather(space, me);
  return true;
}

Result<std::uint64_t> Cache::resize(std::uint64_t memory, OwnerTag me) {
  return Resize(base_, segments_, index_, eviction_).to(memory, me);
}

void Cache::each(std::uint32_t space, OwnerTag me,
                 const std::function<bool(std::string_view, const ValueBuffer&)>& visit) {
  const std::uint32_t generation = spaces_.generation(space);
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    std::vector<std::string> keys;
    {
      const ShardGuard guard(base_, index_, shard, me);
      if (!guard.held()) continue;
      const TableWord t{index_.shard(shard).table.load(std::memory_order_relaxed)};
      layout::Bucket* buckets = index_.buckets(t);
      for (std::uint64_t i = 0; buckets != nullptr && i < t.size(); ++i) {
        for (const layout::Word& way : buckets[i].ways) {
          const IndexWord w{way.load(std::memory_order_relaxed)};
          EntryPlace p;
          EntryHead h;
          if (w.free() || !index_.entry(w, &p, &h)) continue;
          if (!Index::belongs(w, h, space, generation) || !index_.present(w, h)) continue;
          keys.emplace_back(h.key_size, 0);
          copy_out_packed(keys.back().data(), p.payload + p.at + kEntryHead, h.key_size);
        }
      }
    }
    for (const std::string& key : keys) {
      ValueBuffer value;
      if (lookup(space, key, &value, me) && !visit(key, value)) return;
    }
  }
}

void Cache::repair(OwnerTag me) {
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
    if (index_.shard(i).mutex.word.load(std::memory_order_acquire) == 0) continue;
    const ShardGuard guard(base_, index_, i, me, true);
  }
}

std::uint64_t Cache::entries(std::uint32_t space) const {
  std::uint64_t sum = 0;
  const std::uint32_t generation = spaces_.generation(space);
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const std::uint64_t w =
        spaces_.cell(space, shard).generation_entries.load(std::memory_order_relaxed);
    if (static_cast<std::uint32_t>(w >> 32U) == generation) sum += static_cast<std::uint32_t>(w);
  }
  return sum;
}

CacheCounts Cache::counts(std::uint32_t space) const {
  CacheCounts n;
  n.entries = entries(space);
  n.bytes_limit = base_.arena.capacity();
  const std::uint32_t generation = spaces_.generation(space);
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    const layout::CellRecord& cell = spaces_.cell(space, shard);
    const std::uint64_t w = cell.generation_entries.load(std::memory_order_relaxed);
    if (static_cast<std::uint32_t>(w >> 32U) == generation) {
      n.bytes += cell.bytes.load(std::memory_order_relaxed);
    }
  }
  spaces_.prefixes().add_up(space_index(space), &n);
  return n;
}

void Cache::changed(std::uint32_t space, std::uint64_t hash) {
  if (!spaces_.pinned(space)) return;
  layout::Signal& s = signal(hash);
  // seq_cst on both sides: either the waiter sees the new number, or we see the waiter
  s.sequence.fetch_add(1, std::memory_order_seq_cst);
  if (s.waiters.load(std::memory_order_seq_cst) != 0) futex_wake(&s.sequence, 1 << 30);
}

std::uint32_t Cache::change_count(std::uint32_t space, std::string_view key) {
  return signal(index_.hash(space, key)).sequence.load(std::memory_order_seq_cst);
}

void Cache::wake_all_waiters() {
  for (std::uint32_t i = 0; i < layout::kSignalCount; ++i) {
    layout::Signal& s = base_.arena.fixed<layout::Signal>(layout::kSignals)[i];
    if (s.waiters.load(std::memory_order_seq_cst) == 0) continue;
    s.sequence.fetch_add(1, std::memory_order_seq_cst);
    futex_wake(&s.sequence, 1 << 30);
  }
  CELERIAC_CRASH_POINT("cache.wake.woken");
}

Result<bool> Cache::wait_for_change(std::uint32_t space, std::string_view key, std::uint32_t seen,
                                    std::uint64_t deadline_ns) {
  layout::Signal& s = signal(index_.hash(space, key));
  s.waiters.fetch_add(1, std::memory_order_seq_cst);
  // The count of a waiter that dies here stays: it costs a system call now and then, nothing else.
  const Parked how = park_until(s.sequence, seen, deadline_ns);
  s.waiters.fetch_sub(1, std::memory_order_relaxed);
  if (how == Parked::kInterrupted) return Status(Code::kInterrupted, "interrupted by a signal");
  return how == Parked::kChanged;
}

}  // namespace celeriac
