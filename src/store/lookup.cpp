// The reading half of Cache: nothing here takes a lock, unless writers keep a shard moving.
#include "memory/copy.hpp"
#include "platform/futex.hpp"
#include "store/cache.hpp"

namespace celeriac {
namespace {

constexpr int kOptimisticTries = 64;

// Counts a read in the way's frequency bits, unless the way has changed: a hint of popularity.
// The table that the way stands in may have been replaced since, and its memory be somebody else's
// by now. Then its words differ, and nothing is written. ThreadSanitizer is kept out, since it
// takes that look for a write.
__attribute__((noinline, no_sanitize("thread"))) void count_read(layout::Word& way, IndexWord now) {
  way.compare_exchange_strong(now.bits, now.bits + (1ULL << 62U), std::memory_order_relaxed);
}

}  // namespace

// Names one life of one place, and the value of an integer that is changed in place.
std::uint64_t Cache::mix_version(Location where, std::uint64_t guard, bool is_word,
                                 std::uint64_t first_word) {
  const std::uint64_t generation = TaggedWord{guard}.generation();
  std::uint64_t v = (generation + 1) * 0x9E3779B97F4A7C15ULL ^ where.bits * 0xD6E8FEB86659FD93ULL;
  if (is_word) v ^= (first_word + 1) * 0xC2B2AE3D27D4EB4FULL;
  return v | 1U;
}

Cache::Look Cache::read_way(layout::Word& way, IndexWord w, std::uint32_t space,
                            std::string_view key, ValueBuffer* to, std::uint64_t now_or_0,
                            Hit* hit) {
  EntryPlace p;
  EntryHead h;
  layout::Word* guard = nullptr;
  std::uint64_t before = 0;
  if (!segments_.resolve(w.location(), &p, &guard, &before)) return Look::kAgain;  // unlinked since
  // Pairs with the releases in Index::link(), Segments and Heap: a copy that saw a later store of
  // the memory sees the changed words here.
  IndexWord now{};
  const auto unchanged = [&] {
    std::atomic_thread_fence(std::memory_order_acquire);
    now = IndexWord{way.load(std::memory_order_relaxed)};
    return now.identity() == w.identity() && guard->load(std::memory_order_relaxed) == before;
  };
  if (!read_head(p, &h)) return Look::kAgain;  // being replaced; or damaged, see lookup()
  if (h.space != space_index(space) || h.key_size != key.size() ||
      !equal_packed(p.payload + p.at + kEntryHead, key.data(), key.size())) {
    // Another key with the same tag, if this is what was linked. If not, the key may have been
    // replaced meanwhile and stand in this very way: a miss would be a lie.
    return unchanged() ? Look::kMiss : Look::kAgain;
  }
  if (to != nullptr) {
    char* out = to->reserve(h.value_size);
    copy_out_packed(out, p.payload + h.value_at, h.value_size);
    std::uint64_t first_word = 0;
    if (h.is_word()) std::memcpy(&first_word, out, 8);
    to->codec = h.codec;
    to->expires = h.expires;
    to->version = mix_version(w.location(), before, h.is_word(), first_word);
  }
  if (!unchanged()) return Look::kAgain;
  if (h.expires != kNever && h.expires <= (now_or_0 != 0 ? now_or_0 : now_ns())) {
    return Look::kMiss;
  }
  if (now.frequency() < 3) count_read(way, now);
  if (hit != nullptr) *hit = {w, h.codec};
  return Look::kHit;
}

Cache::Look Cache::look(const Place& place, std::uint32_t space, std::string_view key,
                        ValueBuffer* to, std::uint64_t now_or_0, Hit* hit) {
  layout::Shard& s = index_.shard(place.shard);
  // acquire pairs with the release in Index::make_way()
  const std::uint64_t moves = s.moves.load(std::memory_order_acquire);
  const TableWord t{s.table.load(std::memory_order_acquire)};
  layout::Bucket* b = index_.buckets(t);
  if (b == nullptr) return t.block() == 0 ? Look::kMiss : Look::kAgain;
  const std::uint32_t generation = spaces_.generation(space);
  if (generation == 0) return Look::kMiss;
  const IndexWord wanted = IndexWord::make({}, place.tag, generation, 0);
  const std::uint64_t first = place.first(t.size());
  for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
    for (layout::Word& way : b[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_acquire)};
      if (!w.matches(wanted) || w.free()) continue;
      const Look found = read_way(way, w, space, key, to, now_or_0, hit);
      if (found == Look::kAgain) return found;
      if (found == Look::kHit) {
        return s.table.load(std::memory_order_relaxed) == t.bits ? Look::kHit : Look::kAgain;
      }
    }
  }
  std::atomic_thread_fence(std::memory_order_acquire);
  return s.table.load(std::memory_order_relaxed) == t.bits &&
                 s.moves.load(std::memory_order_relaxed) == moves
             ? Look::kMiss
             : Look::kAgain;
}

bool Cache::lookup(std::uint32_t space, std::string_view key, ValueBuffer* to, OwnerTag me,
                   Hit* hit) {
  const Place place(index_.hash(space, key));
  for (int i = 0; i < kOptimisticTries; ++i) {
    const Look found = look(place, space, key, to, 0, hit);
    if (found != Look::kAgain) return found == Look::kHit;
    cpu_relax();
  }
  const ShardGuard guard(base_, index_, place.shard, me);
  const Look found = look(place, space, key, to, 0, hit);
  // Nobody changes it now, so what still can't be read is damaged: find() drops it.
  if (found == Look::kAgain && guard.held()) static_cast<void>(index_.find(place, space, key));
  return found == Look::kHit;
}

bool Cache::get(std::uint32_t space, std::string_view key, ValueBuffer& to, bool counted,
                OwnerTag me) {
  if (!counted) return lookup(space, key, &to, me);
  // First, since the processor finds the row while it waits for what the lookup reads.
  layout::CounterStripe& c = spaces_.counters(space, key, me);
  const bool hit = lookup(space, key, &to, me);
  (hit ? c.hits : c.misses).fetch_add(1, std::memory_order_relaxed);
  return hit;
}

void Cache::missed(std::uint32_t space, std::string_view key, OwnerTag me) {
  layout::CounterStripe& c = spaces_.counters(space, key, me);
  std::uint64_t hits = c.hits.load(std::memory_order_relaxed);
  do {
    if (hits == 0) return;  // the row has begun anew since
  } while (!c.hits.compare_exchange_weak(hits, hits - 1, std::memory_order_relaxed));
  c.misses.fetch_add(1, std::memory_order_relaxed);
}

Met Cache::probe(std::uint32_t space, std::string_view key, OwnerTag me) {
  Hit hit;
  return lookup(space, key, nullptr, me, &hit) ? met(hit.codec) : Met::kNothing;
}

}  // namespace celeriac
