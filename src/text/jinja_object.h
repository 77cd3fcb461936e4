// The objects that templates can hold besides plain values.
#pragma once

#include <array>
#include <span>

#include "text/jinja_value.h"

namespace atom::jinja {

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find_named(std::string_view name) const;
};

// Where a function's declared parameters find their values; null where not given.
template <size_t N>
using Bound = std::array<const Value*, N>;

Status bind_parameters(const CallArgs& args, std::string_view function,
                       std::span<const std::string_view> names, size_t required,
                       std::span<const Value*> out);
// Matches args to parameter names as Python does; the first `required` must be there.
template <size_t N>
Result<Bound<N>> bind(const CallArgs& args, std::string_view function,
                      const std::string_view (&names)[N], size_t required) {
  Bound<N> out{};
  const Status status = bind_parameters(args, function, names, required, out);
  if (!status.ok()) return status;
  return out;
}

// A function with a plain C++ body.
class Function final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kFunction;
  using Body = Result<Value> (*)(const CallArgs& args, Meter& meter);
  explicit Function(Body body) : Object(kType), body_(body) {}
  bool callable() const override { return true; }
  Result<Value> call(const CallArgs& args, Meter& meter) override { return body_(args, meter); }

 private:
  Body body_;
};

// A method of a string, list, tuple, dict or cycler, bound to it.
class Method final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kMethod;
  using Body = Result<Value> (*)(const Value& self, const CallArgs& args, Meter& meter);
  Method(Value self, Body body)
      : Object(kType, self.depth() + 1), self_(std::move(self)), body_(body) {}
  bool callable() const override { return true; }
  Result<Value> call(const CallArgs& args, Meter& meter) override {
    return body_(self_, args, meter);
  }

 private:
  Value self_;
  Body body_;
};

class Namespace final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kNamespace;
  Namespace() : Object(kType) {}

  // Fails for names that begin with an underscore.
  Status set(std::string_view name, Value value);
  Result<std::optional<Value>> find_attribute(std::string_view name, Meter& meter) override;
  const Dict& attributes() const { return attributes_; }
  void clear() { attributes_ = {}; }

 private:
  Dict attributes_;
};

class Range final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kRange;
  static constexpr int64_t kMaxLength = 100000;
  Range(int64_t start, int64_t stop, int64_t step, int64_t length)
      : Object(kType), start(start), stop(stop), step(step), length(length) {}
  int64_t at(int64_t index) const { return start + index * step; }

  const int64_t start, stop, step, length;
};

class Iterator final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kIterator;
  Iterator(std::vector<Value> items, int depth) : Object(kType, depth), items(std::move(items)) {}
  static Value make(std::vector<Value> items);

  std::vector<Value> items;
  size_t next = 0;
};

class View final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kView;
  enum class Part : uint8_t { kKeys, kValues, kItems };
  View(Value dict, Part part)
      : Object(kType, dict.depth() + 1), dict(std::move(dict)), part(part) {}
  Value at(size_t index) const;

  const Value dict;
  const Part part;
};

class Cycler final : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  static constexpr ObjectType kType = ObjectType::kCycler;
  explicit Cycler(Value items) : Object(kType, items.depth() + 1), items(std::move(items)) {}
  Result<std::optional<Value>> find_attribute(std::string_view name, Meter& meter) override;

  const Value items;  // a tuple, not empty
  size_t position = 0;
};

class Joiner final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kJoiner;
  explicit Joiner(Value separator)
      : Object(kType, separator.depth() + 1), separator(std::move(separator)) {}
  bool callable() const override { return true; }
  Result<Value> call(const CallArgs& args, Meter& meter) override;

  const Value separator;
  bool used = false;
};

}  // namespace atom::jinja
