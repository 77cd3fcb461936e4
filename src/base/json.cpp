#include "base/json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json_brackets.h"

namespace atom {
namespace {

std::string shortened(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace

Status check_json_depth(std::string_view text, std::string_view origin) {
  JsonBrackets brackets(text);
  while (brackets.next()) {
    if (brackets.depth() > kMaxJsonDepth) {
      return error(ErrorCode::kInvalidArgument, "{}: nested more than {} levels deep", origin,
                   kMaxJsonDepth);
    }
  }
  return {};
}

Result<Json> parse_json(std::string_view text, std::string_view origin) {
  ATOM_TRY(check_json_depth(text, origin));
  Json value = Json::parse(text.begin(), text.end(), nullptr, false);
  if (!value.is_discarded()) return value;
  return error(ErrorCode::kCorrupt, "{}: not valid JSON", origin);
}

Result<Json> read_json_file(const std::filesystem::path& path, size_t max_bytes) {
  const MappedFile file = ATOM_TRY(MappedFile::open(path));
  if (file.bytes().size() > max_bytes) {
    return error(ErrorCode::kInvalidArgument, "{}: {} bytes, more than the {} allowed here",
                 path.string(), file.bytes().size(), max_bytes);
  }
  return parse_json(file.text(), path.string());
}

JsonView::JsonView(const Json& value, std::string origin)
    : value_(&value), place_(std::move(origin)) {}

bool JsonView::is_object() const { return value_->is_object(); }
bool JsonView::is_array() const { return value_->is_array(); }
bool JsonView::is_string() const { return value_->is_string(); }
bool JsonView::is_number() const { return value_->is_number(); }
bool JsonView::is_bool() const { return value_->is_boolean(); }
bool JsonView::is_null() const { return value_->is_null(); }

Status JsonView::type_error(const char* wanted) const {
  return error(ErrorCode::kCorrupt, "{}: expected {}, found {}", place_, wanted,
               shortened(*value_));
}

bool JsonView::has(std::string_view key) const {
  if (!value_->is_object()) return false;
  const auto it = value_->find(key);
  return it != value_->end() && !it->is_null();
}

Result<JsonView> JsonView::at(std::string_view key) const {
  if (!value_->is_object()) return type_error("an object");
  const auto it = value_->find(key);
  if (it == value_->end()) {
    return error(ErrorCode::kNotFound, "{}: '{}' is missing", place_, key);
  }
  JsonView child(*it, fmt::format("{}{}{}", place_, at_root_ ? ": " : ".", key));
  child.at_root_ = false;
  return child;
}

Result<JsonView> JsonView::at(size_t index) const {
  if (!value_->is_array()) return type_error("an array");
  if (index >= value_->size()) {
    return error(ErrorCode::kNotFound, "{}[{}] is missing", place_, index);
  }
  JsonView child((*value_)[index], fmt::format("{}[{}]", place_, index));
  child.at_root_ = false;
  return child;
}

size_t JsonView::size() const {
  return value_->is_array() || value_->is_object() ? value_->size() : 0;
}

std::vector<std::string> JsonView::keys() const {
  std::vector<std::string> result;
  if (!value_->is_object()) return result;
  for (auto it = value_->begin(); it != value_->end(); ++it) result.push_back(it.key());
  return result;
}

Result<int64_t> JsonView::as_int(int64_t min, int64_t max) const {
  int64_t number = 0;
  if (value_->is_number_unsigned()) {
    const auto wide = value_->get<uint64_t>();
    if (wide > static_cast<uint64_t>(INT64_MAX)) return type_error("a smaller integer");
    number = static_cast<int64_t>(wide);
  } else if (value_->is_number_integer()) {
    number = value_->get<int64_t>();
  } else {
    return type_error("an integer");
  }
  if (number < min || number > max) {
    return error(ErrorCode::kInvalidArgument, "{}: {} is not within {}..{}", place_, number, min,
                 max);
  }
  return number;
}

Result<double> JsonView::as_number() const {
  if (!value_->is_number()) return type_error("a number");
  const auto number = value_->get<double>();
  if (!std::isfinite(number)) return type_error("a finite number");
  return number;
}

Result<bool> JsonView::as_bool() const {
  if (!value_->is_boolean()) return type_error("true or false");
  return value_->get<bool>();
}

Result<std::string> JsonView::as_string() const {
  if (!value_->is_string()) return type_error("a string");
  return value_->get<std::string>();
}

Result<int64_t> JsonView::get_int(std::string_view key, int64_t min, int64_t max) const {
  return ATOM_TRY(at(key)).as_int(min, max);
}
Result<int64_t> JsonView::get_int(std::string_view key, int64_t min, int64_t max,
                                  int64_t fallback) const {
  return has(key) ? get_int(key, min, max) : Result<int64_t>(fallback);
}
Result<double> JsonView::get_number(std::string_view key) const {
  return ATOM_TRY(at(key)).as_number();
}
Result<double> JsonView::get_number(std::string_view key, double fallback) const {
  return has(key) ? get_number(key) : Result<double>(fallback);
}
Result<bool> JsonView::get_bool(std::string_view key, bool fallback) const {
  return has(key) ? ATOM_TRY(at(key)).as_bool() : Result<bool>(fallback);
}
Result<std::string> JsonView::get_string(std::string_view key) const {
  return ATOM_TRY(at(key)).as_string();
}
Result<std::string> JsonView::get_string(std::string_view key, std::string_view fallback) const {
  return has(key) ? get_string(key) : Result<std::string>(std::string(fallback));
}

Status JsonView::expect_keys(std::initializer_list<std::string_view> known) const {
  for (const std::string& key : keys()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      return error(ErrorCode::kInvalidArgument, "{}: unknown field '{}'", place_, key);
    }
  }
  return {};
}

}  // namespace atom
