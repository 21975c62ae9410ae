#include "engine/local/metrics.hpp"

#include <algorithm>
#include <cmath>

namespace celeriac {
namespace {

constexpr std::uint64_t kPause = kSecond;  // between two tries to find a place

}  // namespace

LocalSeries::~LocalSeries() {
  for (Found* f = found_.load(std::memory_order_acquire); f != nullptr;) {
    Found* before = f->before;
    delete f;
    f = before;
  }
}

void LocalSeries::remember(const Found& found) {
  auto* f = new Found(found);
  f->before = found_.load(std::memory_order_relaxed);
  while (!found_.compare_exchange_weak(f->before, f, std::memory_order_release,
                                       std::memory_order_relaxed)) {
  }
}

layout::Word* LocalSeries::find(OwnerTag me) {
  Metrics& metrics = handle_->core().metrics();
  if (retired_.load(std::memory_order_relaxed)) return nullptr;
  const Found* last = found_.load(std::memory_order_acquire);
  Found now;
  now.owner = me;
  if (last != nullptr && Metrics::current(last->ref)) now.ref = last->ref;
  if (const std::uint64_t again = again_.load(std::memory_order_relaxed);
      again != 0 && now_ns() < again) {
    metrics.lose();
    return nullptr;
  }
  if (now.ref.slot == nullptr) {
    const double created =
        last == nullptr ? created_ : static_cast<double>(wall_ns()) / static_cast<double>(kSecond);
    now.ref = metrics.series(family_->ref, labels_, created, me);
  }
  if (now.ref.slot != nullptr) {
    layout::MetricStripe* stripe = metrics.stripe_for(me);
    if (stripe != nullptr) now.cells = metrics.cells(now.ref, *stripe, me);
    if (now.cells != nullptr || last == nullptr) remember(now);
  }
  if (now.cells == nullptr) metrics.lose();
  again_.store(now.cells == nullptr ? now_ns() + kPause : 0, std::memory_order_relaxed);
  return now.cells;
}

// Without cells yet: a process that only looks has no stripe.
Status LocalSeries::begin() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Found now;
  now.ref = handle_->core().metrics().series(family_->ref, labels_, created_, me.value());
  if (now.ref.slot != nullptr) {
    remember(now);
  } else {
    again_.store(now_ns() + kPause, std::memory_order_relaxed);
  }
  return Status::ok();
}

Status LocalSeries::add(std::uint32_t cell, double amount) {
  const Result<layout::Word*> at = cells();
  if (!at) return at.status();
  if (at.value() != nullptr && cell < family_->cells) add_cell(at.value()[cell], amount);
  return Status::ok();
}

Status LocalSeries::set(std::uint32_t cell, double value, double time) {
  const Result<layout::Word*> at = cells();
  if (!at) return at.status();
  if (at.value() == nullptr || cell >= family_->cells) return Status::ok();
  if (most_recent(family_->mode)) {
    set_recent(at.value(), value, time);
  } else {
    set_cell(at.value()[cell], value);
  }
  return Status::ok();
}

// The count comes first, then the sum: killed in between, one is counted that isn't in the sum.
Status LocalSeries::observe(double value) {
  const Result<layout::Word*> at = cells();
  if (!at) return at.status();
  if (at.value() == nullptr) return Status::ok();
  const std::vector<double>& bounds = family_->bounds;
  std::size_t sum = 1;
  if (family_->type == MetricType::kSummary) {
    add_cell(at.value()[0], 1);
  } else if (family_->type == MetricType::kHistogram) {
    sum = bounds.size();
    const auto in = std::lower_bound(bounds.begin(), bounds.end(), value);
    if (std::isnan(value)) {
      sum = bounds.size();  // no bucket has it, as in prometheus_client
    } else {
      add_cell(at.value()[in - bounds.begin()], 1);
    }
  } else {
    return Status::ok();
  }
  add_cell(at.value()[sum], value);
  return Status::ok();
}

Result<double> LocalSeries::get(std::uint32_t cell) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  if (cell >= family_->cells || retired_.load(std::memory_order_relaxed)) return 0.0;
  const Found* f = found_.load(std::memory_order_acquire);
  if (f == nullptr || f->ref.slot == nullptr) return 0.0;
  if (by_process(family_->mode)) {
    const bool own = f->owner == me.value() && f->cells != nullptr && Metrics::current(f->ref);
    return own ? cell_value(f->cells[cell].load(std::memory_order_relaxed)) : 0.0;
  }
  const Result<std::vector<MetricSample>> read =
      handle_->core().metrics().read(family_->ref, f->ref, me.value());
  if (!read) return read.status();
  if (read.value().empty() || cell >= read.value()[0].values.size()) return 0.0;
  return read.value()[0].values[cell];
}

Status LocalSeries::reset(double created) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Found* f = found_.load(std::memory_order_acquire);
  if (f == nullptr || f->ref.slot == nullptr) return Status::ok();
  Metrics::set_created(f->ref, created);
  return handle_->core().metrics().empty(f->ref, me.value());
}

Result<std::unique_ptr<MetricSeriesEngine>> LocalFamily::series(
    const std::vector<std::string_view>& labels, double created) {
  auto made = std::make_unique<LocalSeries>(handle_, family_, pack_labels(labels), created);
  Status begun = made->begin();
  if (!begun) return begun;
  return std::unique_ptr<MetricSeriesEngine>(std::move(made));
}

Result<std::uint64_t> LocalFamily::remove(const std::vector<std::string_view>& labels) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().metrics().remove(family_->ref, pack_labels(labels), me.value());
}

Result<std::uint64_t> LocalFamily::clear() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().metrics().clear(family_->ref, me.value());
}

Result<MetricFamilyView> LocalFamily::collect() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  Result<std::vector<MetricFamilyView>> all =
      handle_->core().metrics().collect(&family_->ref, me.value());
  if (!all) return all.status();
  if (all.value().empty()) return MetricFamilyView{};
  return std::move(all.value()[0]);
}

Result<std::unique_ptr<MetricFamilyEngine>> LocalMetrics::family(const MetricFamilySpec& spec) {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  const Result<MetricFamilyRef> ref = handle_->core().metrics().family(spec, me.value());
  if (!ref) return ref.status();
  auto parts = std::make_shared<LocalFamilyParts>();
  *parts = {ref.value(), spec.mode, spec.type, spec.bounds, spec.cells()};
  return std::unique_ptr<MetricFamilyEngine>(
      std::make_unique<LocalFamily>(handle_, std::move(parts)));
}

Result<std::vector<MetricFamilyView>> LocalMetrics::collect() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().metrics().collect(nullptr, me.value());
}

Result<MetricCounts> LocalMetrics::counts() {
  const Result<OwnerTag> me = handle_->enter();
  if (!me) return me.status();
  return handle_->core().metrics().counts();
}

}  // namespace celeriac
