#include "text/jinja_value.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "text/jinja_object.h"
#include "text/jinja_unicode.h"

namespace atom::jinja {
namespace {

// Dicts up to this size are searched in order, without an index.
constexpr size_t kSmallDict = 8;

int depth_of(const std::vector<Value>& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  return deepest + 1;
}

std::shared_ptr<const Sequence> make_sequence(std::vector<Value> items) {
  auto data = std::make_shared<Sequence>();
  data->depth = depth_of(items);
  data->items = std::move(items);
  return data;
}

}  // namespace

Status Meter::charge_growth(size_t size, size_t added) {
  if (added > max_text_bytes_ || size > max_text_bytes_ - added) {
    return error(ErrorCode::kUnsupported, "a text grows beyond the limit of {} bytes",
                 max_text_bytes_);
  }
  return charge(static_cast<int64_t>(added / kBytesPerStep));
}

Status Meter::out_of_steps() {
  return Status(ErrorCode::kUnsupported, "the template takes too many steps");
}

Value Value::undefined(std::string message) {
  return Value(std::in_place_type<Undefined>,
               Undefined{std::make_shared<const std::string>(std::move(message))});
}
Value Value::string(std::string text, bool safe) {
  return Value(std::in_place_type<std::shared_ptr<const Text>>,
               std::make_shared<const Text>(Text{std::move(text), safe}));
}
Value Value::list(std::vector<Value> items) {
  return Value(std::in_place_type<ListRef>, ListRef{make_sequence(std::move(items))});
}
Value Value::tuple(std::vector<Value> items) {
  return Value(std::in_place_type<TupleRef>, TupleRef{make_sequence(std::move(items))});
}
Value Value::pair(Value first, Value second) {
  std::vector<Value> items;
  items.reserve(2);
  items.push_back(std::move(first));
  items.push_back(std::move(second));
  return tuple(std::move(items));
}
Value Value::dict(Dict dict) {
  return Value(std::in_place_type<std::shared_ptr<const Dict>>,
               std::make_shared<const Dict>(std::move(dict)));
}

const std::string& Value::undefined_message() const {
  static const std::string unnamed = "value is undefined";
  const auto& message = std::get<Undefined>(data_).message;
  return message == nullptr ? unnamed : *message;
}

int64_t Value::as_int() const {
  return is(Kind::kBool) ? int64_t{as_bool()} : std::get<int64_t>(data_);
}
double Value::as_number() const {
  return is(Kind::kFloat) ? std::get<double>(data_) : static_cast<double>(as_int());
}

const std::vector<Value>& Value::items() const {
  return is(Kind::kList) ? std::get<ListRef>(data_).data->items
                         : std::get<TupleRef>(data_).data->items;
}

int Value::depth() const {
  switch (kind()) {
    case Kind::kList:
      return std::get<ListRef>(data_).data->depth;
    case Kind::kTuple:
      return std::get<TupleRef>(data_).data->depth;
    case Kind::kDict:
      return as_dict().depth();
    case Kind::kObject:
      return as_object().depth();
    default:
      return 0;
  }
}

bool Value::same_as(const Value& other) const {
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::kUndefined:
      return this == &other;
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return as_bool() == other.as_bool();
    case Kind::kInt:
      return as_int() == other.as_int();
    case Kind::kFloat:
      return this == &other;
    case Kind::kString:
      return &as_string() == &other.as_string();
    case Kind::kList:
    case Kind::kTuple:
      return &items() == &other.items();
    case Kind::kDict:
      return &as_dict() == &other.as_dict();
    case Kind::kObject:
      return &as_object() == &other.as_object();
  }
  return false;
}

bool Dict::hashable(const Value& key) {
  return key.is(Kind::kString) || key.is(Kind::kNone) || key.is_number();
}

size_t Dict::KeyHash::operator()(std::string_view key) const {
  return std::hash<std::string_view>{}(key);
}
size_t Dict::KeyHash::operator()(const Value& key) const {
  switch (key.kind()) {
    case Kind::kString:
      return (*this)(std::string_view(key.as_string()));
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return std::hash<double>{}(key.as_number());  // 1 == 1.0 == True
    default:
      return 0;
  }
}
bool Dict::KeyEqual::operator()(const Value& a, std::string_view b) const {
  return a.is(Kind::kString) && a.as_string() == b;
}
bool Dict::KeyEqual::operator()(const Value& a, const Value& b) const {
  if (a.is(Kind::kString)) return b.is(Kind::kString) && a.as_string() == b.as_string();
  if (a.is_integral() && b.is_integral()) return a.as_int() == b.as_int();
  if (a.is_number()) return b.is_number() && a.as_number() == b.as_number();
  return a.is(Kind::kNone) && b.is(Kind::kNone);
}

template <class Key>
size_t Dict::position(const Key& key) const {
  if (!index_.empty()) {
    const auto it = index_.find(key);
    return it == index_.end() ? items_.size() : it->second;
  }
  size_t i = 0;
  while (i < items_.size() && !KeyEqual{}(items_[i].first, key)) ++i;
  return i;
}

const Value* Dict::find(const Value& key) const {
  if (!hashable(key)) return nullptr;
  const size_t at = position(key);
  return at < items_.size() ? &items_[at].second : nullptr;
}
const Value* Dict::find(std::string_view key) const {
  const size_t at = position(key);
  return at < items_.size() ? &items_[at].second : nullptr;
}

void Dict::set(Value key, Value value) {
  depth_ = std::max(depth_, value.depth() + 1);
  if (const size_t at = position(key); at < items_.size()) {
    items_[at].second = std::move(value);
    return;
  }
  items_.emplace_back(std::move(key), std::move(value));
  if (items_.size() <= kSmallDict) return;
  for (size_t i = index_.size(); i < items_.size(); ++i) index_.emplace(items_[i].first, i);
}

const Value* CallArgs::find_named(std::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

Status bind_parameters(const CallArgs& args, std::string_view function,
                       std::span<const std::string_view> names, size_t required,
                       std::span<const Value*> out) {
  if (args.positional.size() > names.size()) {
    return type_error("{}() takes at most {} arguments ({} given)", function, names.size(),
                      args.positional.size());
  }
  for (size_t i = 0; i < args.positional.size(); ++i) out[i] = &args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto it = std::find(names.begin(), names.end(), name);
    if (it == names.end()) {
      return type_error("{}() got an unexpected keyword argument '{}'", function, name);
    }
    const Value*& slot = out[static_cast<size_t>(it - names.begin())];
    if (slot != nullptr) {
      return type_error("{}() got multiple values for argument '{}'", function, name);
    }
    slot = &value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (out[i] == nullptr) {
      return type_error("{}() missing required argument '{}'", function, names[i]);
    }
  }
  return {};
}

Result<std::optional<Value>> Object::find_attribute(std::string_view, Meter&) {
  return std::optional<Value>();
}

Result<Value> Object::call(const CallArgs&, Meter&) {
  return Status(ErrorCode::kInternal, "an object that cannot be called was called");
}

Result<std::optional<Value>> Namespace::find_attribute(std::string_view name, Meter&) {
  const Value* value = attributes_.find(name);
  return value == nullptr ? std::optional<Value>() : *value;
}

Status Namespace::set(std::string_view name, Value value) {
  if (!name.empty() && name[0] == '_') {
    return type_error("a namespace cannot store the attribute '{}'", name);
  }
  attributes_.set(name, std::move(value));
  return {};
}

Value Iterator::make(std::vector<Value> items) {
  const int depth = depth_of(items);
  return Value::object(std::make_shared<Iterator>(std::move(items), depth));
}

Value View::at(size_t index) const {
  const auto& [key, value] = dict.as_dict().items()[index];
  switch (part) {
    case Part::kKeys:
      return key;
    case Part::kValues:
      return value;
    case Part::kItems:
      return Value::pair(key, value);
  }
  return {};
}

Status undefined_error(const Value& value) {
  return error(ErrorCode::kInvalidArgument, "{}", value.undefined_message());
}

const char* type_name(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      break;
  }
  switch (value.as_object().type()) {
    case ObjectType::kNamespace:
      return "Namespace";
    case ObjectType::kLoop:
      return "LoopContext";
    case ObjectType::kMacro:
      return "Macro";
    case ObjectType::kFunction:
      return "function";
    case ObjectType::kMethod:
      return "builtin_function_or_method";
    case ObjectType::kRange:
      return "range";
    case ObjectType::kIterator:
      return "generator";
    case ObjectType::kView:
      return "dict_view";
    case ObjectType::kCycler:
      return "Cycler";
    case ObjectType::kJoiner:
      return "Joiner";
  }
  return "object";
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return value.as_bool();
    case Kind::kInt:
      return value.as_int() != 0;
    case Kind::kFloat:
      return value.as_number() != 0;
    case Kind::kString:
      return !value.as_string().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.items().empty();
    case Kind::kDict:
      return value.as_dict().size() != 0;
    case Kind::kObject:
      break;
  }
  if (const auto* range = object_cast<Range>(value)) return range->length != 0;
  if (const auto* view = object_cast<View>(value)) return view->dict.as_dict().size() != 0;
  return true;
}

bool is_iterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
      return true;
    case Kind::kObject:
      break;
    default:
      return false;
  }
  const ObjectType type = value.as_object().type();
  return type == ObjectType::kRange || type == ObjectType::kIterator || type == ObjectType::kView;
}

Result<std::vector<Value>> iterate(const Value& value, Meter& meter) {
  std::vector<Value> out;
  if (value.is_sequence()) {
    ATOM_TRY(meter.charge(static_cast<int64_t>(value.items().size())));
    return value.items();
  }
  if (value.is(Kind::kString)) {
    const std::string_view text = value.as_string();
    // Each becomes a string of its own, which takes more than a list element does.
    ATOM_TRY(meter.charge(static_cast<int64_t>(text.size()) * 4));
    for (size_t pos = 0; pos < text.size();) {
      const size_t size = decode_at(text, pos).size;
      out.push_back(Value::string(std::string(text.substr(pos, size))));
      pos += size;
    }
  } else if (value.is(Kind::kDict)) {
    ATOM_TRY(meter.charge(static_cast<int64_t>(value.as_dict().size())));
    for (const auto& item : value.as_dict().items()) out.push_back(item.first);
  } else if (const auto* range = object_cast<Range>(value)) {
    ATOM_TRY(meter.charge(range->length));
    for (int64_t i = 0; i < range->length; ++i) out.push_back(Value::integer(range->at(i)));
  } else if (auto* iterator = object_cast<Iterator>(value)) {
    ATOM_TRY(meter.charge(static_cast<int64_t>(iterator->items.size() - iterator->next)));
    out.assign(iterator->items.begin() + static_cast<std::ptrdiff_t>(iterator->next),
               iterator->items.end());
    iterator->next = iterator->items.size();
  } else if (const auto* view = object_cast<View>(value)) {
    const size_t size = view->dict.as_dict().size();
    ATOM_TRY(meter.charge(static_cast<int64_t>(size)));
    for (size_t i = 0; i < size; ++i) out.push_back(view->at(i));
  } else if (!value.is(Kind::kUndefined)) {
    return type_error("'{}' object is not iterable", type_name(value));
  }
  return out;
}

Result<int64_t> length(const Value& value, Meter& meter) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      ATOM_TRY(meter.charge_text(value.as_string().size()));
      return count_code_points(value.as_string());
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.as_dict().size());
    default:
      break;
  }
  if (const auto* range = object_cast<Range>(value)) return range->length;
  if (const auto* view = object_cast<View>(value)) {
    return static_cast<int64_t>(view->dict.as_dict().size());
  }
  return type_error("object of type '{}' has no len()", type_name(value));
}

}  // namespace atom::jinja
