// Printing, comparing and computing with values, as Python does it.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "text/jinja_format.h"
#include "text/jinja_object.h"
#include "text/jinja_unicode.h"
#include "text/jinja_value.h"

namespace atom::jinja {
namespace {

// Namespaces may contain themselves, so that depth() does not bound them.
Status append_repr_at(std::string& out, const Value& value, Meter& meter, int depth);

Status append_items(std::string& out, const std::vector<Value>& items, Meter& meter, int depth) {
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) out += ", ";
    ATOM_TRY(append_repr_at(out, items[i], meter, depth));
  }
  return {};
}

Status append_dict(std::string& out, const Dict& dict, Meter& meter, int depth) {
  out += '{';
  bool first = true;
  for (const auto& [key, value] : dict.items()) {
    if (!first) out += ", ";
    first = false;
    ATOM_TRY(append_repr_at(out, key, meter, depth));
    out += ": ";
    ATOM_TRY(append_repr_at(out, value, meter, depth));
  }
  out += '}';
  return {};
}

Status append_object(std::string& out, const Value& value, Meter& meter, int depth) {
  if (const auto* ns = object_cast<Namespace>(value)) {
    out += "<Namespace ";
    ATOM_TRY(append_dict(out, ns->attributes(), meter, depth));
    out += '>';
  } else if (const auto* range = object_cast<Range>(value)) {
    out += fmt::format("range({}, {}", range->start, range->stop);
    if (range->step != 1) out += fmt::format(", {}", range->step);
    out += ')';
  } else if (const auto* view = object_cast<View>(value)) {
    out += view->part == View::Part::kKeys     ? "dict_keys(["
           : view->part == View::Part::kValues ? "dict_values(["
                                               : "dict_items([";
    for (size_t i = 0; i < view->dict.as_dict().size(); ++i) {
      if (i != 0) out += ", ";
      ATOM_TRY(append_repr_at(out, view->at(i), meter, depth));
    }
    out += "])";
  } else {
    out += fmt::format("<{} object>", type_name(value));
  }
  return {};
}

Status append_repr_at(std::string& out, const Value& value, Meter& meter, int depth) {
  ATOM_TRY(meter.charge(1));
  if (depth > kMaxValueDepth) return type_error("a value is nested too deeply to be printed");
  ATOM_TRY(meter.charge_growth(out.size(), 0));
  switch (value.kind()) {
    case Kind::kUndefined:
      out += "Undefined";
      break;
    case Kind::kNone:
      out += "None";
      break;
    case Kind::kBool:
      out += value.as_bool() ? "True" : "False";
      break;
    case Kind::kInt:
      out += fmt::format("{}", value.as_int());
      break;
    case Kind::kFloat:
      out += float_repr(value.as_number());
      break;
    case Kind::kString:
      ATOM_TRY(meter.charge_growth(out.size(), value.as_string().size()));
      if (value.is_safe()) out += "Markup(";
      append_quoted(out, value.as_string());
      if (value.is_safe()) out += ')';
      break;
    case Kind::kList:
      out += '[';
      ATOM_TRY(append_items(out, value.items(), meter, depth + 1));
      out += ']';
      break;
    case Kind::kTuple:
      out += '(';
      ATOM_TRY(append_items(out, value.items(), meter, depth + 1));
      out += value.items().size() == 1 ? ",)" : ")";
      break;
    case Kind::kDict:
      return append_dict(out, value.as_dict(), meter, depth + 1);
    case Kind::kObject:
      return append_object(out, value, meter, depth + 1);
  }
  return {};
}

Result<bool> dicts_equal(const Dict& a, const Dict& b, Meter& meter) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.items()) {
    const Value* other = b.find(key);
    if (other == nullptr || !ATOM_TRY(equals(value, *other, meter))) return false;
  }
  return true;
}

Result<bool> objects_equal(const Value& a, const Value& b) {
  if (const auto* x = object_cast<Range>(a)) {
    const auto* y = object_cast<Range>(b);
    return y != nullptr && x->length == y->length &&
           (x->length == 0 || (x->start == y->start && (x->length == 1 || x->step == y->step)));
  }
  return a.same_as(b);
}

// a < b, or with or_equal a <= b. NaN is why one is not the other's negation.
Result<bool> compare(const Value& a, const Value& b, const char* op, Meter& meter, bool or_equal) {
  ATOM_TRY(meter.charge(1));
  if (a.is(Kind::kUndefined)) return undefined_error(a);
  if (b.is(Kind::kUndefined)) return undefined_error(b);
  const auto decide = [&](const auto& x, const auto& y) { return or_equal ? x <= y : x < y; };
  if (a.is_integral() && b.is_integral()) return decide(a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return decide(a.as_number(), b.as_number());
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    ATOM_TRY(meter.charge_text(std::min(a.as_string().size(), b.as_string().size())));
    return decide(a.as_string(), b.as_string());  // UTF-8 sorts as code points do
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    const size_t common = std::min(a.items().size(), b.items().size());
    for (size_t i = 0; i < common; ++i) {
      if (!ATOM_TRY(equals(a.items()[i], b.items()[i], meter))) {
        return compare(a.items()[i], b.items()[i], op, meter, or_equal);
      }
    }
    return decide(a.items().size(), b.items().size());
  }
  return type_error("'{}' not supported between instances of '{}' and '{}'", op, type_name(a),
                    type_name(b));
}

const char* symbol(BinaryOp op) {
  switch (op) {
    case BinaryOp::kAdd:
      return "+";
    case BinaryOp::kSub:
      return "-";
    case BinaryOp::kMul:
      return "*";
    case BinaryOp::kDiv:
      return "/";
    case BinaryOp::kFloorDiv:
      return "//";
    case BinaryOp::kMod:
      return "%";
    case BinaryOp::kPow:
      return "** or pow()";
  }
  return "?";
}

Status overflow() { return type_error("an integer leaves 64 bits"); }

Result<Value> integer_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return overflow();
  }
  return Value::integer(result);
}

Result<Value> apply_integers(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case BinaryOp::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case BinaryOp::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return overflow();
      return Value::integer(result);
    case BinaryOp::kDiv:
      if (b == 0) return type_error("division by zero");
      return Value::floating(static_cast<double>(a) / static_cast<double>(b));
    case BinaryOp::kFloorDiv:
    case BinaryOp::kMod: {
      if (b == 0) return type_error("integer division or modulo by zero");
      if (b == -1) return op == BinaryOp::kMod ? Value::integer(0) : negate(Value::integer(a));
      const int64_t remainder = a % b;
      const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
      if (op == BinaryOp::kMod) return Value::integer(adjust ? remainder + b : remainder);
      return Value::integer(a / b - (adjust ? 1 : 0));
    }
    case BinaryOp::kPow:
      if (b >= 0) return integer_power(a, b);
      if (a == 0) return type_error("0.0 cannot be raised to a negative power");
      return Value::floating(std::pow(static_cast<double>(a), static_cast<double>(b)));
  }
  return Value();
}

Result<Value> apply_floats(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return Value::floating(a + b);
    case BinaryOp::kSub:
      return Value::floating(a - b);
    case BinaryOp::kMul:
      return Value::floating(a * b);
    case BinaryOp::kDiv:
      if (b == 0) return type_error("float division by zero");
      return Value::floating(a / b);
    case BinaryOp::kFloorDiv:
    case BinaryOp::kMod: {
      if (b == 0) return type_error("float floor division by zero");
      double remainder = std::fmod(a, b);
      if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
      if (remainder == 0) remainder = std::copysign(0.0, b);
      if (op == BinaryOp::kMod) return Value::floating(remainder);
      const double quotient = (a - remainder) / b;
      double floored = std::floor(quotient);
      if (quotient - floored > 0.5) floored += 1;
      return Value::floating(floored == 0 ? std::copysign(0.0, a / b) : floored);
    }
    case BinaryOp::kPow: {
      if (a == 0 && b < 0) return type_error("0.0 cannot be raised to a negative power");
      const double power = std::pow(a, b);
      if (std::isnan(power) && !std::isnan(a) && !std::isnan(b)) {
        return type_error("complex numbers are not supported");
      }
      if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) {
        return type_error("(34, 'Numerical result out of range')");
      }
      return Value::floating(power);
    }
  }
  return Value();
}

Result<Value> repeat(const Value& value, int64_t count, Meter& meter) {
  count = std::max<int64_t>(count, 0);
  if (value.is(Kind::kString)) {
    const std::string& text = value.as_string();
    size_t bytes = 0;
    if (__builtin_mul_overflow(text.size(), static_cast<size_t>(count), &bytes)) return overflow();
    ATOM_TRY(meter.charge_text(bytes));
    if (text.empty()) return value;
    std::string out;
    out.reserve(bytes);
    for (int64_t i = 0; i < count; ++i) out += text;
    return Value::string(std::move(out), value.is_safe());
  }
  const std::vector<Value>& items = value.items();
  if (items.empty()) return value;
  int64_t total = 0;
  if (__builtin_mul_overflow(static_cast<int64_t>(items.size()), count, &total)) return overflow();
  ATOM_TRY(meter.charge(total));
  std::vector<Value> out;
  out.reserve(static_cast<size_t>(total));
  for (int64_t i = 0; i < count; ++i) out.insert(out.end(), items.begin(), items.end());
  return value.is(Kind::kList) ? Value::list(std::move(out)) : Value::tuple(std::move(out));
}

Result<Value> join_sequences(const Value& a, const Value& b, Meter& meter) {
  ATOM_TRY(meter.charge(static_cast<int64_t>(a.items().size() + b.items().size())));
  std::vector<Value> out = a.items();
  out.insert(out.end(), b.items().begin(), b.items().end());
  return a.is(Kind::kList) ? Value::list(std::move(out)) : Value::tuple(std::move(out));
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escaped(const Value& string) {
  return string.is_safe() ? string.as_string() : escape_html(string.as_string());
}

void append_quoted(std::string& out, std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  out += quote;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    if (c.value == static_cast<uint8_t>(quote) || c.value == '\\') {
      out += '\\';
      out += text[pos];
    } else if (c.value == '\n') {
      out += "\\n";
    } else if (c.value == '\r') {
      out += "\\r";
    } else if (c.value == '\t') {
      out += "\\t";
    } else if (c.value == kInvalidByte) {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[pos]));
    } else if (is_printable(c.value)) {
      out += text.substr(pos, c.size);
    } else if (c.value < 0x100) {
      out += fmt::format("\\x{:02x}", c.value);
    } else if (c.value < 0x10000) {
      out += fmt::format("\\u{:04x}", c.value);
    } else {
      out += fmt::format("\\U{:08x}", c.value);
    }
    pos += c.size;
  }
  out += quote;
}

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  const auto scientific =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(scientific.ptr - buffer));
  const int exponent = std::atoi(std::string(text.substr(text.find('e') + 1)).c_str());
  // Python prints the shortest digits that read back, positional from 1e-4 up to 1e16.
  if (exponent < -4 || exponent >= 16) return std::string(text);
  char fixed[400];
  const auto end = std::to_chars(fixed, fixed + sizeof(fixed), value, std::chars_format::fixed);
  std::string out(fixed, end.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

Status append_repr(std::string& out, const Value& value, Meter& meter) {
  return append_repr_at(out, value, meter, 0);
}

Status append_str(std::string& out, const Value& value, Meter& meter) {
  if (value.is(Kind::kUndefined)) return {};
  if (!value.is(Kind::kString)) return append_repr(out, value, meter);
  const std::string& text = value.as_string();
  ATOM_TRY(meter.charge_growth(out.size(), text.size()));
  out += text;
  return {};
}

Result<std::string> to_str(const Value& value, Meter& meter) {
  std::string out;
  ATOM_TRY(append_str(out, value, meter));
  return out;
}

Result<bool> equals(const Value& a, const Value& b, Meter& meter) {
  ATOM_TRY(meter.charge(1));
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  if (a.is_number() && b.is_number()) return a.as_number() == b.as_number();
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kString:
      ATOM_TRY(meter.charge_text(std::min(a.as_string().size(), b.as_string().size())));
      return a.as_string() == b.as_string();
    case Kind::kList:
    case Kind::kTuple: {
      if (a.same_as(b)) return true;
      if (a.items().size() != b.items().size()) return false;
      for (size_t i = 0; i < a.items().size(); ++i) {
        if (!ATOM_TRY(equals(a.items()[i], b.items()[i], meter))) return false;
      }
      return true;
    }
    case Kind::kDict:
      if (a.same_as(b)) return true;
      return dicts_equal(a.as_dict(), b.as_dict(), meter);
    case Kind::kObject:
      return objects_equal(a, b);
    default:
      return true;  // two undefined values, or None twice
  }
}

Result<bool> less(const Value& a, const Value& b, const char* op, Meter& meter) {
  return compare(a, b, op, meter, false);
}
Result<bool> less_or_equal(const Value& a, const Value& b, const char* op, Meter& meter) {
  return compare(a, b, op, meter, true);
}

Result<bool> contains(const Value& container, const Value& item, Meter& meter) {
  if (container.is(Kind::kString)) {
    if (!item.is(Kind::kString)) {
      if (item.is(Kind::kUndefined)) return undefined_error(item);
      return type_error("'in <string>' requires string as left operand, not {}", type_name(item));
    }
    ATOM_TRY(meter.charge_text(container.as_string().size()));
    return container.as_string().find(item.as_string()) != std::string::npos;
  }
  if (container.is(Kind::kDict)) {
    // No dict here has tuples or objects for keys.
    if (item.is(Kind::kList) || item.is(Kind::kDict)) {
      return type_error("unhashable type: '{}'", type_name(item));
    }
    return container.as_dict().find(item) != nullptr;
  }
  if (!is_iterable(container)) {
    return type_error("argument of type '{}' is not iterable", type_name(container));
  }
  for (const Value& element : ATOM_TRY(iterate(container, meter))) {
    if (ATOM_TRY(equals(element, item, meter))) return true;
  }
  return false;
}

Result<Value> negate(const Value& value) {
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (value.is(Kind::kFloat)) return Value::floating(-value.as_number());
  if (!value.is_integral()) {
    return type_error("bad operand type for unary -: '{}'", type_name(value));
  }
  if (value.as_int() == INT64_MIN) return overflow();
  return Value::integer(-value.as_int());
}

Result<Value> apply(BinaryOp op, const Value& a, const Value& b, Meter& meter) {
  if (a.is(Kind::kUndefined)) return undefined_error(a);
  if (op == BinaryOp::kMod && a.is(Kind::kString)) return percent_format(a, b, meter);
  if (b.is(Kind::kUndefined)) return undefined_error(b);
  if (a.is_integral() && b.is_integral()) return apply_integers(op, a.as_int(), b.as_int());
  if (a.is_number() && b.is_number()) return apply_floats(op, a.as_number(), b.as_number());
  const bool a_repeats = a.is(Kind::kString) || a.is_sequence();
  const bool b_repeats = b.is(Kind::kString) || b.is_sequence();
  if (op == BinaryOp::kMul && a_repeats && b.is_integral()) return repeat(a, b.as_int(), meter);
  if (op == BinaryOp::kMul && b_repeats && a.is_integral()) return repeat(b, a.as_int(), meter);
  if (op == BinaryOp::kAdd && a.kind() == b.kind()) {
    if (a.is_sequence()) return join_sequences(a, b, meter);
    if (a.is(Kind::kString)) {
      ATOM_TRY(meter.charge_text(a.as_string().size() + b.as_string().size()));
      if (!a.is_safe() && !b.is_safe()) return Value::string(a.as_string() + b.as_string());
      return Value::string(escaped(a) + escaped(b), true);
    }
  }
  if (op == BinaryOp::kAdd && a_repeats) {
    return type_error("can only concatenate {0} (not \"{1}\") to {0}", type_name(a), type_name(b));
  }
  return type_error("unsupported operand type(s) for {}: '{}' and '{}'", symbol(op), type_name(a),
                    type_name(b));
}

}  // namespace atom::jinja
