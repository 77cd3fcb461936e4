#include "cli/bench_model.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "app/device.h"
#include "app/synthetic_model.h"
#include "base/parallel.h"
#include "quant/recipe.h"

namespace atom::cli {
namespace {

// A cache as every device runs it.
Result<KvFormat> named_cache(const std::string& name) {
  if (name == "f16") return KvFormat{.kind = KvKind::kF16};
  if (name == "int8") return KvFormat{.kind = KvKind::kInt, .bits = 8};
  if (name == "int4") {
    return KvFormat{.kind = KvKind::kInt, .bits = 4, .centered = true, .hadamard = true};
  }
  return error(ErrorCode::kInvalidArgument, "--kv '{}': not f16, int8 or int4", name);
}

}  // namespace

void add_bench_model_arguments(CLI::App& command, BenchModelArguments& arguments) {
  add_model_arguments(command, arguments.files);
  command.get_option("MODEL")->required(false);
  CLI::Option* shape =
      command.add_option("--shape", arguments.shape,
                         "Instead of MODEL: random weights of a known shape, llama-2-7b,\n"
                         "llama-2-70b or mixtral-8x7b, in the formats of a --recipe");
  shape->type_name("NAME");
  command
      .add_option("--recipe", arguments.recipe,
                  "Of a --shape: a preset's name or a JSON file (default: w4a8)")
      ->type_name("NAME")
      ->needs(shape);
  command
      .add_option("--kv", arguments.kv,
                  "Cache of a --shape: f16, int8 or int4 (default: the recipe's)")
      ->type_name("NAME")
      ->needs(shape);
  command
      .add_option("--layers", arguments.layers,
                  "Of a --shape: so many of its layers alone, where memory has no room for all")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->type_name("N")
      ->needs(shape);
}

Result<OpenedModel> open_bench_model(const char* command, const BenchModelArguments& arguments) {
  if (arguments.shape.empty() == arguments.files.path.empty()) {
    return error(ErrorCode::kInvalidArgument, "{}: give either MODEL or --shape", command);
  }
  if (arguments.shape.empty()) return open_model(arguments.files);
  const Recipe recipe = ATOM_TRY(load_recipe(arguments.recipe.empty() ? "w4a8" : arguments.recipe));
  const SyntheticFormats formats = {
      .linear = [&recipe](InputSite site, int64_t layer,
                          int64_t channels) { return recipe.format_for(site, layer, channels); },
      .embedding = recipe.embedding,
      .kv = arguments.kv.empty() ? recipe.kv : ATOM_TRY(named_cache(arguments.kv))};
  set_thread_count(arguments.files.threads);
  OpenedModel model;
  model.origin = fmt::format("{} {}", arguments.shape, recipe.name);
  model.backend = ATOM_TRY(make_backend(arguments.files.device));
  model.weights = std::make_shared<const DecoderWeights>(
      ATOM_TRY(make_synthetic_model(*model.backend, arguments.shape, formats, arguments.layers)));
  return model;
}

}  // namespace atom::cli
