// The two halves of the parser: expressions, and the statements built on them.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace atom::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  void next() {
    if (at_ + 1 < tokens_.size()) ++at_;
  }
  bool skip_name(std::string_view name);
  bool skip_operator(std::string_view op);
  Status expect_operator(std::string_view op);
  Status expect_name(std::string_view name);
  Result<std::string> expect_any_name();
  Status expect(TokenType type, const char* what);

  template <class... Args>
  Status fail_at(int line, fmt::format_string<Args...> format, Args&&... args) const {
    return error(ErrorCode::kCorrupt, "line {}: {}", line,
                 fmt::format(format, std::forward<Args>(args)...));
  }

  Result<ExprPtr> parse_expression(bool with_conditional = true);
  // Expressions with commas between them make a tuple.
  Result<ExprPtr> parse_tuple(bool with_conditional, bool in_parentheses = false);
  // Names, tuples of names and, if allowed, namespace attributes.
  Result<ExprPtr> parse_target(bool with_namespace);
  Result<ExprPtr> parse_filters(ExprPtr input, bool at_name);

  // Which of caller, varargs and kwargs the macros around the current place mention.
  std::vector<Callable*> callables_;

 private:
  Result<ExprPtr> parse_conditional();
  Result<ExprPtr> parse_or();
  Result<ExprPtr> parse_and();
  Result<ExprPtr> parse_not();
  Result<ExprPtr> parse_compare();
  Result<ExprPtr> parse_sum();
  Result<ExprPtr> parse_concat();
  Result<ExprPtr> parse_product();
  Result<ExprPtr> parse_power();
  Result<ExprPtr> parse_unary(bool with_filters = true);
  Result<ExprPtr> parse_primary(bool with_namespace = false);
  Result<ExprPtr> parse_list();
  Result<ExprPtr> parse_dict();
  Result<ExprPtr> parse_postfix(ExprPtr expr);
  Result<ExprPtr> parse_postfix_filters(ExprPtr expr);
  Result<ExprPtr> parse_dot(ExprPtr expr);
  Result<ExprPtr> parse_brackets(ExprPtr expr);
  Result<ExprPtr> parse_call(ExprPtr expr);
  Result<ExprPtr> parse_test(ExprPtr expr);
  Status parse_arguments(Arguments& out);
  Status check_target(const Expr& target) const;

  ExprPtr make(ExprKind kind, int line) const;
  // Sets the depth from the children, and fails where it is too much.
  Result<ExprPtr> finish(ExprPtr expr) const;
  template <class... Children>
  Result<ExprPtr> make_with(ExprKind kind, int line, Children... children) const {
    ExprPtr expr = make(kind, line);
    (expr->children.push_back(std::move(children)), ...);
    return finish(std::move(expr));
  }

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

class TemplateParser : private ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;
  Result<Body> parse();

 private:
  using EndTags = std::initializer_list<std::string_view>;
  using StmtPtr = std::unique_ptr<Stmt>;

  Result<Body> parse_body(EndTags end_tags);
  // The rest of the opening tag, and the body up to one of the end tags, which is left current.
  Result<Body> parse_block(EndTags end_tags);
  // Likewise, and the end tag's name is passed.
  Result<Body> parse_closed_block(std::string_view end_tag);
  Result<StmtPtr> parse_statement(EndTags end_tags);
  Result<StmtPtr> parse_if();
  Result<StmtPtr> parse_for();
  Result<StmtPtr> parse_set();
  Result<StmtPtr> parse_macro();
  Result<StmtPtr> parse_call_block();
  Result<StmtPtr> parse_with();
  Result<StmtPtr> parse_print();
  Result<StmtPtr> parse_named_block();
  Status parse_signature(Callable& callable);
  // The body of a macro or call block.
  Result<Body> parse_callable_body(Callable& callable, std::string_view end_tag);
  Status unknown_tag(EndTags end_tags) const;
  std::unique_ptr<Stmt> make(StmtKind kind) const;

  int body_nesting_ = 0;
  int loops_ = 0;  // around the current place, within its macro
};

}  // namespace atom::jinja
