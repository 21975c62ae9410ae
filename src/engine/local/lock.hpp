// LockEngine over the arena.
#pragma once

#include "engine/local/core.hpp"

namespace celeriac {

class LocalLock final : public LockEngine {
 public:
  // kConfiguration for a bad name or number of permits, or another than that of those who use it.
  static Result<std::unique_ptr<LockEngine>> open(std::shared_ptr<LocalHandle> handle,
                                                  const std::string& name, std::uint32_t permits,
                                                  OwnerTag me);
  // With pid and command of the owners.
  static std::vector<EngineHolder> shown(LocalCore& core, const std::vector<LockHolder>& found);

  LocalLock(std::shared_ptr<LocalHandle> handle, std::string name, std::uint32_t permits)
      : handle_(std::move(handle)),
        text_(std::move(name)),
        name_(handle_->core().locks().name(text_, permits)) {}

  Result<LockTaken> acquire(std::uint64_t lease_ns, std::uint64_t deadline_ns) override;
  Result<LockTaken> enter(std::uint64_t lease_ns) override;
  Result<std::uint64_t> wait(std::uint64_t place, std::uint64_t deadline_ns) override;
  Status leave(std::uint64_t place) override;
  Status release(std::uint64_t place) override;
  Status renew(std::uint64_t place, std::uint64_t lease_ns) override;
  Result<std::pair<std::vector<EngineHolder>, std::uint64_t>> holders() override;

 private:
  Result<LockTaken> try_acquire(std::uint64_t lease_ns);

  std::shared_ptr<LocalHandle> handle_;
  std::string text_;
  LockName name_;  // views text_
};

}  // namespace celeriac
