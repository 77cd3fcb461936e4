#include "server/prometheus_text.h"

#include <fmt/core.h>

#include <cmath>

namespace atom {
namespace {

std::string number(double value) {
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

void append_escaped(std::string& to, std::string_view text) {
  for (const char c : text) {
    if (c == '\n') {
      to += "\\n";
      continue;
    }
    if (c == '\\' || c == '"') to += '\\';
    to += c;
  }
}

}  // namespace

void PrometheusText::metric(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  text_ += fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

void PrometheusText::line(std::string_view suffix, double value, Labels labels) {
  text_ += name_;
  text_ += suffix;
  char before = '{';
  for (const auto& [key, text] : labels) {
    text_ += before;
    text_ += key;
    text_ += "=\"";
    append_escaped(text_, text);
    text_ += '"';
    before = ',';
  }
  if (labels.size() > 0) text_ += '}';
  text_ += fmt::format(" {}\n", number(value));
}

void PrometheusText::sample(double value, Labels labels) { line("", value, labels); }

void PrometheusText::counter(std::string_view name, std::string_view help, double value) {
  metric(name, "counter", help);
  sample(value);
}

void PrometheusText::gauge(std::string_view name, std::string_view help, double value) {
  metric(name, "gauge", help);
  sample(value);
}

void PrometheusText::histogram(std::string_view name, std::string_view help,
                               const DurationHistogram& durations) {
  metric(name, "histogram", help);
  int64_t below = 0;
  for (size_t i = 0; i < durations.counts.size(); ++i) {
    below += durations.counts[i];
    const std::string bound = number(DurationHistogram::upper_bound_seconds(i));
    line("_bucket", static_cast<double>(below), {{"le", bound}});
  }
  line("_sum", durations.sum_seconds, {});
  line("_count", static_cast<double>(below), {});
}

}  // namespace atom
