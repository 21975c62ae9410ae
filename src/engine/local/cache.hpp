// CacheEngine over the arena.
#pragma once

#include "engine/local/core.hpp"

namespace celeriac {

class LocalCache final : public CacheEngine {
 public:
  LocalCache(std::shared_ptr<LocalHandle> handle, std::uint32_t space)
      : handle_(std::move(handle)), space_(space) {}

  Result<bool> get(std::string_view key, ValueBuffer& to, bool counted) override;
  Result<bool> contains(std::string_view key) override;
  Result<bool> store(std::string_view key, const Value& value, std::uint64_t expires,
                     StoreMode mode, std::uint64_t version) override;
  Result<bool> erase(std::string_view key) override;
  Result<bool> touch(std::string_view key, std::uint64_t expires) override;
  Result<IncrementResult> increment(std::string_view key, std::int64_t delta,
                                    std::int64_t* result) override;
  Status clear() override;
  Result<std::uint64_t> cull(std::uint64_t n) override;
  Status limit(std::uint32_t max_entries) override;
  Result<std::uint64_t> entries() override;
  Result<CacheCounts> counts() override;
  Status each(const std::function<bool(std::string_view, const ValueBuffer&)>& visit) override;
  Result<bool> scan(
      ScanCursor& cursor, std::size_t most,
      const std::function<void(std::string_view, Codec, std::uint64_t)>& visit) override;
  Result<std::uint32_t> change_count(std::string_view key) override;
  Result<bool> wait_for_change(std::string_view key, std::uint32_t seen,
                               std::uint64_t deadline_ns) override;

 private:
  Result<OwnerTag> enter(std::string_view key);

  std::shared_ptr<LocalHandle> handle_;
  std::uint32_t space_;
};

}  // namespace celeriac
