// QueueEngine over the arena.
#pragma once

#include <atomic>

#include "engine/local/core.hpp"

namespace celeriac {

class LocalMessage final : public EngineMessage {
 public:
  LocalMessage(std::shared_ptr<LocalHandle> handle, const QueueRef& queue, const Delivery& delivery)
      : handle_(std::move(handle)), queue_(queue), delivery_(delivery) {}

  std::string_view body() const override { return delivery_.body; }
  std::string_view headers() const override { return delivery_.headers; }
  std::uint64_t id() const override { return delivery_.id; }
  std::uint32_t deliveries() const override { return delivery_.deliveries; }
  std::uint8_t priority() const override { return delivery_.priority; }
  Status ack() override;
  Status nack(std::uint64_t due) override;

 private:
  std::shared_ptr<LocalHandle> handle_;
  QueueRef queue_;
  Delivery delivery_;
};

class LocalQueue final : public QueueEngine {
 public:
  LocalQueue(std::shared_ptr<LocalHandle> handle, std::string name, const QueueOptions& options,
             const QueueRef& ref)
      : handle_(std::move(handle)), name_(std::move(name)), options_(options) {
    remember(ref);
  }

  Result<std::uint64_t> put(const PutRequest& message) override;
  Result<std::unique_ptr<EngineMessage>> get(std::uint64_t deadline_ns) override;
  Result<EngineCounts> counts() override;
  Result<std::vector<PeekedMessage>> peek(Peek state, std::size_t limit) override;
  Result<std::uint64_t> purge() override;
  Result<bool> remove() override;

  // The record; found or made again when the queue was deleted meanwhile.
  Result<QueueRef> ref(OwnerTag me);
  std::uint32_t index() const {
    return static_cast<std::uint32_t>(ref_.load(std::memory_order_relaxed));
  }
  static QueueConfig config(const QueueOptions& options);
  static Status no_queue(const std::string& name);

 private:
  void remember(const QueueRef& q) {
    ref_.store(static_cast<std::uint64_t>(q.generation) << 32U | q.index,
               std::memory_order_relaxed);
  }

  std::shared_ptr<LocalHandle> handle_;
  std::string name_;
  QueueOptions options_;
  std::atomic<std::uint64_t> ref_{0};  // {generation:32 | index:32} as last found
};

}  // namespace celeriac
