// Runs a parsed template.
#pragma once

#include <ctime>
#include <optional>

#include "text/jinja_ast.h"

namespace atom::jinja {

struct Limits {
  size_t max_source_bytes = size_t{1} << 20;
  size_t max_text_bytes = size_t{16} << 20;  // of the output, and of any string on the way
  int64_t max_steps = 10'000'000;            // about a second
};

struct RenderOptions {
  Limits limits;
  std::optional<std::tm> now;  // what strftime_now() tells; the local time if not set
};

// Variables of one block of the template. Names point into the syntax tree.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent) : parent(std::move(parent)) {}
  void set(std::string_view name, Value value);

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<std::string_view, Value>> variables;
};

class Interpreter {
 public:
  Interpreter(const Dict& variables, const RenderOptions& options);
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  Result<std::string> render(const Body& body);
  // The line of the template that was worked on last, for error messages.
  int line() const { return line_; }

 private:
  friend class Macro;
  friend class Loop;
  friend class StatefulFunction;
  class Descent;
  class Capture;
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  // Statements: jinja_interpreter.cpp.
  Result<Flow> run_body(const Body& body);
  Result<Flow> run_in_scope(const Body& body);
  Result<Flow> run(const Stmt& stmt);
  Result<Flow> run_if(const Stmt& stmt);
  Result<Flow> run_for(const Stmt& stmt, const Value& iterable, int depth);
  Result<Flow> run_with(const Stmt& stmt);
  Status run_set_block(const Stmt& stmt);
  Status run_filter_block(const Stmt& stmt);
  Status run_call_block(const Stmt& stmt);
  Status define_macro(const Stmt& stmt);
  Status write(std::string_view text);
  Status assign(const Expr& target, const Value& value);
  Result<Value> call_macro(const Callable& callable, const Body& body,
                           const std::shared_ptr<Scope>& closure, const CallArgs& args);
  Status bind_macro(const Callable& callable, const CallArgs& args);

  // Expressions: jinja_evaluator.cpp.
  Result<Value> eval(const Expr& expr);
  Result<Value> eval_node(const Expr& expr);
  Result<Value> eval_optional(const ExprPtr& expr);  // none where null
  Result<std::vector<Value>> eval_all(const std::vector<ExprPtr>& exprs);
  Result<Value> eval_name(const Expr& expr);
  Result<Value> eval_dict(const Expr& expr);
  Result<Value> eval_binary(const Expr& expr);
  Result<Value> eval_concat(const Expr& expr);
  Result<Value> eval_compare(const Expr& expr);
  Result<Value> eval_conditional(const Expr& expr);
  Result<Value> eval_slice(const Expr& expr);
  Result<Value> eval_call(const Expr& expr);
  Result<Value> eval_test(const Expr& expr);
  Result<Value> apply_filter(const Expr& expr, const Value& input);
  // Applies filter to filter, the innermost to this value.
  Result<Value> apply_filter_chain(const Expr& expr, const Value& innermost);
  Result<CallArgs> eval_arguments(const Arguments& arguments);
  Result<Value> call(const Value& callee, const CallArgs& args);
  Result<const Value*> find_variable(std::string_view name);  // null if there is none
  Value find_stateful_global(std::string_view name);
  Result<Value> make_namespace(const CallArgs& args);
  Result<Value> strftime_now(const CallArgs& args);

  const Dict& variables_;
  const RenderOptions& options_;
  Meter meter_;
  std::string* out_ = nullptr;
  std::shared_ptr<Scope> scope_;
  int depth_ = 0;
  int line_ = 1;
  // What may hold itself, emptied at the end so that it is freed.
  std::vector<std::shared_ptr<Object>> namespaces_;
  std::vector<std::shared_ptr<Scope>> macro_scopes_;
};

// Counts how deeply statements, expressions and macros run within one another, and gives up before
// the stack does.
class Interpreter::Descent {
 public:
  static constexpr int kMaxDepth = 1000;
  explicit Descent(Interpreter& interpreter) : depth_(interpreter.depth_) { ++depth_; }
  ~Descent() { --depth_; }
  Descent(const Descent&) = delete;
  Descent& operator=(const Descent&) = delete;
  Status check() const {
    if (depth_ <= kMaxDepth) [[likely]]
      return {};
    return Status(ErrorCode::kUnsupported, "the template recurses too deeply");
  }

 private:
  int& depth_;
};

}  // namespace atom::jinja
