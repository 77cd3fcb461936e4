// The methods of Python's str.
#include <algorithm>

#include "text/jinja_attributes.h"
#include "text/jinja_format.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

Result<Value> no_arguments(Args args, std::string_view function) {
  if (args.positional.empty() && args.named.empty()) return Value();
  return type_error("str.{}() takes no arguments", function);
}

Result<Value> unsupported(const Value&, Args, Meter&) {
  return Status(ErrorCode::kUnsupported, "this string method is not supported");
}

template <std::string (*kMap)(std::string_view)>
Result<Value> mapped(const Value& self, Args args, Meter& meter) {
  ATOM_TRY(no_arguments(args, "upper"));
  ATOM_TRY(meter.charge_text(self.as_string().size() * 2));
  return Value::string(kMap(self.as_string()));
}

// Python's rule for isalpha() and its like: not empty, and every code point passes.
template <bool (*kTest)(uint32_t)>
Result<Value> all_are(const Value& self, Args args, Meter& meter) {
  ATOM_TRY(no_arguments(args, "is..."));
  const std::string_view text = self.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    if (!kTest(c.value)) return Value::boolean(false);
    pos += c.size;
  }
  return Value::boolean(!text.empty());
}

bool is_alnum(uint32_t c) { return is_alpha(c) || is_numeric(c); }
bool is_digit(uint32_t c) {
  return is_decimal(c) || c == 0xb2 || c == 0xb3 || c == 0xb9 || (c >= 0x2070 && c <= 0x2089);
}

Result<Value> isascii(const Value& self, Args args, Meter& meter) {
  ATOM_TRY(no_arguments(args, "isascii"));
  ATOM_TRY(meter.charge_text(self.as_string().size()));
  return Value::boolean(is_ascii(self.as_string()));
}

// At least one cased code point, and none that fails.
template <bool (*kFails)(uint32_t)>
Result<Value> cased_like(const Value& self, Args args, Meter& meter) {
  ATOM_TRY(no_arguments(args, "islower"));
  const std::string_view text = self.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  bool any = false;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    if (kFails(c.value)) return Value::boolean(false);
    any = any || is_cased(c.value);
    pos += c.size;
  }
  return Value::boolean(any);
}

template <bool kLeft, bool kRight>
Result<Value> strip_method(const Value& self, Args args, Meter& meter) {
  const auto [chars] = ATOM_TRY(bind(args, "strip", {"chars"}, 0));
  const std::string& text = self.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  if (chars == nullptr || chars->is(Kind::kNone)) {
    return Value::string(std::string(strip(text, nullptr, kLeft, kRight)));
  }
  const std::string_view set = ATOM_TRY(string_argument(*chars, "strip"));
  // Every code point stripped looks through the whole set.
  ATOM_TRY(meter.charge(static_cast<int64_t>(set.size() / 64 * text.size())));
  return Value::string(std::string(strip(text, &set, kLeft, kRight)));
}

// The bytes that the code points [start, end) of a text take, after Python's slice rules.
struct Window {
  size_t begin;
  size_t end;
  bool valid;  // start is not behind the end of the text
};
Result<Window> window(std::string_view text, const Value* start, const Value* end,
                      std::string_view function) {
  const auto given = [](const Value* bound) { return bound && !bound->is(Kind::kNone); };
  if (!given(start) && !given(end)) return Window{0, text.size(), true};
  const std::vector<size_t> offsets = code_point_offsets(text);
  const auto size = static_cast<int64_t>(offsets.size()) - 1;
  int64_t from = given(start) ? ATOM_TRY(integer_argument(*start, function)) : 0;
  int64_t to = given(end) ? ATOM_TRY(integer_argument(*end, function)) : size;
  if (from < 0) from = std::max<int64_t>(from + size, 0);
  if (to < 0) to = std::max<int64_t>(to + size, 0);
  to = std::min(to, size);
  if (from > to) return Window{text.size(), text.size(), false};
  return Window{offsets[static_cast<size_t>(from)], offsets[static_cast<size_t>(to)], true};
}

template <bool kStart>
Result<Value> affix_test(const Value& self, Args args, Meter& meter) {
  const char* name = kStart ? "startswith" : "endswith";
  const auto [affix, start, end] = ATOM_TRY(bind(args, name, {"prefix", "start", "end"}, 1));
  const std::string_view text = self.as_string();
  if (start != nullptr || end != nullptr) ATOM_TRY(meter.charge_text(text.size()));
  const Window part = ATOM_TRY(window(text, start, end, name));
  const std::string_view in = text.substr(part.begin, part.end - part.begin);
  const auto matches = [&](const Value& value) -> Result<bool> {
    const std::string_view wanted = ATOM_TRY(string_argument(value, name));
    ATOM_TRY(meter.charge_text(wanted.size()));
    return part.valid && (kStart ? in.starts_with(wanted) : in.ends_with(wanted));
  };
  if (!affix->is(Kind::kTuple)) return Value::boolean(ATOM_TRY(matches(*affix)));
  for (const Value& one : affix->items()) {
    if (ATOM_TRY(matches(one))) return Value::boolean(true);
  }
  return Value::boolean(false);
}

template <bool kLast, bool kMustExist>
Result<Value> find_method_of(const Value& self, Args args, Meter& meter) {
  const auto [sub, start, end] = ATOM_TRY(bind(args, "find", {"sub", "start", "end"}, 1));
  const std::string_view text = self.as_string();
  const std::string_view wanted = ATOM_TRY(string_argument(*sub, "find"));
  ATOM_TRY(meter.charge_text(text.size()));
  const Window part = ATOM_TRY(window(text, start, end, "find"));
  const std::string_view in = text.substr(part.begin, part.end - part.begin);
  const size_t at = !part.valid ? std::string_view::npos
                    : kLast     ? in.rfind(wanted)
                                : in.find(wanted);
  if (at != std::string_view::npos) {
    return Value::integer(count_code_points(text.substr(0, part.begin + at)));
  }
  if (kMustExist) return type_error("substring not found");
  return Value::integer(-1);
}

Result<Value> count(const Value& self, Args args, Meter& meter) {
  const auto [sub, start, end] = ATOM_TRY(bind(args, "count", {"sub", "start", "end"}, 1));
  const std::string_view text = self.as_string();
  const std::string_view wanted = ATOM_TRY(string_argument(*sub, "count"));
  ATOM_TRY(meter.charge_text(text.size()));
  const Window part = ATOM_TRY(window(text, start, end, "count"));
  const std::string_view in = text.substr(part.begin, part.end - part.begin);
  if (wanted.empty()) return Value::integer(part.valid ? count_code_points(in) + 1 : 0);
  int64_t found = 0;
  for (size_t at = in.find(wanted); at != std::string_view::npos;
       at = in.find(wanted, at + wanted.size())) {
    ++found;
  }
  return Value::integer(found);
}

std::vector<Value> reversed(std::vector<Value> parts) {
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value piece(std::string_view text) { return Value::string(std::string(text)); }

std::vector<Value> split_spaces(std::string_view text, int64_t limit, bool from_right) {
  std::vector<Value> parts;
  for (;;) {
    text = strip(text, nullptr, !from_right, from_right);
    if (text.empty()) break;
    if (limit-- == 0) {
      parts.push_back(piece(text));
      break;
    }
    if (from_right) {
      size_t begin = text.size();
      while (begin > 0) {
        const CodePoint c = decode_before(text, begin);
        if (is_space(c.value)) break;
        begin -= c.size;
      }
      parts.push_back(piece(text.substr(begin)));
      text = text.substr(0, begin);
    } else {
      size_t end = 0;
      while (end < text.size()) {
        const CodePoint c = decode_at(text, end);
        if (is_space(c.value)) break;
        end += c.size;
      }
      parts.push_back(piece(text.substr(0, end)));
      text = text.substr(end);
    }
  }
  return from_right ? reversed(std::move(parts)) : parts;
}

std::vector<Value> split_at(std::string_view text, std::string_view separator, int64_t limit,
                            bool from_right) {
  std::vector<Value> parts;
  while (limit-- != 0) {
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos) break;
    const std::string_view behind = text.substr(at + separator.size());
    parts.push_back(piece(from_right ? behind : text.substr(0, at)));
    text = from_right ? text.substr(0, at) : behind;
  }
  parts.push_back(piece(text));
  return from_right ? reversed(std::move(parts)) : parts;
}

template <bool kFromRight>
Result<Value> split(const Value& self, Args args, Meter& meter) {
  const auto [separator, maximum] = ATOM_TRY(bind(args, "split", {"sep", "maxsplit"}, 0));
  const std::string& text = self.as_string();
  ATOM_TRY(meter.charge(static_cast<int64_t>(text.size())));
  const int64_t limit = maximum == nullptr ? -1 : ATOM_TRY(integer_argument(*maximum, "split"));
  if (separator == nullptr || separator->is(Kind::kNone)) {
    return Value::list(split_spaces(text, limit, kFromRight));
  }
  const std::string_view at = ATOM_TRY(string_argument(*separator, "split"));
  if (at.empty()) return type_error("empty separator");
  return Value::list(split_at(text, at, limit, kFromRight));
}

template <bool kLast>
Result<Value> partition(const Value& self, Args args, Meter& meter) {
  const auto [separator] = ATOM_TRY(bind(args, "partition", {"sep"}, 1));
  const std::string_view text = self.as_string();
  const std::string_view wanted = ATOM_TRY(string_argument(*separator, "partition"));
  if (wanted.empty()) return type_error("empty separator");
  ATOM_TRY(meter.charge_text(text.size()));
  const size_t at = kLast ? text.rfind(wanted) : text.find(wanted);
  if (at == std::string_view::npos) {
    return kLast ? Value::tuple({piece(""), piece(""), self})
                 : Value::tuple({self, piece(""), piece("")});
  }
  return Value::tuple(
      {piece(text.substr(0, at)), *separator, piece(text.substr(at + wanted.size()))});
}

Result<Value> splitlines(const Value& self, Args args, Meter& meter) {
  const auto [keep] = ATOM_TRY(bind(args, "splitlines", {"keepends"}, 0));
  ATOM_TRY(meter.charge(static_cast<int64_t>(self.as_string().size())));
  std::vector<Value> lines;
  for (const auto line : split_lines(self.as_string(), keep != nullptr && truthy(*keep))) {
    lines.push_back(piece(line));
  }
  return Value::list(std::move(lines));
}

Result<Value> join(const Value& self, Args args, Meter& meter) {
  const auto [iterable] = ATOM_TRY(bind(args, "join", {"iterable"}, 1));
  if (!is_iterable(*iterable)) return type_error("can only join an iterable");
  std::string out;
  bool first = true;
  for (const Value& item : ATOM_TRY(iterate(*iterable, meter))) {
    if (!item.is(Kind::kString)) {
      return type_error("join(): expected str instance, {} found", type_name(item));
    }
    ATOM_TRY(meter.charge_growth(out.size(), self.as_string().size() + item.as_string().size()));
    if (!first) out += self.as_string();
    first = false;
    out += self.is_safe() ? escaped(item) : item.as_string();
  }
  return Value::string(std::move(out), self.is_safe());
}

Result<Value> replace(const Value& self, Args args, Meter& meter) {
  const auto [old_value, new_value, maximum] =
      ATOM_TRY(bind(args, "replace", {"old", "new", "count"}, 2));
  const std::string_view from = ATOM_TRY(string_argument(*old_value, "replace"));
  const std::string_view to = ATOM_TRY(string_argument(*new_value, "replace"));
  const int64_t limit = maximum == nullptr ? -1 : ATOM_TRY(integer_argument(*maximum, "replace"));
  return replace_text(self.as_string(), from, to, limit, meter);
}

template <bool kPrefix>
Result<Value> remove_affix(const Value& self, Args args, Meter& meter) {
  const auto [affix] = ATOM_TRY(bind(args, "removeprefix", {"prefix"}, 1));
  std::string_view text = self.as_string();
  const std::string_view wanted = ATOM_TRY(string_argument(*affix, "removeprefix"));
  ATOM_TRY(meter.charge_text(text.size()));
  if (kPrefix && text.starts_with(wanted)) text.remove_prefix(wanted.size());
  if (!kPrefix && text.ends_with(wanted)) text.remove_suffix(wanted.size());
  return piece(text);
}

enum class Side { kLeft, kRight, kCenter };

template <Side kSide>
Result<Value> justify(const Value& self, Args args, Meter& meter) {
  const auto [width_value, fill_value] = ATOM_TRY(bind(args, "center", {"width", "fillchar"}, 1));
  const int64_t width = ATOM_TRY(integer_argument(*width_value, "center"));
  const std::string_view fill =
      fill_value == nullptr ? " " : ATOM_TRY(string_argument(*fill_value, "center"));
  if (count_code_points(fill) != 1) {
    return type_error("The fill character must be exactly one character long");
  }
  const std::string& text = self.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  const int64_t have = count_code_points(text);
  if (width <= have) return self;
  ATOM_TRY(meter.charge_text(static_cast<size_t>(width)));
  const int64_t missing = width - have;
  // str.center puts the odd one left only where both the padding and the width are odd.
  const int64_t left = kSide == Side::kLeft    ? 0
                       : kSide == Side::kRight ? missing
                                               : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return Value::string(std::move(out));
}

Result<Value> zfill(const Value& self, Args args, Meter& meter) {
  const auto [width_value] = ATOM_TRY(bind(args, "zfill", {"width"}, 1));
  const int64_t width = ATOM_TRY(integer_argument(*width_value, "zfill"));
  const std::string& text = self.as_string();
  ATOM_TRY(meter.charge_text(text.size()));
  const int64_t have = count_code_points(text);
  if (width <= have) return self;
  ATOM_TRY(meter.charge_text(static_cast<size_t>(width)));
  const size_t sign = !text.empty() && (text[0] == '+' || text[0] == '-') ? 1 : 0;
  std::string out = text.substr(0, sign);
  out.append(static_cast<size_t>(width - have), '0');
  out.append(text, sign);
  return Value::string(std::move(out));
}

Result<Value> format(const Value& self, Args args, Meter& meter) {
  return brace_format(self, args, meter);
}

// The strings among a method's results are safe if its own string is.
Value with_safety(const Value& value) {
  if (value.is(Kind::kString)) return Value::string(value.as_string(), true);
  if (!value.is_sequence()) return value;
  std::vector<Value> items;
  for (const Value& item : value.items()) items.push_back(with_safety(item));
  return value.is(Kind::kList) ? Value::list(std::move(items)) : Value::tuple(std::move(items));
}

template <Method::Body kBody>
Result<Value> keeping(const Value& self, Args args, Meter& meter) {
  if (!self.is_safe()) return kBody(self, args, meter);
  return with_safety(ATOM_TRY(kBody(self, args, meter)));
}

// Likewise, and the strings among the arguments are escaped first.
template <Method::Body kBody>
Result<Value> escaping(const Value& self, Args args, Meter& meter) {
  if (!self.is_safe()) return kBody(self, args, meter);
  CallArgs safe_args = args;
  for (Value& value : safe_args.positional) {
    if (value.is(Kind::kString)) value = Value::string(escaped(value), true);
  }
  for (auto& [name, value] : safe_args.named) {
    if (value.is(Kind::kString)) value = Value::string(escaped(value), true);
  }
  return with_safety(ATOM_TRY(kBody(self, safe_args, meter)));
}

bool not_lower(uint32_t c) { return is_cased(c) && !is_lower(c); }
bool not_upper(uint32_t c) { return is_cased(c) && !is_upper(c); }

constexpr MethodEntry kMethods[] = {
    {"strip", escaping<strip_method<true, true>>},
    {"lstrip", escaping<strip_method<true, false>>},
    {"rstrip", escaping<strip_method<false, true>>},
    {"split", keeping<split<false>>},
    {"rsplit", keeping<split<true>>},
    {"startswith", affix_test<true>},
    {"endswith", affix_test<false>},
    {"replace", escaping<replace>},
    {"upper", escaping<mapped<to_upper>>},
    {"lower", escaping<mapped<to_lower>>},
    {"title", escaping<mapped<to_title>>},
    {"capitalize", escaping<mapped<to_capitalized>>},
    {"join", join},
    {"format", format},
    {"find", find_method_of<false, false>},
    {"rfind", find_method_of<true, false>},
    {"index", find_method_of<false, true>},
    {"rindex", find_method_of<true, true>},
    {"count", count},
    {"partition", keeping<partition<false>>},
    {"rpartition", keeping<partition<true>>},
    {"splitlines", keeping<splitlines>},
    {"removeprefix", escaping<remove_affix<true>>},
    {"removesuffix", escaping<remove_affix<false>>},
    {"center", escaping<justify<Side::kCenter>>},
    {"ljust", escaping<justify<Side::kLeft>>},
    {"rjust", escaping<justify<Side::kRight>>},
    {"zfill", escaping<zfill>},
    {"isalnum", all_are<is_alnum>},
    {"isalpha", all_are<is_alpha>},
    {"isascii", isascii},
    {"isdecimal", all_are<is_decimal>},
    {"isdigit", all_are<is_digit>},
    {"isnumeric", all_are<is_numeric>},
    {"isspace", all_are<is_space>},
    {"islower", cased_like<not_lower>},
    {"isupper", cased_like<not_upper>},
    {"casefold", unsupported},
    {"encode", unsupported},
    {"expandtabs", unsupported},
    {"format_map", unsupported},
    {"isidentifier", unsupported},
    {"isprintable", unsupported},
    {"istitle", unsupported},
    {"maketrans", unsupported},
    {"swapcase", unsupported},
    {"translate", unsupported},
};

}  // namespace

Result<Value> replace_text(std::string_view text, std::string_view from, std::string_view to,
                           int64_t limit, Meter& meter) {
  ATOM_TRY(meter.charge_text(text.size()));
  std::string out;
  size_t pos = 0;
  for (; limit != 0; --limit) {
    // An empty pattern matches before each code point and at the end.
    const size_t at = text.find(from, pos);
    if (at == std::string_view::npos) break;
    ATOM_TRY(meter.charge_growth(out.size(), at - pos + to.size()));
    out.append(text, pos, at - pos);
    out += to;
    pos = at + from.size();
    if (!from.empty()) continue;
    if (pos == text.size()) break;
    const size_t size = decode_at(text, pos).size;
    out.append(text, pos, size);
    pos += size;
  }
  out.append(text, pos);
  return Value::string(std::move(out));
}

std::span<const MethodEntry> string_methods() { return kMethods; }

}  // namespace atom::jinja
