// Filters on lists, dicts and other things that can be iterated over.
#include <algorithm>
#include <numeric>

#include "text/jinja_attributes.h"
#include "text/jinja_builtins.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

bool given(const Value* argument) { return argument && !argument->is(Kind::kNone); }

Result<Value> count(const Value& value, Args args, Meter& meter) {
  if (!args.positional.empty() || !args.named.empty()) {
    return type_error("length takes no arguments");
  }
  return Value::integer(ATOM_TRY(length(value, meter)));
}

Result<Value> first(const Value& value, Args, Meter& meter) {
  if (auto* iterator = object_cast<Iterator>(value)) {
    if (iterator->next < iterator->items.size()) return iterator->items[iterator->next++];
    return Value::undefined("No first item, sequence was empty.");
  }
  if (value.is_sequence() && !value.items().empty()) return value.items().front();
  const std::vector<Value> items = ATOM_TRY(iterate(value, meter));
  return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Result<Value> last(const Value& value, Args, Meter& meter) {
  if (object_cast<Iterator>(value) != nullptr) {
    return type_error("'generator' object is not reversible");
  }
  if (value.is_sequence() && !value.items().empty()) return value.items().back();
  const std::vector<Value> items = ATOM_TRY(iterate(value, meter));
  return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Result<Value> list(const Value& value, Args, Meter& meter) {
  return Value::list(ATOM_TRY(iterate(value, meter)));
}

Result<Value> items(const Value& value, Args, Meter& meter) {
  if (value.is(Kind::kUndefined)) return Iterator::make({});
  if (!value.is(Kind::kDict)) return type_error("Can only get item pairs from a mapping.");
  return Iterator::make(
      ATOM_TRY(iterate(Value::object(std::make_shared<View>(value, View::Part::kItems)), meter)));
}

Result<Value> reverse(const Value& value, Args, Meter& meter) {
  if (value.is(Kind::kUndefined)) return Iterator::make({});
  std::vector<Value> all = ATOM_TRY(iterate(value, meter));
  std::reverse(all.begin(), all.end());
  if (!value.is(Kind::kString)) return Iterator::make(std::move(all));
  std::string out;
  for (const Value& item : all) out += item.as_string();
  return Value::string(std::move(out));
}

Result<Value> join(const Value& value, Args args, Meter& meter) {
  const auto [separator, attribute] = ATOM_TRY(bind(args, "join", {"d", "attribute"}, 0));
  const std::string between = separator == nullptr ? "" : ATOM_TRY(to_str(*separator, meter));
  std::string out;
  bool at_start = true;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    if (!at_start) {
      ATOM_TRY(meter.charge_growth(out.size(), between.size()));
      out += between;
    }
    at_start = false;
    ATOM_TRY(append_str(out, given(attribute) ? ATOM_TRY(get_path(item, *attribute, meter)) : item,
                        meter));
  }
  return Value::string(std::move(out));
}

Result<Value> make_default(const Value& value, Args args, Meter&) {
  const auto [fallback, boolean] = ATOM_TRY(bind(args, "default", {"default_value", "boolean"}, 0));
  const bool use = value.is(Kind::kUndefined) || (boolean && truthy(*boolean) && !truthy(value));
  if (!use) return value;
  return fallback == nullptr ? Value::string("") : *fallback;
}

Result<Value> attribute(const Value& value, Args args, Meter& meter) {
  const auto [name] = ATOM_TRY(bind(args, "attr", {"name"}, 1));
  const std::string_view wanted = ATOM_TRY(string_argument(*name, "attr"));
  if (value.is(Kind::kDict) && find_method(value, wanted) == nullptr) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", wanted));
  }
  return get_attribute(value, wanted, meter);
}

CallArgs rest_of(Args args, size_t skip) {
  CallArgs rest = args;
  rest.positional.erase(rest.positional.begin(),
                        rest.positional.begin() + static_cast<std::ptrdiff_t>(skip));
  return rest;
}

Result<Value> map_attribute(const Value& value, Args args, Meter& meter) {
  const auto [path, fallback] = ATOM_TRY(bind(args, "map", {"attribute", "default"}, 1));
  std::vector<Value> out;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    out.push_back(ATOM_TRY(get_path(item, *path, meter, fallback)));
  }
  return Iterator::make(std::move(out));
}

Result<Value> map(const Value& value, Args args, Meter& meter) {
  if (!truthy(value)) return Iterator::make({});
  if (args.positional.empty() && args.find_named("attribute") != nullptr) {
    return map_attribute(value, args, meter);
  }
  if (args.positional.empty()) return type_error("map requires a filter argument");
  const std::string_view name = ATOM_TRY(string_argument(args.positional[0], "map"));
  const Filter filter = find_filter(name);
  if (filter == nullptr) return type_error("No filter named '{}'.", name);
  const CallArgs rest = rest_of(args, 1);
  std::vector<Value> out;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    out.push_back(ATOM_TRY(filter(item, rest, meter)));
  }
  return Iterator::make(std::move(out));
}

template <bool kKeep, bool kAttribute>
Result<Value> select(const Value& value, Args args, Meter& meter) {
  if (!truthy(value)) return Iterator::make({});
  constexpr size_t kOffset = kAttribute ? 1 : 0;
  if (args.positional.size() < kOffset) return type_error("Missing parameter for attribute name");
  Test test = nullptr;
  CallArgs rest;
  if (args.positional.size() > kOffset) {
    const std::string_view name = ATOM_TRY(string_argument(args.positional[kOffset], "select"));
    test = find_test(name);
    if (test == nullptr) return type_error("No test named '{}'.", name);
    rest = rest_of(args, kOffset + 1);
  }
  std::vector<Value> out;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    const Value subject = kAttribute ? ATOM_TRY(get_path(item, args.positional[0], meter)) : item;
    const bool passes = test == nullptr ? truthy(subject) : ATOM_TRY(test(subject, rest, meter));
    if (passes == kKeep) out.push_back(item);
  }
  return Iterator::make(std::move(out));
}

// What sorting compares: the item, its attribute or attributes, in lower case unless told not to.
Result<std::vector<Value>> sort_keys(const std::vector<Value>& all, const Value* attribute,
                                     bool case_sensitive, Meter& meter) {
  std::vector<Value> paths;
  if (given(attribute) && attribute->is(Kind::kString)) {
    const std::string_view text = attribute->as_string();
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      paths.push_back(Value::string(std::string(text.substr(begin, end - begin))));
      begin = end + 1;
    }
  } else {
    paths.push_back(attribute == nullptr ? Value::none() : *attribute);
  }
  std::vector<Value> keys;
  for (const Value& item : all) {
    std::vector<Value> key;
    for (const Value& path : paths) {
      Value part = path.is(Kind::kNone) ? item : ATOM_TRY(get_path(item, path, meter));
      key.push_back(case_sensitive ? std::move(part) : ATOM_TRY(ignore_case(part, meter)));
    }
    keys.push_back(Value::list(std::move(key)));
  }
  return keys;
}

Result<Value> sort(const Value& value, Args args, Meter& meter) {
  const auto [reverse, case_sensitive, attribute_name] =
      ATOM_TRY(bind(args, "sort", {"reverse", "case_sensitive", "attribute"}, 0));
  const std::vector<Value> all = ATOM_TRY(iterate(value, meter));
  const std::vector<Value> keys =
      ATOM_TRY(sort_keys(all, attribute_name, case_sensitive && truthy(*case_sensitive), meter));
  return Value::list(ATOM_TRY(sorted(all, keys, reverse && truthy(*reverse), meter)));
}

Result<Value> dict_sort(const Value& value, Args args, Meter& meter) {
  const auto [case_sensitive, by, reverse] =
      ATOM_TRY(bind(args, "dictsort", {"case_sensitive", "by", "reverse"}, 0));
  if (!value.is(Kind::kDict)) return type_error("dictsort() takes a dict");
  const std::string_view part = by == nullptr ? "key" : ATOM_TRY(string_argument(*by, "dictsort"));
  if (part != "key" && part != "value") {
    return type_error("You can only sort by either \"key\" or \"value\"");
  }
  std::vector<Value> all;
  std::vector<Value> keys;
  for (const auto& [key, item] : value.as_dict().items()) {
    all.push_back(Value::pair(key, item));
    const Value& subject = part == "key" ? key : item;
    keys.push_back(case_sensitive && truthy(*case_sensitive)
                       ? subject
                       : ATOM_TRY(ignore_case(subject, meter)));
  }
  return Value::list(ATOM_TRY(sorted(all, keys, reverse && truthy(*reverse), meter)));
}

Result<Value> unique(const Value& value, Args args, Meter& meter) {
  const auto [case_sensitive, attribute_name] =
      ATOM_TRY(bind(args, "unique", {"case_sensitive", "attribute"}, 0));
  Dict seen;
  std::vector<Value> out;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    Value key = given(attribute_name) ? ATOM_TRY(get_path(item, *attribute_name, meter)) : item;
    if (!case_sensitive || !truthy(*case_sensitive)) key = ATOM_TRY(ignore_case(key, meter));
    if (!Dict::hashable(key)) return type_error("unhashable type: '{}'", type_name(key));
    if (seen.find(key) != nullptr) continue;
    seen.set(std::move(key), Value::none());
    out.push_back(item);
  }
  return Iterator::make(std::move(out));
}

template <bool kMax>
Result<Value> extreme(const Value& value, Args args, Meter& meter) {
  const auto [case_sensitive, attribute_name] =
      ATOM_TRY(bind(args, kMax ? "max" : "min", {"case_sensitive", "attribute"}, 0));
  const std::vector<Value> all = ATOM_TRY(iterate(value, meter));
  if (all.empty()) return Value::undefined("No aggregated item, sequence was empty.");
  std::vector<Value> keys;
  for (const Value& item : all) {
    Value key = given(attribute_name) ? ATOM_TRY(get_path(item, *attribute_name, meter)) : item;
    keys.push_back(case_sensitive && truthy(*case_sensitive) ? std::move(key)
                                                             : ATOM_TRY(ignore_case(key, meter)));
  }
  size_t best = 0;
  for (size_t i = 1; i < all.size(); ++i) {
    const bool better = kMax ? ATOM_TRY(less(keys[best], keys[i], ">", meter))
                             : ATOM_TRY(less(keys[i], keys[best], "<", meter));
    if (better) best = i;
  }
  return all[best];
}

Result<Value> sum(const Value& value, Args args, Meter& meter) {
  const auto [attribute_name, start] = ATOM_TRY(bind(args, "sum", {"attribute", "start"}, 0));
  Value total = start == nullptr ? Value::integer(0) : *start;
  if (total.is(Kind::kString)) return type_error("sum() can't sum strings");
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    const Value part =
        given(attribute_name) ? ATOM_TRY(get_path(item, *attribute_name, meter)) : item;
    total = ATOM_TRY(apply(BinaryOp::kAdd, total, part, meter));
  }
  return total;
}

Result<Value> batch(const Value& value, Args args, Meter& meter) {
  const auto [size_value, fill] = ATOM_TRY(bind(args, "batch", {"linecount", "fill_with"}, 1));
  const int64_t size = ATOM_TRY(integer_argument(*size_value, "batch"));
  std::vector<Value> out;
  std::vector<Value> line;
  for (const Value& item : ATOM_TRY(iterate(value, meter))) {
    if (static_cast<int64_t>(line.size()) == size) {
      out.push_back(Value::list(std::move(line)));
      line.clear();
    }
    line.push_back(item);
  }
  if (!line.empty()) {
    if (given(fill)) {
      const int64_t missing = size - static_cast<int64_t>(line.size());
      ATOM_TRY(meter.charge(std::max<int64_t>(missing, 0)));
      for (int64_t i = 0; i < missing; ++i) line.push_back(*fill);
    }
    out.push_back(Value::list(std::move(line)));
  }
  return Iterator::make(std::move(out));
}

Result<Value> slice(const Value& value, Args args, Meter& meter) {
  const auto [count_value, fill] = ATOM_TRY(bind(args, "slice", {"slices", "fill_with"}, 1));
  const int64_t slices = ATOM_TRY(integer_argument(*count_value, "slice"));
  if (slices <= 0) return type_error("slice() takes a positive number of slices");
  ATOM_TRY(meter.charge(slices));
  const std::vector<Value> all = ATOM_TRY(iterate(value, meter));
  const auto each = static_cast<int64_t>(all.size()) / slices;
  const auto longer = static_cast<int64_t>(all.size()) % slices;
  auto next = all.begin();
  std::vector<Value> out;
  for (int64_t i = 0; i < slices; ++i) {
    const auto end = next + each + (i < longer ? 1 : 0);
    std::vector<Value> part(next, end);
    next = end;
    if (given(fill) && i >= longer) part.push_back(*fill);
    out.push_back(Value::list(std::move(part)));
  }
  return Iterator::make(std::move(out));
}

// Groups print as (grouper, list) pairs; their parts have names too, which Jinja's tuples offer and
// ours do not, so that `for key, items in ...` is the way to use them.
Result<Value> group_by(const Value& value, Args args, Meter& meter) {
  const auto [path, fallback, case_sensitive] =
      ATOM_TRY(bind(args, "groupby", {"attribute", "default", "case_sensitive"}, 1));
  const std::vector<Value> all = ATOM_TRY(iterate(value, meter));
  std::vector<Value> keyed;
  std::vector<Value> keys;
  for (const Value& item : all) {
    const Value key = ATOM_TRY(get_path(item, *path, meter, fallback));
    keys.push_back(case_sensitive && truthy(*case_sensitive) ? key
                                                             : ATOM_TRY(ignore_case(key, meter)));
    keyed.push_back(Value::tuple({keys.back(), key, item}));
  }
  std::vector<Value> out;
  std::vector<Value> group;
  std::vector<Value> ordered = ATOM_TRY(sorted(keyed, keys, false, meter));
  for (size_t i = 0; i < ordered.size(); ++i) {
    const std::vector<Value>& entry = ordered[i].items();
    group.push_back(entry[2]);
    const bool ends =
        i + 1 == ordered.size() || !ATOM_TRY(equals(entry[0], ordered[i + 1].items()[0], meter));
    if (!ends) continue;
    const Value grouper = ordered[i + 1 - group.size()].items()[1];
    out.push_back(Value::pair(grouper, Value::list(std::move(group))));
    group.clear();
  }
  return Value::list(std::move(out));
}

constexpr FilterEntry kFilters[] = {
    {"length", count},
    {"count", count},
    {"first", first},
    {"last", last},
    {"list", list},
    {"items", items},
    {"reverse", reverse},
    {"join", join},
    {"default", make_default},
    {"d", make_default},
    {"attr", attribute},
    {"map", map},
    {"select", select<true, false>},
    {"reject", select<false, false>},
    {"selectattr", select<true, true>},
    {"rejectattr", select<false, true>},
    {"sort", sort},
    {"dictsort", dict_sort},
    {"unique", unique},
    {"min", extreme<false>},
    {"max", extreme<true>},
    {"sum", sum},
    {"batch", batch},
    {"slice", slice},
    {"groupby", group_by},
};

}  // namespace

std::span<const FilterEntry> sequence_filters() { return kFilters; }

Result<Value> get_path(const Value& value, const Value& path, Meter& meter, const Value* fallback) {
  const auto or_fallback = [&](Value found) {
    return found.is(Kind::kUndefined) && given(fallback) ? *fallback : found;
  };
  if (path.is(Kind::kNone)) return value;
  if (!path.is(Kind::kString)) return or_fallback(ATOM_TRY(get_item(value, path, meter)));
  Value found = value;
  const std::string_view text = path.as_string();
  for (size_t begin = 0; begin <= text.size();) {
    ATOM_TRY(meter.charge(1));
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    const bool digits = !part.empty() && part.size() < 10 &&
                        part.find_first_not_of("0123456789") == std::string_view::npos;
    const Value key = digits ? Value::integer(std::atoll(std::string(part).c_str()))
                             : Value::string(std::string(part));
    found = or_fallback(ATOM_TRY(get_item(found, key, meter)));
    begin = end + 1;
  }
  return found;
}

Result<Value> ignore_case(const Value& value, Meter& meter) {
  if (!value.is(Kind::kString)) return value;
  ATOM_TRY(meter.charge_text(value.as_string().size()));
  return Value::string(to_lower(value.as_string()));
}

Result<std::vector<Value>> sorted(const std::vector<Value>& items, const std::vector<Value>& keys,
                                  bool reverse, Meter& meter) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  Status failure;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure.ok()) return false;
    const Result<bool> is_less =
        reverse ? less(keys[b], keys[a], "<", meter) : less(keys[a], keys[b], "<", meter);
    if (!is_less.ok()) failure = is_less.status();
    return is_less.ok() && *is_less;
  });
  ATOM_TRY(failure);
  std::vector<Value> out;
  out.reserve(items.size());
  for (const size_t index : order) out.push_back(items[index]);
  return out;
}

}  // namespace atom::jinja
