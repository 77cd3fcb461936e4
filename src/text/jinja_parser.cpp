#include "text/jinja_parser.h"

#include <algorithm>
#include <utility>

namespace atom::jinja {

std::unique_ptr<Stmt> TemplateParser::make(StmtKind kind) const {
  auto stmt = std::make_unique<Stmt>();
  stmt->kind = kind;
  stmt->line = current().line;
  return stmt;
}

Result<Body> TemplateParser::parse() {
  Body body = ATOM_TRY(parse_body({}));
  return body;
}

Status TemplateParser::unknown_tag(EndTags end_tags) const {
  std::string wanted;
  for (const std::string_view tag : end_tags) {
    wanted += wanted.empty() ? " (here one of these may end the block: " : ", ";
    wanted += tag;
  }
  if (!wanted.empty()) wanted += ")";
  if (current().type == TokenType::kEnd) {
    return fail_at(current().line, "Unexpected end of template{}", wanted);
  }
  return fail_at(current().line, "Encountered unknown tag {}{}", current().description(), wanted);
}

Result<Body> TemplateParser::parse_body(EndTags end_tags) {
  if (body_nesting_ >= kMaxTreeDepth) {
    return fail_at(current().line, "statements are nested too deeply");
  }
  ++body_nesting_;
  Body body;
  for (;;) {
    const Token& token = current();
    if (token.type == TokenType::kEnd) {
      if (end_tags.size() != 0) return unknown_tag(end_tags);
      break;
    }
    if (token.type == TokenType::kText) {
      auto stmt = make(StmtKind::kText);
      stmt->text = token.text;
      body.push_back(std::move(stmt));
      next();
    } else if (token.type == TokenType::kVariableBegin) {
      auto stmt = make(StmtKind::kOutput);
      next();
      stmt->expr = ATOM_TRY(parse_tuple(true));
      ATOM_TRY(expect(TokenType::kVariableEnd, "end of print statement"));
      body.push_back(std::move(stmt));
    } else {
      ATOM_TRY(expect(TokenType::kBlockBegin, "begin of statement block"));
      if (std::any_of(end_tags.begin(), end_tags.end(),
                      [&](std::string_view tag) { return current().is_name(tag); })) {
        break;
      }
      body.push_back(ATOM_TRY(parse_statement(end_tags)));
      ATOM_TRY(expect(TokenType::kBlockEnd, "end of statement block"));
    }
  }
  --body_nesting_;
  return body;
}

Result<Body> TemplateParser::parse_block(EndTags end_tags) {
  skip_operator(":");
  ATOM_TRY(expect(TokenType::kBlockEnd, "end of statement block"));
  return parse_body(end_tags);
}

Result<Body> TemplateParser::parse_closed_block(std::string_view end_tag) {
  Body body = ATOM_TRY(parse_block({end_tag}));
  next();
  return body;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_statement(EndTags end_tags) {
  const Token& token = current();
  if (token.type != TokenType::kName) return fail_at(token.line, "tag name expected");
  const std::string& tag = token.text;
  if (tag == "if") return parse_if();
  if (tag == "for") return parse_for();
  if (tag == "set") return parse_set();
  if (tag == "macro") return parse_macro();
  if (tag == "call") return parse_call_block();
  if (tag == "with") return parse_with();
  if (tag == "print") return parse_print();
  if (tag == "block") return parse_named_block();
  if (tag == "filter") {
    auto stmt = make(StmtKind::kFilterBlock);
    next();
    stmt->expr = ATOM_TRY(parse_filters(nullptr, true));
    stmt->body = ATOM_TRY(parse_closed_block("endfilter"));
    return stmt;
  }
  if (tag == "generation") {
    // Marks what the model itself wrote, for training; it renders as its body.
    auto stmt = make(StmtKind::kScope);
    next();
    const int loops = std::exchange(loops_, 0);
    stmt->body = ATOM_TRY(parse_closed_block("endgeneration"));
    loops_ = loops;
    return stmt;
  }
  if (tag == "break" || tag == "continue") {
    if (loops_ == 0) return fail_at(token.line, "'{}' outside loop", tag);
    auto stmt = make(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue);
    next();
    return stmt;
  }
  for (const char* known : {"include", "import", "from", "extends", "autoescape"}) {
    if (tag == known) {
      return error(ErrorCode::kUnsupported, "line {}: the tag '{}' is not supported", token.line,
                   tag);
    }
  }
  return unknown_tag(end_tags);
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_if() {
  auto stmt = make(StmtKind::kIf);
  do {
    next();  // if, elif
    Branch branch;
    branch.condition = ATOM_TRY(parse_tuple(false));
    branch.body = ATOM_TRY(parse_block({"elif", "else", "endif"}));
    stmt->branches.push_back(std::move(branch));
  } while (current().is_name("elif"));
  const bool has_else = current().is_name("else");
  next();
  if (has_else) stmt->else_body = ATOM_TRY(parse_closed_block("endif"));
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_for() {
  auto stmt = make(StmtKind::kFor);
  next();
  stmt->target = ATOM_TRY(parse_target(false));
  ATOM_TRY(expect_name("in"));
  stmt->expr = ATOM_TRY(parse_tuple(false));
  if (skip_name("if")) stmt->test = ATOM_TRY(parse_expression());
  stmt->recursive = skip_name("recursive");
  ++loops_;
  stmt->body = ATOM_TRY(parse_block({"endfor", "else"}));
  --loops_;
  const bool has_else = current().is_name("else");
  next();
  if (has_else) stmt->else_body = ATOM_TRY(parse_closed_block("endfor"));
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_set() {
  auto stmt = make(StmtKind::kSet);
  next();
  stmt->target = ATOM_TRY(parse_target(true));
  if (skip_operator("=")) {
    stmt->expr = ATOM_TRY(parse_tuple(true));
    return stmt;
  }
  stmt->kind = StmtKind::kSetBlock;
  stmt->expr = ATOM_TRY(parse_filters(nullptr, false));
  stmt->body = ATOM_TRY(parse_closed_block("endset"));
  return stmt;
}

Status TemplateParser::parse_signature(Callable& callable) {
  ATOM_TRY(expect_operator("("));
  while (!current().is_operator(")")) {
    if (!callable.parameters.empty()) ATOM_TRY(expect_operator(","));
    const int line = current().line;
    Parameter parameter;
    parameter.name = ATOM_TRY(expect_any_name());
    if (skip_operator("=")) {
      parameter.fallback = ATOM_TRY(parse_expression());
    } else if (!callable.parameters.empty() && callable.parameters.back().fallback != nullptr) {
      return fail_at(line, "non-default argument follows default argument");
    }
    for (const Parameter& known : callable.parameters) {
      if (known.name == parameter.name) {
        return fail_at(line, "duplicate argument '{}'", parameter.name);
      }
    }
    callable.parameters.push_back(std::move(parameter));
  }
  return expect_operator(")");
}

Result<Body> TemplateParser::parse_callable_body(Callable& callable, std::string_view end_tag) {
  callables_.push_back(&callable);
  const int loops = std::exchange(loops_, 0);
  Body body = ATOM_TRY(parse_closed_block(end_tag));
  loops_ = loops;
  callables_.pop_back();
  return body;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_macro() {
  auto stmt = make(StmtKind::kMacro);
  next();
  stmt->callable.name = ATOM_TRY(expect_any_name());
  ATOM_TRY(parse_signature(stmt->callable));
  stmt->body = ATOM_TRY(parse_callable_body(stmt->callable, "endmacro"));
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_call_block() {
  auto stmt = make(StmtKind::kCallBlock);
  next();
  stmt->callable.name = "caller";
  if (current().is_operator("(")) ATOM_TRY(parse_signature(stmt->callable));
  stmt->expr = ATOM_TRY(parse_expression());
  if (stmt->expr->kind != ExprKind::kCall) return fail_at(stmt->line, "expected call");
  stmt->body = ATOM_TRY(parse_callable_body(stmt->callable, "endcall"));
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_with() {
  auto stmt = make(StmtKind::kWith);
  next();
  while (current().type != TokenType::kBlockEnd) {
    if (!stmt->assignments.empty()) ATOM_TRY(expect_operator(","));
    ExprPtr target = ATOM_TRY(parse_target(false));
    ATOM_TRY(expect_operator("="));
    stmt->assignments.emplace_back(std::move(target), ATOM_TRY(parse_expression()));
  }
  stmt->body = ATOM_TRY(parse_closed_block("endwith"));
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_print() {
  auto stmt = make(StmtKind::kOutput);
  next();
  stmt->expr = ATOM_TRY(parse_expression());
  return stmt;
}

Result<TemplateParser::StmtPtr> TemplateParser::parse_named_block() {
  auto stmt = make(StmtKind::kScope);
  next();
  const std::string name = ATOM_TRY(expect_any_name());
  skip_name("scoped");
  const int loops = std::exchange(loops_, 0);
  stmt->body = ATOM_TRY(parse_closed_block("endblock"));
  loops_ = loops;
  skip_name(name);
  return stmt;
}

Result<Body> parse_template(std::string_view source) {
  return TemplateParser(ATOM_TRY(tokenize(source))).parse();
}

}  // namespace atom::jinja
