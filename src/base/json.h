// Reading JSON that may be wrong: every accessor returns an error that names the file, the path of
// the field and what stood there. nlohmann's type is only forward declared; .cpp files that build
// JSON include <nlohmann/json.hpp> themselves.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace atom {

using Json = nlohmann::json;

// The deepest nesting of arrays and objects that is accepted: copying and printing a document take
// stack for each level.
inline constexpr int kMaxJsonDepth = 256;
// Fails where text, JSON or not, nests deeper.
Status check_json_depth(std::string_view text, std::string_view origin);

// Parses text; origin (a file name, "request body") stands in front of every error message.
Result<Json> parse_json(std::string_view text, std::string_view origin);
// Reads and parses a file of at most max_bytes.
Result<Json> read_json_file(const std::filesystem::path& path, size_t max_bytes = 256u << 20);

// A view of one value inside a parsed document, which must outlive it.
class JsonView {
 public:
  JsonView(const Json& value, std::string origin);

  bool is_object() const;
  bool is_array() const;
  bool is_string() const;
  bool is_number() const;
  bool is_bool() const;
  bool is_null() const;
  const Json& json() const { return *value_; }
  // Origin and path, e.g. "config.json: rope_scaling.factor".
  const std::string& place() const { return place_; }

  bool has(std::string_view key) const;  // present and not null
  Result<JsonView> at(std::string_view key) const;
  Result<JsonView> at(size_t index) const;
  size_t size() const;                    // of an array or object, else 0
  std::vector<std::string> keys() const;  // of an object, else empty

  // This value itself as a type.
  Result<int64_t> as_int(int64_t min, int64_t max) const;
  Result<double> as_number() const;  // finite
  Result<bool> as_bool() const;
  Result<std::string> as_string() const;

  // A member as a type; the second form yields the fallback where the member is absent or null.
  Result<int64_t> get_int(std::string_view key, int64_t min, int64_t max) const;
  Result<int64_t> get_int(std::string_view key, int64_t min, int64_t max, int64_t fallback) const;
  Result<double> get_number(std::string_view key) const;
  Result<double> get_number(std::string_view key, double fallback) const;
  Result<bool> get_bool(std::string_view key, bool fallback) const;
  Result<std::string> get_string(std::string_view key) const;
  Result<std::string> get_string(std::string_view key, std::string_view fallback) const;

  // Fails at the first member whose key is not among the known ones: typos do not pass silently.
  Status expect_keys(std::initializer_list<std::string_view> known) const;

 private:
  Status type_error(const char* wanted) const;
  const Json* value_;
  std::string place_;
  bool at_root_ = true;  // the place is just a file so far: "file: key" rather than "file.key"
};

}  // namespace atom
