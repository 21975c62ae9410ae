#include "store/index.hpp"

#include <array>

#include "arena/crash_point.hpp"

namespace celeriac {
namespace {

constexpr unsigned kFirstLog2 = 2;
constexpr unsigned kMaxLog2 = 26;

constexpr std::uint64_t cell_pack(std::uint32_t generation, std::uint32_t entries) {
  return static_cast<std::uint64_t>(generation) << 32U | entries;
}

}  // namespace

std::optional<Found> Index::find(const Place& place, std::uint32_t space, std::string_view key) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_relaxed)};
  layout::Bucket* b = buckets(t);
  if (b == nullptr || !spaces_.good(space)) return std::nullopt;
  const std::uint64_t mask = (1ULL << t.log2()) - 1;
  for (int which = 0; which < 2; ++which) {
    for (layout::Word& way : b[place.bucket(which, mask)].ways) {
      const IndexWord w{way.load(std::memory_order_acquire)};
      if (w.block() == 0 || w.tag() != place.tag) continue;
      layout::Entry* e = entry(w.block());
      if (e == nullptr) {  // damaged: drop the way
        way.store(0, std::memory_order_release);
        base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
        continue;
      }
      if (e->hash != place.hash || e->space != space_index(space) || e->key_size != key.size())
        continue;
      const char* stored = base_.heap.payload(w.block(), sizeof *e + key.size());
      if (stored != nullptr && equal(stored + sizeof *e, key.data(), key.size())) {
        return Found{&way, w, e};
      }
    }
  }
  return std::nullopt;
}

layout::Word* Index::free_way(const Place& place, OwnerTag me) {
  for (int attempt = 0; attempt < 4; ++attempt) {
    const TableWord t{shard(place.shard).table.load(std::memory_order_relaxed)};
    if (layout::Bucket* b = buckets(t); b != nullptr) {
      const std::uint64_t mask = (1ULL << t.log2()) - 1;
      for (int which = 0; which < 2; ++which) {
        for (layout::Word& way : b[place.bucket(which, mask)].ways) {
          const IndexWord w{way.load(std::memory_order_relaxed)};
          if (w.block() == 0) return &way;
          const layout::Entry* e = entry(w.block());
          if (e == nullptr || !current(*e)) return &way;  // left by a clear()
        }
      }
    }
    if (!grow(place.shard, me)) return nullptr;
  }
  return nullptr;
}

layout::Word* Index::victim(const Place& place) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_relaxed)};
  layout::Bucket* b = buckets(t);
  if (b == nullptr) return nullptr;
  const std::uint64_t mask = (1ULL << t.log2()) - 1;
  layout::Word* best = nullptr;
  unsigned best_frequency = 4;
  for (int which = 0; which < 2; ++which) {
    for (layout::Word& way : b[place.bucket(which, mask)].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      const layout::Entry* e = entry(w.block());
      if (e == nullptr || spaces_.pinned(e->space % layout::kMaxNamespaces)) continue;
      if (w.frequency() < best_frequency) {
        best = &way;
        best_frequency = w.frequency();
      }
    }
  }
  return best;
}

std::uint64_t Index::link(std::uint32_t shard_index, layout::Word* way, std::uint64_t block,
                          const Place& place, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const IndexWord old{way->load(std::memory_order_relaxed)};
  s.mutex.pending[0].store(base_.heap.ticket(block), std::memory_order_relaxed);
  s.mutex.pending[1].store(base_.heap.ticket(old.block()), std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.set.pending");
  base_.heap.make_live(block, me);
  // One more before one less: a namespace never looks empty while an entry is replaced (N5).
  count(shard_index, *entry(block), 1);
  if (const layout::Entry* e = old.block() == 0 ? nullptr : entry(old.block())) {
    count(shard_index, *e, -1);
  }
  // release pairs with the acquire of readers: the entry is complete before it can be found
  way->store(IndexWord::make(block, place.tag, old.version() + 1).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.set.linked");
  if (old.block() != 0) base_.heap.condemn(old.block(), me);
  CELERIAC_CRASH_POINT("cache.set.condemned");
  s.mutex.pending[0].store(0, std::memory_order_release);
  s.mutex.pending[1].store(0, std::memory_order_release);
  return old.block();
}

std::uint64_t Index::unlink(std::uint32_t shard_index, layout::Word* way, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const IndexWord old{way->load(std::memory_order_relaxed)};
  if (old.block() == 0) return 0;
  s.mutex.pending[1].store(base_.heap.ticket(old.block()), std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.delete.pending");
  if (const layout::Entry* e = entry(old.block())) count(shard_index, *e, -1);
  way->store(IndexWord::make(0, 0, old.version() + 1).bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.delete.unlinked");
  base_.heap.condemn(old.block(), me);
  CELERIAC_CRASH_POINT("cache.delete.condemned");
  s.mutex.pending[1].store(0, std::memory_order_release);
  return old.block();
}

void Index::count(std::uint32_t shard_index, const layout::Entry& e, int direction) {
  const std::uint32_t space = e.space % layout::kMaxNamespaces;
  layout::CellRecord& cell = spaces_.cell(space, shard_index);
  std::uint64_t word = cell.generation_entries.load(std::memory_order_relaxed);
  std::uint64_t bytes = cell.bytes.load(std::memory_order_relaxed);
  const std::uint64_t cost = Heap::cost(sizeof e + layout::align_up(e.key_size, 8) + e.value_size);
  if (static_cast<std::uint32_t>(word >> 32U) != e.generation) {
    // The cell counts another generation. Only an entry of the namespace's own starts a new count.
    if (direction < 0 || !current(e)) return;
    word = cell_pack(e.generation, 0);
    bytes = 0;
  }
  const auto entries = static_cast<std::uint32_t>(word);
  if (direction > 0) {
    word = cell_pack(e.generation, entries + 1);
    bytes += cost;
  } else {
    word = cell_pack(e.generation, entries > 0 ? entries - 1 : 0);
    bytes = bytes > cost ? bytes - cost : 0;
  }
  cell.generation_entries.store(word, std::memory_order_relaxed);
  cell.bytes.store(bytes, std::memory_order_relaxed);
}

bool Index::fill(layout::Bucket* to, unsigned log2, TableWord from) {
  layout::Bucket* old = buckets(from);
  if (old == nullptr) return true;
  const std::uint64_t mask = (1ULL << log2) - 1;
  for (std::uint64_t i = 0; i < 1ULL << from.log2(); ++i) {
    for (layout::Word& way : old[i].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      if (w.block() == 0) continue;
      const layout::Entry* e = entry(w.block());
      if (e == nullptr) continue;
      const Place place(e->hash);
      layout::Word* free = nullptr;
      for (int which = 0; which < 2 && free == nullptr; ++which) {
        for (layout::Word& candidate : to[place.bucket(which, mask)].ways) {
          if (candidate.load(std::memory_order_relaxed) == 0) {
            free = &candidate;
            break;
          }
        }
      }
      if (free == nullptr) return false;
      free->store(w.bits, std::memory_order_relaxed);
    }
  }
  return true;
}

bool Index::grow(std::uint32_t shard_index, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const TableWord old{s.table.load(std::memory_order_relaxed)};
  unsigned log2 = old.block() == 0 ? kFirstLog2 : old.log2() + 1;
  for (; log2 <= kMaxLog2; ++log2) {
    const std::uint64_t bytes = sizeof(layout::Bucket) << log2;
    Result<std::uint64_t> block = base_.heap.allocate(aligned_bytes(bytes), me);
    if (!block) return false;
    auto* fresh = base_.arena.at<layout::Bucket>(aligned_object(block.value()), bytes);
    if (fresh == nullptr) return false;
    for (std::uint64_t i = 0; i < 1ULL << log2; ++i) {
      for (layout::Word& way : fresh[i].ways) way.store(0, std::memory_order_relaxed);
    }
    if (!fill(fresh, log2, old)) {
      base_.heap.release(block.value(), me);
      continue;
    }
    s.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
    s.mutex.pending[1].store(base_.heap.ticket(old.block()), std::memory_order_release);
    CELERIAC_CRASH_POINT("cache.grow.pending");
    base_.heap.make_live(block.value(), me);
    // release pairs with the acquire of readers: the copied words are there before the table
    s.table.store(TableWord::make(block.value(), log2, old.version() + 1).bits,
                  std::memory_order_release);
    CELERIAC_CRASH_POINT("cache.grow.linked");
    if (old.block() != 0) base_.heap.condemn(old.block(), me);
    s.mutex.pending[0].store(0, std::memory_order_release);
    s.mutex.pending[1].store(0, std::memory_order_release);
    if (old.block() != 0) base_.heap.free(old.block(), me);
    return true;
  }
  return false;
}

bool Index::linked(layout::Shard& s, std::uint64_t block) {
  const TableWord t{s.table.load(std::memory_order_relaxed)};
  if (t.block() == block) return true;
  layout::Bucket* b = buckets(t);
  const layout::Entry* e = entry(block);
  if (b == nullptr || e == nullptr) return false;
  const Place place(e->hash);
  const std::uint64_t mask = (1ULL << t.log2()) - 1;
  for (int which = 0; which < 2; ++which) {
    for (const layout::Word& way : b[place.bucket(which, mask)].ways) {
      if (IndexWord{way.load(std::memory_order_relaxed)}.block() == block) return true;
    }
  }
  return false;
}

void Index::repair(std::uint32_t shard_index, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  for (layout::Word& pending : s.mutex.pending) {
    // A ticket names one life of a block, so a block freed and used again isn't touched.
    const std::uint64_t block = base_.heap.still_live(pending.load(std::memory_order_acquire));
    const bool condemned = block != 0 && !linked(s, block) && base_.heap.condemn(block, me);
    CELERIAC_CRASH_POINT("cache.repair.condemned");
    pending.store(0, std::memory_order_release);
    if (condemned) base_.heap.free(block, me);
  }
  recount(shard_index);
}

void Index::recount(std::uint32_t shard_index) {
  struct Sum {
    std::uint32_t entries = 0;
    std::uint64_t bytes = 0;
  };
  std::array<Sum, layout::kMaxNamespaces> sums{};
  const TableWord t{shard(shard_index).table.load(std::memory_order_relaxed)};
  if (layout::Bucket* b = buckets(t); b != nullptr) {
    for (std::uint64_t i = 0; i < 1ULL << t.log2(); ++i) {
      for (const layout::Word& way : b[i].ways) {
        const IndexWord w{way.load(std::memory_order_relaxed)};
        const layout::Entry* e = w.block() == 0 ? nullptr : entry(w.block());
        if (e == nullptr || !current(*e)) continue;
        Sum& sum = sums[e->space % layout::kMaxNamespaces];
        ++sum.entries;
        sum.bytes += Heap::cost(sizeof *e + layout::align_up(e->key_size, 8) + e->value_size);
      }
    }
  }
  for (std::uint32_t space = 0; space < layout::kMaxNamespaces; ++space) {
    layout::CellRecord& cell = spaces_.cell(space, shard_index);
    cell.generation_entries.store(cell_pack(spaces_.generation_now(space), sums[space].entries),
                                  std::memory_order_relaxed);
    cell.bytes.store(sums[space].bytes, std::memory_order_relaxed);
  }
}

}  // namespace celeriac
