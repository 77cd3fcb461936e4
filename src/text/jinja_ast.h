// A parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_builtins.h"

namespace atom::jinja {

// Deepest nesting of statements and expressions in a template.
inline constexpr int kMaxTreeDepth = 200;

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind : uint8_t {
  kConstant,
  kName,             // name
  kList,             // children
  kTuple,            // children
  kDict,             // children: key, value, key, value ...
  kNegative,         // children[0]
  kPositive,         // children[0]
  kNot,              // children[0]
  kAnd,              // children[0], [1]
  kOr,               // children[0], [1]
  kBinary,           // children[0] op [1]
  kConcat,           // children
  kCompare,          // children[0] comparisons[0] children[1] comparisons[1] children[2] ...
  kConditional,      // children[1] if children[0] else [2]; [2] may be null
  kAttribute,        // children[0].name
  kItem,             // children[0][children[1]]
  kSlice,            // children[0][children[1]:[2]:[3]]; the last three may be null
  kCall,             // children[0](arguments)
  kFilter,           // children[0]|name(arguments); children[0] is null in filter blocks
  kTest,             // children[0] is name(arguments)
  kNamespaceTarget,  // name.attribute on the left of an assignment; constant is the attribute
};

enum class Comparison : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional;  // *args, or null
  ExprPtr more_named;       // **kwargs, or null
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  BinaryOp op = BinaryOp::kAdd;
  int line = 0;
  int depth = 1;  // of the tree below, itself included
  std::string name;
  Value constant;
  std::vector<ExprPtr> children;
  std::vector<Comparison> comparisons;
  Arguments arguments;
  Filter filter = nullptr;  // null where no filter of that name exists
  Test test = nullptr;
};

struct Stmt;
using Body = std::vector<std::unique_ptr<Stmt>>;

struct Parameter {
  std::string name;
  ExprPtr fallback;  // or null
};

// What can be called: a macro, or the body of a call block or of a recursive loop.
struct Callable {
  std::string name;
  std::vector<Parameter> parameters;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

enum class StmtKind : uint8_t {
  kText,         // text
  kOutput,       // expr
  kIf,           // branches, else_body
  kFor,          // target in expr if test: body, else else_body
  kSet,          // target = expr
  kSetBlock,     // target = body, through the filter expr if there is one
  kMacro,        // callable, body
  kCallBlock,    // expr (a call) with caller = callable, body
  kFilterBlock,  // body through the filter expr
  kWith,         // targets = values in body
  kScope,        // body in a scope of its own
  kBreak,
  kContinue,
};

struct Branch {
  ExprPtr condition;
  Body body;
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int line = 0;
  std::string text;
  ExprPtr expr;
  ExprPtr target;
  ExprPtr test;
  bool recursive = false;
  Body body;
  Body else_body;
  std::vector<Branch> branches;
  std::vector<std::pair<ExprPtr, ExprPtr>> assignments;
  Callable callable;
};

// Errors begin with "line N: ".
Result<Body> parse_template(std::string_view source);

}  // namespace atom::jinja
