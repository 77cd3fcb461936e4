#include <algorithm>

#include "text/jinja_parser.h"

namespace atom::jinja {
namespace {

// Counts how deeply the parser has called itself while in scope.
class Nesting {
 public:
  explicit Nesting(int& depth) : depth_(depth) { ++depth_; }
  ~Nesting() { --depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  int& depth_;
};

}  // namespace

bool ExpressionParser::skip_name(std::string_view name) {
  if (!current().is_name(name)) return false;
  next();
  return true;
}

bool ExpressionParser::skip_operator(std::string_view op) {
  if (!current().is_operator(op)) return false;
  next();
  return true;
}

Status ExpressionParser::expect_operator(std::string_view op) {
  if (skip_operator(op)) return {};
  return fail_at(current().line, "expected '{}', got {}", op, current().description());
}

Status ExpressionParser::expect_name(std::string_view name) {
  if (skip_name(name)) return {};
  return fail_at(current().line, "expected '{}', got {}", name, current().description());
}

Result<std::string> ExpressionParser::expect_any_name() {
  if (current().type != TokenType::kName) {
    return fail_at(current().line, "expected a name, got {}", current().description());
  }
  std::string name = current().text;
  next();
  return name;
}

Status ExpressionParser::expect(TokenType type, const char* what) {
  if (current().type != type) {
    return fail_at(current().line, "expected {}, got {}", what, current().description());
  }
  next();
  return {};
}

ExprPtr ExpressionParser::make(ExprKind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

Result<ExprPtr> ExpressionParser::finish(ExprPtr expr) const {
  int deepest = 0;
  const auto count = [&](const ExprPtr& child) {
    if (child != nullptr) deepest = std::max(deepest, child->depth);
  };
  for (const ExprPtr& child : expr->children) count(child);
  for (const ExprPtr& argument : expr->arguments.positional) count(argument);
  for (const auto& [name, argument] : expr->arguments.named) count(argument);
  count(expr->arguments.more_positional);
  count(expr->arguments.more_named);
  expr->depth = deepest + 1;
  if (expr->depth > kMaxTreeDepth) return fail_at(expr->line, "an expression is nested too deeply");
  return expr;
}

Result<ExprPtr> ExpressionParser::parse_expression(bool with_conditional) {
  const Nesting nesting(nesting_);
  if (nesting_ > kMaxTreeDepth) {
    return fail_at(current().line, "an expression is nested too deeply");
  }
  return with_conditional ? parse_conditional() : parse_or();
}

Result<ExprPtr> ExpressionParser::parse_conditional() {
  ExprPtr expr = ATOM_TRY(parse_or());
  while (current().is_name("if")) {
    const int line = current().line;
    next();
    ExprPtr condition = ATOM_TRY(parse_or());
    ExprPtr otherwise;
    if (skip_name("else")) otherwise = ATOM_TRY(parse_expression());
    expr = ATOM_TRY(make_with(ExprKind::kConditional, line, std::move(condition), std::move(expr),
                              std::move(otherwise)));
  }
  return expr;
}

Result<ExprPtr> ExpressionParser::parse_or() {
  ExprPtr left = ATOM_TRY(parse_and());
  while (current().is_name("or")) {
    const int line = current().line;
    next();
    ExprPtr right = ATOM_TRY(parse_and());
    left = ATOM_TRY(make_with(ExprKind::kOr, line, std::move(left), std::move(right)));
  }
  return left;
}

Result<ExprPtr> ExpressionParser::parse_and() {
  ExprPtr left = ATOM_TRY(parse_not());
  while (current().is_name("and")) {
    const int line = current().line;
    next();
    ExprPtr right = ATOM_TRY(parse_not());
    left = ATOM_TRY(make_with(ExprKind::kAnd, line, std::move(left), std::move(right)));
  }
  return left;
}

Result<ExprPtr> ExpressionParser::parse_not() {
  if (!current().is_name("not")) return parse_compare();
  const Nesting nesting(nesting_);
  if (nesting_ > kMaxTreeDepth) {
    return fail_at(current().line, "an expression is nested too deeply");
  }
  const int line = current().line;
  next();
  return make_with(ExprKind::kNot, line, ATOM_TRY(parse_not()));
}

Result<ExprPtr> ExpressionParser::parse_compare() {
  constexpr std::pair<std::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEq}, {"!=", Comparison::kNe}, {"<", Comparison::kLt},
      {"<=", Comparison::kLe}, {">", Comparison::kGt},  {">=", Comparison::kGe}};
  ExprPtr first = ATOM_TRY(parse_sum());
  ExprPtr compare = make(ExprKind::kCompare, current().line);
  compare->children.push_back(std::move(first));
  for (;;) {
    const auto* op =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& entry) { return current().is_operator(entry.first); });
    if (op != std::end(kOperators)) {
      compare->comparisons.push_back(op->second);
      next();
    } else if (skip_name("in")) {
      compare->comparisons.push_back(Comparison::kIn);
    } else if (current().is_name("not") && ahead().is_name("in")) {
      compare->comparisons.push_back(Comparison::kNotIn);
      next();
      next();
    } else {
      break;
    }
    compare->children.push_back(ATOM_TRY(parse_sum()));
  }
  if (compare->comparisons.empty()) return std::move(compare->children[0]);
  return finish(std::move(compare));
}

Result<ExprPtr> ExpressionParser::parse_sum() {
  ExprPtr left = ATOM_TRY(parse_concat());
  while (current().is_operator("+") || current().is_operator("-")) {
    const BinaryOp op = current().is_operator("+") ? BinaryOp::kAdd : BinaryOp::kSub;
    const int line = current().line;
    next();
    ExprPtr right = ATOM_TRY(parse_concat());
    left = ATOM_TRY(make_with(ExprKind::kBinary, line, std::move(left), std::move(right)));
    left->op = op;
  }
  return left;
}

Result<ExprPtr> ExpressionParser::parse_concat() {
  ExprPtr first = ATOM_TRY(parse_product());
  if (!current().is_operator("~")) return first;
  ExprPtr concat = make(ExprKind::kConcat, current().line);
  concat->children.push_back(std::move(first));
  while (skip_operator("~")) concat->children.push_back(ATOM_TRY(parse_product()));
  return finish(std::move(concat));
}

Result<ExprPtr> ExpressionParser::parse_product() {
  constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {{"*", BinaryOp::kMul},
                                                                  {"/", BinaryOp::kDiv},
                                                                  {"//", BinaryOp::kFloorDiv},
                                                                  {"%", BinaryOp::kMod}};
  ExprPtr left = ATOM_TRY(parse_power());
  for (;;) {
    const auto* op =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& entry) { return current().is_operator(entry.first); });
    if (op == std::end(kOperators)) return left;
    const int line = current().line;
    next();
    ExprPtr right = ATOM_TRY(parse_power());
    left = ATOM_TRY(make_with(ExprKind::kBinary, line, std::move(left), std::move(right)));
    left->op = op->second;
  }
}

// Unlike Python's, Jinja's ** binds to the left.
Result<ExprPtr> ExpressionParser::parse_power() {
  ExprPtr left = ATOM_TRY(parse_unary());
  while (current().is_operator("**")) {
    const int line = current().line;
    next();
    ExprPtr right = ATOM_TRY(parse_unary());
    left = ATOM_TRY(make_with(ExprKind::kBinary, line, std::move(left), std::move(right)));
    left->op = BinaryOp::kPow;
  }
  return left;
}

Result<ExprPtr> ExpressionParser::parse_unary(bool with_filters) {
  const Nesting nesting(nesting_);
  if (nesting_ > kMaxTreeDepth) {
    return fail_at(current().line, "an expression is nested too deeply");
  }
  const int line = current().line;
  ExprPtr expr;
  if (skip_operator("-")) {
    expr = ATOM_TRY(make_with(ExprKind::kNegative, line, ATOM_TRY(parse_unary(false))));
  } else if (skip_operator("+")) {
    expr = ATOM_TRY(make_with(ExprKind::kPositive, line, ATOM_TRY(parse_unary(false))));
  } else {
    expr = ATOM_TRY(parse_primary());
  }
  expr = ATOM_TRY(parse_postfix(std::move(expr)));
  return with_filters ? parse_postfix_filters(std::move(expr)) : Result<ExprPtr>(std::move(expr));
}

Result<ExprPtr> ExpressionParser::parse_primary(bool with_namespace) {
  const Token& token = current();
  ExprPtr expr = make(ExprKind::kConstant, token.line);
  switch (token.type) {
    case TokenType::kName: {
      const std::string name = token.text;
      next();
      if (name == "true" || name == "True" || name == "false" || name == "False") {
        expr->constant = Value::boolean(name == "true" || name == "True");
      } else if (name == "none" || name == "None") {
        expr->constant = Value::none();
      } else if (with_namespace && skip_operator(".")) {
        expr->kind = ExprKind::kNamespaceTarget;
        expr->name = name;
        expr->constant = Value::string(ATOM_TRY(expect_any_name()));
      } else {
        expr->kind = ExprKind::kName;
        expr->name = name;
        for (Callable* callable : callables_) {
          callable->uses_caller |= name == "caller";
          callable->uses_varargs |= name == "varargs";
          callable->uses_kwargs |= name == "kwargs";
        }
      }
      return expr;
    }
    case TokenType::kString: {
      std::string text;
      while (current().type == TokenType::kString) {
        text += current().text;
        next();
      }
      expr->constant = Value::string(std::move(text));
      return expr;
    }
    case TokenType::kInteger:
      expr->constant = Value::integer(token.integer);
      next();
      return expr;
    case TokenType::kFloat:
      expr->constant = Value::floating(token.number);
      next();
      return expr;
    default:
      break;
  }
  if (skip_operator("(")) {
    expr = ATOM_TRY(parse_tuple(true, true));
    ATOM_TRY(expect_operator(")"));
    return expr;
  }
  if (token.is_operator("[")) return parse_list();
  if (token.is_operator("{")) return parse_dict();
  return fail_at(token.line, "unexpected {}", token.description());
}

Result<ExprPtr> ExpressionParser::parse_tuple(bool with_conditional, bool in_parentheses) {
  const int line = current().line;
  ExprPtr tuple = make(ExprKind::kTuple, line);
  bool is_tuple = false;
  for (;;) {
    const Token& token = current();
    if (token.type == TokenType::kVariableEnd || token.type == TokenType::kBlockEnd ||
        token.is_operator(")")) {
      break;
    }
    tuple->children.push_back(ATOM_TRY(parse_expression(with_conditional)));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (!tuple->children.empty()) return std::move(tuple->children[0]);
    if (!in_parentheses) {
      return fail_at(line, "Expected an expression, got {}", current().description());
    }
  }
  return finish(std::move(tuple));
}

Status ExpressionParser::check_target(const Expr& target) const {
  switch (target.kind) {
    case ExprKind::kName:
    case ExprKind::kNamespaceTarget:
      return {};
    case ExprKind::kTuple:
      for (const ExprPtr& child : target.children) ATOM_TRY(check_target(*child));
      return {};
    default:
      return fail_at(target.line, "can't assign to this expression");
  }
}

Result<ExprPtr> ExpressionParser::parse_target(bool with_namespace) {
  ExprPtr tuple = make(ExprKind::kTuple, current().line);
  bool is_tuple = false;
  for (;;) {
    if (current().type == TokenType::kBlockEnd) break;
    tuple->children.push_back(ATOM_TRY(parse_primary(with_namespace)));
    ATOM_TRY(check_target(*tuple->children.back()));
    if (!skip_operator(",")) break;
    is_tuple = true;
  }
  if (tuple->children.empty()) {
    return fail_at(tuple->line, "Expected an expression, got {}", current().description());
  }
  if (!is_tuple) return std::move(tuple->children[0]);
  return finish(std::move(tuple));
}

Result<ExprPtr> ExpressionParser::parse_list() {
  ExprPtr list = make(ExprKind::kList, current().line);
  ATOM_TRY(expect_operator("["));
  while (!current().is_operator("]")) {
    if (!list->children.empty()) ATOM_TRY(expect_operator(","));
    if (current().is_operator("]")) break;
    list->children.push_back(ATOM_TRY(parse_expression()));
  }
  next();
  return finish(std::move(list));
}

Result<ExprPtr> ExpressionParser::parse_dict() {
  ExprPtr dict = make(ExprKind::kDict, current().line);
  ATOM_TRY(expect_operator("{"));
  while (!current().is_operator("}")) {
    if (!dict->children.empty()) ATOM_TRY(expect_operator(","));
    if (current().is_operator("}")) break;
    dict->children.push_back(ATOM_TRY(parse_expression()));
    ATOM_TRY(expect_operator(":"));
    dict->children.push_back(ATOM_TRY(parse_expression()));
  }
  next();
  return finish(std::move(dict));
}

}  // namespace atom::jinja
