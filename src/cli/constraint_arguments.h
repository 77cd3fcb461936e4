// The options that say what an output has to be.
#pragma once

#include <memory>
#include <string>

#include "app/open_model.h"
#include "engine/token_constraint.h"

namespace CLI {
class App;
}

namespace atom::cli {

struct ConstraintArguments {
  std::string schema;  // a file
  std::string regex;
};

// --schema and --regex.
void add_constraint_arguments(CLI::App& command, ConstraintArguments& arguments);

// Null where neither is given.
Result<std::shared_ptr<const TokenConstraint>> make_constraint(const ConstraintArguments& arguments,
                                                               const OpenedModel& model);

}  // namespace atom::cli
