#include "store/cache.hpp"

#include <algorithm>

#include "arena/crash_point.hpp"
#include "memory/block_states.hpp"
#include "memory/copy.hpp"
#include "platform/futex.hpp"
#include "store/hash.hpp"
#include "sync/parker.hpp"

namespace celeriac {
namespace {

constexpr int kOptimisticTries = 64;

// The head of an entry, copied word by word while it may change.
struct Head {
  std::uint64_t expires;
  std::uint64_t hash;
  std::uint32_t value_size;
  std::uint32_t generation;
  std::uint16_t key_size;
  std::uint16_t space;
  std::uint8_t codec;
  std::uint8_t reserved[3];
};
static_assert(sizeof(Head) == sizeof(layout::Entry));

std::uint64_t value_offset(std::uint64_t key_size) {
  return sizeof(layout::Entry) + layout::align_up(key_size, 8);
}

// Names one life of one block, and the value of an integer that is changed in place.
std::uint64_t mix_version(std::uint64_t block, std::uint32_t generation, Codec codec,
                          std::uint64_t first_word) {
  std::uint64_t v = (generation + 1ULL) * 0x9E3779B97F4A7C15ULL ^ block * 0xD6E8FEB86659FD93ULL;
  if (codec == Codec::kInt) v ^= (first_word + 1) * 0xC2B2AE3D27D4EB4FULL;
  return v | 1U;
}

// Counts a read in the way's frequency bits, unless the way has changed: a hint of popularity.
// The table that the way stands in may have been replaced since, and its memory be somebody else's
// by now. Then its words differ, and nothing is written. ThreadSanitizer is kept out, since it
// takes that look for a write.
__attribute__((noinline, no_sanitize("thread"))) void count_read(layout::Word& way, IndexWord now) {
  way.compare_exchange_strong(now.bits, now.bits + (1ULL << 62U), std::memory_order_relaxed);
}

}  // namespace

std::uint64_t Cache::hash(std::uint32_t space, std::string_view key) {
  return hash_key(
      key, base_.arena.header().fixed.hash_seed + space_index(space) * 0x9E3779B97F4A7C15ULL);
}

bool Cache::present(const layout::Entry& e) const {
  if (!index_.current(e)) return false;
  const std::uint64_t expires = e.expires.load(std::memory_order_relaxed);
  return expires == kNever || expires > now_ns();
}

// ------------------------------------------------------------------------------- reading

Cache::Look Cache::read_way(layout::Word& way, IndexWord w, const Place& place, std::uint32_t space,
                            std::string_view key, ValueBuffer* to) {
  layout::Word* block_word = base_.heap.word(w.block());
  if (block_word == nullptr) return Look::kMiss;
  const TaggedWord before = load(*block_word);
  if (before.state() != kBlockLive) return Look::kAgain;  // unlinked since
  const char* payload = base_.heap.payload(w.block(), sizeof(Head));
  if (payload == nullptr) return Look::kAgain;
  Head head{};
  copy_out(&head, payload, sizeof head);
  // Pairs with the releases in Index::link() and Heap: a copy that saw a later store of the block
  // sees the changed words here.
  IndexWord now{};
  const auto unchanged = [&] {
    std::atomic_thread_fence(std::memory_order_acquire);
    now = IndexWord{way.load(std::memory_order_relaxed)};
    return now.identity() == w.identity() &&
           block_word->load(std::memory_order_relaxed) == before.bits;
  };
  const bool same_key =
      head.hash == place.hash && head.space == space_index(space) && head.key_size == key.size();
  const std::uint64_t at = value_offset(head.key_size);
  if (same_key && base_.heap.payload(w.block(), at + head.value_size) == nullptr) {
    return Look::kAgain;
  }
  if (!same_key || !equal(payload + sizeof head, key.data(), key.size())) {
    // Another key with the same tag, if this is what was linked. If not, the key may have been
    // replaced meanwhile and stand in this very way: a miss would be a lie.
    return unchanged() ? Look::kMiss : Look::kAgain;
  }
  std::uint64_t first_word = 0;
  if (head.codec == static_cast<std::uint8_t>(Codec::kInt) && head.value_size == 8) {
    copy_out(&first_word, payload + at, 8);
  }
  if (to != nullptr) {
    char* out = to->reserve(head.value_size);
    if (head.codec == static_cast<std::uint8_t>(Codec::kInt) && head.value_size == 8) {
      std::memcpy(out, &first_word, 8);
    } else {
      copy_out(out, payload + at, head.value_size);
    }
    to->codec = static_cast<Codec>(head.codec);
    to->expires = head.expires;
    to->version = mix_version(w.block(), before.generation(), to->codec, first_word);
  }
  if (!unchanged()) return Look::kAgain;
  if (head.generation != spaces_.generation(space)) return Look::kMiss;
  if (head.expires != kNever && head.expires <= now_ns()) return Look::kMiss;
  if (now.frequency() < 3) count_read(way, now);
  return Look::kHit;
}

Cache::Look Cache::look(const Place& place, std::uint32_t space, std::string_view key,
                        ValueBuffer* to) {
  layout::Shard& s = index_.shard(place.shard);
  const TableWord t{s.table.load(std::memory_order_acquire)};
  layout::Bucket* b = index_.buckets(t);
  if (b == nullptr) return t.block() == 0 ? Look::kMiss : Look::kAgain;
  const std::uint64_t mask = (1ULL << t.log2()) - 1;
  for (int which = 0; which < 2; ++which) {
    for (layout::Word& way : b[place.bucket(which, mask)].ways) {
      const IndexWord w{way.load(std::memory_order_acquire)};
      if (w.block() == 0 || w.tag() != place.tag) continue;
      const Look found = read_way(way, w, place, space, key, to);
      if (found == Look::kAgain) return found;
      if (found == Look::kHit) {
        return s.table.load(std::memory_order_relaxed) == t.bits ? Look::kHit : Look::kAgain;
      }
    }
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return s.table.load(std::memory_order_relaxed) == t.bits ? Look::kMiss : Look::kAgain;
}

bool Cache::lookup(std::uint32_t space, std::string_view key, ValueBuffer* to, OwnerTag me) {
  const Place place(hash(space, key));
  for (int i = 0; i < kOptimisticTries; ++i) {
    const Look found = look(place, space, key, to);
    if (found != Look::kAgain) return found == Look::kHit;
    cpu_relax();
  }
  const ShardGuard guard(base_, index_, place.shard, me);
  return look(place, space, key, to) == Look::kHit;
}

bool Cache::get(std::uint32_t space, std::string_view key, ValueBuffer& to, bool counted,
                OwnerTag me) {
  const bool hit = lookup(space, key, &to, me);
  if (!counted) return hit;
  layout::CounterStripe& c = spaces_.counters(space, me);
  (hit ? c.hits : c.misses).fetch_add(1, std::memory_order_relaxed);
  return hit;
}

bool Cache::contains(std::uint32_t space, std::string_view key, OwnerTag me) {
  return lookup(space, key, nullptr, me);
}

// ------------------------------------------------------------------------------- writing

std::uint64_t Cache::version_of(std::uint64_t block, const layout::Entry& e) {
  const layout::Word* word = base_.heap.word(block);
  std::uint64_t first_word = 0;
  const auto codec = static_cast<Codec>(e.codec);
  if (codec == Codec::kInt) {
    const char* p = base_.heap.payload(block, value_offset(e.key_size) + 8);
    if (p != nullptr) copy_out(&first_word, p + value_offset(e.key_size), 8);
  }
  return mix_version(block, word == nullptr ? 0 : load(*word).generation(), codec, first_word);
}

Result<std::uint64_t> Cache::write_block(std::uint32_t space, const Place& place,
                                         std::string_view key, const Value& value,
                                         std::uint64_t expires, OwnerTag me) {
  const std::uint64_t bytes = value_offset(key.size()) + value.bytes.size();
  const bool table = spaces_.pinned(space);
  const std::uint64_t capacity = table ? base_.arena.capacity() : base_.heap.cache_ceiling();
  const std::uint64_t room = capacity > layout::kBlocks ? capacity - layout::kBlocks : 0;
  if (bytes + bytes / 8 > room || value.bytes.size() > 0xFFFFFFF0ULL) {
    return Status(Code::kValueTooLarge, "a value of " + std::to_string(value.bytes.size()) +
                                            " bytes is larger than the arena can hold (memory=" +
                                            std::to_string(capacity) +
                                            "): raise memory= or store less");
  }
  Result<std::uint64_t> block = base_.allocate(bytes, me, capacity);
  if (!block) return block;
  char* payload = base_.heap.payload(block.value(), bytes);
  if (payload == nullptr) return Status(Code::kCorrupt, "the heap gave a block that isn't one");
  const Head head{expires,
                  place.hash,
                  static_cast<std::uint32_t>(value.bytes.size()),
                  spaces_.generation(space),
                  static_cast<std::uint16_t>(key.size()),
                  static_cast<std::uint16_t>(space_index(space)),
                  static_cast<std::uint8_t>(value.codec),
                  {}};
  copy_in(payload, &head, sizeof head);
  copy_in(payload + sizeof head, key.data(), key.size());
  copy_in(payload + value_offset(key.size()), value.bytes.data(), value.bytes.size());
  CELERIAC_CRASH_POINT("cache.set.written");
  return block;
}

Result<bool> Cache::store(std::uint32_t space, std::string_view key, const Value& value,
                          std::uint64_t expires, StoreMode mode, std::uint64_t version,
                          OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(hash(space, key));
  Result<std::uint64_t> block = write_block(space, place, key, value, expires, me);
  if (!block) return block.status();
  std::uint64_t garbage = 0;
  bool stored = false;
  for (int attempt = 0;; ++attempt) {
    ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) {
      base_.heap.release(block.value(), me);
      return mutex_timeout("a shard of the cache");
    }
    if (!spaces_.good(space)) break;  // its place is another's: nothing is stored
    const std::optional<Found> old = index_.find(place, space, key);
    const bool there = old && present(*old->entry);
    switch (mode) {
      case StoreMode::kSet:
        stored = true;
        break;
      case StoreMode::kAdd:
        stored = !there;
        break;
      case StoreMode::kReplace:
        stored = there;
        break;
      case StoreMode::kCompare:
        stored = version == (there ? version_of(old->word.block(), *old->entry) : 0);
        break;
    }
    if (stored) {
      layout::Word* way = old ? old->way : index_.free_way(place, me);
      if (way == nullptr) {
        way = index_.victim(place);
        if (way != nullptr) {
          spaces_.counters(space, me).evictions.fetch_add(1, std::memory_order_relaxed);
        }
      }
      if (way == nullptr) {
        // Neither a way nor memory for a larger table: make room for one and look again.
        guard.unlock();
        if (attempt < 16 && eviction_.make_room(1ULL << 16U, true, me) > 0) continue;
        base_.heap.release(block.value(), me);
        return Status(Code::kNotEnoughMemory,
                      "the arena is full of tables and messages: the index can't grow; raise "
                      "memory=");
      }
      garbage = index_.link(place.shard, way, block.value(), place, me);
    }
    break;
  }
  CELERIAC_CRASH_POINT("cache.set.unlocked");
  if (stored) {
    if (garbage != 0) base_.heap.free(garbage, me);
    spaces_.counters(space, me).sets.fetch_add(1, std::memory_order_relaxed);
    changed(space, place.hash);
  } else {
    base_.heap.release(block.value(), me);
  }
  return stored;
}

Result<bool> Cache::erase(std::uint32_t space, std::string_view key, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(hash(space, key));
  std::uint64_t garbage = 0;
  bool there = false;
  {
    const ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) return mutex_timeout("a shard of the cache");
    const std::optional<Found> old = index_.find(place, space, key);
    if (!old) return false;
    there = present(*old->entry);
    garbage = index_.unlink(place.shard, old->way, me);
  }
  CELERIAC_CRASH_POINT("cache.delete.unlocked");
  base_.heap.free(garbage, me);
  if (there) spaces_.counters(space, me).deletes.fetch_add(1, std::memory_order_relaxed);
  changed(space, place.hash);
  return there;
}

Result<bool> Cache::touch(std::uint32_t space, std::string_view key, std::uint64_t expires,
                          OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(hash(space, key));
  const ShardGuard guard(base_, index_, place.shard, me);
  if (!guard.held()) return mutex_timeout("a shard of the cache");
  const std::optional<Found> old = index_.find(place, space, key);
  if (!old || !present(*old->entry)) return false;
  old->entry->expires.store(expires, std::memory_order_relaxed);
  CELERIAC_CRASH_POINT("cache.touch.stored");
  return true;
}

Result<IncrementResult> Cache::increment(std::uint32_t space, std::string_view key,
                                         std::int64_t delta, std::int64_t* result, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const Place place(hash(space, key));
  {
    const ShardGuard guard(base_, index_, place.shard, me);
    if (!guard.held()) return mutex_timeout("a shard of the cache");
    const std::optional<Found> old = index_.find(place, space, key);
    if (!old || !present(*old->entry)) return IncrementResult::kMissing;
    const auto codec = static_cast<Codec>(old->entry->codec);
    if (codec == Codec::kBigInt) return IncrementResult::kOverflow;
    const std::uint64_t at = value_offset(key.size());
    char* payload = base_.heap.payload(old->word.block(), at + 8);
    if (codec != Codec::kInt || payload == nullptr) return IncrementResult::kNotInteger;
    auto& word = *reinterpret_cast<std::uint64_t*>(payload + at);
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
      for (std::uint64_t i = 0; buckets != nullptr && i < 1ULL << t.log2(); ++i) {
        for (const layout::Word& way : buckets[i].ways) {
          const IndexWord w{way.load(std::memory_order_relaxed)};
          const layout::Entry* e = w.block() == 0 ? nullptr : index_.entry(w.block());
          if (e == nullptr || !Index::belongs(*e, space, generation) || !present(*e)) continue;
          const char* p = base_.heap.payload(w.block(), sizeof *e + e->key_size);
          if (p != nullptr) keys.emplace_back(p + sizeof *e, e->key_size);
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
  for (std::uint16_t stripe = 0; stripe < layout::kStripes; ++stripe) {
    const layout::CounterStripe& c = spaces_.counters(space, {stripe, 1});
    n.hits += c.hits.load(std::memory_order_relaxed);
    n.misses += c.misses.load(std::memory_order_relaxed);
    n.sets += c.sets.load(std::memory_order_relaxed);
    n.deletes += c.deletes.load(std::memory_order_relaxed);
    n.evictions += c.evictions.load(std::memory_order_relaxed);
    n.expirations += c.expirations.load(std::memory_order_relaxed);
  }
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
  return signal(hash(space, key)).sequence.load(std::memory_order_seq_cst);
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
  layout::Signal& s = signal(hash(space, key));
  s.waiters.fetch_add(1, std::memory_order_seq_cst);
  // The count of a waiter that dies here stays: it costs a system call now and then, nothing else.
  const Parked how = park_until(s.sequence, seen, deadline_ns);
  s.waiters.fetch_sub(1, std::memory_order_relaxed);
  if (how == Parked::kInterrupted) return Status(Code::kInterrupted, "interrupted by a signal");
  return how == Parked::kChanged;
}

}  // namespace celeriac
