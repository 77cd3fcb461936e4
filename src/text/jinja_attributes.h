// value.name, value[key] and value[a:b], with the methods of strings, lists, tuples and dicts.
#pragma once

#include <span>

#include "text/jinja_object.h"

namespace atom::jinja {

// value.name: a method or attribute if there is one, else the item of that key, else undefined.
Result<Value> get_attribute(const Value& value, std::string_view name, Meter& meter);
// value[key]: the item, else the method or attribute of that name, else undefined.
Result<Value> get_item(const Value& value, const Value& key, Meter& meter);
// value[start:stop:step]; the bounds are integers or none.
Result<Value> get_slice(const Value& value, const Value& start, const Value& stop,
                        const Value& step, Meter& meter);

struct MethodEntry {
  std::string_view name;
  Method::Body body;  // null: it would change the value, which templates may not do
};
std::span<const MethodEntry> string_methods();
std::span<const MethodEntry> list_methods();
std::span<const MethodEntry> tuple_methods();
std::span<const MethodEntry> dict_methods();
// The method of that name of a plain value, or null.
const MethodEntry* find_method(const Value& value, std::string_view name);

// text.replace(from, to, limit); a negative limit is none.
Result<Value> replace_text(std::string_view text, std::string_view from, std::string_view to,
                           int64_t limit, Meter& meter);

// Arguments of built-in functions, with errors that name the function.
Result<int64_t> integer_argument(const Value& value, std::string_view function);
Result<std::string_view> string_argument(const Value& value, std::string_view function);

}  // namespace atom::jinja
