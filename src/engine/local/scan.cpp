// LocalCache::scan: the keys of a namespace, a few buckets at a time.
//
//   cursor = {restarts:16 | shard:16 | bucket:32}, the table word that the bucket was counted in,
//            and the shard's count of moves when it was begun
//
// A step holds one shard's mutex while it copies the keys of a bounded number of buckets. Where the
// table was replaced, or an entry moved to its other bucket, since the shard was begun, one that
// was ahead may be behind now: the shard is walked again from its first bucket, with steps twice as
// long, so that in the end one step has it all. Keys come twice then.
#include "engine/local/cache.hpp"
#include "memory/copy.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kBucketsPerStep =
    4096;  // most that a step looks at, however empty they are

struct Seen {
  std::string key;
  Codec codec;
  std::uint64_t bytes;
};

}  // namespace

Result<bool> LocalCache::scan(
    ScanCursor& cursor, std::size_t most,
    const std::function<void(std::string_view, Codec, std::uint64_t)>& visit) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Base& base = handle_->core().base();
  Index& index = handle_->core().cache().index();
  std::uint64_t restarts = cursor.place >> 48U;
  auto shard = static_cast<std::uint32_t>(cursor.place >> 32U & 0xFFFFU);
  auto bucket = static_cast<std::uint32_t>(cursor.place);
  const Result<std::uint32_t> found_space = place(false, me.value());
  if (!found_space && found_space.status().code() == Code::kNotFound) return false;
  if (!found_space) return found_space.status();
  const std::uint32_t space = found_space.value();
  const std::uint32_t generation = handle_->core().cache().namespaces().generation(space);
  if (generation == 0) return false;  // nothing is left of it
  std::vector<Seen> found;
  for (std::uint64_t looked = 0;
       shard < layout::kShardCount && looked < kBucketsPerStep && found.size() < most;) {
    const ShardGuard guard(base, index, shard, me.value());
    if (!guard.held()) return mutex_timeout("a shard of the cache");
    const TableWord t{index.shard(shard).table.load(std::memory_order_relaxed)};
    const std::uint64_t moves = index.shard(shard).moves.load(std::memory_order_relaxed);
    if (bucket != 0 && (t.bits != cursor.table || moves != cursor.moves)) {
      bucket = 0;
      restarts = std::min<std::uint64_t>(restarts + 1, 24);
    }
    cursor.table = t.bits;
    cursor.moves = moves;
    const layout::Bucket* buckets = index.buckets(t);
    const std::uint64_t count = buckets == nullptr ? 0 : t.size();
    const std::uint64_t enough = static_cast<std::uint64_t>(most) << restarts;
    const std::uint64_t last = kBucketsPerStep << restarts;
    for (; bucket < count && looked < last && found.size() < enough; ++bucket, ++looked) {
      for (const layout::Word& way : buckets[bucket].ways) {
        const IndexWord w{way.load(std::memory_order_relaxed)};
        EntryPlace p;
        EntryHead h;
        if (w.free() || !index.entry(w, &p, &h)) continue;
        if (!Index::belongs(w, h, space, generation) || !index.present(w, h)) continue;
        found.push_back({std::string(h.key_size, 0), h.codec, h.key_size + h.value_size});
        copy_out_packed(found.back().key.data(), p.payload + p.at + kEntryHead, h.key_size);
      }
    }
    if (bucket < count) break;
    ++shard;
    ++looked;
    bucket = 0;
    restarts = 0;
  }
  cursor.place = restarts << 48U | static_cast<std::uint64_t>(shard) << 32U | bucket;
  for (const Seen& s : found) visit(s.key, s.codec, s.bytes);
  return shard < layout::kShardCount;
}

}  // namespace celeriac
