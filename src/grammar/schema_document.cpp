#include "grammar/schema_document.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace atom::grammar {
namespace {

constexpr size_t kMaxBytes = 256 * 1024;
constexpr size_t kMaxSchemaDepth = 64;
constexpr size_t kMaxMembers = 5000;

constexpr std::array kConstraints = {"$ref",
                                     "allOf",
                                     "anyOf",
                                     "oneOf",
                                     "type",
                                     "enum",
                                     "const",
                                     "nullable",
                                     "minimum",
                                     "maximum",
                                     "exclusiveMinimum",
                                     "exclusiveMaximum",
                                     "multipleOf",
                                     "minLength",
                                     "maxLength",
                                     "pattern",
                                     "format",
                                     "properties",
                                     "required",
                                     "additionalProperties",
                                     "minProperties",
                                     "items",
                                     "prefixItems",
                                     "minItems",
                                     "maxItems",
                                     "uniqueItems"};
// What says nothing about documents. $defs are looked at where something refers to them.
constexpr std::array kAnnotations = {
    "title",   "description", "default",       "examples",         "example",        "$comment",
    "$schema", "$id",         "$anchor",       "deprecated",       "readOnly",       "writeOnly",
    "$defs",   "definitions", "discriminator", "contentMediaType", "contentEncoding"};

template <size_t kSize>
bool contains(const std::array<const char*, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// Walks a text without building values, so that what is too large or too deep costs nothing.
class LimitChecker : public nlohmann::json_sax<OrderedJson> {
 public:
  const std::string& problem() const { return problem_; }

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return open(); }
  bool start_array(size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t&) override {
    if (++members_.back() <= kMaxMembers) return true;
    problem_ = fmt::format("an object has more than {} members", kMaxMembers);
    return false;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    problem_ = fmt::format("not valid JSON at byte {}", position);
    return false;
  }

 private:
  bool open() {
    members_.push_back(0);
    if (members_.size() <= kMaxSchemaDepth) return true;
    problem_ = fmt::format("nested more than {} deep", kMaxSchemaDepth);
    return false;
  }
  bool close() {
    members_.pop_back();
    return true;
  }
  std::vector<size_t> members_;  // of each open object or array
  std::string problem_;
};

std::string escaped(std::string_view member) {
  std::string result;
  for (const char c : member) {
    if (c == '~') {
      result += "~0";
    } else if (c == '/') {
      result += "~1";
    } else {
      result += c;
    }
  }
  return result;
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// One step of a JSON pointer in a URI fragment: %41 and ~0 ~1 undone.
std::string unescaped(std::string_view step) {
  std::string plain;
  for (size_t i = 0; i < step.size(); ++i) {
    if (step[i] == '%' && i + 2 < step.size() && hex_value(step[i + 1]) >= 0 &&
        hex_value(step[i + 2]) >= 0) {
      plain += static_cast<char>(hex_value(step[i + 1]) * 16 + hex_value(step[i + 2]));
      i += 2;
    } else {
      plain += step[i];
    }
  }
  std::string result;
  for (size_t i = 0; i < plain.size(); ++i) {
    if (plain[i] == '~' && i + 1 < plain.size() && (plain[i + 1] == '0' || plain[i + 1] == '1')) {
      result += plain[++i] == '0' ? '~' : '/';
    } else {
      result += plain[i];
    }
  }
  return result;
}

const OrderedJson* member_of(const OrderedJson& value, const std::string& name) {
  if (value.is_object()) {
    const auto it = value.find(name);
    return it == value.end() ? nullptr : &*it;
  }
  if (!value.is_array() || name.empty() || name.size() > 6) return nullptr;
  size_t index = 0;
  for (const char c : name) {
    if (c < '0' || c > '9') return nullptr;
    index = index * 10 + static_cast<size_t>(c - '0');
  }
  return index < value.size() ? &value[index] : nullptr;
}

}  // namespace

SchemaDocument::SchemaDocument(std::unique_ptr<OrderedJson> root, std::string place)
    : root_(std::move(root)), place_(std::move(place)) {}
SchemaDocument::SchemaDocument(SchemaDocument&&) noexcept = default;
SchemaDocument::~SchemaDocument() = default;

Result<SchemaDocument> SchemaDocument::parse(std::string_view text, std::string place) {
  if (text.size() > kMaxBytes) {
    return error(ErrorCode::kInvalidArgument, "{}: a schema of {} bytes, more than the {} allowed",
                 place, text.size(), kMaxBytes);
  }
  LimitChecker checker;
  if (!OrderedJson::sax_parse(text.begin(), text.end(), &checker)) {
    return error(ErrorCode::kInvalidArgument, "{}: {}", place, checker.problem());
  }
  OrderedJson root = OrderedJson::parse(text.begin(), text.end(), nullptr, false);
  if (root.is_discarded()) {
    return error(ErrorCode::kInvalidArgument, "{}: not valid JSON", place);
  }
  return SchemaDocument(std::make_unique<OrderedJson>(std::move(root)), std::move(place));
}

SchemaRef SchemaDocument::root() const { return {root_.get(), "#"}; }

const OrderedJson* SchemaDocument::find(const SchemaRef& schema, const char* keyword) {
  if (!schema.json->is_object()) return nullptr;
  const auto it = schema.json->find(keyword);
  return it == schema.json->end() ? nullptr : &*it;
}

SchemaRef SchemaDocument::child(const SchemaRef& schema, std::string_view keyword,
                                std::string_view member) const {
  const std::string name(keyword);
  SchemaRef result{&schema.json->at(name), fmt::format("{}/{}", schema.path, escaped(keyword))};
  if (member.data() == nullptr) return result;
  const OrderedJson* inner = member_of(*result.json, std::string(member));
  ATOM_CHECK(inner != nullptr, "the caller has seen the member");
  return {inner, fmt::format("{}/{}", result.path, escaped(member))};
}

Result<SchemaRef> SchemaDocument::follow(const SchemaRef& schema) const {
  const OrderedJson& value = *find(schema, "$ref");
  const SchemaRef here{&value, schema.path + "/$ref"};
  if (!value.is_string()) return invalid(here, "expected a string");
  const auto& target = value.get_ref<const std::string&>();
  if (target != "#" && !target.starts_with("#/")) {
    return unsupported(here, "references to anything but '#/...' are");
  }
  const OrderedJson* at = root_.get();
  for (size_t begin = 1; begin < target.size();) {
    const size_t end = std::min(target.find('/', begin + 1), target.size());
    at = member_of(*at, unescaped(std::string_view(target).substr(begin + 1, end - begin - 1)));
    if (at == nullptr) return invalid(here, "'{}' is not there", target);
    begin = end;
  }
  return SchemaRef{at, target};
}

Status SchemaDocument::unsupported(const SchemaRef& schema, std::string_view what) const {
  return error(ErrorCode::kUnsupported, "{}: {}: {} not supported", place_, schema.path, what);
}

Status SchemaDocument::check_keywords(const SchemaRef& schema) const {
  if (schema.json->is_boolean()) return {};
  if (!schema.json->is_object())
    return invalid(schema, "expected a schema: an object, true or false");
  for (const auto& [key, value] : schema.json->items()) {
    if (contains(kConstraints, key) || contains(kAnnotations, key) || key.starts_with("x-")) {
      continue;
    }
    return unsupported({&value, fmt::format("{}/{}", schema.path, escaped(key))},
                       fmt::format("the keyword '{}' is", key));
  }
  return {};
}

Result<int64_t> SchemaDocument::get_count(const SchemaRef& schema, const char* keyword,
                                          int64_t fallback) const {
  const OrderedJson* value = find(schema, keyword);
  if (value == nullptr) return fallback;
  constexpr double kMost = 1e15;
  // 2.0 is an integer to JSON Schema.
  const double number = value->is_number() ? value->get<double>() : -1;
  if (!(number >= 0 && number <= kMost) ||
      number != static_cast<double>(static_cast<int64_t>(number))) {
    return invalid(child(schema, keyword), "expected an integer from 0 to 10^15");
  }
  return static_cast<int64_t>(number);
}

Result<bool> SchemaDocument::get_bool(const SchemaRef& schema, const char* keyword,
                                      bool fallback) const {
  const OrderedJson* value = find(schema, keyword);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) return invalid(child(schema, keyword), "expected true or false");
  return value->get<bool>();
}

}  // namespace atom::grammar
