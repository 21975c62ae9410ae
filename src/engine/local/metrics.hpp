// MetricsEngine over the arena.
#pragma once

#include "engine/local/core.hpp"

namespace celeriac {

struct LocalFamilyParts {
  MetricFamilyRef ref;
  MetricMode mode = MetricMode::kSum;
  MetricType type = MetricType::kCounter;
  std::vector<double> bounds;
  std::uint32_t cells = 1;
};

// Where a series' cells are is looked up once for each process, and again after it was removed; the
// findings stay until the series' end, since another thread may be using them.
class LocalSeries final : public MetricSeriesEngine {
 public:
  LocalSeries(std::shared_ptr<LocalHandle> handle, std::shared_ptr<const LocalFamilyParts> family,
              std::string labels, double created)
      : handle_(std::move(handle)),
        family_(std::move(family)),
        labels_(std::move(labels)),
        created_(created) {}
  ~LocalSeries() override;

  Status add(std::uint32_t cell, double amount) override;
  Status set(std::uint32_t cell, double value, double time) override;
  Status observe(double value) override;
  Result<double> get(std::uint32_t cell) override;
  Status reset(double created) override;
  void retire() override { retired_.store(true, std::memory_order_relaxed); }
  bool dropped() const override { return found_.load(std::memory_order_acquire) == nullptr; }

  // Finds the series, or makes it.
  Status begin();

 private:
  struct Found {
    MetricSeriesRef ref;
    OwnerTag owner;
    layout::Word* cells = nullptr;
    Found* before = nullptr;
  };

  // Null when there is no place or no memory, or the series is retired.
  Result<layout::Word*> cells() {
    const Result<OwnerTag> me = handle_->enter();
    if (!me) return me.status();
    // acquire pairs with the release in find()
    const Found* f = found_.load(std::memory_order_acquire);
    if (f != nullptr && f->owner == me.value() && f->cells != nullptr && Metrics::current(f->ref) &&
        !retired_.load(std::memory_order_relaxed)) {
      return f->cells;
    }
    return find(me.value());
  }
  layout::Word* find(OwnerTag me);
  void remember(const Found& found);

  std::shared_ptr<LocalHandle> handle_;
  std::shared_ptr<const LocalFamilyParts> family_;
  const std::string labels_;
  const double created_;
  std::atomic<Found*> found_{nullptr};
  std::atomic<std::uint64_t> again_{0};  // when there was no place: not before this moment
  std::atomic<bool> retired_{false};
};

class LocalFamily final : public MetricFamilyEngine {
 public:
  LocalFamily(std::shared_ptr<LocalHandle> handle, std::shared_ptr<const LocalFamilyParts> family)
      : handle_(std::move(handle)), family_(std::move(family)) {}

  Result<std::unique_ptr<MetricSeriesEngine>> series(const std::vector<std::string_view>& labels,
                                                     double created) override;
  Result<std::uint64_t> remove(const std::vector<std::string_view>& labels) override;
  Result<std::uint64_t> clear() override;
  Result<MetricFamilyView> collect() override;

 private:
  std::shared_ptr<LocalHandle> handle_;
  std::shared_ptr<const LocalFamilyParts> family_;
};

class LocalMetrics final : public MetricsEngine {
 public:
  explicit LocalMetrics(std::shared_ptr<LocalHandle> handle) : handle_(std::move(handle)) {}

  Result<std::unique_ptr<MetricFamilyEngine>> family(const MetricFamilySpec& spec) override;
  Result<std::vector<MetricFamilyView>> collect() override;
  Result<MetricCounts> counts() override;

 private:
  std::shared_ptr<LocalHandle> handle_;
};

}  // namespace celeriac
