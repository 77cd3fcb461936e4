// Filters on text.
#include <algorithm>

#include "text/jinja_attributes.h"
#include "text/jinja_builtins.h"
#include "text/jinja_format.h"
#include "text/jinja_json.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

using Args = const CallArgs&;

Result<Value> no_more(Args args, Value value) {
  if (args.positional.empty() && args.named.empty()) return value;
  return type_error("this filter takes no arguments");
}

// A string as it is, safe or not; other values printed.
Result<Value> as_text(const Value& value, Meter& meter) {
  if (value.is(Kind::kString)) return value;
  return Value::string(ATOM_TRY(to_str(value, meter)));
}

Result<Value> string(const Value& value, Args args, Meter& meter) {
  return no_more(args, ATOM_TRY(as_text(value, meter)));
}

template <std::string (*kMap)(std::string_view)>
Result<Value> mapped(const Value& value, Args args, Meter& meter) {
  const std::string text = ATOM_TRY(to_str(value, meter));
  ATOM_TRY(meter.charge_text(text.size() * 2));
  return no_more(args, Value::string(kMap(text), value.is_safe()));
}

// Unlike str.title, a word starts after white space or one of -({[< only.
Result<Value> title(const Value& value, Args args, Meter& meter) {
  const std::string text = ATOM_TRY(to_str(value, meter));
  ATOM_TRY(meter.charge_text(text.size() * 2));
  std::string out;
  size_t word = 0;
  const auto flush = [&](size_t end) {
    const std::string_view part = std::string_view(text).substr(word, end - word);
    if (!part.empty()) {
      const size_t first = decode_at(part, 0).size;
      out += to_upper(part.substr(0, first)) + to_lower(part.substr(first));
    }
    word = end;
  };
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    pos += c.size;
    if (is_space(c.value) || (c.value < 0x80 && std::string_view("-({[<").find(static_cast<char>(
                                                    c.value)) != std::string_view::npos)) {
      flush(pos);
    }
  }
  flush(text.size());
  return no_more(args, Value::string(std::move(out)));
}

Result<Value> trim(const Value& value, Args args, Meter& meter) {
  const Value text = ATOM_TRY(as_text(value, meter));
  return find_method(text, "strip")->body(text, args, meter);
}

Result<Value> replace(const Value& value, Args args, Meter& meter) {
  const auto [old_value, new_value, maximum] =
      ATOM_TRY(bind(args, "replace", {"old", "new", "count"}, 2));
  const std::string text = ATOM_TRY(to_str(value, meter));
  const std::string from = ATOM_TRY(to_str(*old_value, meter));
  const std::string to = ATOM_TRY(to_str(*new_value, meter));
  const int64_t limit = maximum == nullptr || maximum->is(Kind::kNone)
                            ? -1
                            : ATOM_TRY(integer_argument(*maximum, "replace"));
  return replace_text(text, from, to, limit, meter);
}

Result<Value> escape(const Value& value, Args args, Meter& meter) {
  if (value.is_safe()) return no_more(args, value);
  const std::string text = ATOM_TRY(to_str(value, meter));
  ATOM_TRY(meter.charge_text(text.size() * 6));
  return no_more(args, Value::string(escape_html(text), true));
}

Result<Value> force_escape(const Value& value, Args args, Meter& meter) {
  return escape(Value::string(ATOM_TRY(to_str(value, meter))), args, meter);
}

Result<Value> safe(const Value& value, Args args, Meter& meter) {
  return no_more(args, Value::string(ATOM_TRY(to_str(value, meter)), true));
}

Result<std::string> indentation(const Value* width, size_t fallback, Meter& meter) {
  if (width == nullptr) return std::string(fallback, ' ');
  if (width->is(Kind::kString)) return width->as_string();
  const int64_t count = std::max<int64_t>(ATOM_TRY(integer_argument(*width, "indent")), 0);
  ATOM_TRY(meter.charge_text(static_cast<size_t>(count)));
  return std::string(static_cast<size_t>(count), ' ');
}

Result<Value> indent(const Value& value, Args args, Meter& meter) {
  const auto [width, first, blank] = ATOM_TRY(bind(args, "indent", {"width", "first", "blank"}, 0));
  if (!value.is(Kind::kString)) return type_error("indent() takes a string");
  const std::string margin = ATOM_TRY(indentation(width, 4, meter));
  const bool with_blank = blank != nullptr && truthy(*blank);
  const std::string text = value.as_string() + "\n";
  ATOM_TRY(meter.charge(static_cast<int64_t>(text.size() / 4)));
  std::string out = first != nullptr && truthy(*first) ? margin : "";
  bool at_start = true;
  for (const std::string_view line : split_lines(text, false)) {
    ATOM_TRY(meter.charge_growth(out.size(), margin.size() + line.size() + 1));
    if (!at_start) {
      out += '\n';
      if (with_blank || !line.empty()) out += margin;
    }
    at_start = false;
    out += line;
  }
  return Value::string(std::move(out), value.is_safe());
}

Result<Value> tojson(const Value& value, Args args, Meter& meter) {
  const auto [ascii, indent_value, separators, sort_keys] =
      ATOM_TRY(bind(args, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0));
  JsonStyle style;
  style.ensure_ascii = ascii != nullptr && truthy(*ascii);
  style.sort_keys = sort_keys != nullptr && truthy(*sort_keys);
  if (indent_value != nullptr && !indent_value->is(Kind::kNone)) {
    style.indent = ATOM_TRY(indentation(indent_value, 0, meter));
    style.item_separator = ",";
  }
  if (separators != nullptr && !separators->is(Kind::kNone)) {
    if (!separators->is_sequence() || separators->items().size() != 2) {
      return type_error("tojson(): separators must be a pair of strings");
    }
    style.item_separator = ATOM_TRY(string_argument(separators->items()[0], "tojson"));
    style.key_separator = ATOM_TRY(string_argument(separators->items()[1], "tojson"));
  }
  return Value::string(ATOM_TRY(to_json(value, style, meter)));
}

Result<Value> format(const Value& value, Args args, Meter& meter) {
  const Value text = ATOM_TRY(as_text(value, meter));
  if (args.named.empty()) return percent_format(text, Value::tuple(args.positional), meter);
  if (!args.positional.empty()) {
    return type_error("can't handle positional and keyword arguments at the same time");
  }
  Dict dict;
  for (const auto& [name, argument] : args.named) dict.set(name, argument);
  return percent_format(text, Value::dict(std::move(dict)), meter);
}

Result<Value> center(const Value& value, Args args, Meter& meter) {
  const auto [width] = ATOM_TRY(bind(args, "center", {"width"}, 0));
  const Value text = ATOM_TRY(as_text(value, meter));
  CallArgs method_args;
  method_args.positional.push_back(width == nullptr ? Value::integer(80) : *width);
  return find_method(text, "center")->body(text, method_args, meter);
}

Result<Value> truncate(const Value& value, Args args, Meter& meter) {
  const auto [length_value, kill_words, end_value, leeway_value] =
      ATOM_TRY(bind(args, "truncate", {"length", "killwords", "end", "leeway"}, 0));
  const std::string end =
      end_value == nullptr ? "..." : std::string(ATOM_TRY(string_argument(*end_value, "truncate")));
  const int64_t limit =
      length_value == nullptr ? 255 : ATOM_TRY(integer_argument(*length_value, "truncate"));
  const int64_t leeway = leeway_value == nullptr || leeway_value->is(Kind::kNone)
                             ? 5
                             : ATOM_TRY(integer_argument(*leeway_value, "truncate"));
  const int64_t end_length = count_code_points(end);
  if (limit < end_length) return type_error("truncate(): expected length >= {}", end_length);
  if (leeway < 0) return type_error("truncate(): expected leeway >= 0");
  const int64_t have = ATOM_TRY(length(value, meter));
  if (have <= limit || have - limit <= leeway) return value;
  if (!value.is(Kind::kString)) return type_error("truncate() cannot cut a '{}'", type_name(value));
  const std::string& text = value.as_string();
  ATOM_TRY(meter.charge(static_cast<int64_t>(text.size() / 4)));
  const std::vector<size_t> offsets = code_point_offsets(text);
  std::string kept = text.substr(0, offsets[static_cast<size_t>(limit - end_length)]);
  if (kill_words == nullptr || !truthy(*kill_words)) {
    kept = kept.substr(0, std::min(kept.rfind(' '), kept.size()));
  }
  return Value::string(kept + end);
}

Result<Value> word_count(const Value& value, Args args, Meter& meter) {
  const std::string text = ATOM_TRY(to_str(value, meter));
  ATOM_TRY(meter.charge_text(text.size() * 2));
  int64_t words = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint c = decode_at(text, pos);
    const bool word = c.value == '_' || is_alpha(c.value) || is_numeric(c.value);
    if (word && !inside) ++words;
    inside = word;
    pos += c.size;
  }
  return no_more(args, Value::integer(words));
}

void append_quoted_url(std::string& out, std::string_view text, bool form) {
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos;
    if (plain || (c == '/' && !form)) {
      out += c;
    } else if (c == ' ' && form) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
}

Result<Value> url_encode(const Value& value, Args args, Meter& meter) {
  std::string out;
  if (value.is(Kind::kString) || !is_iterable(value)) {
    const std::string text = ATOM_TRY(to_str(value, meter));
    ATOM_TRY(meter.charge_text(text.size() * 3));
    append_quoted_url(out, text, false);
    return no_more(args, Value::string(std::move(out)));
  }
  const Value items = value.is(Kind::kDict)
                          ? Value::object(std::make_shared<View>(value, View::Part::kItems))
                          : value;
  for (const Value& item : ATOM_TRY(iterate(items, meter))) {
    const std::vector<Value> pair = ATOM_TRY(iterate(item, meter));
    if (pair.size() != 2) return type_error("urlencode() takes pairs of a key and a value");
    const std::string key = ATOM_TRY(to_str(pair[0], meter));
    const std::string text = ATOM_TRY(to_str(pair[1], meter));
    ATOM_TRY(meter.charge_growth(out.size(), (key.size() + text.size()) * 3 + 2));
    if (!out.empty()) out += '&';
    append_quoted_url(out, key, true);
    out += '=';
    append_quoted_url(out, text, true);
  }
  return no_more(args, Value::string(std::move(out)));
}

constexpr FilterEntry kFilters[] = {
    {"string", string},
    {"safe", safe},
    {"upper", mapped<to_upper>},
    {"lower", mapped<to_lower>},
    {"capitalize", mapped<to_capitalized>},
    {"title", title},
    {"trim", trim},
    {"replace", replace},
    {"escape", escape},
    {"e", escape},
    {"forceescape", force_escape},
    {"indent", indent},
    {"tojson", tojson},
    {"format", format},
    {"center", center},
    {"truncate", truncate},
    {"wordcount", word_count},
    {"urlencode", url_encode},
};

}  // namespace

std::span<const FilterEntry> text_filters() { return kFilters; }

}  // namespace atom::jinja
