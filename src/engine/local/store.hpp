// StoreEngine over the arena.
#pragma once

#include "engine/local/core.hpp"

namespace celeriac {

class LocalStore final : public StoreEngine {
 public:
  LocalStore(std::shared_ptr<LocalHandle> handle, LocalOptions options)
      : handle_(std::move(handle)), options_(std::move(options)) {}

  Result<std::unique_ptr<CacheEngine>> cache(const CacheRequest& request) override;
  Result<std::unique_ptr<QueueEngine>> queue(const std::string& name,
                                             const QueueOptions& options) override;
  Result<std::unique_ptr<LimiterEngine>> limiter(const std::string& name,
                                                 const std::vector<Rate>& rates) override;
  Result<std::unique_ptr<ConcurrencyEngine>> concurrency(const std::string& name,
                                                         std::uint32_t limit) override;
  Result<std::unique_ptr<LockEngine>> lock(const std::string& name, std::uint32_t permits) override;
  Result<bool> is_locked(std::string_view name) override;
  Result<std::vector<EngineHolder>> locks() override;
  std::unique_ptr<MetricsEngine> metrics() override;
  Result<std::vector<std::string>> caches(bool tables) override;
  Result<bool> has_queue(const std::string& name) override;
  Result<std::vector<std::string>> queues() override;
  Result<std::unique_ptr<WaiterEngine>> waiter() override;
  Result<EngineStats> stats() override;
  Result<std::vector<EngineOwner>> owners() override;
  Result<std::string> identity() override;
  Result<bool> is_alive(const std::string& identity) override;
  Result<int> recover() override;
  Result<std::uint64_t> resize(std::uint64_t memory) override;
  Status backup(const std::string& path) override;
  std::string path() const override { return handle_->core().arena().path(); }
  Status close() override { return handle_->close(); }
  bool is_open() const override { return handle_->is_open(); }
  Status destroy(bool force) override;

 private:
  std::shared_ptr<LocalHandle> handle_;
  LocalOptions options_;
};

}  // namespace celeriac
