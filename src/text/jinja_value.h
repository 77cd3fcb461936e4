// The values a template computes with, and the operators on them, after Python: None, bool, int,
// float, str, list, tuple, dict, and objects such as namespaces and macros. Values are immutable
// but for some objects; integers have 64 bits, and leaving them is an error.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"

namespace atom::jinja {

// Deepest nesting of lists, tuples, dicts and objects in one another, and of JSON input.
inline constexpr int kMaxValueDepth = 200;

// What a render may still spend. A step is the evaluation of one node of the template, the handling
// of one list element, or the writing or scanning of kBytesPerStep bytes of text.
class Meter {
 public:
  static constexpr size_t kBytesPerStep = 64;

  Meter(int64_t steps, size_t max_text_bytes) : steps_(steps), max_text_bytes_(max_text_bytes) {}

  Status charge(int64_t steps) {
    steps_ -= steps;
    if (steps_ >= 0) [[likely]]
      return {};
    return out_of_steps();
  }
  // To be asked before a text of this size is made or scanned.
  Status charge_text(size_t bytes) { return charge_growth(0, bytes); }
  // To be asked before `added` bytes are appended to a text of `size` bytes.
  Status charge_growth(size_t size, size_t added);

 private:
  static Status out_of_steps();
  int64_t steps_;
  size_t max_text_bytes_;
};

// In the order of Value's variant.
enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kObject,
};

class Value;
class Dict;
class Object;
struct CallArgs;

struct Undefined {
  std::shared_ptr<const std::string> message;  // what an operation on it reports
};
struct Text {
  std::string text;
  bool safe = false;  // came from |safe or |escape: what is added to it gets escaped
};
struct Sequence {
  std::vector<Value> items;
  int depth = 1;
};
struct ListRef {
  std::shared_ptr<const Sequence> data;
};
struct TupleRef {
  std::shared_ptr<const Sequence> data;
};

class Value {
 public:
  Value() = default;
  static Value undefined(std::string message);
  static Value none() { return Value(std::in_place_type<std::monostate>); }
  static Value boolean(bool value) { return Value(std::in_place_type<bool>, value); }
  static Value integer(int64_t value) { return Value(std::in_place_type<int64_t>, value); }
  static Value floating(double value) { return Value(std::in_place_type<double>, value); }
  static Value string(std::string text, bool safe = false);
  static Value list(std::vector<Value> items);
  static Value tuple(std::vector<Value> items);
  static Value pair(Value first, Value second);
  static Value dict(Dict dict);
  static Value object(std::shared_ptr<Object> object) {
    return Value(std::in_place_type<std::shared_ptr<Object>>, std::move(object));
  }

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is(Kind wanted) const { return kind() == wanted; }
  bool is_sequence() const { return is(Kind::kList) || is(Kind::kTuple); }
  // Bool, int or float: what Python counts as numbers.
  bool is_number() const { return is(Kind::kBool) || is(Kind::kInt) || is(Kind::kFloat); }
  bool is_integral() const { return is(Kind::kBool) || is(Kind::kInt); }

  // REQUIRES of all below: the value has that kind.
  const std::string& undefined_message() const;
  bool as_bool() const { return std::get<bool>(data_); }
  int64_t as_int() const;    // bool or int
  double as_number() const;  // bool, int or float
  const std::string& as_string() const {
    return std::get<std::shared_ptr<const Text>>(data_)->text;
  }
  bool is_safe() const {
    return is(Kind::kString) && std::get<std::shared_ptr<const Text>>(data_)->safe;
  }
  const std::vector<Value>& items() const;  // list or tuple
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Object& as_object() const { return *std::get<std::shared_ptr<Object>>(data_); }
  const std::shared_ptr<Object>& object_ref() const {
    return std::get<std::shared_ptr<Object>>(data_);
  }

  int depth() const;
  // Python's "is": the same object, or the same None, bool or number.
  bool same_as(const Value& other) const;

 private:
  using Data =
      std::variant<Undefined, std::monostate, bool, int64_t, double, std::shared_ptr<const Text>,
                   ListRef, TupleRef, std::shared_ptr<const Dict>, std::shared_ptr<Object>>;
  // Built in place: GCC 12 warns of a variant that is moved here.
  template <class T, class... Args>
  explicit Value(std::in_place_type_t<T> type, Args&&... args)
      : data_(type, std::forward<Args>(args)...) {}
  Data data_;
};

// A dict in insertion order. Keys are None, bools, numbers and strings.
class Dict {
 public:
  using Item = std::pair<Value, Value>;

  static bool hashable(const Value& key);
  // Replaces the value where the key is there already. REQUIRES: hashable(key).
  void set(Value key, Value value);
  void set(std::string_view key, Value value) {
    set(Value::string(std::string(key)), std::move(value));
  }
  const Value* find(const Value& key) const;  // null if absent or not hashable
  const Value* find(std::string_view key) const;
  const std::vector<Item>& items() const { return items_; }
  size_t size() const { return items_.size(); }
  int depth() const { return depth_; }

 private:
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(const Value& key) const;
    size_t operator()(std::string_view key) const;
  };
  struct KeyEqual {
    using is_transparent = void;
    bool operator()(const Value& a, const Value& b) const;
    bool operator()(const Value& a, std::string_view b) const;
    bool operator()(std::string_view a, const Value& b) const { return (*this)(b, a); }
  };
  // Its place in items_, or items_.size().
  template <class Key>
  size_t position(const Key& key) const;

  std::vector<Item> items_;
  std::unordered_map<Value, size_t, KeyHash, KeyEqual> index_;  // only of larger dicts
  int depth_ = 1;
};

enum class ObjectType : uint8_t {
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kMethod,
  kRange,
  kIterator,  // what map, select ... return: can be gone through once
  kView,      // dict.keys(), values(), items()
  kCycler,
  kJoiner,
};

// What is neither a plain value nor a container. Derived types are told apart by type().
class Object {
 public:
  virtual ~Object() = default;
  ObjectType type() const { return type_; }
  int depth() const { return depth_; }

  // The attribute of that name, or nothing where there is none.
  virtual Result<std::optional<Value>> find_attribute(std::string_view name, Meter& meter);
  virtual bool callable() const { return false; }
  virtual Result<Value> call(const CallArgs& args, Meter& meter);

 protected:
  explicit Object(ObjectType type, int depth = 1) : type_(type), depth_(depth) {}

 private:
  ObjectType type_;
  int depth_;
};

// The object of a value if it is one of that type, else null.
template <class T>
T* object_cast(const Value& value) {
  if (!value.is(Kind::kObject) || value.as_object().type() != T::kType) return nullptr;
  return static_cast<T*>(&value.as_object());
}

// type(value).__name__.
const char* type_name(const Value& value);
bool truthy(const Value& value);
// str(value) and repr(value), appended to out; fails where out would grow past the meter's limit.
Status append_str(std::string& out, const Value& value, Meter& meter);
Status append_repr(std::string& out, const Value& value, Meter& meter);
Result<std::string> to_str(const Value& value, Meter& meter);
// text with & < > " ' as HTML writes them.
std::string escape_html(std::string_view text);
// The text of a string, escaped unless the string is safe.
std::string escaped(const Value& string);
// repr(text) and repr(number).
void append_quoted(std::string& out, std::string_view text);
std::string float_repr(double value);

Result<bool> equals(const Value& a, const Value& b, Meter& meter);
// a < b; an error for kinds without an order.
Result<bool> less(const Value& a, const Value& b, const char* op, Meter& meter);
// a <= b, likewise.
Result<bool> less_or_equal(const Value& a, const Value& b, const char* op, Meter& meter);
Result<bool> contains(const Value& container, const Value& item, Meter& meter);

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
Result<Value> apply(BinaryOp op, const Value& a, const Value& b, Meter& meter);
Result<Value> negate(const Value& value);

// The elements of whatever can be iterated over; an iterator is used up by it.
Result<std::vector<Value>> iterate(const Value& value, Meter& meter);
bool is_iterable(const Value& value);
// len(value); an error for what has none.
Result<int64_t> length(const Value& value, Meter& meter);

// The error that using an undefined value gives.
Status undefined_error(const Value& value);
template <class... Args>
Status type_error(fmt::format_string<Args...> format, Args&&... args) {
  return error(ErrorCode::kInvalidArgument, format, std::forward<Args>(args)...);
}

}  // namespace atom::jinja
