// The statements of the interpreter.
#include "text/jinja_interpreter.h"

#include <algorithm>
#include <utility>

namespace atom::jinja {

// Sends the output to a buffer while in scope.
class Interpreter::Capture {
 public:
  explicit Capture(Interpreter& interpreter)
      : interpreter_(interpreter), previous_(std::exchange(interpreter.out_, &text)) {}
  ~Capture() { interpreter_.out_ = previous_; }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  std::string text;

 private:
  Interpreter& interpreter_;
  std::string* previous_;
};

// A macro, or the body of a call block, with the scope it was defined in.
class Macro final : public Object {
 public:
  static constexpr ObjectType kType = ObjectType::kMacro;
  Macro(Interpreter& interpreter, const Callable& callable, const Body& body,
        std::shared_ptr<Scope> closure)
      : Object(kType),
        interpreter_(interpreter),
        callable_(callable),
        body_(body),
        closure_(std::move(closure)) {}

  bool callable() const override { return true; }
  Result<Value> call(const CallArgs& args, Meter&) override {
    return interpreter_.call_macro(callable_, body_, closure_, args);
  }
  Result<std::optional<Value>> find_attribute(std::string_view name, Meter&) override {
    if (name != "name") return std::optional<Value>();
    return std::optional<Value>(Value::string(callable_.name));
  }

 private:
  Interpreter& interpreter_;
  const Callable& callable_;
  const Body& body_;
  std::shared_ptr<Scope> closure_;
};

// The variable `loop`. Items that the loop's own condition rejects are passed over only when the
// loop gets to them, since the condition may depend on what the body did before.
class Loop final : public Object, public std::enable_shared_from_this<Loop> {
 public:
  static constexpr ObjectType kType = ObjectType::kLoop;
  Loop(Interpreter& interpreter, const Stmt& stmt, std::vector<Value> items, int value_depth,
       int loop_depth)
      : Object(kType, value_depth),
        interpreter_(interpreter),
        stmt_(stmt),
        items_(std::move(items)),
        scope_(interpreter.scope_),
        loop_depth_(loop_depth) {}

  // The next item, or nothing at the end.
  Result<std::optional<Value>> advance() {
    std::optional<Value> item = ATOM_TRY(peek());
    after_.reset();
    if (!item) return item;
    ++index0_;
    before_ = std::exchange(current_, *item);
    return item;
  }

  Result<std::optional<Value>> find_attribute(std::string_view name, Meter&) override;
  bool callable() const override { return stmt_.recursive; }
  Result<Value> call(const CallArgs& args, Meter& meter) override;

 private:
  using Attribute = Result<std::optional<Value>>;

  static Result<Value> cycle(const Value& self, const CallArgs& args, Meter&) {
    if (args.positional.empty()) return type_error("no items for cycling given");
    const auto index = static_cast<size_t>(std::max<int64_t>(object_cast<Loop>(self)->index0_, 0));
    return args.positional[index % args.positional.size()];
  }

  static Result<Value> changed(const Value& self, const CallArgs& args, Meter& meter) {
    auto* loop = object_cast<Loop>(self);
    const Value now = Value::tuple(args.positional);
    if (now.depth() > kMaxValueDepth) return type_error("a value is nested too deeply");
    if (loop->last_changed_ && ATOM_TRY(equals(*loop->last_changed_, now, meter))) {
      return Value::boolean(false);
    }
    loop->last_changed_ = now;
    return Value::boolean(true);
  }

  Result<std::optional<Value>> peek() {
    if (after_) return after_;
    while (next_ < items_.size()) {
      Value item = items_[next_++];
      if (stmt_.test != nullptr && !length_ && !ATOM_TRY(passes(item))) continue;
      after_ = std::move(item);
      return after_;
    }
    return std::optional<Value>();
  }

  Result<bool> passes(const Value& item) {
    const auto outer = std::exchange(interpreter_.scope_, std::make_shared<Scope>(scope_));
    const Status status = interpreter_.assign(*stmt_.target, item);
    Result<Value> verdict = status.ok() ? interpreter_.eval(*stmt_.test) : Result<Value>(status);
    interpreter_.scope_ = outer;
    return truthy(ATOM_TRY(std::move(verdict)));
  }

  // How many items there are in all; settles which of the coming ones pass.
  Result<int64_t> length() {
    if (stmt_.test == nullptr) return static_cast<int64_t>(items_.size());
    if (!length_) {
      std::vector<Value> rest;
      std::optional<Value> first = std::exchange(after_, std::nullopt);
      if (first) rest.push_back(std::move(*first));
      for (;;) {
        const std::optional<Value> item = ATOM_TRY(peek());
        after_.reset();
        if (!item) break;
        rest.push_back(*item);
      }
      length_ = index0_ + 1 + static_cast<int64_t>(rest.size());
      items_ = std::move(rest);
      next_ = 0;
    }
    return *length_;
  }

  Interpreter& interpreter_;
  const Stmt& stmt_;
  std::vector<Value> items_;
  size_t next_ = 0;
  std::shared_ptr<Scope> scope_;  // around the loop
  int64_t index0_ = -1;
  int loop_depth_;
  std::optional<int64_t> length_;  // once known, all that is left in items_ has passed
  std::optional<Value> after_;     // the next item where it was looked at already
  Value current_;
  Value before_;
  std::optional<Value> last_changed_;
};

Result<std::optional<Value>> Loop::find_attribute(std::string_view name, Meter&) {
  const auto integer = [](int64_t value) { return std::optional<Value>(Value::integer(value)); };
  if (name == "index") return integer(index0_ + 1);
  if (name == "index0") return integer(index0_);
  if (name == "first") return std::optional<Value>(Value::boolean(index0_ == 0));
  if (name == "last") {
    return std::optional<Value>(Value::boolean(!ATOM_TRY(peek()).has_value()));
  }
  if (name == "length") return integer(ATOM_TRY(length()));
  if (name == "revindex") return integer(ATOM_TRY(length()) - index0_);
  if (name == "revindex0") return integer(ATOM_TRY(length()) - index0_ - 1);
  if (name == "depth") return integer(loop_depth_ + 1);
  if (name == "depth0") return integer(loop_depth_);
  if (name == "previtem") {
    return std::optional<Value>(index0_ == 0 ? Value::undefined("there is no previous item")
                                             : before_);
  }
  if (name == "nextitem") {
    const std::optional<Value> item = ATOM_TRY(peek());
    return std::optional<Value>(item ? *item : Value::undefined("there is no next item"));
  }
  if (name == "cycle" || name == "changed") {
    const Value self = Value::object(shared_from_this());
    return std::optional<Value>(
        Value::object(std::make_shared<Method>(self, name == "cycle" ? cycle : changed)));
  }
  return std::optional<Value>();
}

Result<Value> Loop::call(const CallArgs& args, Meter&) {
  const auto [iterable] = ATOM_TRY(bind(args, "loop", {"iterable"}, 1));
  const auto caller_scope = std::exchange(interpreter_.scope_, scope_);
  Interpreter::Capture capture(interpreter_);
  const auto flow = interpreter_.run_for(stmt_, *iterable, loop_depth_ + 1);
  interpreter_.scope_ = caller_scope;
  if (!flow.ok()) return flow.status();
  return Value::string(std::move(capture.text));
}

void Scope::set(std::string_view name, Value value) {
  for (auto& [known, old] : variables) {
    if (known == name) {
      old = std::move(value);
      return;
    }
  }
  variables.emplace_back(name, std::move(value));
}

Interpreter::Interpreter(const Dict& variables, const RenderOptions& options)
    : variables_(variables),
      options_(options),
      meter_(options.limits.max_steps, options.limits.max_text_bytes),
      scope_(std::make_shared<Scope>(nullptr)) {}

Interpreter::~Interpreter() {
  for (const auto& object : namespaces_) static_cast<Namespace&>(*object).clear();
  for (const auto& scope : macro_scopes_) scope->variables.clear();
}

Result<std::string> Interpreter::render(const Body& body) {
  std::string text;
  out_ = &text;
  ATOM_TRY(run_body(body));
  return text;
}

Status Interpreter::write(std::string_view text) {
  ATOM_TRY(meter_.charge_growth(out_->size(), text.size()));
  *out_ += text;
  return {};
}

Result<Interpreter::Flow> Interpreter::run_body(const Body& body) {
  const Descent descent(*this);
  ATOM_TRY(descent.check());
  for (const auto& stmt : body) {
    ATOM_TRY(meter_.charge(1));
    line_ = stmt->line;
    const Flow flow = ATOM_TRY(run(*stmt));
    if (flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::run_in_scope(const Body& body) {
  const auto outer = scope_;
  scope_ = std::make_shared<Scope>(outer);
  Result<Flow> flow = run_body(body);
  scope_ = outer;
  return flow;
}

Result<Interpreter::Flow> Interpreter::run(const Stmt& stmt) {
  switch (stmt.kind) {
    case StmtKind::kText:
      ATOM_TRY(write(stmt.text));
      break;
    case StmtKind::kOutput:
      ATOM_TRY(append_str(*out_, ATOM_TRY(eval(*stmt.expr)), meter_));
      break;
    case StmtKind::kIf:
      return run_if(stmt);
    case StmtKind::kFor:
      return run_for(stmt, ATOM_TRY(eval(*stmt.expr)), 0);
    case StmtKind::kSet:
      ATOM_TRY(assign(*stmt.target, ATOM_TRY(eval(*stmt.expr))));
      break;
    case StmtKind::kSetBlock:
      ATOM_TRY(run_set_block(stmt));
      break;
    case StmtKind::kMacro:
      ATOM_TRY(define_macro(stmt));
      break;
    case StmtKind::kCallBlock:
      ATOM_TRY(run_call_block(stmt));
      break;
    case StmtKind::kFilterBlock:
      ATOM_TRY(run_filter_block(stmt));
      break;
    case StmtKind::kWith:
      return run_with(stmt);
    case StmtKind::kScope:
      return run_in_scope(stmt.body);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::run_if(const Stmt& stmt) {
  for (const Branch& branch : stmt.branches) {
    if (truthy(ATOM_TRY(eval(*branch.condition)))) return run_body(branch.body);
  }
  return run_body(stmt.else_body);
}

Result<Interpreter::Flow> Interpreter::run_for(const Stmt& stmt, const Value& iterable, int depth) {
  const Descent descent(*this);
  ATOM_TRY(descent.check());
  if (iterable.depth() >= kMaxValueDepth) return type_error("a value is nested too deeply");
  const auto loop = std::make_shared<Loop>(*this, stmt, ATOM_TRY(iterate(iterable, meter_)),
                                           iterable.depth() + 1, depth);
  const auto outer = scope_;
  auto scope = std::make_shared<Scope>(outer);
  bool any = false;
  for (;;) {
    const std::optional<Value> item = ATOM_TRY(loop->advance());
    if (!item) break;
    any = true;
    ATOM_TRY(meter_.charge(4));  // a scope and its variables
    if (scope.use_count() == 1) {
      scope->variables.clear();
    } else {
      scope = std::make_shared<Scope>(outer);  // a macro keeps the last one
    }
    scope_ = scope;
    scope_->set("loop", Value::object(loop));
    const Status assigned = assign(*stmt.target, *item);
    const Result<Flow> flow = assigned.ok() ? run_body(stmt.body) : Result<Flow>(assigned);
    scope_ = outer;
    if (!flow.ok()) return flow;
    if (*flow == Flow::kBreak) break;
  }
  if (!any) return run_in_scope(stmt.else_body);
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::run_with(const Stmt& stmt) {
  std::vector<Value> values;
  for (const auto& [target, expr] : stmt.assignments) values.push_back(ATOM_TRY(eval(*expr)));
  const auto outer = scope_;
  scope_ = std::make_shared<Scope>(outer);
  Status status;
  for (size_t i = 0; i < values.size() && status.ok(); ++i) {
    status = assign(*stmt.assignments[i].first, values[i]);
  }
  Result<Flow> flow = status.ok() ? run_body(stmt.body) : Result<Flow>(status);
  scope_ = outer;
  return flow;
}

Status Interpreter::run_set_block(const Stmt& stmt) {
  Value value;
  {
    Capture capture(*this);
    ATOM_TRY(run_in_scope(stmt.body));
    value = Value::string(std::move(capture.text));
  }
  // A filter chain is applied from the inside out: its innermost input is the text.
  if (stmt.expr != nullptr) value = ATOM_TRY(apply_filter_chain(*stmt.expr, value));
  return assign(*stmt.target, value);
}

Status Interpreter::run_filter_block(const Stmt& stmt) {
  Value value;
  {
    Capture capture(*this);
    ATOM_TRY(run_in_scope(stmt.body));
    value = Value::string(std::move(capture.text));
  }
  return append_str(*out_, ATOM_TRY(apply_filter_chain(*stmt.expr, value)), meter_);
}

Result<Value> Interpreter::apply_filter_chain(const Expr& expr, const Value& innermost) {
  if (expr.children[0] == nullptr) return apply_filter(expr, innermost);
  return apply_filter(expr, ATOM_TRY(apply_filter_chain(*expr.children[0], innermost)));
}

Status Interpreter::run_call_block(const Stmt& stmt) {
  const Value callee = ATOM_TRY(eval(*stmt.expr->children[0]));
  CallArgs args = ATOM_TRY(eval_arguments(stmt.expr->arguments));
  args.named.emplace_back(
      "caller", Value::object(std::make_shared<Macro>(*this, stmt.callable, stmt.body, scope_)));
  line_ = stmt.line;
  return append_str(*out_, ATOM_TRY(call(callee, args)), meter_);
}

Status Interpreter::define_macro(const Stmt& stmt) {
  macro_scopes_.push_back(scope_);
  scope_->set(stmt.callable.name,
              Value::object(std::make_shared<Macro>(*this, stmt.callable, stmt.body, scope_)));
  return {};
}

Status Interpreter::assign(const Expr& target, const Value& value) {
  if (target.kind == ExprKind::kName) {
    ATOM_TRY(meter_.charge(static_cast<int64_t>(scope_->variables.size() / 16)));
    scope_->set(target.name, value);
    return {};
  }
  if (target.kind == ExprKind::kNamespaceTarget) {
    const Value* found = ATOM_TRY(find_variable(target.name));
    auto* made = found == nullptr ? nullptr : object_cast<Namespace>(*found);
    if (made == nullptr) return type_error("cannot assign attribute on non-namespace object");
    return made->set(target.constant.as_string(), value);
  }
  if (!is_iterable(value)) {
    return type_error("cannot unpack non-iterable {} object", type_name(value));
  }
  const std::vector<Value> items = ATOM_TRY(iterate(value, meter_));
  const size_t wanted = target.children.size();
  if (items.size() < wanted) {
    return type_error("not enough values to unpack (expected {}, got {})", wanted, items.size());
  }
  if (items.size() > wanted) return type_error("too many values to unpack (expected {})", wanted);
  for (size_t i = 0; i < wanted; ++i) ATOM_TRY(assign(*target.children[i], items[i]));
  return {};
}

Status Interpreter::bind_macro(const Callable& callable, const CallArgs& args) {
  const size_t declared = callable.parameters.size();
  std::vector<bool> used(args.named.size(), false);
  const auto take_named = [&](std::string_view name) -> const Value* {
    for (size_t i = 0; i < args.named.size(); ++i) {
      if (args.named[i].first != name || used[i]) continue;
      used[i] = true;
      return &args.named[i].second;
    }
    return nullptr;
  };
  for (size_t i = 0; i < declared; ++i) {
    const Parameter& parameter = callable.parameters[i];
    const Value* given =
        i < args.positional.size() ? &args.positional[i] : take_named(parameter.name);
    Value value;
    if (given != nullptr) {
      value = *given;
    } else if (parameter.fallback != nullptr) {
      value = ATOM_TRY(eval(*parameter.fallback));
    } else {
      value = Value::undefined(fmt::format("parameter '{}' was not provided", parameter.name));
    }
    scope_->set(parameter.name, std::move(value));
  }
  const auto declares = [&](std::string_view name) {
    return std::any_of(callable.parameters.begin(), callable.parameters.end(),
                       [&](const Parameter& parameter) { return parameter.name == name; });
  };
  if (callable.uses_caller && !declares("caller")) {
    const Value* caller = take_named("caller");
    scope_->set("caller", caller != nullptr ? *caller : Value::undefined("No caller defined"));
  }
  if (callable.uses_kwargs) {
    Dict rest;
    for (size_t i = 0; i < args.named.size(); ++i) {
      if (!used[i]) rest.set(args.named[i].first, args.named[i].second);
    }
    scope_->set("kwargs", Value::dict(std::move(rest)));
  } else if (const auto extra = std::find(used.begin(), used.end(), false); extra != used.end()) {
    return type_error("macro '{}' takes no keyword argument '{}'", callable.name,
                      args.named[static_cast<size_t>(extra - used.begin())].first);
  }
  if (callable.uses_varargs) {
    const size_t first = std::min(declared, args.positional.size());
    scope_->set("varargs",
                Value::tuple({args.positional.begin() + static_cast<std::ptrdiff_t>(first),
                              args.positional.end()}));
  } else if (args.positional.size() > declared) {
    return type_error("macro '{}' takes not more than {} argument(s)", callable.name, declared);
  }
  return {};
}

Result<Value> Interpreter::call_macro(const Callable& callable, const Body& body,
                                      const std::shared_ptr<Scope>& closure, const CallArgs& args) {
  const Descent descent(*this);
  ATOM_TRY(descent.check());
  const auto caller_scope = std::exchange(scope_, std::make_shared<Scope>(closure));
  Capture capture(*this);
  Status status = bind_macro(callable, args);
  if (status.ok()) status = run_body(body).status();
  scope_ = caller_scope;
  ATOM_TRY(status);
  return Value::string(std::move(capture.text));
}

}  // namespace atom::jinja
