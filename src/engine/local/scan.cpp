// LocalCache::scan: the keys of a namespace, a few buckets at a time.
//
//   cursor = {shard:32 | bucket:32} and the table word that the bucket was counted in
//
// A step holds one shard's mutex while it copies the keys of a bounded number of buckets. Entries
// stay in their bucket for as long as the shard's table stands, so a walk over its buckets meets
// every key that is there all the time. When the table was replaced (it doubles, so that happens a
// few times in a shard's life) the shard is walked again from its first bucket: keys come twice.
#include "engine/local/cache.hpp"

namespace celeriac {
namespace {

constexpr std::uint64_t kBucketsPerStep =
    4096;  // most that a step looks at, however empty they are

struct Seen {
  std::string key;
  Codec codec;
  std::uint64_t bytes;
};

bool present(Index& index, const layout::Entry& e) {
  const std::uint64_t expires = e.expires.load(std::memory_order_relaxed);
  return index.current(e) && (expires == kNever || expires > now_ns());
}

}  // namespace

Result<bool> LocalCache::scan(
    ScanCursor& cursor, std::size_t most,
    const std::function<void(std::string_view, Codec, std::uint64_t)>& visit) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Base& base = handle_->core().base();
  Index& index = handle_->core().cache().index();
  auto shard = static_cast<std::uint32_t>(cursor.place >> 32U);
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
    if (t.bits != cursor.table) bucket = 0;
    cursor.table = t.bits;
    const layout::Bucket* buckets = index.buckets(t);
    const std::uint64_t count = buckets == nullptr ? 0 : 1ULL << t.log2();
    for (; bucket < count && looked < kBucketsPerStep && found.size() < most; ++bucket, ++looked) {
      for (const layout::Word& way : buckets[bucket].ways) {
        const IndexWord w{way.load(std::memory_order_relaxed)};
        const layout::Entry* e = w.block() == 0 ? nullptr : index.entry(w.block());
        if (e == nullptr || !Index::belongs(*e, space, generation) || !present(index, *e)) continue;
        const char* p = base.heap.payload(w.block(), sizeof *e + e->key_size);
        if (p == nullptr) continue;
        found.push_back({std::string(p + sizeof *e, e->key_size), static_cast<Codec>(e->codec),
                         std::uint64_t{e->key_size} + e->value_size});
      }
    }
    if (bucket < count) break;
    ++shard;
    ++looked;
    bucket = 0;
    cursor.table = 0;
  }
  cursor.place = static_cast<std::uint64_t>(shard) << 32U | bucket;
  for (const Seen& s : found) visit(s.key, s.codec, s.bytes);
  return shard < layout::kShardCount;
}

}  // namespace celeriac
