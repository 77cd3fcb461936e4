// The methods of Python's list, tuple and dict that do not change them.
#include "text/jinja_attributes.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

Result<Value> count(const Value& self, Args args, Meter& meter) {
  const auto [wanted] = ATOM_TRY(bind(args, "count", {"value"}, 1));
  int64_t found = 0;
  for (const Value& item : self.items()) found += ATOM_TRY(equals(item, *wanted, meter)) ? 1 : 0;
  return Value::integer(found);
}

Result<Value> index(const Value& self, Args args, Meter& meter) {
  const auto [wanted, start] = ATOM_TRY(bind(args, "index", {"value", "start"}, 1));
  const auto size = static_cast<int64_t>(self.items().size());
  int64_t from = start == nullptr ? 0 : ATOM_TRY(integer_argument(*start, "index"));
  if (from < 0) from = from < -size ? 0 : from + size;
  for (int64_t i = from; i < size; ++i) {
    if (ATOM_TRY(equals(self.items()[static_cast<size_t>(i)], *wanted, meter))) {
      return Value::integer(i);
    }
  }
  return type_error("the value is not in the {}", type_name(self));
}

Result<Value> copy(const Value& self, Args args, Meter&) {
  if (!args.positional.empty() || !args.named.empty())
    return type_error("copy() takes no arguments");
  return self;  // nothing can change either of the two
}

Result<Value> get(const Value& self, Args args, Meter&) {
  const auto [key, fallback] = ATOM_TRY(bind(args, "get", {"key", "default"}, 1));
  if (key->is(Kind::kList) || key->is(Kind::kDict)) {
    return type_error("unhashable type: '{}'", type_name(*key));
  }
  if (const Value* found = self.as_dict().find(*key)) return *found;
  return fallback == nullptr ? Value::none() : *fallback;
}

template <View::Part kPart>
Result<Value> view(const Value& self, Args args, Meter&) {
  if (!args.positional.empty() || !args.named.empty()) {
    return type_error("a dict view takes no arguments");
  }
  return Value::object(std::make_shared<View>(self, kPart));
}

constexpr MethodEntry kListMethods[] = {
    {"count", count},    {"index", index},     {"copy", copy},      {"append", nullptr},
    {"clear", nullptr},  {"extend", nullptr},  {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr}, {"reverse", nullptr}, {"sort", nullptr},
};
constexpr MethodEntry kTupleMethods[] = {{"count", count}, {"index", index}};
constexpr MethodEntry kDictMethods[] = {
    {"get", get},
    {"items", view<View::Part::kItems>},
    {"keys", view<View::Part::kKeys>},
    {"values", view<View::Part::kValues>},
    {"copy", copy},
    {"clear", nullptr},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
};

}  // namespace

std::span<const MethodEntry> list_methods() { return kListMethods; }
std::span<const MethodEntry> tuple_methods() { return kTupleMethods; }
std::span<const MethodEntry> dict_methods() { return kDictMethods; }

}  // namespace atom::jinja
