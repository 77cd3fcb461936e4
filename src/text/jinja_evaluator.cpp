// The expressions of the interpreter.
#include <array>

#include "text/jinja_attributes.h"
#include "text/jinja_interpreter.h"

namespace atom::jinja {

// A global function that needs the state of the render.
class StatefulFunction final : public Object {
 public:
  using Body = Result<Value> (Interpreter::*)(const CallArgs& args);
  StatefulFunction(Interpreter& interpreter, Body body)
      : Object(ObjectType::kFunction), interpreter_(interpreter), body_(body) {}
  bool callable() const override { return true; }
  Result<Value> call(const CallArgs& args, Meter&) override { return (interpreter_.*body_)(args); }

 private:
  Interpreter& interpreter_;
  Body body_;
};

Result<Value> Interpreter::eval(const Expr& expr) {
  const Descent descent(*this);
  ATOM_TRY(descent.check());
  ATOM_TRY(meter_.charge(1));
  return eval_node(expr);
}

Result<Value> Interpreter::eval_node(const Expr& expr) {
  const auto& children = expr.children;
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return eval_name(expr);
    case ExprKind::kList:
      return Value::list(ATOM_TRY(eval_all(children)));
    case ExprKind::kTuple:
      return Value::tuple(ATOM_TRY(eval_all(children)));
    case ExprKind::kDict:
      return eval_dict(expr);
    case ExprKind::kNegative:
      return negate(ATOM_TRY(eval(*children[0])));
    case ExprKind::kPositive: {
      Value value = ATOM_TRY(eval(*children[0]));
      if (value.is(Kind::kBool)) return Value::integer(value.as_int());
      if (value.is(Kind::kUndefined)) return undefined_error(value);
      if (!value.is_number()) {
        return type_error("bad operand type for unary +: '{}'", type_name(value));
      }
      return value;
    }
    case ExprKind::kNot:
      return Value::boolean(!truthy(ATOM_TRY(eval(*children[0]))));
    case ExprKind::kAnd: {
      Value left = ATOM_TRY(eval(*children[0]));
      return truthy(left) ? eval(*children[1]) : Result<Value>(std::move(left));
    }
    case ExprKind::kOr: {
      Value left = ATOM_TRY(eval(*children[0]));
      return truthy(left) ? Result<Value>(std::move(left)) : eval(*children[1]);
    }
    case ExprKind::kBinary:
      return eval_binary(expr);
    case ExprKind::kConcat:
      return eval_concat(expr);
    case ExprKind::kCompare:
      return eval_compare(expr);
    case ExprKind::kConditional:
      return eval_conditional(expr);
    case ExprKind::kAttribute: {
      const Value value = ATOM_TRY(eval(*children[0]));
      line_ = expr.line;
      return get_attribute(value, expr.name, meter_);
    }
    case ExprKind::kItem: {
      const Value value = ATOM_TRY(eval(*children[0]));
      const Value key = ATOM_TRY(eval(*children[1]));
      line_ = expr.line;
      return get_item(value, key, meter_);
    }
    case ExprKind::kSlice:
      return eval_slice(expr);
    case ExprKind::kCall:
      return eval_call(expr);
    case ExprKind::kFilter:
      return apply_filter(expr, ATOM_TRY(eval(*children[0])));
    case ExprKind::kTest:
      return eval_test(expr);
    case ExprKind::kNamespaceTarget:
      break;
  }
  return Status(ErrorCode::kInternal, "this expression has no value");
}

Result<Value> Interpreter::eval_optional(const ExprPtr& expr) {
  return expr == nullptr ? Result<Value>(Value::none()) : eval(*expr);
}

Result<std::vector<Value>> Interpreter::eval_all(const std::vector<ExprPtr>& exprs) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) {
    values.push_back(ATOM_TRY(eval(*expr)));
    if (values.back().depth() >= kMaxValueDepth) return type_error("a value is nested too deeply");
  }
  return values;
}

Result<const Value*> Interpreter::find_variable(std::string_view name) {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    ATOM_TRY(meter_.charge(static_cast<int64_t>(scope->variables.size() / 16)));
    for (const auto& [known, value] : scope->variables) {
      if (known == name) return &value;
    }
  }
  return variables_.find(name);
}

Value Interpreter::find_stateful_global(std::string_view name) {
  if (name == "namespace") {
    return Value::object(std::make_shared<StatefulFunction>(*this, &Interpreter::make_namespace));
  }
  if (name == "strftime_now") {
    return Value::object(std::make_shared<StatefulFunction>(*this, &Interpreter::strftime_now));
  }
  return {};
}

Result<Value> Interpreter::eval_name(const Expr& expr) {
  if (const Value* value = ATOM_TRY(find_variable(expr.name))) return *value;
  if (const Function::Body body = find_global(expr.name)) {
    return Value::object(std::make_shared<Function>(body));
  }
  Value global = find_stateful_global(expr.name);
  if (!global.is(Kind::kUndefined)) return global;
  line_ = expr.line;
  return Value::undefined(fmt::format("'{}' is undefined", expr.name));
}

Result<Value> Interpreter::eval_dict(const Expr& expr) {
  Dict dict;
  for (size_t i = 0; i + 1 < expr.children.size(); i += 2) {
    Value key = ATOM_TRY(eval(*expr.children[i]));
    if (!Dict::hashable(key)) {
      line_ = expr.line;
      return type_error("a dict key of type '{}' is not supported", type_name(key));
    }
    dict.set(std::move(key), ATOM_TRY(eval(*expr.children[i + 1])));
  }
  if (dict.depth() > kMaxValueDepth) return type_error("a value is nested too deeply");
  return Value::dict(std::move(dict));
}

Result<Value> Interpreter::eval_binary(const Expr& expr) {
  const Value left = ATOM_TRY(eval(*expr.children[0]));
  const Value right = ATOM_TRY(eval(*expr.children[1]));
  line_ = expr.line;
  return apply(expr.op, left, right, meter_);
}

Result<Value> Interpreter::eval_concat(const Expr& expr) {
  std::string out;
  for (const ExprPtr& child : expr.children) {
    const Value value = ATOM_TRY(eval(*child));
    line_ = expr.line;
    ATOM_TRY(append_str(out, value, meter_));
  }
  return Value::string(std::move(out));
}

Result<Value> Interpreter::eval_compare(const Expr& expr) {
  Value left = ATOM_TRY(eval(*expr.children[0]));
  bool holds = true;
  for (size_t i = 0; i < expr.comparisons.size() && holds; ++i) {
    Value right = ATOM_TRY(eval(*expr.children[i + 1]));
    line_ = expr.line;
    switch (expr.comparisons[i]) {
      case Comparison::kEq:
        holds = ATOM_TRY(equals(left, right, meter_));
        break;
      case Comparison::kNe:
        holds = !ATOM_TRY(equals(left, right, meter_));
        break;
      case Comparison::kLt:
        holds = ATOM_TRY(less(left, right, "<", meter_));
        break;
      case Comparison::kLe:
        holds = ATOM_TRY(less_or_equal(left, right, "<=", meter_));
        break;
      case Comparison::kGt:
        holds = ATOM_TRY(less(right, left, ">", meter_));
        break;
      case Comparison::kGe:
        holds = ATOM_TRY(less_or_equal(right, left, ">=", meter_));
        break;
      case Comparison::kIn:
        holds = ATOM_TRY(contains(right, left, meter_));
        break;
      case Comparison::kNotIn:
        holds = !ATOM_TRY(contains(right, left, meter_));
        break;
    }
    left = std::move(right);
  }
  return Value::boolean(holds);
}

Result<Value> Interpreter::eval_conditional(const Expr& expr) {
  if (truthy(ATOM_TRY(eval(*expr.children[0])))) return eval(*expr.children[1]);
  if (expr.children[2] != nullptr) return eval(*expr.children[2]);
  return Value::undefined(
      fmt::format("the inline if-expression on line {} evaluated to false and no else section was "
                  "defined.",
                  expr.line));
}

Result<Value> Interpreter::eval_slice(const Expr& expr) {
  const Value value = ATOM_TRY(eval(*expr.children[0]));
  const Value start = ATOM_TRY(eval_optional(expr.children[1]));
  const Value stop = ATOM_TRY(eval_optional(expr.children[2]));
  const Value step = ATOM_TRY(eval_optional(expr.children[3]));
  line_ = expr.line;
  return get_slice(value, start, stop, step, meter_);
}

Result<CallArgs> Interpreter::eval_arguments(const Arguments& arguments) {
  CallArgs args;
  args.positional = ATOM_TRY(eval_all(arguments.positional));
  for (const auto& [name, expr] : arguments.named) {
    args.named.emplace_back(name, ATOM_TRY(eval(*expr)));
  }
  if (arguments.more_positional != nullptr) {
    const Value more = ATOM_TRY(eval(*arguments.more_positional));
    for (Value& value : ATOM_TRY(iterate(more, meter_)))
      args.positional.push_back(std::move(value));
  }
  if (arguments.more_named != nullptr) {
    const Value more = ATOM_TRY(eval(*arguments.more_named));
    if (!more.is(Kind::kDict)) {
      return type_error("argument after ** must be a mapping, not {}", type_name(more));
    }
    ATOM_TRY(meter_.charge(static_cast<int64_t>(more.as_dict().size())));
    for (const auto& [key, value] : more.as_dict().items()) {
      if (!key.is(Kind::kString)) return type_error("keywords must be strings");
      if (args.find_named(key.as_string()) != nullptr) {
        return type_error("got multiple values for keyword argument '{}'", key.as_string());
      }
      args.named.emplace_back(key.as_string(), value);
    }
  }
  return args;
}

Result<Value> Interpreter::call(const Value& callee, const CallArgs& args) {
  if (callee.is(Kind::kUndefined)) return undefined_error(callee);
  if (!callee.is(Kind::kObject) || !callee.as_object().callable()) {
    return type_error("'{}' object is not callable", type_name(callee));
  }
  Value result = ATOM_TRY(callee.as_object().call(args, meter_));
  if (result.depth() > kMaxValueDepth) return type_error("a value is nested too deeply");
  return result;
}

Result<Value> Interpreter::eval_call(const Expr& expr) {
  const Expr& callee = *expr.children[0];
  if (callee.kind == ExprKind::kAttribute) {
    // Methods of plain values are called without being bound first.
    const Value self = ATOM_TRY(eval(*callee.children[0]));
    const MethodEntry* method = find_method(self, callee.name);
    if (method != nullptr && method->body != nullptr) {
      const CallArgs args = ATOM_TRY(eval_arguments(expr.arguments));
      line_ = expr.line;
      Value result = ATOM_TRY(method->body(self, args, meter_));
      if (result.depth() > kMaxValueDepth) return type_error("a value is nested too deeply");
      return result;
    }
    line_ = expr.line;
    const Value found = ATOM_TRY(get_attribute(self, callee.name, meter_));
    const CallArgs args = ATOM_TRY(eval_arguments(expr.arguments));
    line_ = expr.line;
    return call(found, args);
  }
  const Value found = ATOM_TRY(eval(callee));
  const CallArgs args = ATOM_TRY(eval_arguments(expr.arguments));
  line_ = expr.line;
  return call(found, args);
}

Result<Value> Interpreter::apply_filter(const Expr& expr, const Value& input) {
  const CallArgs args = ATOM_TRY(eval_arguments(expr.arguments));
  line_ = expr.line;
  if (expr.filter == nullptr) return type_error("No filter named '{}'.", expr.name);
  Value result = ATOM_TRY(expr.filter(input, args, meter_));
  if (result.depth() > kMaxValueDepth) return type_error("a value is nested too deeply");
  return result;
}

Result<Value> Interpreter::eval_test(const Expr& expr) {
  const Value value = ATOM_TRY(eval(*expr.children[0]));
  const CallArgs args = ATOM_TRY(eval_arguments(expr.arguments));
  line_ = expr.line;
  if (expr.test == nullptr) return type_error("No test named '{}'.", expr.name);
  return Value::boolean(ATOM_TRY(expr.test(value, args, meter_)));
}

Result<Value> Interpreter::make_namespace(const CallArgs& args) {
  auto made = std::make_shared<Namespace>();
  const Dict attributes = ATOM_TRY(collect_dict(args, meter_));
  for (const auto& [key, value] : attributes.items()) {
    if (!key.is(Kind::kString)) return type_error("namespace attributes must have string names");
    ATOM_TRY(made->set(key.as_string(), value));
  }
  namespaces_.push_back(made);
  return Value::object(std::move(made));
}

Result<Value> Interpreter::strftime_now(const CallArgs& args) {
  const auto [format_value] = ATOM_TRY(bind(args, "strftime_now", {"format"}, 1));
  const std::string_view source = ATOM_TRY(string_argument(*format_value, "strftime_now"));
  constexpr size_t kMaxFormatBytes = 256;
  if (source.size() > kMaxFormatBytes) return type_error("strftime_now(): the format is too long");
  // As for Python's naive datetimes, there is no time zone to tell.
  std::string format;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '%' || i + 1 == source.size()) {
      format += source[i];
      continue;
    }
    ++i;
    if (source[i] != 'z' && source[i] != 'Z') format += {'%', source[i]};
  }
  std::tm now{};
  if (options_.now) {
    now = *options_.now;
  } else {
    const std::time_t seconds = std::time(nullptr);
    localtime_r(&seconds, &now);
  }
  std::array<char, 16384> buffer;
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &now);
  return Value::string(std::string(buffer.data(), size));
}

}  // namespace atom::jinja
