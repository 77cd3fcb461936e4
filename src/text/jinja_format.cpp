#include "text/jinja_format.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja_attributes.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

constexpr int kMaxWidth = 10000;
constexpr int kMaxPrecision = 300;

// One conversion, from either syntax.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > = ^, or 0 for the type's own
  char sign = '-';
  bool alternate = false;
  int width = 0;
  char grouping = 0;  // , or _
  int precision = -1;
  char type = 0;
};

// Reads decimal digits at pos; fails beyond limit.
Result<int> read_number(std::string_view text, size_t& pos, int limit) {
  int value = 0;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    value = value * 10 + (text[pos++] - '0');
    if (value > limit) return type_error("a width or precision over {} in a format", limit);
  }
  return value;
}

std::string pad(const Spec& spec, std::string_view sign, std::string body, char own_align) {
  const auto length = count_code_points(sign) + count_code_points(body);
  const auto missing = static_cast<size_t>(std::max<int64_t>(spec.width - length, 0));
  const auto filled = [&](size_t count) {
    std::string out;
    for (size_t i = 0; i < count; ++i) out += spec.fill;
    return out;
  };
  const char align = spec.align == 0 ? own_align : spec.align;
  const std::string text = std::string(sign) + body;
  switch (align) {
    case '<':
      return text + filled(missing);
    case '^':
      return filled(missing / 2) + text + filled(missing - missing / 2);
    case '=':
      return std::string(sign) + filled(missing) + body;
    default:
      return filled(missing) + text;
  }
}

void group_digits(std::string& digits, char separator, size_t every) {
  size_t end = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  while (end > every) {
    end -= every;
    digits.insert(end, 1, separator);
  }
}

const char* sign_of(const Spec& spec, bool negative) {
  if (negative) return "-";
  return spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
}

Result<std::string> format_integer(const Spec& spec, int64_t value) {
  const bool negative = value < 0;
  const uint64_t magnitude =
      negative ? 0 - static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  std::string body;
  std::string prefix = sign_of(spec, negative);
  switch (spec.type) {
    case 'x':
      body = fmt::format("{:x}", magnitude);
      break;
    case 'X':
      body = fmt::format("{:X}", magnitude);
      break;
    case 'o':
      body = fmt::format("{:o}", magnitude);
      break;
    case 'b':
      body = fmt::format("{:b}", magnitude);
      break;
    default:
      body = fmt::format("{}", magnitude);
      break;
  }
  if (spec.alternate && std::string_view("xXob").find(spec.type) != std::string_view::npos) {
    prefix += '0';
    prefix += spec.type;
  }
  if (spec.grouping != 0) group_digits(body, spec.grouping, 3);
  return pad(spec, prefix, std::move(body), '>');
}

Result<std::string> format_float(const Spec& spec, double value) {
  const std::string sign = sign_of(spec, std::signbit(value));
  const double magnitude = std::fabs(value);
  std::string body;
  const int precision = spec.precision < 0 ? 6 : spec.precision;
  if (!std::isfinite(value)) {
    body = std::isnan(value) ? "nan" : "inf";
  } else {
    switch (spec.type) {
      case 'e':
        body = fmt::format("{:.{}e}", magnitude, precision);
        break;
      case 'E':
        body = fmt::format("{:.{}E}", magnitude, precision);
        break;
      case 'f':
      case 'F':
        body = fmt::format("{:.{}f}", magnitude, precision);
        break;
      case '%':
        body = fmt::format("{:.{}f}%", magnitude * 100, precision);
        break;
      case 'g':
        body = fmt::format("{:.{}g}", magnitude, precision);
        break;
      case 'G':
        body = fmt::format("{:.{}G}", magnitude, precision);
        break;
      default:
        if (spec.precision < 0) {
          body = float_repr(magnitude);
        } else {
          body = fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
        }
    }
  }
  if (spec.grouping != 0) group_digits(body, spec.grouping, 3);
  return pad(spec, sign, std::move(body), '>');
}

std::string format_text(const Spec& spec, std::string_view text) {
  if (spec.precision >= 0) {
    const std::vector<size_t> offsets = code_point_offsets(text);
    const auto count = std::min(static_cast<size_t>(spec.precision), offsets.size() - 1);
    text = text.substr(0, offsets[count]);
  }
  return pad(spec, "", std::string(text), '<');
}

// printf-style conversions differ from format()'s in which types they take.
Result<std::string> convert_percent(Spec spec, const Value& value, Meter& meter) {
  switch (spec.type) {
    case 's':
    case 'r':
    case 'a': {
      std::string text;
      ATOM_TRY(spec.type == 's' ? append_str(text, value, meter) : append_repr(text, value, meter));
      if (spec.align == 0) spec.align = '>';
      if (spec.align == '=')
        spec = {.align = '>', .width = spec.width, .precision = spec.precision};
      return format_text(spec, text);
    }
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': {
      const bool decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
      if (value.is(Kind::kFloat) && decimal && std::fabs(value.as_number()) < 9e18) {
        return format_integer(spec, static_cast<int64_t>(value.as_number()));
      }
      if (!value.is_integral()) {
        return type_error("%{} format: a number is required, not {}", spec.type, type_name(value));
      }
      return format_integer(spec, value.as_int());
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      if (!value.is_number()) return type_error("must be real number, not {}", type_name(value));
      return format_float(spec, value.as_number());
    case 'c':
      if (value.is(Kind::kString) && count_code_points(value.as_string()) == 1) {
        return pad(spec, "", value.as_string(), '>');
      }
      return type_error("%c requires a single character");
    default:
      return type_error("unsupported format character '{}'", spec.type);
  }
}

Result<Spec> parse_spec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [&](size_t at) {
    return at < text.size() && std::string_view("<>=^").find(text[at]) != std::string_view::npos;
  };
  if (!text.empty()) {
    const size_t first = decode_at(text, 0).size;
    if (is_align(first)) {
      spec.fill = text.substr(0, first);
      spec.align = text[first];
      pos = first + 1;
    } else if (is_align(0)) {
      spec.align = text[0];
      pos = 1;
    }
  }
  const auto next_is = [&](std::string_view set) {
    return pos < text.size() && set.find(text[pos]) != std::string_view::npos;
  };
  if (next_is("+- ")) spec.sign = text[pos++];
  if (next_is("#")) spec.alternate = text[pos++] == '#';
  if (next_is("0")) {
    ++pos;
    if (spec.align == 0) {
      spec.fill = "0";
      spec.align = '=';
    }
  }
  spec.width = ATOM_TRY(read_number(text, pos, kMaxWidth));
  if (next_is(",_")) spec.grouping = text[pos++];
  if (next_is(".")) {
    ++pos;
    if (!next_is("0123456789")) return type_error("Format specifier missing precision");
    spec.precision = ATOM_TRY(read_number(text, pos, kMaxPrecision));
  }
  if (pos < text.size()) spec.type = text[pos++];
  if (pos != text.size()) return type_error("Invalid format specifier '{}'", text);
  return spec;
}

// format(value, spec).
Result<std::string> format_value(const Value& value, std::string_view text, Meter& meter) {
  if (text.empty()) return to_str(value, meter);
  const Spec spec = ATOM_TRY(parse_spec(text));
  const auto type_in = [&](std::string_view set) {
    return spec.type == 0 || set.find(spec.type) != std::string_view::npos;
  };
  if (value.is(Kind::kString) && type_in("s") && spec.align != '=') {
    return format_text(spec, value.as_string());
  }
  if (value.is(Kind::kBool) && spec.type == 0)
    return format_text(spec, to_str(value, meter).value());
  if (value.is_integral() && type_in("dxXob") && spec.precision < 0) {
    return format_integer(spec, value.as_int());
  }
  if (value.is_number() && type_in("eEfFgG%")) return format_float(spec, value.as_number());
  return type_error("Invalid format specifier '{}' for object of type '{}'", text,
                    type_name(value));
}

// Finds what a replacement field such as "0", "name.key" or "[0]" stands for.
class FieldResolver {
 public:
  FieldResolver(const CallArgs& args, Meter& meter) : args_(args), meter_(meter) {}

  Result<Value> resolve(std::string_view field) {
    size_t pos = std::min(field.find_first_of(".["), field.size());
    Value value = ATOM_TRY(first(field.substr(0, pos)));
    while (pos < field.size()) {
      ATOM_TRY(meter_.charge(1));
      if (field[pos] == '.') {
        const size_t end = std::min(field.find_first_of(".[", pos + 1), field.size());
        value = ATOM_TRY(get_attribute(value, field.substr(pos + 1, end - pos - 1), meter_));
        pos = end;
        continue;
      }
      const size_t end = field.find(']', pos);
      if (field[pos] != '[' || end == std::string_view::npos) {
        return type_error("a replacement field '{}' cannot be read", field);
      }
      const std::string_view key = field.substr(pos + 1, end - pos - 1);
      const std::optional<int64_t> index = as_index(key);
      value = ATOM_TRY(get_item(
          value, index ? Value::integer(*index) : Value::string(std::string(key)), meter_));
      pos = end + 1;
    }
    return value;
  }

 private:
  static std::optional<int64_t> as_index(std::string_view text) {
    if (text.empty() || text.size() > 9) return std::nullopt;
    int64_t value = 0;
    for (const char c : text) {
      if (c < '0' || c > '9') return std::nullopt;
      value = value * 10 + (c - '0');
    }
    return value;
  }

  Result<Value> first(std::string_view name) {
    std::optional<int64_t> index = as_index(name);
    if (name.empty()) index = next_++;
    if (index) {
      if (*index < static_cast<int64_t>(args_.positional.size())) {
        return args_.positional[static_cast<size_t>(*index)];
      }
      return type_error("Replacement index {} out of range for positional args tuple", *index);
    }
    if (const Value* value = args_.find_named(name)) return *value;
    return type_error("format() has no argument '{}'", name);
  }

  const CallArgs& args_;
  Meter& meter_;
  int64_t next_ = 0;
};

// What goes into a format from a value: as it is, or escaped where the format is safe.
std::string filled_in(std::string text, const Value& value, bool escape) {
  return escape && !value.is_safe() ? escape_html(text) : text;
}

// One run of 'format' % args.
class PercentFormatter {
 public:
  PercentFormatter(const Value& format, const Value& args, Meter& meter)
      : format_(format.as_string()), escape_(format.is_safe()), args_(args), meter_(meter) {}

  Result<Value> run() {
    ATOM_TRY(meter_.charge_text(format_.size()));
    while (pos_ < format_.size()) {
      const size_t mark = std::min(format_.find('%', pos_), format_.size());
      out_ += format_.substr(pos_, mark - pos_);
      pos_ = mark + 1;
      if (mark == format_.size()) break;
      if (pos_ < format_.size() && format_[pos_] == '%') {
        out_ += format_[pos_++];
        continue;
      }
      ATOM_TRY(convert_next());
    }
    // Python lets anything with items go unused.
    const bool ignorable = args_.is(Kind::kDict) || args_.is(Kind::kList) ||
                           args_.is(Kind::kUndefined) || object_cast<Range>(args_) != nullptr;
    const size_t given = args_.is(Kind::kTuple) ? args_.items().size() : ignorable ? 0 : 1;
    if (used_ < given) {
      return type_error("not all arguments converted during string formatting");
    }
    return Value::string(std::move(out_), escape_);
  }

 private:
  Status convert_next() {
    std::optional<Value> value;
    if (pos_ < format_.size() && format_[pos_] == '(') value = ATOM_TRY(named_argument());
    Spec spec = flags();
    spec.width = ATOM_TRY(read_number(format_, pos_, kMaxWidth));
    if (pos_ < format_.size() && format_[pos_] == '.') {
      spec.precision = ATOM_TRY(read_number(format_, ++pos_, kMaxPrecision));
    }
    if (pos_ >= format_.size()) return type_error("incomplete format");
    spec.type = format_[pos_++];
    if (!value) value = ATOM_TRY(next_argument());
    const std::string text =
        filled_in(ATOM_TRY(convert_percent(spec, *value, meter_)), *value, escape_);
    ATOM_TRY(meter_.charge_growth(out_.size(), text.size()));
    out_ += text;
    return {};
  }

  Result<Value> named_argument() {
    const size_t end = format_.find(')', pos_);
    if (end == std::string_view::npos) return type_error("incomplete format key");
    if (!args_.is(Kind::kDict)) return type_error("format requires a mapping");
    const std::string_view key = format_.substr(pos_ + 1, end - pos_ - 1);
    const Value* found = args_.as_dict().find(key);
    if (found == nullptr) return type_error("KeyError: '{}'", key);
    pos_ = end + 1;
    return *found;
  }

  Result<Value> next_argument() {
    const bool is_tuple = args_.is(Kind::kTuple);
    if (used_ >= (is_tuple ? args_.items().size() : 1)) {
      return type_error("not enough arguments for format string");
    }
    const size_t index = used_++;
    return is_tuple ? args_.items()[index] : args_;
  }

  Spec flags() {
    Spec spec;
    for (; pos_ < format_.size(); ++pos_) {
      switch (format_[pos_]) {
        case '-':
          spec.align = '<';
          break;
        case '0':
          if (spec.align == 0) spec.align = '=';
          break;
        case '+':
          spec.sign = '+';
          break;
        case ' ':
          if (spec.sign != '+') spec.sign = ' ';
          break;
        case '#':
          spec.alternate = true;
          break;
        default:
          spec.fill = spec.align == '=' ? "0" : " ";
          return spec;
      }
    }
    return spec;
  }

  std::string_view format_;
  bool escape_;
  const Value& args_;
  Meter& meter_;
  size_t pos_ = 0;
  size_t used_ = 0;
  std::string out_;
};

// One replacement field: name, !conversion and :spec.
Result<std::string> fill_field(std::string_view field, bool escape, FieldResolver& resolver,
                               Meter& meter) {
  if (field.find('{') != std::string_view::npos) {
    return error(ErrorCode::kUnsupported, "nested replacement fields are not supported");
  }
  const size_t colon = std::min(field.find(':'), field.size());
  const std::string_view spec = colon < field.size() ? field.substr(colon + 1) : "";
  field = field.substr(0, colon);
  char conversion = 0;
  if (field.size() >= 2 && field[field.size() - 2] == '!') {
    conversion = field.back();
    field.remove_suffix(2);
  }
  Value value = ATOM_TRY(resolver.resolve(field));
  if (conversion != 0) {
    std::string text;
    ATOM_TRY(conversion == 's' ? append_str(text, value, meter) : append_repr(text, value, meter));
    value = Value::string(std::move(text));
  }
  return filled_in(ATOM_TRY(format_value(value, spec, meter)), value, escape);
}

}  // namespace

Result<Value> percent_format(const Value& format, const Value& args, Meter& meter) {
  return PercentFormatter(format, args, meter).run();
}

Result<Value> brace_format(const Value& format_value, const CallArgs& args, Meter& meter) {
  const std::string_view format = format_value.as_string();
  ATOM_TRY(meter.charge_text(format.size()));
  FieldResolver resolver(args, meter);
  std::string out;
  for (size_t pos = 0; pos < format.size();) {
    const char c = format[pos];
    if ((c == '{' || c == '}') && pos + 1 < format.size() && format[pos + 1] == c) {
      out += c;
      pos += 2;
      continue;
    }
    if (c == '}') return type_error("Single '}}' encountered in format string");
    if (c != '{') {
      out += c;
      ++pos;
      continue;
    }
    const size_t end = format.find('}', pos);
    if (end == std::string_view::npos) return type_error("expected '}}' before end of string");
    const std::string text = ATOM_TRY(
        fill_field(format.substr(pos + 1, end - pos - 1), format_value.is_safe(), resolver, meter));
    ATOM_TRY(meter.charge_growth(out.size(), text.size()));
    out += text;
    pos = end + 1;
  }
  return Value::string(std::move(out), format_value.is_safe());
}

}  // namespace atom::jinja
