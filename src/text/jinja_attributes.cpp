#include "text/jinja_attributes.h"

#include <algorithm>

#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

Value missing_attribute(const Value& value, std::string_view name) {
  if (value.is(Kind::kNone))
    return Value::undefined(fmt::format("'None' has no attribute '{}'", name));
  return Value::undefined(fmt::format("'{} object' has no attribute '{}'", type_name(value), name));
}

// A method or attribute proper; nothing where there is none.
Result<std::optional<Value>> own_attribute(const Value& value, std::string_view name,
                                           Meter& meter) {
  if (value.is(Kind::kObject)) return value.as_object().find_attribute(name, meter);
  const MethodEntry* method = find_method(value, name);
  if (method == nullptr) return std::optional<Value>();
  if (method->body == nullptr) {
    return std::optional<Value>(Value::undefined(
        fmt::format("access to attribute '{}' of '{}' object is unsafe.", name, type_name(value))));
  }
  return std::optional<Value>(Value::object(std::make_shared<Method>(value, method->body)));
}

Result<std::optional<Value>> item_at(const Value& value, int64_t index, Meter& meter) {
  const auto in_range = [&](int64_t size) {
    if (index < 0) index += size;
    return index >= 0 && index < size;
  };
  if (value.is_sequence()) {
    const std::vector<Value>& items = value.items();
    if (!in_range(static_cast<int64_t>(items.size()))) return std::optional<Value>();
    return std::optional<Value>(items[static_cast<size_t>(index)]);
  }
  if (const auto* range = object_cast<Range>(value)) {
    if (!in_range(range->length)) return std::optional<Value>();
    return std::optional<Value>(Value::integer(range->at(index)));
  }
  const std::string& text = value.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  if (is_ascii(text)) {
    if (!in_range(static_cast<int64_t>(text.size()))) return std::optional<Value>();
    return std::optional<Value>(
        Value::string(std::string(1, text[static_cast<size_t>(index)]), value.is_safe()));
  }
  const std::vector<size_t> offsets = code_point_offsets(text);
  if (!in_range(static_cast<int64_t>(offsets.size()) - 1)) return std::optional<Value>();
  const size_t begin = offsets[static_cast<size_t>(index)];
  return std::optional<Value>(Value::string(
      text.substr(begin, offsets[static_cast<size_t>(index) + 1] - begin), value.is_safe()));
}

// value[key] proper; nothing where there is no such item.
Result<std::optional<Value>> own_item(const Value& value, const Value& key, Meter& meter) {
  if (value.is(Kind::kDict)) {
    const Value* found = value.as_dict().find(key);
    return found == nullptr ? std::optional<Value>() : *found;
  }
  const bool indexable =
      value.is_sequence() || value.is(Kind::kString) || object_cast<Range>(value) != nullptr;
  if (indexable && key.is_integral()) return item_at(value, key.as_int(), meter);
  return std::optional<Value>();
}

Result<std::vector<int64_t>> slice_indices(int64_t size, const Value& start, const Value& stop,
                                           const Value& step, Meter& meter) {
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is(Kind::kNone) && !bound->is_integral()) {
      return type_error("slice indices must be integers or None, not {}", type_name(*bound));
    }
  }
  const int64_t by = step.is(Kind::kNone) ? 1 : step.as_int();
  if (by == 0) return type_error("slice step cannot be zero");
  const int64_t low = by < 0 ? -1 : 0;
  const int64_t high = by < 0 ? size - 1 : size;
  const auto clamp = [&](const Value& bound, int64_t fallback) {
    if (bound.is(Kind::kNone)) return fallback;
    int64_t at = bound.as_int();
    if (at < 0) at = at < -size ? low : at + size;
    return std::clamp(at, low, high);
  };
  const int64_t from = clamp(start, by < 0 ? high : low);
  const int64_t to = clamp(stop, by < 0 ? low : high);
  std::vector<int64_t> indices;
  int64_t at = from;
  while (by > 0 ? at < to : at > to) {
    indices.push_back(at);
    if (__builtin_add_overflow(at, by, &at)) break;
  }
  ATOM_TRY(meter.charge(static_cast<int64_t>(indices.size()) / 16));
  return indices;
}

Result<Value> slice_string(const Value& value, const Value& start, const Value& stop,
                           const Value& step, Meter& meter) {
  const std::string& text = value.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  const std::vector<size_t> offsets = code_point_offsets(text);
  std::string out;
  for (const int64_t index : ATOM_TRY(
           slice_indices(static_cast<int64_t>(offsets.size()) - 1, start, stop, step, meter))) {
    const auto at = static_cast<size_t>(index);
    out.append(text, offsets[at], offsets[at + 1] - offsets[at]);
  }
  return Value::string(std::move(out), value.is_safe());
}

}  // namespace

const MethodEntry* find_method(const Value& value, std::string_view name) {
  std::span<const MethodEntry> methods;
  switch (value.kind()) {
    case Kind::kString:
      methods = string_methods();
      break;
    case Kind::kList:
      methods = list_methods();
      break;
    case Kind::kTuple:
      methods = tuple_methods();
      break;
    case Kind::kDict:
      methods = dict_methods();
      break;
    default:
      return nullptr;
  }
  const auto it = std::find_if(methods.begin(), methods.end(),
                               [&](const MethodEntry& method) { return method.name == name; });
  return it == methods.end() ? nullptr : &*it;
}

Result<Value> get_attribute(const Value& value, std::string_view name, Meter& meter) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (std::optional<Value> found = ATOM_TRY(own_attribute(value, name, meter))) return *found;
  if (value.is(Kind::kDict)) {
    if (const Value* found = value.as_dict().find(name)) return *found;
  }
  return missing_attribute(value, name);
}

Result<Value> get_item(const Value& value, const Value& key, Meter& meter) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (std::optional<Value> found = ATOM_TRY(own_item(value, key, meter))) return *found;
  if (key.is(Kind::kString)) {
    if (std::optional<Value> found = ATOM_TRY(own_attribute(value, key.as_string(), meter))) {
      return *found;
    }
    return missing_attribute(value, key.as_string());
  }
  std::string shown;
  ATOM_TRY(append_repr(shown, key, meter));
  if (shown.size() > 60) shown = "...";
  return Value::undefined(fmt::format("{} object has no element {}", type_name(value), shown));
}

Result<Value> get_slice(const Value& value, const Value& start, const Value& stop,
                        const Value& step, Meter& meter) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (value.is(Kind::kString)) return slice_string(value, start, stop, step, meter);
  std::vector<Value> all;
  if (value.is_sequence()) {
    const auto size = static_cast<int64_t>(value.items().size());
    for (const int64_t index : ATOM_TRY(slice_indices(size, start, stop, step, meter))) {
      all.push_back(value.items()[static_cast<size_t>(index)]);
    }
    return value.is(Kind::kList) ? Value::list(std::move(all)) : Value::tuple(std::move(all));
  }
  if (const auto* range = object_cast<Range>(value)) {
    for (const int64_t index : ATOM_TRY(slice_indices(range->length, start, stop, step, meter))) {
      all.push_back(Value::integer(range->at(index)));
    }
    return Value::list(std::move(all));
  }
  return type_error("'{}' object is not subscriptable with a slice", type_name(value));
}

Result<int64_t> integer_argument(const Value& value, std::string_view function) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (value.is_integral()) return value.as_int();
  return type_error("{}(): '{}' object cannot be interpreted as an integer", function,
                    type_name(value));
}

Result<std::string_view> string_argument(const Value& value, std::string_view function) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (value.is(Kind::kString)) return std::string_view(value.as_string());
  return type_error("{}() argument must be str, not {}", function, type_name(value));
}

}  // namespace atom::jinja
