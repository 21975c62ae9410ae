#include "store/index.hpp"

#include <algorithm>
#include <array>

#include "arena/crash_point.hpp"
#include "store/hash.hpp"

namespace celeriac {
namespace {

constexpr unsigned kMaxSizeClass = 127;

constexpr std::uint64_t cell_pack(std::uint32_t generation, std::uint32_t entries) {
  return static_cast<std::uint64_t>(generation) << 32U | entries;
}

layout::Word* free_in(layout::Bucket& b) {
  for (layout::Word& way : b.ways) {
    if (IndexWord{way.load(std::memory_order_relaxed)}.free()) return &way;
  }
  return nullptr;
}

unsigned taken(const layout::Bucket& b) {
  unsigned n = 0;
  for (const layout::Word& way : b.ways) {
    n += IndexWord{way.load(std::memory_order_relaxed)}.free() ? 0U : 1U;
  }
  return n;
}

}  // namespace

std::uint64_t Index::hash(std::uint32_t space, std::string_view key) {
  return hash_key(
      key, base_.arena.header().fixed.hash_seed + space_index(space) * 0x9E3779B97F4A7C15ULL);
}

std::uint64_t Index::hash_of(const EntryPlace& place, const EntryHead& head) {
  char few[256];
  std::string many;
  char* key = few;
  if (head.key_size > sizeof few) {
    many.resize(head.key_size);
    key = many.data();
  }
  copy_out_packed(key, place.payload + place.at + kEntryHead, head.key_size);
  return hash(head.space, {key, head.key_size});
}

bool Index::entry(IndexWord w, EntryPlace* place, EntryHead* head) {
  layout::Word* guard = nullptr;
  std::uint64_t before = 0;
  return segments_.resolve(w.location(), place, &guard, &before) && read_head(*place, head);
}

std::optional<Found> Index::find(const Place& place, std::uint32_t space, std::string_view key) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_relaxed)};
  layout::Bucket* b = buckets(t);
  if (b == nullptr || !spaces_.good(space)) return std::nullopt;
  const std::uint64_t first = place.first(t.size());
  for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
    for (layout::Word& way : b[bucket].ways) {
      Found f{&way, {way.load(std::memory_order_acquire)}, {}, {}};
      if (f.word.free() || f.word.tag() != place.tag) continue;
      if (!entry(f.word, &f.place, &f.head)) {
        drop(place.shard, way);
        continue;
      }
      if (f.head.space == space_index(space) && f.head.key_size == key.size() &&
          equal_packed(f.place.payload + f.place.at + kEntryHead, key.data(), key.size())) {
        return f;
      }
    }
  }
  return std::nullopt;
}

IndexWord Index::guess(const Place& place, std::uint32_t space) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_acquire)};
  layout::Bucket* b = buckets(t);
  const std::uint32_t generation = spaces_.generation(space);
  if (b == nullptr || generation == 0) return {};
  const IndexWord wanted = IndexWord::make({}, place.tag, generation, 0);
  const std::uint64_t first = place.first(t.size());
  for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
    for (const layout::Word& way : b[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      if (w.matches(wanted) && !w.free()) return w;
    }
  }
  return {};
}

layout::Word* Index::find_at(const Place& place, Location where) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_acquire)};
  layout::Bucket* b = buckets(t);
  if (b == nullptr) return nullptr;
  const std::uint64_t first = place.first(t.size());
  for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
    for (layout::Word& way : b[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      if (w.location() == where && w.tag() == place.tag) return &way;
    }
  }
  return nullptr;
}

// ------------------------------------------------------------------------------- room for words

// A free way in either bucket; when both are full, a word of them moves to its other bucket.
// `moves` is null for a table that nobody reads yet.
layout::Word* Index::make_way(layout::Bucket* b, std::uint64_t size, std::uint64_t first,
                              std::uint16_t tag, layout::Shard* moves) {
  const std::uint64_t second = Place::other(first, tag, size);
  layout::Bucket& emptier = taken(b[second]) < taken(b[first]) ? b[second] : b[first];
  if (layout::Word* way = free_in(emptier)) return way;
  for (const std::uint64_t bucket : {first, second}) {
    for (layout::Word& way : b[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      const std::uint64_t there = Place::other(bucket, w.tag(), size);
      if (there == bucket) continue;
      layout::Word* to = free_in(b[there]);
      if (to == nullptr) continue;
      // release pairs with the acquire of readers, as in link()
      to->store(w.bits, std::memory_order_release);
      CELERIAC_CRASH_POINT("index.move.copied");
      if (moves != nullptr) {
        moves->moves.fetch_add(1, std::memory_order_release);  // X4
      }
      way.store(0, std::memory_order_release);
      return &way;
    }
  }
  return nullptr;
}

layout::Word* Index::free_way(const Place& place, Fit fit, OwnerTag me) {
  for (int attempt = 0; attempt < 4; ++attempt) {
    layout::Shard& s = shard(place.shard);
    const TableWord t{s.table.load(std::memory_order_relaxed)};
    if (layout::Bucket* b = buckets(t); b != nullptr) {
      const std::uint64_t first = place.first(t.size());
      if (layout::Word* way = make_way(b, t.size(), first, place.tag, &s)) return way;
      for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
        for (layout::Word& way : b[bucket].ways) {
          const IndexWord w{way.load(std::memory_order_relaxed)};
          EntryPlace p;
          EntryHead h;
          if (!entry(w, &p, &h)) drop(place.shard, way);
          if (way.load(std::memory_order_relaxed) == 0 || !current(w, h)) return &way;  // cleared
        }
      }
    }
    if (!grow(place.shard, fit, me)) return nullptr;
  }
  return nullptr;
}

layout::Word* Index::victim(const Place& place) {
  const TableWord t{shard(place.shard).table.load(std::memory_order_relaxed)};
  layout::Bucket* b = buckets(t);
  if (b == nullptr) return nullptr;
  const std::uint64_t first = place.first(t.size());
  layout::Word* best = nullptr;
  unsigned best_frequency = 4;
  for (const std::uint64_t bucket : {first, Place::other(first, place.tag, t.size())}) {
    for (layout::Word& way : b[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      if (!w.location().pinned() && w.frequency() < best_frequency) {
        best = &way;
        best_frequency = w.frequency();
      }
    }
  }
  return best;
}

bool Index::fill(std::uint32_t shard_index, layout::Bucket* to, std::uint64_t size,
                 TableWord from) {
  layout::Bucket* old = buckets(from);
  if (old == nullptr) return true;
  // Each word needs a look at its key, somewhere in memory: so the next ones are asked for while
  // these are worked on.
  constexpr std::uint64_t kAhead = 4;
  const auto ask_for = [&](std::uint64_t bucket) {
    for (const layout::Word& way : old[bucket].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      EntryPlace p;
      layout::Word* guard = nullptr;
      std::uint64_t before = 0;
      if (w.free() || w.location().pinned()) continue;
      if (!segments_.resolve(w.location(), &p, &guard, &before) || p.at >= p.room) continue;
      __builtin_prefetch(p.payload + p.at);
    }
  };
  for (std::uint64_t i = 0; i < std::min(kAhead, from.size()); ++i) ask_for(i);
  for (std::uint64_t i = 0; i < from.size(); ++i) {
    if (i + kAhead < from.size()) ask_for(i + kAhead);
    for (layout::Word& way : old[i].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      EntryPlace p;
      EntryHead h;
      if (w.free()) continue;
      if (!entry(w, &p, &h)) {
        drop(shard_index, way);
        continue;
      }
      const Place place(hash_of(p, h));
      layout::Word* free = make_way(to, size, place.first(size), w.tag(), nullptr);
      if (free == nullptr) return false;
      free->store(w.bits, std::memory_order_relaxed);
    }
  }
  return true;
}

std::uint64_t Index::next_table(std::uint32_t shard_index) {
  const TableWord t{shard(shard_index).table.load(std::memory_order_relaxed)};
  const std::uint64_t size = TableWord::size_of(std::min(t.size_class() + 1, kMaxSizeClass));
  return base_.heap.piece(aligned_bytes(sizeof(layout::Bucket) * size));
}

bool Index::grow(std::uint32_t shard_index, Fit fit, OwnerTag me) {
  const TableWord old{shard(shard_index).table.load(std::memory_order_relaxed)};
  unsigned size_class = buckets(old) == nullptr ? 0 : old.size_class() + 1;
  while (buckets(old) != nullptr && size_class <= kMaxSizeClass &&
         TableWord::size_of(size_class) <= old.size()) {
    ++size_class;
  }
  return replace(shard_index, size_class, fit, me);
}

bool Index::shrink(std::uint32_t shard_index, bool moves, Fit fit, OwnerTag me) {
  const TableWord old{shard(shard_index).table.load(std::memory_order_relaxed)};
  const layout::Bucket* b = buckets(old);
  if (b == nullptr) return true;
  std::uint64_t words = 0;
  for (std::uint64_t i = 0; i < old.size(); ++i) words += taken(b[i]);
  unsigned size_class = 0;
  // Up to four fifths full, so that it doesn't grow again at once.
  while (TableWord::size_of(size_class) * 32 < words * 5) ++size_class;
  if (!moves && TableWord::size_of(size_class) * 4 > old.size() * 3) return true;
  return replace(shard_index, size_class, fit, me);
}

// A table of that class, or a larger one if it must be, in place of the shard's.
bool Index::replace(std::uint32_t shard_index, unsigned size_class, Fit fit, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const TableWord old{s.table.load(std::memory_order_relaxed)};
  for (; size_class <= kMaxSizeClass; ++size_class) {
    const std::uint64_t size = TableWord::size_of(size_class);
    const std::uint64_t bytes = sizeof(layout::Bucket) * size;
    const Result<std::uint64_t> block = base_.heap.allocate(aligned_bytes(bytes), me, fit);
    if (!block) return false;
    auto* fresh = base_.arena.at<layout::Bucket>(aligned_object(block.value()), bytes);
    if (fresh == nullptr) return false;
    for (std::uint64_t i = 0; i < size; ++i) {
      for (layout::Word& way : fresh[i].ways) way.store(0, std::memory_order_relaxed);
    }
    if (!fill(shard_index, fresh, size, old)) {
      base_.heap.release(block.value(), me);
      continue;
    }
    s.mutex.pending[0].store(base_.heap.ticket(block.value()), std::memory_order_relaxed);
    s.mutex.pending[1].store(base_.heap.ticket(old.block()), std::memory_order_release);
    CELERIAC_CRASH_POINT("cache.grow.pending");
    base_.heap.make_live(block.value(), me);
    // release pairs with the acquire of readers: the copied words are there before the table
    s.table.store(TableWord::make(block.value(), size_class, old.version() + 1).bits,
                  std::memory_order_release);
    CELERIAC_CRASH_POINT("cache.grow.linked");
    const bool ours = old.block() != 0 && base_.heap.condemn(old.block(), me);
    s.mutex.pending[0].store(0, std::memory_order_release);
    s.mutex.pending[1].store(0, std::memory_order_release);
    if (ours) base_.heap.free(old.block(), me);
    return true;
  }
  return false;
}

// ------------------------------------------------------------------------------- linking

// Gives back what an unlinked word led to. `known`: it is an entry, `f`.
Leftover Index::leave(IndexWord old, const Found& f, bool known, OwnerTag me) {
  Leftover left;
  const Location where = old.location();
  if (where.pinned()) {
    if (base_.heap.condemn(where.block(), me)) left.block = where.block();
    return left;
  }
  layout::SegmentRecord* r = segments_.record(where.segment());
  if (r == nullptr || !known) return left;
  const Live one = Live::one(f.head.end - f.place.at);
  const SegmentPlace at = SegmentPlace::unpack(r->place.load(std::memory_order_relaxed));
  subtract_live(segments_.log(at.log).queues[at.queue].live, one);
  if (subtract_live(r->live, one).entries() == 0) left.segment = where.segment();
  return left;
}

Leftover Index::link(std::uint32_t shard_index, layout::Word* way, IndexWord fresh,
                     const EntryHead& head, const Found* found, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const IndexWord old{way->load(std::memory_order_relaxed)};
  const Location where = fresh.location();
  const auto block = [](IndexWord w) {
    return !w.free() && w.location().pinned() ? w.location().block() : 0;
  };
  const bool blocks = block(fresh) != 0 || block(old) != 0;
  if (blocks) {
    s.mutex.pending[0].store(base_.heap.ticket(block(fresh)), std::memory_order_relaxed);
    s.mutex.pending[1].store(base_.heap.ticket(block(old)), std::memory_order_release);
    CELERIAC_CRASH_POINT("cache.set.pending");
    if (where.pinned()) base_.heap.make_live(where.block(), me);
  }
  Found looked_up;
  bool known = found != nullptr;
  if (!known && !old.free()) known = entry(old, &looked_up.place, &looked_up.head);
  const Found& last = found != nullptr ? *found : looked_up;
  count(shard_index, fresh, head, 1);  // N8
  CELERIAC_CRASH_POINT("cache.set.counted");
  if (known) count(shard_index, old, last.head, -1);
  // release pairs with the acquire of readers: the entry is complete before it can be found
  way->store(fresh.bits, std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.set.linked");
  Leftover left;
  if (!old.free()) left = leave(old, last, known, me);
  CELERIAC_CRASH_POINT("cache.set.left");
  if (blocks) {
    s.mutex.pending[0].store(0, std::memory_order_release);
    s.mutex.pending[1].store(0, std::memory_order_release);
  }
  return left;
}

Leftover Index::unlink(std::uint32_t shard_index, layout::Word* way, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  const IndexWord old{way->load(std::memory_order_relaxed)};
  if (old.free()) return {};
  const bool pinned = old.location().pinned();
  if (pinned) {
    s.mutex.pending[1].store(base_.heap.ticket(old.location().block()), std::memory_order_release);
  }
  CELERIAC_CRASH_POINT("cache.delete.pending");
  Found last;
  const bool known = entry(old, &last.place, &last.head);
  if (known) count(shard_index, old, last.head, -1);
  way->store(0, std::memory_order_release);
  CELERIAC_CRASH_POINT("cache.delete.unlinked");
  const Leftover left = leave(old, last, known, me);
  CELERIAC_CRASH_POINT("cache.delete.left");
  if (pinned) s.mutex.pending[1].store(0, std::memory_order_release);
  return left;
}

void Index::count(std::uint32_t shard_index, IndexWord w, const EntryHead& h, int direction) {
  const std::uint32_t generation = spaces_.generation_now(h.space);
  if (!belongs(w, h, h.space, generation)) return;  // its namespace has begun a new count
  layout::CellRecord& cell = spaces_.cell(h.space, shard_index);
  std::uint64_t word = cell.generation_entries.load(std::memory_order_relaxed);
  std::uint64_t bytes = cell.bytes.load(std::memory_order_relaxed);
  if (static_cast<std::uint32_t>(word >> 32U) != generation) {
    if (direction < 0) return;
    word = 0;
    bytes = 0;
  }
  const auto entries = static_cast<std::uint32_t>(word);
  const std::uint64_t cost = entry_cost(h);
  if (direction > 0) {
    word = cell_pack(generation, entries + 1);
    bytes += cost;
  } else {
    word = cell_pack(generation, entries > 0 ? entries - 1 : 0);
    bytes = bytes > cost ? bytes - cost : 0;
  }
  cell.generation_entries.store(word, std::memory_order_relaxed);
  cell.bytes.store(bytes, std::memory_order_relaxed);
}

// ------------------------------------------------------------------------------- repair

bool Index::linked(std::uint32_t shard_index, std::uint64_t block) {
  if (TableWord{shard(shard_index).table.load(std::memory_order_relaxed)}.block() == block) {
    return true;
  }
  EntryPlace p;
  EntryHead h;
  const Location where = Location::in_block(block);
  if (!entry(IndexWord{where.bits}, &p, &h)) return false;
  const Place place(hash_of(p, h));
  return place.shard == shard_index && find_at(place, where) != nullptr;
}

void Index::repair(std::uint32_t shard_index, OwnerTag me) {
  layout::Shard& s = shard(shard_index);
  for (layout::Word& pending : s.mutex.pending) {
    // A ticket names one life of a block, so a block freed and used again isn't touched.
    const std::uint64_t block = base_.heap.still_live(pending.load(std::memory_order_acquire));
    const bool condemned =
        block != 0 && !linked(shard_index, block) && base_.heap.condemn(block, me);
    CELERIAC_CRASH_POINT("cache.repair.condemned");
    pending.store(0, std::memory_order_release);
    if (condemned) base_.heap.free(block, me);
  }
  recount(shard_index);
}

void Index::forget(const LiveBlocks& live) {
  for (std::uint32_t i = 0; i < layout::kShardCount; ++i) {
    std::uint64_t lost = 0;
    const auto forgotten = [&](layout::Word& leads_there, std::uint64_t block) {
      if (block == 0 || live.has(block)) return;
      leads_there.store(0, std::memory_order_release);
      ++lost;
    };
    layout::Word& table = shard(i).table;
    forgotten(table, TableWord{table.load(std::memory_order_relaxed)}.block());
    const TableWord t{table.load(std::memory_order_relaxed)};
    layout::Bucket* b = buckets(t);
    for (std::uint64_t bucket = 0; b != nullptr && bucket < t.size(); ++bucket) {
      for (layout::Word& way : b[bucket].ways) {
        const IndexWord w{way.load(std::memory_order_relaxed)};
        if (!w.free() && w.location().pinned()) forgotten(way, w.location().block());
      }
    }
    if (lost == 0) continue;
    base_.arena.header().corrupt.fetch_add(lost, std::memory_order_relaxed);
    recount(i);
  }
}

void Index::drop(std::uint32_t shard_index, layout::Word& way) {
  way.store(0, std::memory_order_release);
  base_.arena.header().corrupt.fetch_add(1, std::memory_order_relaxed);
  recount(shard_index);  // nobody knows whose entry it was
}

void Index::recount(std::uint32_t shard_index) {
  struct Sum {
    std::uint32_t entries = 0;
    std::uint64_t bytes = 0;
  };
  std::array<Sum, layout::kMaxNamespaces> sums{};
  // As of now: a clear() in the meantime makes a cell stale, which reads as zero.
  std::array<std::uint32_t, layout::kMaxNamespaces> generations{};
  for (std::uint32_t i = 0; i < generations.size(); ++i) generations[i] = spaces_.generation_now(i);
  const TableWord t{shard(shard_index).table.load(std::memory_order_relaxed)};
  layout::Bucket* b = buckets(t);
  for (std::uint64_t i = 0; b != nullptr && i < t.size(); ++i) {
    for (layout::Word& way : b[i].ways) {
      const IndexWord w{way.load(std::memory_order_relaxed)};
      if (w.free()) continue;
      // X4: a word that was on the way to its other bucket stands in both
      for (const layout::Word& other : b[Place::other(i, w.tag(), t.size())].ways) {
        const IndexWord same{other.load(std::memory_order_relaxed)};
        if (&other != &way && same.identity() == w.identity()) {
          way.store(0, std::memory_order_release);
          break;
        }
      }
      EntryPlace p;
      EntryHead h;
      if (IndexWord{way.load(std::memory_order_relaxed)}.free()) continue;
      if (!entry(w, &p, &h) || !belongs(w, h, h.space, generations[h.space])) continue;
      Sum& sum = sums[h.space];
      ++sum.entries;
      sum.bytes += entry_cost(h);
    }
  }
  for (std::uint32_t space = 0; space < layout::kMaxNamespaces; ++space) {
    layout::CellRecord& cell = spaces_.cell(space, shard_index);
    cell.generation_entries.store(cell_pack(generations[space], sums[space].entries),
                                  std::memory_order_relaxed);
    cell.bytes.store(sums[space].bytes, std::memory_order_relaxed);
  }
}

}  // namespace celeriac
