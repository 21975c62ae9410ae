#include "store/eviction.hpp"

#include <algorithm>
#include <array>
#include <vector>

#include "arena/crash_point.hpp"
#include "memory/copy.hpp"

namespace celeriac {
namespace {

// Up to here single entries are evicted; beyond, neighbours.
constexpr std::uint64_t kSmall = 4096;

enum class Verdict { kKeep, kSpare, kEvict, kDrop };  // kDrop: was absent already

}  // namespace

// Blocks unlinked under one shard's mutex, freed after it is given back.
struct Eviction::Batch {
  std::array<std::uint64_t, 64> blocks{};
  std::size_t n = 0;
  std::uint64_t bytes = 0;
  std::uint64_t entries = 0;
  std::uint64_t wanted_bytes = 0;
  std::uint64_t wanted_entries = 0;

  bool satisfied() const {
    return n == blocks.size() || bytes >= wanted_bytes || entries >= wanted_entries;
  }
};

template <class Choose>
void Eviction::sweep_shard(std::uint32_t shard_index, bool patient, OwnerTag me, Batch& batch,
                           Choose choose) {
  {
    const ShardGuard guard(base_, index_, shard_index, me, !patient);
    if (!guard.held()) return;
    layout::Shard& s = index_.shard(shard_index);
    const TableWord t{s.table.load(std::memory_order_relaxed)};
    layout::Bucket* buckets = index_.buckets(t);
    if (buckets == nullptr) return;
    const std::uint64_t count = 1ULL << t.log2();
    std::uint64_t hand = s.hand.load(std::memory_order_relaxed);
    for (std::uint64_t i = 0; i < count && !batch.satisfied(); ++i, ++hand) {
      for (layout::Word& way : buckets[hand & (count - 1)].ways) {
        if (batch.satisfied()) break;
        const IndexWord w{way.load(std::memory_order_relaxed)};
        const layout::Entry* e = w.block() == 0 ? nullptr : index_.entry(w.block());
        if (e == nullptr) continue;
        const Verdict verdict = choose(*e, w);
        if (verdict == Verdict::kSpare) {
          std::uint64_t expected = w.bits;  // a reader may raise it meanwhile: then let it be
          way.compare_exchange_strong(expected, w.bits - (1ULL << 62U), std::memory_order_relaxed);
        }
        if (verdict != Verdict::kEvict && verdict != Verdict::kDrop) continue;
        layout::CounterStripe& c = spaces_.counters(e->space % layout::kMaxNamespaces, me);
        (verdict == Verdict::kEvict ? c.evictions : c.expirations)
            .fetch_add(1, std::memory_order_relaxed);
        if (verdict == Verdict::kEvict) ++batch.entries;
        batch.bytes += Heap::cost(sizeof *e + layout::align_up(e->key_size, 8) + e->value_size);
        batch.blocks[batch.n++] = index_.unlink(shard_index, &way, me);
      }
    }
    s.hand.store(hand, std::memory_order_relaxed);
  }
  CELERIAC_CRASH_POINT("eviction.sweep.unlinked");
  while (batch.n > 0) base_.heap.free(batch.blocks[--batch.n], me);
}

std::uint64_t Eviction::make_room(std::uint64_t bytes, bool contiguous, OwnerTag me) {
  if (!contiguous && bytes <= kSmall) return clock(std::max<std::uint64_t>(bytes, kSmall), me);
  return clear_window(bytes, me);
}

// The index word that leads to this block, if it is a cache entry that may go. Without the shard's
// mutex only a guess, to be asked again under it.
layout::Word* Eviction::way_of(std::uint64_t block, std::uint32_t* shard) {
  const char* payload = base_.heap.payload(block, sizeof(layout::Entry));
  if (payload == nullptr) return nullptr;
  std::uint64_t words[4] = {};
  static_assert(sizeof words == sizeof(layout::Entry));
  copy_out(words, payload, sizeof words);
  const Place place(words[1]);  // Entry.hash
  *shard = place.shard;
  const TableWord t{index_.shard(place.shard).table.load(std::memory_order_acquire)};
  layout::Bucket* buckets = index_.buckets(t);
  if (buckets == nullptr) return nullptr;
  const std::uint64_t mask = (1ULL << t.log2()) - 1;
  for (int which = 0; which < 2; ++which) {
    for (layout::Word& way : buckets[place.bucket(which, mask)].ways) {
      if (IndexWord{way.load(std::memory_order_relaxed)}.block() != block) continue;
      const auto* e = reinterpret_cast<const layout::Entry*>(words);
      const bool pinned = spaces_.pinned(e->space % layout::kMaxNamespaces);
      const bool present = index_.current(*e) && words[0] > now_ns();  // Entry.expires
      return pinned && present ? nullptr : &way;
    }
  }
  return nullptr;
}

std::uint64_t Eviction::clear_window(std::uint64_t bytes, OwnerTag me) {
  const std::vector<std::uint64_t> blocks = base_.heap.window(
      bytes,
      [this](std::uint64_t block) {
        std::uint32_t shard = 0;
        return way_of(block, &shard) != nullptr;
      },
      me);
  std::uint64_t freed = 0;
  for (const std::uint64_t block : blocks) {
    std::uint32_t shard = 0;
    if (way_of(block, &shard) == nullptr) continue;
    {
      const ShardGuard guard(base_, index_, shard, me);
      if (!guard.held()) continue;
      std::uint32_t now_in = 0;  // the block may be another entry's by now
      layout::Word* way = way_of(block, &now_in);
      if (way == nullptr || now_in != shard) continue;
      const layout::Entry* e = index_.entry(block);
      freed += Heap::cost(sizeof *e + layout::align_up(e->key_size, 8) + e->value_size);
      const bool absent =
          !index_.current(*e) || e->expires.load(std::memory_order_relaxed) <= now_ns();
      layout::CounterStripe& c = spaces_.counters(e->space % layout::kMaxNamespaces, me);
      (absent ? c.expirations : c.evictions).fetch_add(1, std::memory_order_relaxed);
      index_.unlink(shard, way, me);
    }
    CELERIAC_CRASH_POINT("eviction.window.unlinked");
    base_.heap.free(block, me);
  }
  return freed;
}

std::uint64_t Eviction::clock(std::uint64_t bytes, OwnerTag me) {
  const std::uint64_t now = now_ns();
  const auto choose = [&](const layout::Entry& e, IndexWord w) {
    const std::uint32_t space = e.space % layout::kMaxNamespaces;
    if (!index_.current(e) || e.expires.load(std::memory_order_relaxed) <= now) {
      return Verdict::kDrop;
    }
    if (spaces_.pinned(space)) return Verdict::kKeep;
    return w.frequency() > 0 ? Verdict::kSpare : Verdict::kEvict;
  };
  // Four rounds take the last frequency bit from everything.
  std::uint64_t freed = 0;
  static std::atomic<std::uint32_t> next{0};
  for (std::uint32_t i = 0; i < 4 * layout::kShardCount && freed < bytes; ++i) {
    Batch batch;
    batch.wanted_bytes = bytes - freed;
    batch.wanted_entries = kNever;
    const std::uint32_t shard = next.fetch_add(1, std::memory_order_relaxed) % layout::kShardCount;
    sweep_shard(shard, i >= layout::kShardCount, me, batch, choose);
    freed += batch.bytes;
  }
  return freed;
}

std::uint64_t Eviction::cull(std::uint32_t space, std::uint64_t n, OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  std::uint64_t culled = 0;
  const std::uint32_t generation = spaces_.generation(space);
  const auto choose = [&](const layout::Entry& e, IndexWord) {
    if (Index::belongs(e, space, generation)) return Verdict::kEvict;
    return index_.current(e) ? Verdict::kKeep : Verdict::kDrop;
  };
  for (std::uint32_t shard = 0; shard < layout::kShardCount && culled < n; ++shard) {
    for (;;) {
      Batch batch;
      batch.wanted_bytes = kNever;
      batch.wanted_entries = n - culled;
      sweep_shard(shard, true, me, batch, choose);
      culled += batch.entries;
      if (batch.bytes == 0 || culled >= n) break;
    }
  }
  return culled;
}

void Eviction::drop_absent(OwnerTag me) {
  const OperationScope operation(base_.owners.record(me.slot));
  const std::uint64_t now = now_ns();
  const auto choose = [&](const layout::Entry& e, IndexWord) {
    const bool absent = !index_.current(e) || e.expires.load(std::memory_order_relaxed) <= now;
    return absent ? Verdict::kDrop : Verdict::kKeep;
  };
  for (std::uint32_t shard = 0; shard < layout::kShardCount; ++shard) {
    for (;;) {
      Batch batch;
      batch.wanted_bytes = kNever;
      batch.wanted_entries = kNever;
      sweep_shard(shard, true, me, batch, choose);
      if (batch.bytes == 0) break;
    }
  }
}

}  // namespace celeriac
