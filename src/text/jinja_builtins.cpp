// Jinja's tests and global functions, and the lookup of filters.
#include "text/jinja_builtins.h"

#include <algorithm>
#include <cmath>

#include "text/jinja_attributes.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

template <class Table>
auto find_entry(const Table& table, std::string_view name) {
  return std::find_if(std::begin(table), std::end(table),
                      [&](const auto& entry) { return entry.name == name; });
}

// ---- tests

template <auto kTest>
Result<bool> simple(const Value& value, Args args, Meter&) {
  if (!args.positional.empty() || !args.named.empty()) {
    return type_error("this test takes no arguments");
  }
  return kTest(value);
}

bool is_defined(const Value& v) { return !v.is(Kind::kUndefined); }
bool is_undefined(const Value& v) { return v.is(Kind::kUndefined); }
bool is_none(const Value& v) { return v.is(Kind::kNone); }
bool is_boolean(const Value& v) { return v.is(Kind::kBool); }
bool is_true(const Value& v) { return v.is(Kind::kBool) && v.as_bool(); }
bool is_false(const Value& v) { return v.is(Kind::kBool) && !v.as_bool(); }
bool is_integer(const Value& v) { return v.is(Kind::kInt); }
bool is_float(const Value& v) { return v.is(Kind::kFloat); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_string(const Value& v) { return v.is(Kind::kString); }
bool is_mapping(const Value& v) { return v.is(Kind::kDict); }
// As in Jinja, an undefined value counts as callable, though calling it fails.
bool is_callable(const Value& v) {
  return v.is(Kind::kUndefined) || (v.is(Kind::kObject) && v.as_object().callable());
}
bool is_sequence(const Value& v) {
  return is_iterable(v) && object_cast<Iterator>(v) == nullptr && object_cast<View>(v) == nullptr;
}
bool is_escaped(const Value& v) { return v.is_safe(); }

Result<bool> remainder_is(const Value& value, int64_t divisor, int64_t wanted, Meter& meter) {
  const Value rest = ATOM_TRY(apply(BinaryOp::kMod, value, Value::integer(divisor), meter));
  return equals(rest, Value::integer(wanted), meter);
}
Result<bool> odd(const Value& value, Args, Meter& meter) {
  return remainder_is(value, 2, 1, meter);
}
Result<bool> even(const Value& value, Args, Meter& meter) {
  return remainder_is(value, 2, 0, meter);
}
Result<bool> divisible_by(const Value& value, Args args, Meter& meter) {
  const auto [divisor] = ATOM_TRY(bind(args, "divisibleby", {"num"}, 1));
  const Value rest = ATOM_TRY(apply(BinaryOp::kMod, value, *divisor, meter));
  return equals(rest, Value::integer(0), meter);
}

template <bool kUpper>
Result<bool> has_case(const Value& value, Args, Meter& meter) {
  const Value text = Value::string(ATOM_TRY(to_str(value, meter)));
  const MethodEntry* method = find_method(text, kUpper ? "isupper" : "islower");
  return truthy(ATOM_TRY(method->body(text, {}, meter)));
}

Result<bool> same_as(const Value& value, Args args, Meter&) {
  const auto [other] = ATOM_TRY(bind(args, "sameas", {"other"}, 1));
  return value.same_as(*other);
}
Result<bool> is_in(const Value& value, Args args, Meter& meter) {
  const auto [container] = ATOM_TRY(bind(args, "in", {"seq"}, 1));
  return contains(*container, value, meter);
}
Result<bool> names_filter(const Value& value, Args, Meter&) {
  return value.is(Kind::kString) && find_filter(value.as_string()) != nullptr;
}
Result<bool> names_test(const Value& value, Args, Meter&) {
  return value.is(Kind::kString) && find_test(value.as_string()) != nullptr;
}

template <bool kEqual>
Result<bool> equal(const Value& value, Args args, Meter& meter) {
  const auto [other] = ATOM_TRY(bind(args, "eq", {"other"}, 1));
  return ATOM_TRY(equals(value, *other, meter)) == kEqual;
}

enum class Order { kLess, kLessEqual, kGreater, kGreaterEqual };
template <Order kOrder>
Result<bool> ordered(const Value& value, Args args, Meter& meter) {
  const auto [other] = ATOM_TRY(bind(args, "lt", {"other"}, 1));
  switch (kOrder) {
    case Order::kLess:
      return less(value, *other, "<", meter);
    case Order::kGreater:
      return less(*other, value, ">", meter);
    case Order::kLessEqual:
      return less_or_equal(value, *other, "<=", meter);
    case Order::kGreaterEqual:
      return less_or_equal(*other, value, ">=", meter);
  }
  return false;
}

struct TestEntry {
  std::string_view name;
  Test test;
};
constexpr TestEntry kTests[] = {
    {"defined", simple<is_defined>},
    {"undefined", simple<is_undefined>},
    {"none", simple<is_none>},
    {"boolean", simple<is_boolean>},
    {"true", simple<is_true>},
    {"false", simple<is_false>},
    {"integer", simple<is_integer>},
    {"float", simple<is_float>},
    {"number", simple<is_number>},
    {"string", simple<is_string>},
    {"mapping", simple<is_mapping>},
    {"sequence", simple<is_sequence>},
    {"iterable", simple<is_iterable>},
    {"callable", simple<is_callable>},
    {"escaped", simple<is_escaped>},
    {"odd", odd},
    {"even", even},
    {"divisibleby", divisible_by},
    {"lower", has_case<false>},
    {"upper", has_case<true>},
    {"sameas", same_as},
    {"in", is_in},
    {"filter", names_filter},
    {"test", names_test},
    {"eq", equal<true>},
    {"==", equal<true>},
    {"equalto", equal<true>},
    {"ne", equal<false>},
    {"!=", equal<false>},
    {"lt", ordered<Order::kLess>},
    {"<", ordered<Order::kLess>},
    {"lessthan", ordered<Order::kLess>},
    {"le", ordered<Order::kLessEqual>},
    {"<=", ordered<Order::kLessEqual>},
    {"gt", ordered<Order::kGreater>},
    {">", ordered<Order::kGreater>},
    {"greaterthan", ordered<Order::kGreater>},
    {"ge", ordered<Order::kGreaterEqual>},
    {">=", ordered<Order::kGreaterEqual>},
};

// ---- global functions

Result<Value> make_range(Args args, Meter&) {
  const size_t count = args.positional.size();
  if (!args.named.empty() || count < 1 || count > 3) {
    return type_error("range() takes 1 to 3 positional arguments");
  }
  std::vector<int64_t> n;
  for (const Value& value : args.positional) {
    n.push_back(ATOM_TRY(integer_argument(value, "range")));
  }
  const int64_t start = count == 1 ? 0 : n[0];
  const int64_t stop = count == 1 ? n[0] : n[1];
  const int64_t step = count == 3 ? n[2] : 1;
  if (step == 0) return type_error("range() arg 3 must not be zero");
  int64_t length = 0;
  if (step > 0 ? start < stop : start > stop) {
    const auto wide = static_cast<__int128>(step > 0 ? stop : start) - (step > 0 ? start : stop);
    const auto by = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
    const __int128 steps = (wide + by - 1) / by;
    if (steps > Range::kMaxLength) {
      return error(ErrorCode::kUnsupported, "a range may not be longer than {}", Range::kMaxLength);
    }
    length = static_cast<int64_t>(steps);
  }
  return Value::object(std::make_shared<Range>(start, stop, step, length));
}

Status add_pairs(Dict& dict, const Value& source, Meter& meter) {
  if (source.is(Kind::kDict)) {
    ATOM_TRY(meter.charge(static_cast<int64_t>(source.as_dict().size())));
    for (const auto& [key, value] : source.as_dict().items()) dict.set(key, value);
    return {};
  }
  for (const Value& item : ATOM_TRY(iterate(source, meter))) {
    const std::vector<Value> pair = ATOM_TRY(iterate(item, meter));
    if (pair.size() != 2) return type_error("dict() takes pairs of a key and a value");
    if (!Dict::hashable(pair[0])) return type_error("unhashable type: '{}'", type_name(pair[0]));
    dict.set(pair[0], pair[1]);
  }
  return {};
}

Result<Value> make_dict(Args args, Meter& meter) {
  return Value::dict(ATOM_TRY(collect_dict(args, meter)));
}

Result<Value> make_cycler(Args args, Meter&) {
  if (args.positional.empty()) return type_error("at least one item has to be provided");
  return Value::object(std::make_shared<Cycler>(Value::tuple(args.positional)));
}

Result<Value> make_joiner(Args args, Meter&) {
  const auto [separator] = ATOM_TRY(bind(args, "joiner", {"sep"}, 0));
  return Value::object(
      std::make_shared<Joiner>(separator == nullptr ? Value::string(", ") : *separator));
}

Result<Value> raise_exception(Args args, Meter& meter) {
  const auto [message] = ATOM_TRY(bind(args, "raise_exception", {"message"}, 1));
  return Status(ErrorCode::kInvalidArgument, ATOM_TRY(to_str(*message, meter)));
}

struct GlobalEntry {
  std::string_view name;
  Function::Body body;
};
constexpr GlobalEntry kGlobals[] = {
    {"range", make_range},
    {"dict", make_dict},
    {"cycler", make_cycler},
    {"joiner", make_joiner},
    {"raise_exception", raise_exception},
};

Result<Value> cycler_next(const Value& self, Args, Meter&) {
  auto* cycler = object_cast<Cycler>(self);
  const Value value = cycler->items.items()[cycler->position];
  cycler->position = (cycler->position + 1) % cycler->items.items().size();
  return value;
}

Result<Value> cycler_reset(const Value& self, Args, Meter&) {
  object_cast<Cycler>(self)->position = 0;
  return Value::none();
}

}  // namespace

Result<std::optional<Value>> Cycler::find_attribute(std::string_view name, Meter&) {
  if (name == "current") return std::optional<Value>(items.items()[position]);
  if (name == "items") return std::optional<Value>(items);
  if (name == "pos") return std::optional<Value>(Value::integer(static_cast<int64_t>(position)));
  if (name != "next" && name != "reset") return std::optional<Value>();
  const Value self = Value::object(shared_from_this());
  return std::optional<Value>(
      Value::object(std::make_shared<Method>(self, name == "next" ? cycler_next : cycler_reset)));
}

Result<Value> Joiner::call(const CallArgs& args, Meter&) {
  if (!args.positional.empty() || !args.named.empty()) {
    return type_error("a joiner takes no arguments");
  }
  if (used) return separator;
  used = true;
  return Value::string("");
}

Result<Dict> collect_dict(Args args, Meter& meter) {
  Dict dict;
  if (args.positional.size() > 1) return type_error("dict() takes at most 1 positional argument");
  if (!args.positional.empty()) ATOM_TRY(add_pairs(dict, args.positional[0], meter));
  for (const auto& [name, value] : args.named) dict.set(name, value);
  return dict;
}

Filter find_filter(std::string_view name) {
  for (const auto table : {text_filters(), number_filters(), sequence_filters()}) {
    const auto it = find_entry(table, name);
    if (it != table.end()) return it->filter;
  }
  return nullptr;
}

Test find_test(std::string_view name) {
  const auto* it = find_entry(kTests, name);
  return it == std::end(kTests) ? nullptr : it->test;
}

Function::Body find_global(std::string_view name) {
  const auto* it = find_entry(kGlobals, name);
  return it == std::end(kGlobals) ? nullptr : it->body;
}

}  // namespace atom::jinja
