// LimiterEngine and ConcurrencyEngine over the arena.
#pragma once

#include <map>

#include "engine/local/core.hpp"

namespace celeriac {

class LocalLimiter final : public LimiterEngine {
 public:
  LocalLimiter(std::shared_ptr<LocalHandle> handle, LimitPlan plan)
      : handle_(std::move(handle)), plan_(std::move(plan)) {}

  Result<LimitDecision> hit(std::string_view key, std::uint64_t cost) override;
  Result<LimitDecision> peek(std::string_view key, std::uint64_t cost) override;
  Status reset(std::string_view key) override;
  Status refund(std::string_view key, std::uint64_t cost) override;

 private:
  std::shared_ptr<LocalHandle> handle_;
  const LimitPlan plan_;
};

// Places that this process has entered are remembered here by number. A forked child has none of
// them: those are its parent's.
class LocalConcurrency final : public ConcurrencyEngine, public ForkListener {
 public:
  LocalConcurrency(std::shared_ptr<LocalHandle> handle, std::string name, std::uint32_t limit,
                   const ConcurrencyRef& ref)
      : handle_(std::move(handle)), name_(std::move(name)), limit_(limit), ref_(ref) {
    listen();
  }
  ~LocalConcurrency() override { stop_listening(); }

  Result<std::optional<std::uint64_t>> enter(std::uint64_t deadline_ns) override;
  Status leave(std::uint64_t place) override;
  Result<std::uint32_t> await() override;
  Result<bool> wait(std::uint32_t seen, std::uint64_t deadline_ns) override;
  Result<std::uint32_t> inside() override;
  Result<std::uint32_t> limit() override;
  void after_fork_in_child() noexcept override;

 private:
  // The record; found or made again when another name has it by now.
  Result<ConcurrencyRef> ref(OwnerTag me);

  std::shared_ptr<LocalHandle> handle_;
  const std::string name_;
  const std::uint32_t limit_;
  std::mutex mutex_;  // of what follows
  ConcurrencyRef ref_;
  std::map<std::uint64_t, ConcurrencyPlace> places_;
  std::uint64_t next_ = 1;
};

}  // namespace celeriac
