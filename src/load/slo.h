// A service-level objective: what a request must keep to count as good.
#pragma once

#include <optional>
#include <string_view>

#include "base/status.h"

namespace atom {

// Upper bounds in seconds; absent: any.
struct Slo {
  std::optional<double> ttft;
  std::optional<double> tpot;
  std::optional<double> e2e;

  bool empty() const { return !ttft && !tpot && !e2e; }
};

// Reads "ttft=500ms,tpot=50ms,e2e=10s".
Result<Slo> parse_slo(std::string_view text);

// Reads "250us", "500ms", "1.5s" or "2m"; more than 0.
Result<double> parse_seconds(std::string_view text);

}  // namespace atom
