#include "store/metric_text.hpp"

#include <charconv>
#include <cmath>

namespace celeriac {
namespace {

const char* type_name(MetricType type) {
  constexpr const char* kNames[] = {"counter", "gauge", "histogram", "summary"};
  return kNames[static_cast<unsigned>(type) % 4];
}

void escape(std::string* to, std::string_view text, bool quotes) {
  for (const char c : text) {
    if (c == '\\') {
      *to += "\\\\";
    } else if (c == '\n') {
      *to += "\\n";
    } else if (c == '"' && quotes) {
      *to += "\\\"";
    } else {
      *to += c;
    }
  }
}

class Writer {
 public:
  Writer(std::string* to, const MetricFamilyView& family) : to_(*to), family_(family) {}

  void head(bool openmetrics) {
    const std::string name = family_.type == MetricType::kCounter && !openmetrics
                                 ? family_.name + "_total"
                                 : family_.name;
    to_ += "# HELP " + name + " ";
    escape(&to_, family_.help, openmetrics);
    to_ += "\n# TYPE " + name + " ";
    to_ += type_name(family_.type);
    to_ += '\n';
  }

  void sample(const MetricSample& s) {
    labels_.clear();
    for (std::size_t i = 0; i < family_.labels.size() && i < s.labels.size(); ++i) {
      label(family_.labels[i], s.labels[i]);
    }
    if (!s.process.empty()) label("pid", s.process);
    switch (family_.type) {
      case MetricType::kCounter:
        return line("_total", s.values[0]);
      case MetricType::kGauge:
        return line("", s.values[0]);
      case MetricType::kSummary:
        line("_count", s.values[0]);
        return line("_sum", s.values[1]);
      case MetricType::kHistogram:
        return buckets(s);
    }
  }

 private:
  void label(std::string_view name, std::string_view value) {
    labels_ += labels_.empty() ? "" : ",";
    labels_ += name;
    labels_ += "=\"";
    escape(&labels_, value, true);
    labels_ += '"';
  }

  void line(const char* suffix, double value) {
    to_ += family_.name;
    to_ += suffix;
    if (!labels_.empty()) to_ += '{' + labels_ + '}';
    to_ += ' ' + metric_number(value) + '\n';
  }

  void buckets(const MetricSample& s) {
    const std::size_t own = labels_.size();
    double count = 0;
    for (std::size_t i = 0; i < family_.bounds.size(); ++i) {
      count += s.values[i];
      label("le", bound(i));
      line("_bucket", count);
      labels_.resize(own);
    }
    line("_count", count);
    if (family_.bounds[0] >= 0) line("_sum", s.values[family_.bounds.size()]);
  }

  const std::string& bound(std::size_t i) {
    if (bounds_.empty()) {
      for (const double b : family_.bounds) bounds_.push_back(metric_bound(b));
    }
    return bounds_[i];
  }

  std::string& to_;
  const MetricFamilyView& family_;
  std::string labels_;
  std::vector<std::string> bounds_;
};

}  // namespace

std::string metric_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char digits[40];
  // The shortest that reads back as the same, as {-}d.ddde±xx.
  const char* const end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr;
  const std::string_view all(digits, static_cast<std::size_t>(end - digits));
  const std::size_t e = all.find('e');
  int exponent = 0;
  const std::size_t sign = all[e + 1] == '+' ? 1 : 0;
  std::from_chars(all.data() + e + 1 + sign, end, exponent);
  std::string text(value < 0 || (value == 0 && std::signbit(value)) ? "-" : "");
  std::string mantissa;
  for (const char c : all.substr(0, e)) {
    if (c != '-' && c != '.') mantissa += c;
  }
  if (exponent < -4 || exponent >= 16) {
    text += mantissa[0];
    if (mantissa.size() > 1) text += '.' + mantissa.substr(1);
    text += exponent < 0 ? "e-" : "e+";
    const int n = std::abs(exponent);
    return text + (n < 10 ? "0" : "") + std::to_string(n);
  }
  if (exponent < 0) {
    const auto zeros = static_cast<std::size_t>(-exponent) - 1;
    return text + "0." + std::string(zeros, '0') + mantissa;
  }
  const std::size_t whole = static_cast<std::size_t>(exponent) + 1;
  if (mantissa.size() <= whole) {
    return text + mantissa + std::string(whole - mantissa.size(), '0') + ".0";
  }
  return text + mantissa.substr(0, whole) + '.' + mantissa.substr(whole);
}

std::string metric_bound(double value) {
  std::string s = metric_number(value);
  const std::size_t dot = s.find('.');
  if (std::isinf(value) || !(value > 0) || dot == std::string::npos || dot <= 6) return s;
  std::string mantissa = s.substr(0, 1) + '.' + s.substr(1, dot - 1) + s.substr(dot + 1);
  while (mantissa.size() > 1 && (mantissa.back() == '0' || mantissa.back() == '.')) {
    mantissa.pop_back();
  }
  return mantissa + "e+0" + std::to_string(dot - 1);
}

std::string metric_text(const std::vector<MetricFamilyView>& families, bool openmetrics) {
  std::string text;
  for (const MetricFamilyView& family : families) {
    if (!family.scope.empty()) continue;
    Writer writer(&text, family);
    writer.head(openmetrics);
    for (const MetricSample& s : family.samples) writer.sample(s);
  }
  if (openmetrics) text += "# EOF\n";
  return text;
}

}  // namespace celeriac
