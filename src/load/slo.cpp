#include "load/slo.h"

#include <charconv>
#include <cmath>
#include <utility>

namespace atom {

Result<double> parse_seconds(std::string_view text) {
  double number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  double scale = 0;
  for (const auto& [name, seconds] :
       {std::pair<std::string_view, double>{"us", 1e-6}, {"ms", 1e-3}, {"s", 1.0}, {"m", 60.0}}) {
    if (unit == name) scale = seconds;
  }
  if (problem != std::errc() || scale == 0 || !std::isfinite(number) || number <= 0) {
    return error(ErrorCode::kInvalidArgument, "'{}' is not a time such as 500ms or 2s", text);
  }
  return number * scale;
}

Result<Slo> parse_slo(std::string_view text) {
  Slo slo;
  while (true) {
    const size_t comma = text.find(',');
    const std::string_view part = text.substr(0, comma);
    const size_t equals = part.find('=');
    const std::string_view name = part.substr(0, equals);
    std::optional<double>* bound = name == "ttft"   ? &slo.ttft
                                   : name == "tpot" ? &slo.tpot
                                   : name == "e2e"  ? &slo.e2e
                                                    : nullptr;
    if (bound == nullptr || equals == std::string_view::npos) {
      return error(ErrorCode::kInvalidArgument,
                   "--slo: '{}': expected ttft=TIME, tpot=TIME or e2e=TIME", part);
    }
    const Result<double> seconds = parse_seconds(part.substr(equals + 1));
    if (!seconds.ok()) return seconds.status().with_context("--slo");
    *bound = *seconds;
    if (comma == std::string_view::npos) return slo;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace atom
