// The waiter of the local engine: an epoll set of
//   the owner's FIFO   (another process put a message; shared by all waiters of this process)
//   a bell             (another waiter of this process emptied the FIFO, or a thread of ours put)
//   an alarm           (a delayed message becomes due)
//   the death watch    (a process of the store ended)
#pragma once

#include <atomic>
#include <vector>

#include "engine/local/core.hpp"

namespace celeriac {

class LocalWaiter final : public WaiterEngine {
 public:
  explicit LocalWaiter(std::shared_ptr<LocalHandle> handle);
  ~LocalWaiter() override;

  Result<int> fd() override;
  Status watch(QueueEngine& queue) override;
  Status unwatch(QueueEngine& queue) override;
  Result<bool> arm() override;
  Status drain() override;
  void nudge() override { ring(); }
  Status disarm() override;
  void close() override;

  bool armed() const { return armed_.load(std::memory_order_acquire); }
  void ring() { Bell::ring(bell_.get()); }
  void after_fork_in_child() noexcept;

 private:
  Status open(OwnerTag me);
  void unmark(OwnerTag me);
  void stop(OwnerTag me);

  std::shared_ptr<LocalHandle> handle_;
  std::vector<QueueRef> queues_;
  std::atomic<bool> armed_{false};
  bool marked_ = false;
  bool closed_ = false;
  Fd epoll_;
  Fd fifo_;
  Fd bell_;
  Fd alarm_;
  std::uint64_t alarm_at_ = kNever;  // for when it is set
  Fd death_;
};

}  // namespace celeriac
