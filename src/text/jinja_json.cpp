#include "text/jinja_json.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

template <class AnyJson>
Result<Value> convert(const AnyJson& json, int depth) {
  if (depth > kMaxValueDepth) {
    return error(ErrorCode::kInvalidArgument, "JSON is nested more than {} deep", kMaxValueDepth);
  }
  switch (json.type()) {
    case AnyJson::value_t::boolean:
      return Value::boolean(json.template get<bool>());
    case AnyJson::value_t::number_integer:
      return Value::integer(json.template get<int64_t>());
    case AnyJson::value_t::number_unsigned: {
      const auto number = json.template get<uint64_t>();
      if (number > static_cast<uint64_t>(INT64_MAX)) {
        return error(ErrorCode::kInvalidArgument, "the integer {} takes more than 64 bits", number);
      }
      return Value::integer(static_cast<int64_t>(number));
    }
    case AnyJson::value_t::number_float:
      return Value::floating(json.template get<double>());
    case AnyJson::value_t::string:
      return Value::string(json.template get<std::string>());
    case AnyJson::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const auto& item : json) items.push_back(ATOM_TRY(convert(item, depth + 1)));
      return Value::list(std::move(items));
    }
    case AnyJson::value_t::object: {
      Dict dict;
      for (auto it = json.begin(); it != json.end(); ++it) {
        dict.set(it.key(), ATOM_TRY(convert(it.value(), depth + 1)));
      }
      return Value::dict(std::move(dict));
    }
    default:
      return Value::none();
  }
}

class Writer {
 public:
  Writer(const JsonStyle& style, Meter& meter) : style_(style), meter_(meter) {}

  Status write(const Value& value, int level) {
    ATOM_TRY(meter_.charge(1));
    ATOM_TRY(meter_.charge_growth(out_.size(), 0));
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        return {};
      case Kind::kBool:
        out_ += value.as_bool() ? "true" : "false";
        return {};
      case Kind::kInt:
        out_ += fmt::format("{}", value.as_int());
        return {};
      case Kind::kFloat:
        out_ += number(value.as_number());
        return {};
      case Kind::kString:
        return write_string(value.as_string());
      case Kind::kList:
      case Kind::kTuple:
        return write_items(value.items(), level);
      case Kind::kDict:
        return write_dict(value.as_dict(), level);
      default:
        return type_error("Object of type {} is not JSON serializable", type_name(value));
    }
  }
  std::string take() { return std::move(out_); }

 private:
  static std::string number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
    return float_repr(value);
  }

  Status write_string(std::string_view text) {
    ATOM_TRY(meter_.charge_growth(out_.size(), text.size()));
    out_ += '"';
    for (size_t pos = 0; pos < text.size();) {
      const CodePoint c = decode_at(text, pos);
      switch (c.value) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\f':
          out_ += "\\f";
          break;
        case '\b':
          out_ += "\\b";
          break;
        default:
          if (c.value < 0x20 || (style_.ensure_ascii && c.value >= 0x7f)) {
            write_escape(c.value == kInvalidByte ? 0xfffd : c.value);
          } else {
            out_ += text.substr(pos, c.size);
          }
      }
      pos += c.size;
    }
    out_ += '"';
    return {};
  }

  void write_escape(uint32_t c) {
    if (c >= 0x10000) {
      c -= 0x10000;
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xd800 + (c >> 10), 0xdc00 + (c & 0x3ff));
    } else {
      out_ += fmt::format("\\u{:04x}", c);
    }
  }

  Status new_line(int level) {
    if (!style_.indent) return {};
    ATOM_TRY(meter_.charge_growth(out_.size(), style_.indent->size() * static_cast<size_t>(level)));
    out_ += '\n';
    for (int i = 0; i < level; ++i) out_ += *style_.indent;
    return {};
  }

  Status write_items(const std::vector<Value>& items, int level) {
    if (items.empty()) {
      out_ += "[]";
      return {};
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      ATOM_TRY(new_line(level + 1));
      ATOM_TRY(write(items[i], level + 1));
    }
    ATOM_TRY(new_line(level));
    out_ += ']';
    return {};
  }

  Status write_key(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return write_string(key.as_string());
      case Kind::kNone:
        return write_string("null");
      case Kind::kBool:
        return write_string(key.as_bool() ? "true" : "false");
      case Kind::kFloat:
        return write_string(number(key.as_number()));
      default:
        return write_string(fmt::format("{}", key.as_int()));
    }
  }

  Status write_dict(const Dict& dict, int level) {
    if (dict.size() == 0) {
      out_ += "{}";
      return {};
    }
    std::vector<const Dict::Item*> items;
    for (const Dict::Item& item : dict.items()) items.push_back(&item);
    if (style_.sort_keys) {
      Status failure;
      std::stable_sort(items.begin(), items.end(), [&](const auto* a, const auto* b) {
        if (!failure.ok()) return false;
        const Result<bool> is_less = less(a->first, b->first, "<", meter_);
        if (!is_less.ok()) failure = is_less.status();
        return is_less.ok() && *is_less;
      });
      ATOM_TRY(failure);
    }
    out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i != 0) out_ += style_.item_separator;
      ATOM_TRY(new_line(level + 1));
      ATOM_TRY(write_key(items[i]->first));
      out_ += style_.key_separator;
      ATOM_TRY(write(items[i]->second, level + 1));
    }
    ATOM_TRY(new_line(level));
    out_ += '}';
    return {};
  }

  const JsonStyle& style_;
  Meter& meter_;
  std::string out_;
};

}  // namespace

Result<Value> from_json(const Json& json) { return convert(json, 0); }
Result<Value> from_json(const nlohmann::ordered_json& json) { return convert(json, 0); }

Result<std::string> to_json(const Value& value, const JsonStyle& style, Meter& meter) {
  Writer writer(style, meter);
  ATOM_TRY(writer.write(value, 0));
  return writer.take();
}

}  // namespace atom::jinja
