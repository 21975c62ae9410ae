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
  bool held() const override;
  std::string reason() override;
  Status ack() override;
  Status nack(std::uint64_t due, std::string_view reason) override;
  Status extend(std::uint64_t deadline_ns) override;

 private:
  std::shared_ptr<LocalHandle> handle_;
  QueueRef queue_;
  Delivery delivery_;
};

class LocalQueue final : public QueueEngine {
 public:
  LocalQueue(std::shared_ptr<LocalHandle> handle, std::string name, QueueOptions options,
             const QueueRef& ref)
      : handle_(std::move(handle)), name_(std::move(name)), options_(std::move(options)) {
    remember(ref);
  }

  Result<std::uint64_t> put(const PutRequest& message) override;
  Status put_many(std::span<const PutRequest> messages, std::vector<std::uint64_t>* ids) override;
  Result<std::unique_ptr<EngineMessage>> get(std::uint64_t deadline_ns) override;
  Status get_many(std::size_t n, std::uint64_t deadline_ns,
                  std::vector<std::unique_ptr<EngineMessage>>* to) override;
  Result<EngineCounts> counts() override;
  Result<std::vector<PeekedMessage>> peek(Peek state, std::size_t limit) override;
  Result<std::uint64_t> purge() override;
  Result<bool> remove() override;
  Result<std::uint64_t> retry_dead(const std::vector<std::uint64_t>* ids) override;
  Result<std::uint64_t> purge_dead() override;
  Result<bool> cancel(std::uint64_t id) override;
  Status pause(bool paused) override;
  Result<bool> paused() override;
  Result<std::uint64_t> oldest() override;
  Result<std::vector<EngineConsumer>> consumers() override;

  // The record; found or made again when the queue was deleted meanwhile.
  Result<QueueRef> ref(OwnerTag me);
  std::uint32_t index() const {
    return static_cast<std::uint32_t>(ref_.load(std::memory_order_relaxed));
  }
  static QueueConfig config(const QueueOptions& options);
  static Status no_queue(const std::string& name);

 private:
  // What follows with the record and the owner, when it is as durable as promised; or why not.
  template <class Call>
  auto with(Call call) -> decltype(call(QueueRef{}, OwnerTag{})) {
    const Result<OwnerTag> me = handle_->enter_queues();
    if (!me) return me.status();
    const Result<QueueRef> q = ref(me.value());
    if (!q) return q.status();
    auto done = call(q.value(), me.value());
    Status confirmed = handle_->core().confirm(Status::ok(), me.value());
    if (!confirmed) return confirmed;
    return done;
  }
  // `first`: what this thread has written before is none of this operation.
  Result<std::uint64_t> put_unconfirmed(const PutRequest& message, bool first);
  bool put_some(std::span<const PutRequest> messages, std::vector<std::uint64_t>* ids);
  Status confirm();
  Outgoing outgoing(const PutRequest& m, const QueueRef& q);
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
