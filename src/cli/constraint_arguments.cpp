#include "cli/constraint_arguments.h"

#include <CLI/CLI.hpp>

#include "base/file.h"
#include "grammar/constraint.h"

namespace atom::cli {

void add_constraint_arguments(CLI::App& command, ConstraintArguments& arguments) {
  CLI::Option* schema =
      command.add_option("--schema", arguments.schema, "The output is JSON of this JSON Schema")
          ->type_name("FILE")
          ->group("Constraining the output");
  command.add_option("--regex", arguments.regex, "The output matches this expression as a whole")
      ->type_name("PATTERN")
      ->group("Constraining the output")
      ->excludes(schema);
}

Result<std::shared_ptr<const TokenConstraint>> make_constraint(const ConstraintArguments& arguments,
                                                               const OpenedModel& model) {
  constexpr size_t kMaxSchemaBytes = 1 << 20;
  ConstraintCompiler compiler(*model.tokenizer, model.weights->config.eos_ids);
  if (!arguments.schema.empty()) {
    return compiler.json_schema(ATOM_TRY(read_text_file(arguments.schema, kMaxSchemaBytes)),
                                arguments.schema);
  }
  if (!arguments.regex.empty()) return compiler.regex(arguments.regex, "--regex");
  return std::shared_ptr<const TokenConstraint>();
}

}  // namespace atom::cli
