// atom bench quantize: seconds that quantizing a model of a published shape takes, phase by phase.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/device.h"
#include "app/synthetic_source.h"
#include "base/file.h"
#include "base/parallel.h"
#include "base/random.h"
#include "cli/checkpoint_sink.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"
#include "quant/quantizer.h"
#include "quant/recipe.h"

namespace atom::cli {
namespace {

struct QuantizeBenchArguments {
  std::string shape = "llama-2-7b";
  int64_t layers = 0;
  std::string recipe = "w4a8";
  std::optional<int64_t> windows, context;
  std::string out;  // a folder whose file system takes the checkpoint; empty: nothing is written
  bool keep = false;
  std::string device = "cpu";
  int threads = 0;
  bool json = false;
};

// Where nobody wants the checkpoint.
class DiscardingSink : public QuantizedModelSink {
 public:
  Status add_ends(const PackedLinear&, const PackedLinear*, std::span<const float>) override {
    return {};
  }
  Status add_layer(int64_t, const PackedLayer&) override { return {}; }
};

Result<QuantizeReport> quantize_synthetic(const QuantizeBenchArguments& in,
                                          const ModelSource& source, Backend& backend,
                                          const Recipe& recipe) {
  const ModelConfig& config = source.config();
  std::vector<int32_t> tokens(static_cast<size_t>(recipe.windows * recipe.context));
  Random random(1);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(config.vocab));
  if (in.out.empty()) {
    DiscardingSink sink;
    return quantize_model(source, backend, recipe, tokens, sink, /*show_progress=*/true);
  }
  // If it is not committed, the folder vanishes with everything in it.
  StagedFolder folder = ATOM_TRY(StagedFolder::create(in.out));
  CheckpointMeta meta;
  meta.config = config;
  meta.config_json = source.config_json();
  meta.kv = recipe.kv;
  meta.prefix_tokens = ATOM_TRY(prefix_tokens_for(recipe, config));
  meta.recipe_json = recipe_to_json(recipe).dump();
  CheckpointWriter writer = ATOM_TRY(CheckpointWriter::create(folder.staging(), std::move(meta)));
  const TextAssets assets = ATOM_TRY(source.text_assets());
  ATOM_TRY(writer.add_text_file("tokenizer.json", assets.tokenizer_json));
  CheckpointSink sink(writer, config);
  QuantizeReport report =
      ATOM_TRY(quantize_model(source, backend, recipe, tokens, sink, /*show_progress=*/true));
  const auto start = std::chrono::steady_clock::now();
  ATOM_TRY(writer.finish());
  if (in.keep) ATOM_TRY(folder.commit());
  const double finish =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.seconds.write += finish;
  report.seconds.total += finish;
  return report;
}

Status bench_quantize(const QuantizeBenchArguments& in) {
  set_thread_count(in.threads);
  const std::unique_ptr<ModelSource> source = ATOM_TRY(make_synthetic_source(in.shape, in.layers));
  Recipe recipe = ATOM_TRY(load_recipe(in.recipe));
  recipe.window_offsets.clear();
  recipe.windows = in.windows.value_or(recipe.windows);
  recipe.context = std::min(in.context.value_or(recipe.context), source->config().context);
  const std::unique_ptr<Backend> backend = ATOM_TRY(make_backend(in.device));
  const QuantizeReport report = ATOM_TRY(quantize_synthetic(in, *source, *backend, recipe));
  const QuantizeTimes& t = report.seconds;
  const std::pair<const char*, double> phases[] = {
      {"read", t.read},     {"calibrate", t.calibrate}, {"transform", t.transform},
      {"factor", t.factor}, {"codes", t.codes},         {"report", t.report},
      {"write", t.write},   {"total", t.total}};
  if (in.json) {
    nlohmann::ordered_json document = {
        {"shape", in.shape},          {"layers", source->config().layers},
        {"recipe", recipe.name},      {"calibration_tokens", report.calibration_tokens},
        {"written", !in.out.empty()}, {"backend", backend->detail()}};
    for (const auto& [name, seconds] : phases) document["seconds"][name] = seconds;
    print_json(document);
    return {};
  }
  fmt::print("shape {}, {} layers, recipe {}, {} calibration tokens, {}\n", in.shape,
             source->config().layers, recipe.name, report.calibration_tokens, backend->detail());
  for (const auto& [name, seconds] : phases) fmt::print("{:<10} {:8.2f} s\n", name, seconds);
  return {};
}

}  // namespace

void add_bench_quantize_command(CLI::App& group, Action& action) {
  CLI::App* command = group.add_subcommand(
      "quantize", "Seconds that quantizing a model of a known shape takes, phase by phase");
  command->footer(
      "The model's weights are random, with outlier channels, and made as they are read; so is "
      "the\n"
      "calibration text. With --out the checkpoint is written there and removed again; with\n"
      "--keep it stays, so that loading and serving a model of that size can be measured too\n"
      "(its tokens are bytes, its answers nonsense).\n"
      "\n"
      "Examples:\n"
      "  atom bench quantize --shape llama-2-7b --device cuda --out /tmp/bench\n"
      "  atom bench quantize --shape llama-2-7b --device cuda --windows 4 --out 7b --keep\n"
      "  atom bench model 7b --device cuda");
  auto arguments = std::make_shared<QuantizeBenchArguments>();
  command->add_option("--shape", arguments->shape, "llama-2-7b, llama-2-70b or mixtral-8x7b")
      ->type_name("NAME")
      ->capture_default_str();
  command->add_option("--layers", arguments->layers, "So many of its layers alone")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->type_name("N");
  command->add_option("--recipe", arguments->recipe, "A recipe's name or file")
      ->type_name("NAME")
      ->capture_default_str();
  command
      ->add_option("--windows", arguments->windows,
                   "Windows of calibration text (default: the recipe's)")
      ->check(CLI::Range(1, 1 << 20))
      ->type_name("N");
  command->add_option("--context", arguments->context, "Tokens of a window (default: the recipe's)")
      ->check(CLI::Range(16, 1 << 20))
      ->type_name("N");
  CLI::Option* out = command->add_option("--out", arguments->out,
                                         "Folder to write to; must not exist, or be empty");
  out->type_name("FOLDER");
  command->add_flag("--keep", arguments->keep, "Leave the checkpoint there")->needs(out);
  add_machine_options(*command, arguments->device, arguments->threads);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback(
      [arguments, &action] { action = [arguments] { return bench_quantize(*arguments); }; });
}

}  // namespace atom::cli
