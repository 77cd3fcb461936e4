// Jinja's filters, tests and global functions.
#pragma once

#include <span>

#include "text/jinja_object.h"

namespace atom::jinja {

using Filter = Result<Value> (*)(const Value& value, const CallArgs& args, Meter& meter);
using Test = Result<bool> (*)(const Value& value, const CallArgs& args, Meter& meter);

// Null where there is none of that name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);

// range, dict, cycler, joiner and raise_exception; null for other names. (namespace and
// strftime_now need the state of a render: the interpreter adds them.)
Function::Body find_global(std::string_view name);
// dict(*args, **kwargs).
Result<Dict> collect_dict(const CallArgs& args, Meter& meter);

// value.a.b as filters name attributes: "a.b", "0" or an integer. What is undefined on the way
// becomes the fallback, unless that is null or none.
Result<Value> get_path(const Value& value, const Value& path, Meter& meter,
                       const Value* fallback = nullptr);
// sorted(items, key=keys) with keys of the same length; stable, also in reverse.
Result<std::vector<Value>> sorted(const std::vector<Value>& items, const std::vector<Value>& keys,
                                  bool reverse, Meter& meter);
// Strings in lower case, other values as they are.
Result<Value> ignore_case(const Value& value, Meter& meter);

// The tables' parts, a file each.
struct FilterEntry {
  std::string_view name;
  Filter filter;
};
std::span<const FilterEntry> text_filters();
std::span<const FilterEntry> number_filters();
std::span<const FilterEntry> sequence_filters();

}  // namespace atom::jinja
