// Writing Prometheus' text exposition format, version 0.0.4. (Debian's prometheus-cpp comes as
// shared libraries only, and the program is one file.)
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "engine/engine.h"

namespace atom {

class PrometheusText {
 public:
  using Labels = std::initializer_list<std::pair<std::string_view, std::string_view>>;

  // Opens a metric of that type ("counter", "gauge", "histogram"); its samples follow.
  void metric(std::string_view name, std::string_view type, std::string_view help);
  // A sample of the open metric.
  void sample(double value, Labels labels = {});

  void counter(std::string_view name, std::string_view help, double value);
  void gauge(std::string_view name, std::string_view help, double value);
  void histogram(std::string_view name, std::string_view help, const DurationHistogram& durations);

  const std::string& text() const { return text_; }

 private:
  void line(std::string_view suffix, double value, Labels labels);
  std::string name_;
  std::string text_;
};

}  // namespace atom
