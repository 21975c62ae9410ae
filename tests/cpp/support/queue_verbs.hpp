// One queue as one attachment sees it, with verbs for tests.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "platform/clock.hpp"
#include "support/local_store.hpp"

namespace celeriac::test {

struct Got {
  Delivery delivery;
  std::string body;
};

class TestQueue {
 public:
  explicit TestQueue(LocalCore& core, std::string_view name = "q") : core_(core), name_(name) {
    reopen(nullptr);
  }
  TestQueue(LocalCore& core, std::string_view name, const QueueConfig& config)
      : core_(core), name_(name) {
    reopen(&config);
  }
  TestQueue(LocalCore& core, std::string_view name, const QueueLimits& limits)
      : core_(core), name_(name) {
    QueueConfig config;
    config.limits = limits;
    reopen(&config);
  }

  void reopen(const QueueConfig* config) { ref_ = must(core_.queues().open(name_, config, me())); }
  OwnerTag me() const { return must(core_.enter()); }
  const QueueRef& ref() const { return ref_; }

  Result<std::uint64_t> try_put(const Outgoing& m) { return core_.queues().put(ref_, m, me()); }
  std::uint64_t put(std::string_view body, std::uint8_t priority = 0, std::uint64_t due = 0,
                    std::uint64_t expires = kNever) {
    return must(try_put({{}, body, priority, due, expires, {}, 0}));
  }
  std::optional<Got> get() {
    Got g;
    if (!core_.queues().try_get(ref_, &g.delivery, me())) return std::nullopt;
    g.body = g.delivery.body;
    if (!core_.queues().held(g.delivery)) return std::nullopt;
    return g;
  }
  // The next body, acknowledged; or "none".
  std::string take() {
    const std::optional<Got> g = get();
    if (!g) return "none";
    return ack(*g) ? g->body : "ack refused";
  }
  std::vector<std::string> take_all() {
    std::vector<std::string> all;
    for (std::string b = take(); b != "none"; b = take()) all.push_back(b);
    return all;
  }
  bool ack(const Got& g) { return core_.queues().ack(ref_, g.delivery, me()).is_ok(); }
  bool nack(const Got& g, std::uint64_t due = 0, std::string_view reason = {}) {
    return core_.queues().nack(ref_, g.delivery, due, reason, me()).is_ok();
  }
  Status extend(const Got& g, std::uint64_t deadline) {
    return core_.queues().extend(ref_, g.delivery, deadline, me());
  }
  QueueCounts counts() { return core_.queues().counts(ref_, me()); }
  std::uint64_t purge() { return core_.queues().purge(ref_, me()); }
  bool remove() { return core_.queues().remove(ref_, me()); }

 private:
  LocalCore& core_;
  std::string name_;
  QueueRef ref_;
};

}  // namespace celeriac::test
