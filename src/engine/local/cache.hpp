// CacheEngine over the arena.
#pragma once

#include <atomic>

#include "engine/local/core.hpp"

namespace celeriac {

// The id of a cache or table; see Namespaces::open(). Makes room by dropping what has expired.
// Thread-safe. Crash-safe: as Namespaces::open() and Eviction::drop_absent().
Result<std::uint32_t> open_space(LocalHandle& handle, const CacheRequest& request, bool create,
                                 OwnerTag me);

class LocalCache final : public CacheEngine {
 public:
  LocalCache(std::shared_ptr<LocalHandle> handle, CacheRequest request, std::uint32_t space)
      : handle_(std::move(handle)), request_(std::move(request)), space_(space) {}

  Result<bool> get(std::string_view key, ValueBuffer& to, bool counted) override;
  Result<Met> probe(std::string_view key) override;
  Result<bool> store(std::string_view key, const Value& value, std::uint64_t expires,
                     StoreMode mode, std::uint64_t version) override;
  Result<Met> erase(std::string_view key, std::uint64_t version, Which which) override;
  Result<Met> touch(std::string_view key, std::uint64_t expires, Which which) override;
  Result<IncrementResult> increment(std::string_view key, std::int64_t delta,
                                    std::int64_t* result) override;
  Result<bool> clear() override;
  Result<std::uint64_t> cull(std::uint64_t n) override;
  Status limit(std::uint32_t max_entries) override;
  Result<std::uint64_t> entries() override;
  Result<CacheCounts> counts() override;
  Result<PrefixRows> prefixes() override;
  Status each(const std::function<bool(std::string_view, const ValueBuffer&)>& visit) override;
  Result<bool> scan(
      ScanCursor& cursor, std::size_t most,
      const std::function<void(std::string_view, Codec, std::uint64_t)>& visit) override;
  Result<std::uint32_t> change_count(std::string_view key) override;
  Result<bool> wait_for_change(std::string_view key, std::uint32_t seen,
                               std::uint64_t deadline_ns) override;

 private:
  Result<OwnerTag> enter(std::string_view key);

  // An id that was good a moment ago, looked up anew if need be; see open_space().
  Result<std::uint32_t> place(bool create, OwnerTag me);
  Status moved_too_often() const;
  // call(space id, me), again for as long as the namespace loses its place meanwhile (invariant N5
  // of store/namespaces.hpp). `absent`: the result where it has no place now and `create` is false.
  template <class T, class Call>
  Result<T> in_space(std::string_view key, bool create, T absent, const Call& call);

  std::shared_ptr<LocalHandle> handle_;
  CacheRequest request_;
  std::atomic<std::uint32_t> space_;  // what the name led to when it was looked up last
  // What limit() said last, kNever = nothing: for the next place, which has no limit (N9).
  std::atomic<std::uint64_t> limit_{kNever};
};

}  // namespace celeriac
