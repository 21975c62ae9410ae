// What metrics are, apart from where they lie: types, modes of gauges, what a reader gets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace celeriac {

enum class MetricType : std::uint32_t { kCounter, kGauge, kHistogram, kSummary };

// How the values of several processes become one; of gauges, but for counting, which is kSum.
enum class MetricMode : std::uint32_t {
  kSum,
  kLiveSum,
  kMin,
  kLiveMin,
  kMax,
  kLiveMax,
  kMostRecent,
  kLiveMostRecent,
  kAll,  // each process's by itself; of the living, as kLiveAll
  kLiveAll,
};
constexpr std::uint32_t kMetricModes = 10;

// Does what a dead process has left count?
constexpr bool outlives(MetricMode m) {
  return m == MetricMode::kSum || m == MetricMode::kMin || m == MetricMode::kMax ||
         m == MetricMode::kMostRecent;
}
constexpr bool by_process(MetricMode m) {
  return m == MetricMode::kAll || m == MetricMode::kLiveAll;
}
constexpr bool most_recent(MetricMode m) {
  return m == MetricMode::kMostRecent || m == MetricMode::kLiveMostRecent;
}

struct MetricFamilySpec {
  std::string_view name, scope, help;
  MetricType type = MetricType::kCounter;
  MetricMode mode = MetricMode::kSum;
  std::vector<std::string_view> labels;
  std::vector<double> bounds;  // of buckets, rising; the last is infinity
  std::uint32_t cap = 0;       // series that it may have
  double created = 0;

  std::uint32_t cells() const {
    if (type == MetricType::kHistogram) return static_cast<std::uint32_t>(bounds.size()) + 1;
    return type == MetricType::kSummary || most_recent(mode) ? 2 : 1;
  }
};

// Values: of a histogram its buckets, not cumulative, and its sum; of a summary count and sum.
struct MetricSample {
  std::vector<std::string> labels;
  std::string process;  // empty, or the process whose value it is
  double created = 0;
  std::vector<double> values;
};

struct MetricFamilyView {
  std::string name, scope, help;
  MetricType type = MetricType::kCounter;
  MetricMode mode = MetricMode::kSum;
  std::vector<std::string> labels;
  std::vector<double> bounds;
  std::vector<MetricSample> samples;
};

struct MetricCounts {
  std::uint64_t families = 0, series = 0, stripes = 0, dropped = 0, lost = 0;
};

// Label values as a slot keeps them: {length:32, bytes} each.
std::string pack_labels(const std::vector<std::string_view>& values);
// False for what isn't such.
bool unpack_labels(std::string_view packed, std::size_t count, std::vector<std::string>* values);

}  // namespace celeriac
