#include "grammar/schema_conditions.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "grammar/string_formats.h"

namespace atom::grammar {
namespace {

constexpr std::pair<std::string_view, unsigned> kTypeNames[] = {
    {"null", kNull},     {"boolean", kBoolean}, {"object", kObject},  {"array", kArray},
    {"string", kString}, {"number", kNumber},   {"integer", kInteger}};

// Keywords that say something about values of one type only.
constexpr std::pair<const char*, unsigned> kKeywordTypes[] = {
    {"minimum", kNumber},          {"maximum", kNumber},    {"exclusiveMinimum", kNumber},
    {"exclusiveMaximum", kNumber}, {"multipleOf", kNumber}, {"minLength", kString},
    {"maxLength", kString},        {"pattern", kString},    {"format", kString},
    {"properties", kObject},       {"required", kObject},   {"additionalProperties", kObject},
    {"minProperties", kObject},    {"items", kArray},       {"prefixItems", kArray},
    {"minItems", kArray},          {"maxItems", kArray},    {"uniqueItems", kArray}};

std::string short_text(const OrderedJson& value) {
  std::string text = value.dump();
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

unsigned type_of(const OrderedJson& value) {
  if (value.is_null()) return kNull;
  if (value.is_boolean()) return kBoolean;
  if (value.is_object()) return kObject;
  if (value.is_array()) return kArray;
  if (value.is_string()) return kString;
  const std::optional<Decimal> number = parse_decimal(value.dump());
  return number && number->fraction.empty() ? kInteger : kFractional;
}

unsigned types_mentioned(const Conjunction& schemas) {
  unsigned types = 0;
  for (const SchemaRef& schema : schemas) {
    for (const auto& [keyword, type] : kKeywordTypes) {
      if (SchemaDocument::find(schema, keyword) != nullptr) types |= type;
    }
  }
  return types;
}

bool is_one_type(unsigned types) {
  return types == kNumber || (types != 0 && (types & (types - 1)) == 0);
}

int64_t code_points(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

// The remainder of a whole number.
int64_t remainder(const std::string& digits, int64_t divisor) {
  int64_t result = 0;
  for (const char c : digits) result = (result * 10 + (c - '0')) % divisor;
  return result;
}

bool satisfies_number(const Decimal& value, const NumberConditions& number) {
  if (number.least) {
    const int order = compare(value, number.least->value);
    if (order < 0 || (order == 0 && number.least->exclusive)) return false;
  }
  if (number.most) {
    const int order = compare(value, number.most->value);
    if (order > 0 || (order == 0 && number.most->exclusive)) return false;
  }
  if (number.integer && !value.fraction.empty()) return false;
  if (number.divisor > 1 && remainder(value.whole, number.divisor) != 0) return false;
  return value.fraction.size() <= static_cast<size_t>(number.decimal_places) ||
         number.decimal_places == NumberConditions{}.decimal_places;
}

}  // namespace

bool is_among(const OrderedJson& value, const std::vector<const OrderedJson*>& listed) {
  // The order of an object's members means nothing, though OrderedJson compares it.
  if (value.is_structured()) {
    const nlohmann::json plain(value);
    return std::any_of(listed.begin(), listed.end(), [&](const OrderedJson* other) {
      return other->is_structured() && plain == nlohmann::json(*other);
    });
  }
  return std::any_of(listed.begin(), listed.end(),
                     [&](const OrderedJson* other) { return *other == value; });
}

int64_t comparison_work(size_t a, size_t b) { return static_cast<int64_t>(a * (b / 8 + 1)); }

Result<std::vector<SchemaRef>> ConditionReader::members(const SchemaRef& schema,
                                                        const char* keyword) const {
  const OrderedJson* list = SchemaDocument::find(schema, keyword);
  std::vector<SchemaRef> result;
  if (list == nullptr) return result;
  if (!list->is_array() || list->empty()) {
    return document_.invalid(document_.child(schema, keyword), "expected an array of schemas");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    result.push_back(document_.child(schema, keyword, std::to_string(i)));
  }
  return result;
}

Result<Conditions> ConditionReader::read(Conjunction schemas) {
  Conditions conditions;
  bool typed = false;
  for (const SchemaRef& schema : schemas) {
    ATOM_TRY(budget_.spend(4, document_.place_of(schema)));
    ATOM_TRY(read_types(schema, conditions, typed));
    ATOM_TRY(read_number(schema, conditions.number));
    ATOM_TRY(read_array(schema, conditions));
    ATOM_TRY(read_object(schema, conditions));
  }
  // {"properties": ...} is meant to describe an object, though JSON Schema lets it pass any number.
  conditions.stated_types = conditions.types;
  const unsigned mentioned = types_mentioned(schemas);
  if (!typed && is_one_type(mentioned)) conditions.types &= mentioned;
  for (const SchemaRef& schema : schemas) ATOM_TRY(read_string(schema, conditions));
  for (const SchemaRef& schema : schemas) ATOM_TRY(read_values(schema, conditions));
  conditions.schemas = std::move(schemas);
  if (conditions.values) ATOM_TRY(keep_satisfying_values(conditions));
  return conditions;
}

Status ConditionReader::read_types(const SchemaRef& schema, Conditions& conditions,
                                   bool& typed) const {
  typed |= SchemaDocument::find(schema, "enum") != nullptr ||
           SchemaDocument::find(schema, "const") != nullptr;
  const bool nullable = ATOM_TRY(document_.get_bool(schema, "nullable", false));
  const OrderedJson* type = SchemaDocument::find(schema, "type");
  if (type == nullptr) {
    if (!nullable) return {};
    return document_.unsupported(document_.child(schema, "nullable"),
                                 "'nullable' without 'type' is");
  }
  typed = true;
  unsigned allowed = nullable ? kNull : 0;
  const auto add = [&](const OrderedJson& name) -> Status {
    for (const auto& [known, bits] : kTypeNames) {
      if (name.is_string() && name.get_ref<const std::string&>() == known) {
        allowed |= bits;
        return {};
      }
    }
    return document_.invalid(document_.child(schema, "type"),
                             "expected the name of a type, found {}", short_text(name));
  };
  if (type->is_array()) {
    for (const OrderedJson& name : *type) ATOM_TRY(add(name));
  } else {
    ATOM_TRY(add(*type));
  }
  conditions.types &= allowed;
  return {};
}

Status ConditionReader::read_number(const SchemaRef& schema, NumberConditions& number) const {
  for (const bool exclusive : {false, true}) {
    const auto least =
        ATOM_TRY(read_bound(schema, exclusive ? "exclusiveMinimum" : "minimum", exclusive));
    if (least) {
      const int order = number.least ? compare(least->value, number.least->value) : 1;
      if (order > 0 || (order == 0 && exclusive)) number.least = least;
    }
    const auto most =
        ATOM_TRY(read_bound(schema, exclusive ? "exclusiveMaximum" : "maximum", exclusive));
    if (most) {
      const int order = number.most ? compare(most->value, number.most->value) : -1;
      if (order < 0 || (order == 0 && exclusive)) number.most = most;
    }
  }
  return read_divisor(schema, number);
}

Result<std::optional<Bound>> ConditionReader::read_bound(const SchemaRef& schema,
                                                         const char* keyword,
                                                         bool exclusive) const {
  const OrderedJson* value = SchemaDocument::find(schema, keyword);
  if (value == nullptr) return std::optional<Bound>();
  const SchemaRef here = document_.child(schema, keyword);
  if (!value->is_number()) {
    return document_.invalid(here, "expected a number, found {}", short_text(*value));
  }
  const std::optional<Decimal> decimal = parse_decimal(value->dump());
  if (!decimal) {
    return document_.unsupported(here,
                                 "numbers of more than 40 digits before or after the point are");
  }
  return std::optional<Bound>(Bound{*decimal, exclusive});
}

Status ConditionReader::read_divisor(const SchemaRef& schema, NumberConditions& number) const {
  const OrderedJson* value = SchemaDocument::find(schema, "multipleOf");
  if (value == nullptr) return {};
  const SchemaRef here = document_.child(schema, "multipleOf");
  const std::optional<Decimal> decimal =
      value->is_number() ? parse_decimal(value->dump()) : std::nullopt;
  if (!decimal || decimal->negative || decimal->is_zero()) {
    return document_.invalid(here, "expected a number above 0, found {}", short_text(*value));
  }
  if (decimal->whole.empty() &&
      decimal->fraction.find_first_not_of('0') + 1 == decimal->fraction.size() &&
      decimal->fraction.back() == '1') {
    number.decimal_places =
        std::min(number.decimal_places, static_cast<int>(decimal->fraction.size()));
    return {};
  }
  if (decimal->fraction.empty() && decimal->whole.size() <= 4) {
    const int64_t divisor = std::lcm(number.divisor, int64_t{std::stoi(decimal->whole)});
    if (divisor <= kMaxDivisor) {
      number.integer = true;
      number.divisor = divisor;
      return {};
    }
  }
  return document_.unsupported(
      here, fmt::format("anything but 0.1, 0.01, ... and integers up to {} (several together: "
                        "their least common multiple) is",
                        kMaxDivisor));
}

Status ConditionReader::read_string(const SchemaRef& schema, Conditions& conditions) const {
  conditions.min_length =
      std::max(conditions.min_length, ATOM_TRY(document_.get_count(schema, "minLength", 0)));
  conditions.max_length = std::min(
      conditions.max_length, ATOM_TRY(document_.get_count(schema, "maxLength", Node::kUnbounded)));
  for (const char* keyword : {"pattern", "format"}) {
    const OrderedJson* value = SchemaDocument::find(schema, keyword);
    if (value == nullptr) continue;
    const SchemaRef here = document_.child(schema, keyword);
    if (!value->is_string()) {
      return document_.invalid(here, "expected a string, found {}", short_text(*value));
    }
    const auto& text = value->get_ref<const std::string&>();
    if (std::string_view(keyword) == "pattern") {
      conditions.patterns.push_back({text, /*search=*/true, document_.place_of(here)});
      continue;
    }
    // "int32" on an integer and the like are notes of API descriptions.
    if ((conditions.types & kString) == 0) continue;
    std::vector<std::string> patterns = format_patterns(text);
    if (patterns.empty()) {
      return document_.unsupported(here, fmt::format("formats other than {} are", format_names()));
    }
    for (std::string& pattern : patterns) {
      conditions.patterns.push_back(
          {std::move(pattern), /*search=*/false, document_.place_of(here)});
    }
  }
  return {};
}

Status ConditionReader::read_array(const SchemaRef& schema, Conditions& conditions) const {
  conditions.min_items =
      std::max(conditions.min_items, ATOM_TRY(document_.get_count(schema, "minItems", 0)));
  conditions.max_items = std::min(
      conditions.max_items, ATOM_TRY(document_.get_count(schema, "maxItems", Node::kUnbounded)));
  if (ATOM_TRY(document_.get_bool(schema, "uniqueItems", false))) {
    return document_.unsupported(document_.child(schema, "uniqueItems"), "'uniqueItems' is");
  }
  const OrderedJson* prefix = SchemaDocument::find(schema, "prefixItems");
  if (prefix != nullptr && !prefix->is_array()) {
    return document_.invalid(document_.child(schema, "prefixItems"),
                             "expected an array of schemas");
  }
  const OrderedJson* items = SchemaDocument::find(schema, "items");
  if (items != nullptr && items->is_array()) {
    return document_.invalid(document_.child(schema, "items"),
                             "expected a schema; a list of them is 'prefixItems'");
  }
  return {};
}

Status ConditionReader::read_object(const SchemaRef& schema, Conditions& conditions) const {
  const OrderedJson* properties = SchemaDocument::find(schema, "properties");
  if (properties != nullptr && !properties->is_object()) {
    return document_.invalid(document_.child(schema, "properties"),
                             "expected an object of schemas");
  }
  if (const OrderedJson* required = SchemaDocument::find(schema, "required")) {
    const bool names = required->is_array() &&
                       std::all_of(required->begin(), required->end(),
                                   [](const OrderedJson& name) { return name.is_string(); });
    if (!names) {
      return document_.invalid(document_.child(schema, "required"), "expected an array of names");
    }
    for (const OrderedJson& name : *required) conditions.required.insert(name.get<std::string>());
  }
  const int64_t min_properties = ATOM_TRY(document_.get_count(schema, "minProperties", 0));
  if (min_properties > static_cast<int64_t>(conditions.required.size())) {
    return document_.unsupported(document_.child(schema, "minProperties"),
                                 "more than there are required properties is");
  }
  return {};
}

Status ConditionReader::read_values(const SchemaRef& schema, Conditions& conditions) const {
  std::vector<const OrderedJson*> listed;
  for (const char* keyword : {"enum", "const"}) {
    const OrderedJson* value = SchemaDocument::find(schema, keyword);
    if (value == nullptr) continue;
    listed.clear();
    if (std::string_view(keyword) == "const") {
      listed.push_back(value);
    } else {
      if (!value->is_array()) {
        return document_.invalid(document_.child(schema, "enum"), "expected an array of values");
      }
      for (const OrderedJson& member : *value) listed.push_back(&member);
    }
    if (conditions.values) {
      ATOM_TRY(budget_.spend(comparison_work(conditions.values->size(), listed.size()),
                             document_.place_of(schema)));
      std::erase_if(*conditions.values,
                    [&](const OrderedJson* value) { return !is_among(*value, listed); });
    } else {
      conditions.values = listed;
    }
  }
  return {};
}

Status ConditionReader::keep_satisfying_values(Conditions& conditions) {
  std::vector<const OrderedJson*> kept;
  for (const OrderedJson* value : *conditions.values) {
    if (ATOM_TRY(satisfies(*value, conditions))) kept.push_back(value);
  }
  conditions.values = std::move(kept);
  return {};
}

Result<bool> ConditionReader::satisfies(const OrderedJson& value, const Conditions& conditions) {
  const unsigned type = type_of(value);
  if ((conditions.types & type) == 0) return false;
  if ((type & kNumber) != 0) {
    const std::optional<Decimal> number = parse_decimal(value.dump());
    if (number) return satisfies_number(*number, conditions.number);
    const bool bounded = conditions.number.least || conditions.number.most;
    return !bounded && conditions.number.divisor == 1;
  }
  if (type == kString) {
    const auto& text = value.get_ref<const std::string&>();
    const int64_t length = code_points(text);
    if (length < conditions.min_length || length > conditions.max_length) return false;
    return matches_patterns(text, conditions);
  }
  if ((type & (kObject | kArray)) != 0 && (types_mentioned(conditions.schemas) & type) != 0) {
    return document_.unsupported(
        conditions.schemas[0],
        "an object or array in enum or const beside other conditions on it is");
  }
  return true;
}

Result<bool> ConditionReader::matches_patterns(const std::string& text,
                                               const Conditions& conditions) {
  for (const StringPattern& pattern : conditions.patterns) {
    const Dfa dfa = ATOM_TRY(compile_pattern(pattern.pattern, pattern.search, CharSpelling::kUtf8,
                                             budget_, pattern.place));
    if (!dfa.accepts(text)) return false;
  }
  return true;
}

}  // namespace atom::grammar
