// Metrics as Prometheus reads them: the text format 0.0.4, and OpenMetrics 1.0.
#pragma once

#include <string>
#include <vector>

#include "store/metric_kinds.hpp"

namespace celeriac {

// A number as Python's repr() writes it, infinity as +Inf.
std::string metric_number(double value);
// A bound of a bucket: the same, but 1e+06 from a million up, as Go does.
std::string metric_bound(double value);

// Families without scope, one after the other. Series of a family keep their order.
std::string metric_text(const std::vector<MetricFamilyView>& families, bool openmetrics);

}  // namespace celeriac
