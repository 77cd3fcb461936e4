// Filters on numbers.
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/jinja_attributes.h"
#include "text/jinja_builtins.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

// Digits with single underscores between them, as Python's int() and float() take them.
bool remove_underscores(std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') continue;
    const bool between = i > 0 && i + 1 < text.size() && std::isalnum(uint8_t(text[i - 1])) != 0 &&
                         std::isalnum(uint8_t(text[i + 1])) != 0;
    if (!between) return false;
  }
  std::erase(text, '_');
  return true;
}

// int(text, base); nothing where Python raises ValueError.
std::optional<int64_t> parse_integer(std::string_view source, int base) {
  std::string text(strip(source, nullptr, true, true));
  const bool negative = !text.empty() && text[0] == '-';
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.erase(0, 1);
  if (text.size() > 2 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      text.erase(0, text[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  if (text.empty() || !remove_underscores(text) || text.empty()) return std::nullopt;
  if (negative) text.insert(0, 1, '-');
  int64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (failure != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// float(text); nothing where Python raises ValueError.
std::optional<double> parse_float(std::string_view source) {
  std::string text(strip(source, nullptr, true, true));
  if (!remove_underscores(text)) return std::nullopt;
  std::string_view body = text;
  if (!body.empty() && (body[0] == '-' || body[0] == '+')) body.remove_prefix(1);
  const std::string lower = to_lower(body);
  const bool word = lower == "inf" || lower == "infinity" || lower == "nan";
  if (!word && lower.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  if (body.empty() || (!word && lower[0] != '.' && std::isdigit(uint8_t(lower[0])) == 0)) {
    return std::nullopt;
  }
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (end != text.c_str() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> as_float(const Value& value) {
  if (value.is_number()) return value.as_number();
  if (value.is(Kind::kString)) return parse_float(value.as_string());
  return std::nullopt;
}

Result<Value> to_integer(double value) {
  if (!(std::fabs(value) < 0x1p63)) return type_error("{} does not fit an integer", value);
  return Value::integer(static_cast<int64_t>(value));
}

Result<Value> make_int(const Value& value, Args args, Meter& meter) {
  const auto [fallback, base_value] = ATOM_TRY(bind(args, "int", {"default", "base"}, 0));
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  const int64_t base = base_value == nullptr ? 10 : ATOM_TRY(integer_argument(*base_value, "int"));
  const Value otherwise = fallback == nullptr ? Value::integer(0) : *fallback;
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is(Kind::kString)) {
    ATOM_TRY(meter.charge_text(value.as_string().size()));
    const bool valid_base = base == 0 || (base >= 2 && base <= 36);
    if (valid_base) {
      const auto parsed = parse_integer(value.as_string(), static_cast<int>(base));
      if (parsed) return Value::integer(*parsed);
    }
  }
  const std::optional<double> number = as_float(value);
  if (!number || !std::isfinite(*number)) return otherwise;
  return to_integer(*number);
}

Result<Value> make_float(const Value& value, Args args, Meter& meter) {
  const auto [fallback] = ATOM_TRY(bind(args, "float", {"default"}, 0));
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (value.is(Kind::kString)) ATOM_TRY(meter.charge_text(value.as_string().size()));
  const std::optional<double> number = as_float(value);
  if (number) return Value::floating(*number);
  return fallback == nullptr ? Value::floating(0) : *fallback;
}

Result<Value> absolute(const Value& value, Args, Meter&) {
  if (value.is(Kind::kFloat)) return Value::floating(std::fabs(value.as_number()));
  if (!value.is_integral()) return type_error("bad operand type for abs(): '{}'", type_name(value));
  return value.as_int() < 0 ? negate(value) : Value::integer(value.as_int());
}

// round() of an integer to tens, hundreds ...: halves go to the even neighbour.
Result<Value> round_integer(int64_t value, int64_t digits) {
  if (digits >= 0) return Value::integer(value);
  if (digits < -18) return Value::integer(0);
  int64_t unit = 1;
  for (int64_t i = 0; i < -digits; ++i) unit *= 10;
  int64_t quotient = value / unit;
  int64_t rest = value % unit;
  if (rest < 0) {
    rest += unit;
    --quotient;
  }
  if (rest > unit - rest || (rest == unit - rest && (quotient & 1) != 0)) ++quotient;
  int64_t rounded = 0;
  if (__builtin_mul_overflow(quotient, unit, &rounded)) {
    return type_error("an integer leaves 64 bits");
  }
  return Value::integer(rounded);
}

Result<Value> round(const Value& value, Args args, Meter&) {
  const auto [precision, method_value] = ATOM_TRY(bind(args, "round", {"precision", "method"}, 0));
  const int64_t digits = precision == nullptr ? 0 : ATOM_TRY(integer_argument(*precision, "round"));
  const std::string_view method =
      method_value == nullptr ? "common" : ATOM_TRY(string_argument(*method_value, "round"));
  if (value.is(Kind::kUndefined)) return undefined_error(value);
  if (!value.is_number()) return type_error("type {} cannot be rounded", type_name(value));
  if (method == "common") {
    if (value.is_integral()) return round_integer(value.as_int(), digits);
    const double number = value.as_number();
    if (!std::isfinite(number) || digits > 300) return value;
    if (digits < -300) return Value::floating(std::copysign(0.0, number));
    if (digits < 0) {
      const double unit = std::pow(10.0, static_cast<double>(-digits));
      return Value::floating(std::nearbyint(number / unit) * unit);
    }
    // Rounds the exact binary value, as Python does.
    const std::string text = fmt::format("{:.{}f}", number, digits);
    return Value::floating(std::strtod(text.c_str(), nullptr));
  }
  if (method != "ceil" && method != "floor") {
    return type_error("method must be common, ceil or floor");
  }
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double scaled = value.as_number() * scale;
  if (!std::isfinite(scaled) || scale == 0) return type_error("round(): the number is too large");
  return Value::floating((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

constexpr FilterEntry kFilters[] = {
    {"int", make_int},
    {"float", make_float},
    {"abs", absolute},
    {"round", round},
};

}  // namespace

std::span<const FilterEntry> number_filters() { return kFilters; }

}  // namespace atom::jinja
