#include "cli/output.h"

#include <fmt/core.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace atom::cli {

void print_json(const nlohmann::ordered_json& document) {
  // Strings that come from files may hold bytes that are no UTF-8.
  fmt::print("{}\n", document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

nlohmann::ordered_json json_number(double value) {
  if (!std::isfinite(value)) return nullptr;
  return value;
}

}  // namespace atom::cli
