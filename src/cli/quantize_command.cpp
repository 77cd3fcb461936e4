// atom quantize: a model in, an Atom checkpoint out.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/device.h"
#include "app/self_calibration.h"
#include "app/text_side.h"
#include "base/file.h"
#include "base/log.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "cli/checkpoint_sink.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "io/checkpoint.h"
#include "io/model_source.h"
#include "quant/quantizer.h"
#include "quant/recipe.h"

namespace atom::cli {
namespace {

// The model writes a few hundred tokens a second, so its own text is kept short by default.
constexpr int64_t kSelfWindows = 16;

struct QuantizeArguments {
  std::string model;
  std::string out;
  std::string recipe = "w4a8";
  std::string calibration = "self";
  std::optional<int64_t> windows;
  std::optional<int64_t> context;
  std::optional<uint64_t> seed;
  std::string device = "cpu";
  int threads = 0;
};

Result<Recipe> recipe_for(const QuantizeArguments& arguments, const ModelConfig& config) {
  Recipe recipe = ATOM_TRY(load_recipe(arguments.recipe));
  const bool self = arguments.calibration == "self";
  // Places that a recipe names are places in a text of its own choice.
  if (self || arguments.windows || arguments.context) recipe.window_offsets.clear();
  if (self) recipe.windows = std::min(recipe.windows, kSelfWindows);
  recipe.windows = arguments.windows.value_or(recipe.windows);
  recipe.context = std::min(arguments.context.value_or(recipe.context), config.context);
  recipe.seed = arguments.seed.value_or(recipe.seed);
  return recipe;
}

Result<std::vector<int32_t>> calibration_tokens(const QuantizeArguments& arguments,
                                                const Recipe& recipe, const ModelSource& source,
                                                const Tokenizer& tokenizer, Backend& backend) {
  if (!recipe.needs_calibration()) return std::vector<int32_t>();
  if (arguments.calibration == "self") {
    return write_calibration_text(
        backend, source,
        {.windows = recipe.windows, .context = recipe.context, .seed = recipe.seed});
  }
  const std::string text = ATOM_TRY(read_text_file(arguments.calibration, kMaxTextBytes));
  Result<std::vector<int32_t>> tokens =
      tokenizer.encode(text, /*add_special=*/false, /*parse_special=*/false);
  if (!tokens.ok()) return tokens.status().with_context(arguments.calibration);
  const auto count = static_cast<int64_t>(tokens->size());
  if (recipe.window_offsets.empty() && count < recipe.windows * recipe.context) {
    log_warning("{}: {} tokens are fewer than the recipe's {} windows of {}; all are used",
                arguments.calibration, count, recipe.windows, recipe.context);
  }
  return tokens;
}

// What is known about the result, without what differs from run to run, such as the time it took.
std::string report_json(const QuantizeArguments& arguments, const Recipe& recipe,
                        const QuantizeReport& report) {
  nlohmann::ordered_json linears = nlohmann::ordered_json::array();
  for (const LinearReport& linear : report.linears) {
    linears.push_back({{"name", linear.name},
                       {"format", linear.format},
                       {"bits", linear.bits},
                       {"weights", linear.weights},
                       {"error", linear.error}});
  }
  const bool calibrated = recipe.needs_calibration();
  const nlohmann::ordered_json document = {{"recipe", recipe.name},
                                           {"effective_bits", report.effective_bits()},
                                           {"calibration",
                                            {{"text", !calibrated                       ? "none"
                                                      : arguments.calibration == "self" ? "self"
                                                                                        : "file"},
                                             {"tokens", report.calibration_tokens},
                                             {"seed", recipe.seed}}},
                                           {"prefix_tokens", report.prefix_tokens},
                                           {"linears", std::move(linears)}};
  return document.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Status write_text_files(CheckpointWriter& writer, const TextAssets& assets,
                        const Tokenizer& tokenizer) {
  const bool own = !assets.tokenizer_json.empty();
  ATOM_TRY(
      writer.add_text_file("tokenizer.json", own ? assets.tokenizer_json : tokenizer.to_json()));
  const std::string config = own ? assets.tokenizer_config_json : tokenizer.to_config_json();
  if (!config.empty()) ATOM_TRY(writer.add_text_file("tokenizer_config.json", config));
  if (assets.chat_template.empty()) return {};
  return writer.add_text_file("chat_template.jinja", assets.chat_template);
}

Status quantize(const QuantizeArguments& arguments) {
  set_thread_count(arguments.threads);
  if (Checkpoint::is_checkpoint(arguments.model)) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: is an Atom checkpoint already; quantize the model that it was made from",
                 arguments.model);
  }
  const std::unique_ptr<ModelSource> source = ATOM_TRY(open_model_source(arguments.model));
  const ModelConfig& config = source->config();
  const Recipe recipe = ATOM_TRY(recipe_for(arguments, config));
  const TextAssets assets = ATOM_TRY(source->text_assets());
  const Tokenizer tokenizer = ATOM_TRY(make_tokenizer(assets, source->origin()));
  const std::unique_ptr<Backend> backend = ATOM_TRY(make_backend(arguments.device));

  // Everything that can be refused at once is refused before the long work begins.
  StagedFolder folder = ATOM_TRY(StagedFolder::create(arguments.out));
  CheckpointMeta meta;
  meta.config = config;
  meta.config_json = source->config_json();
  meta.kv = recipe.kv;
  meta.prefix_tokens = ATOM_TRY(prefix_tokens_for(recipe, config));
  meta.recipe_json = recipe_to_json(recipe).dump();
  CheckpointWriter writer = ATOM_TRY(CheckpointWriter::create(folder.staging(), std::move(meta)));
  ATOM_TRY(write_text_files(writer, assets, tokenizer));

  const std::vector<int32_t> tokens =
      ATOM_TRY(calibration_tokens(arguments, recipe, *source, tokenizer, *backend));
  CheckpointSink sink(writer, config);
  const QuantizeReport report =
      ATOM_TRY(quantize_model(*source, *backend, recipe, tokens, sink, /*show_progress=*/true));
  ATOM_TRY(writer.add_text_file("quantize_report.json", report_json(arguments, recipe, report)));
  ATOM_TRY(writer.finish());
  ATOM_TRY(folder.commit());
  fmt::print("{}: recipe {}, {:.3f} bits a weight, {} calibration tokens, {}\n", arguments.out,
             recipe.name, report.effective_bits(), report.calibration_tokens,
             format_duration(report.seconds.total));
  return {};
}

std::string describe_presets() {
  std::string text = "Recipes (or a JSON file of your own):\n";
  for (const RecipePreset& preset : recipe_presets()) {
    const Result<Recipe> recipe = load_recipe(preset.name);
    text += fmt::format("  {:<12} {}\n", preset.name, recipe.ok() ? recipe->description : "");
  }
  return text;
}

}  // namespace

void add_quantize_command(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("quantize", "Quantize a model by a recipe and write an Atom checkpoint");
  command->footer(
      describe_presets() +
      "\n"
      "OUT appears when it is complete: Ctrl-C or a full disk leaves nothing. The same model,\n"
      "recipe, calibration text and seed give the same bytes.\n"
      "\n"
      "Examples:\n"
      "  atom quantize model.gguf model-w4a8 --recipe w4a8\n"
      "  atom quantize ./hf-folder out --recipe mine.json --calib text.txt");
  auto arguments = std::make_shared<QuantizeArguments>();
  command->add_option("MODEL", arguments->model, "Hugging Face folder or GGUF file")
      ->required()
      ->type_name("");
  command->add_option("OUT", arguments->out, "Folder to write; must not exist, or be empty")
      ->required()
      ->type_name("");
  command->add_option("--recipe", arguments->recipe, "A recipe's name or file")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--calib", arguments->calibration,
                   "Text to learn from; self: the model writes its own")
      ->type_name("FILE")
      ->capture_default_str();
  command
      ->add_option("--windows", arguments->windows,
                   "Windows of calibration text (default: the recipe's; at most 16 for self)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--context", arguments->context, "Tokens of a window (default: the recipe's)")
      ->check(CLI::Range(16, 1 << 20))
      ->type_name("N");
  command->add_option("--seed", arguments->seed, "Seed of every random choice")->type_name("N");
  add_machine_options(*command, arguments->device, arguments->threads);
  command->callback(
      [arguments, &action] { action = [arguments] { return quantize(*arguments); }; });
}

}  // namespace atom::cli
