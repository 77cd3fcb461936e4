// What follows a value in an expression: attributes, subscripts, calls, filters and tests.
#include "text/jinja_parser.h"

namespace atom::jinja {

Result<ExprPtr> ExpressionParser::parse_postfix(ExprPtr expr) {
  for (;;) {
    if (current().is_operator(".")) {
      expr = ATOM_TRY(parse_dot(std::move(expr)));
    } else if (current().is_operator("[")) {
      expr = ATOM_TRY(parse_brackets(std::move(expr)));
    } else if (current().is_operator("(")) {
      expr = ATOM_TRY(parse_call(std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ExpressionParser::parse_postfix_filters(ExprPtr expr) {
  for (;;) {
    if (current().is_operator("|")) {
      expr = ATOM_TRY(parse_filters(std::move(expr), false));
    } else if (current().is_name("is")) {
      expr = ATOM_TRY(parse_test(std::move(expr)));
    } else if (current().is_operator("(")) {
      expr = ATOM_TRY(parse_call(std::move(expr)));
    } else {
      return expr;
    }
  }
}

Result<ExprPtr> ExpressionParser::parse_dot(ExprPtr expr) {
  const int line = current().line;
  next();
  const Token& token = current();
  if (token.type == TokenType::kName) {
    ExprPtr attribute = make(ExprKind::kAttribute, line);
    attribute->name = token.text;
    attribute->children.push_back(std::move(expr));
    next();
    return finish(std::move(attribute));
  }
  if (token.type != TokenType::kInteger) return fail_at(token.line, "expected name or number");
  ExprPtr index = make(ExprKind::kConstant, line);
  index->constant = Value::integer(token.integer);
  next();
  return make_with(ExprKind::kItem, line, std::move(expr), std::move(index));
}

Result<ExprPtr> ExpressionParser::parse_brackets(ExprPtr expr) {
  const int line = current().line;
  next();
  ExprPtr bounds[3];
  int bound = 0;
  const auto at_end = [&] { return current().is_operator("]") || current().is_operator(":"); };
  if (!at_end()) bounds[0] = ATOM_TRY(parse_expression());
  while (bound < 2 && skip_operator(":")) {
    ++bound;
    if (!at_end()) bounds[bound] = ATOM_TRY(parse_expression());
  }
  const bool is_slice = bound > 0;
  if (!is_slice && current().is_operator(",")) {
    // A tuple as a key: no value has such items, so that it finds nothing.
    ExprPtr tuple = make(ExprKind::kTuple, line);
    tuple->children.push_back(std::move(bounds[0]));
    while (skip_operator(",") && !current().is_operator("]")) {
      tuple->children.push_back(ATOM_TRY(parse_expression()));
    }
    bounds[0] = ATOM_TRY(finish(std::move(tuple)));
  }
  ATOM_TRY(expect_operator("]"));
  if (is_slice) {
    return make_with(ExprKind::kSlice, line, std::move(expr), std::move(bounds[0]),
                     std::move(bounds[1]), std::move(bounds[2]));
  }
  if (bounds[0] == nullptr) return fail_at(line, "expected subscript expression");
  return make_with(ExprKind::kItem, line, std::move(expr), std::move(bounds[0]));
}

Status ExpressionParser::parse_arguments(Arguments& out) {
  const int line = current().line;
  ATOM_TRY(expect_operator("("));
  bool first = true;
  while (!current().is_operator(")")) {
    if (!first) {
      ATOM_TRY(expect_operator(","));
      if (current().is_operator(")")) break;
    }
    first = false;
    bool valid = out.more_named == nullptr;
    if (skip_operator("*")) {
      valid = valid && out.more_positional == nullptr;
      out.more_positional = ATOM_TRY(parse_expression());
    } else if (skip_operator("**")) {
      out.more_named = ATOM_TRY(parse_expression());
    } else if (current().type == TokenType::kName && ahead().is_operator("=")) {
      std::string name = current().text;
      next();
      next();
      for (const auto& [known, value] : out.named) {
        if (known == name) return fail_at(line, "keyword argument repeated: {}", name);
      }
      out.named.emplace_back(std::move(name), ATOM_TRY(parse_expression()));
    } else {
      valid = valid && out.more_positional == nullptr && out.named.empty();
      out.positional.push_back(ATOM_TRY(parse_expression()));
    }
    if (!valid) return fail_at(line, "invalid syntax for function call expression");
  }
  return expect_operator(")");
}

Result<ExprPtr> ExpressionParser::parse_call(ExprPtr expr) {
  ExprPtr call = make(ExprKind::kCall, current().line);
  call->children.push_back(std::move(expr));
  ATOM_TRY(parse_arguments(call->arguments));
  return finish(std::move(call));
}

Result<ExprPtr> ExpressionParser::parse_filters(ExprPtr input, bool at_name) {
  while (at_name || skip_operator("|")) {
    at_name = false;
    ExprPtr filter = make(ExprKind::kFilter, current().line);
    filter->name = ATOM_TRY(expect_any_name());
    while (skip_operator(".")) filter->name += "." + ATOM_TRY(expect_any_name());
    filter->filter = find_filter(filter->name);
    filter->children.push_back(std::move(input));
    if (current().is_operator("(")) ATOM_TRY(parse_arguments(filter->arguments));
    input = ATOM_TRY(finish(std::move(filter)));
  }
  return input;
}

Result<ExprPtr> ExpressionParser::parse_test(ExprPtr expr) {
  const int line = current().line;
  next();
  const bool negated = skip_name("not");
  ExprPtr test = make(ExprKind::kTest, line);
  test->name = ATOM_TRY(expect_any_name());
  while (skip_operator(".")) test->name += "." + ATOM_TRY(expect_any_name());
  test->test = find_test(test->name);
  test->children.push_back(std::move(expr));
  const Token& token = current();
  if (token.is_operator("(")) {
    ATOM_TRY(parse_arguments(test->arguments));
  } else if (token.type == TokenType::kString || token.type == TokenType::kInteger ||
             token.type == TokenType::kFloat || token.is_operator("[") || token.is_operator("{") ||
             (token.type == TokenType::kName && !token.is_name("else") && !token.is_name("or") &&
              !token.is_name("and"))) {
    if (token.is_name("is")) return fail_at(line, "You cannot chain multiple tests with is");
    ExprPtr argument = ATOM_TRY(parse_primary());
    test->arguments.positional.push_back(ATOM_TRY(parse_postfix(std::move(argument))));
  }
  ExprPtr result = ATOM_TRY(finish(std::move(test)));
  if (negated) return make_with(ExprKind::kNot, line, std::move(result));
  return result;
}

}  // namespace atom::jinja
