// JSON in and out of template values.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>

#include "base/json.h"
#include "text/jinja_value.h"

namespace atom::jinja {

// Fails where the JSON is nested more than kMaxValueDepth deep or has integers beyond 64 bits.
Result<Value> from_json(const Json& json);
Result<Value> from_json(const nlohmann::ordered_json& json);

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // what a level adds; without it everything is on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};
// json.dumps(value).
Result<std::string> to_json(const Value& value, const JsonStyle& style, Meter& meter);

}  // namespace atom::jinja
