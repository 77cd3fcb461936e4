// atom inspect: what a model consists of, without running it.
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "cli/commands.h"
#include "cli/model_arguments.h"
#include "cli/output.h"
#include "io/checkpoint.h"
#include "io/model_source.h"
#include "io/model_tensors.h"

namespace atom::cli {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

struct InspectArguments {
  std::string path;
  bool json = false;
};

struct LinearFacts {
  std::string name;    // "model.layers.0.self_attn.q_proj"
  std::string format;  // "BF16", "w4a4 g128 o64"
  int64_t rows = 0, cols = 0;
  double bits = 0;    // stored a weight; 0 where the file does not say
  int64_t bytes = 0;  // 0 where the file does not say
};

struct ModelFacts {
  std::string path;
  std::string form;  // "Hugging Face folder", "GGUF file", "Atom checkpoint"
  ModelConfig config;
  int64_t disk_bytes = 0;
  std::vector<LinearFacts> linears;  // in the order of the model
  // Atom checkpoints only
  std::string kv;
  std::vector<int32_t> prefix_tokens;
  OrderedJson recipe, report;
};

int64_t weights_of(const LinearFacts& linear) { return linear.rows * linear.cols; }

int64_t size_on_disk(const fs::path& path) {
  std::error_code ec;
  if (!fs::is_directory(path, ec)) return static_cast<int64_t>(fs::file_size(path, ec));
  int64_t total = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, ec)) {
    const bool tensors = entry.path().extension() == ".safetensors";
    if (tensors && entry.is_regular_file(ec)) total += static_cast<int64_t>(entry.file_size(ec));
  }
  return total;
}

Status collect_checkpoint(ModelFacts& facts) {
  const Checkpoint checkpoint = ATOM_TRY(Checkpoint::open(facts.path));
  const CheckpointMeta& meta = checkpoint.meta();
  facts.form = "Atom checkpoint";
  facts.config = meta.config;
  facts.kv = describe(meta.kv);
  facts.prefix_tokens = meta.prefix_tokens;
  facts.recipe = ATOM_TRY(parse_json(meta.recipe_json, facts.path + ": recipe"));
  for (const CheckpointLinear& linear : checkpoint.linears()) {
    facts.linears.push_back({linear.name, describe(linear.format), linear.rows, linear.cols,
                             effective_bits(linear.format.weight, linear.cols), linear.bytes});
  }
  const fs::path report = fs::path(facts.path) / "quantize_report.json";
  std::error_code ec;
  if (fs::exists(report, ec)) facts.report = ATOM_TRY(read_json_file(report));
  return {};
}

Status collect_source(ModelFacts& facts) {
  const std::unique_ptr<ModelSource> source = ATOM_TRY(open_model_source(facts.path));
  std::error_code ec;
  facts.form = fs::is_directory(facts.path, ec) ? "Hugging Face folder" : "GGUF file";
  facts.config = source->config();
  for (const LinearSpec& linear : checkpoint_linears(facts.config)) {
    const std::string type = ATOM_TRY(source->stored_type(linear.name + ".weight"));
    facts.linears.push_back({linear.name, type, linear.rows, linear.cols, 0, 0});
  }
  return {};
}

// Over the decoder's linears, without embedding and head; 0 where unknown.
double mean_bits(const ModelFacts& facts) {
  double bits = 0, weights = 0;
  for (const LinearFacts& linear : facts.linears) {
    if (linear.name.find(".layers.") == std::string::npos) continue;
    bits += linear.bits * static_cast<double>(weights_of(linear));
    weights += static_cast<double>(weights_of(linear));
  }
  return weights == 0 ? 0 : bits / weights;
}

OrderedJson config_json(const ModelConfig& config) {
  return {{"family", family_name(config.family)},
          {"layers", config.layers},
          {"hidden", config.hidden},
          {"ffn", config.ffn},
          {"experts", config.experts},
          {"active_experts", config.active_experts},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"vocab", config.vocab},
          {"context", config.context},
          {"sliding_window", config.sliding_window},
          {"rope_theta", config.rope.theta},
          {"tied_embeddings", config.tied_embeddings}};
}

OrderedJson facts_json(const ModelFacts& facts) {
  OrderedJson linears = OrderedJson::array();
  int64_t parameters = 0;
  for (const LinearFacts& linear : facts.linears) {
    parameters += weights_of(linear);
    OrderedJson item = {{"name", linear.name},
                        {"format", linear.format},
                        {"rows", linear.rows},
                        {"cols", linear.cols}};
    if (linear.bytes > 0) {
      item["bits"] = linear.bits;
      item["bytes"] = linear.bytes;
    }
    linears.push_back(std::move(item));
  }
  OrderedJson document = {{"model", facts.path},
                          {"form", facts.form},
                          {"config", config_json(facts.config)},
                          {"parameters", parameters},
                          {"disk_bytes", facts.disk_bytes}};
  if (!facts.kv.empty()) {
    document["effective_bits"] = mean_bits(facts);
    document["kv"] = facts.kv;
    document["prefix_tokens"] = facts.prefix_tokens;
    document["recipe"] = facts.recipe;
    document["report"] = facts.report;
  }
  document["linears"] = std::move(linears);
  return document;
}

// A row of the table: the same linear of consecutive layers, and of all their experts, with one
// format.
struct Row {
  std::string kind;  // "self_attn.q_proj"
  std::string format;
  int64_t first_layer = -1, last_layer = -1;  // -1: outside the layers
  int64_t rows = 0, cols = 0;
  double bits = 0;
  int64_t bytes = 0;
};

// "self_attn.q_proj" as it is; "block_sparse_moe.experts.3.w1" without its number: "experts.*.w1".
std::string kind_of(std::string_view name) {
  constexpr std::string_view kExperts = "block_sparse_moe.experts.";
  if (!name.starts_with(kExperts)) return std::string(name);
  return fmt::format("experts.*{}", name.substr(name.find('.', kExperts.size())));
}

std::vector<Row> table_of(const ModelFacts& facts) {
  std::vector<Row> rows;
  for (const LinearFacts& linear : facts.linears) {
    constexpr std::string_view kLayers = "model.layers.";
    Row row{linear.name, linear.format, -1,          -1,
            linear.rows, linear.cols,   linear.bits, linear.bytes};
    if (linear.name.starts_with(kLayers)) {
      const size_t dot = linear.name.find('.', kLayers.size());
      row.kind = kind_of(std::string_view(linear.name).substr(dot + 1));
      row.first_layer = row.last_layer =
          std::atoll(linear.name.substr(kLayers.size(), dot - kLayers.size()).c_str());
    }
    const auto same = std::find_if(rows.begin(), rows.end(), [&](const Row& other) {
      return row.first_layer >= 0 && other.kind == row.kind && other.format == row.format &&
             (other.last_layer == row.first_layer || other.last_layer + 1 == row.first_layer);
    });
    if (same == rows.end()) {
      rows.push_back(std::move(row));
    } else {
      same->last_layer = row.last_layer;
      same->bytes += row.bytes;
    }
  }
  return rows;
}

void print_facts(const ModelFacts& facts) {
  const ModelConfig& c = facts.config;
  fmt::print("{}: {}, {:.1f} MB\n", facts.path, facts.form,
             static_cast<double>(facts.disk_bytes) / 1e6);
  fmt::print(
      "family {}, {} layers, hidden {}, ffn {}, {} heads and {} for keys and values of {}, "
      "vocabulary {}, context {}{}{}\n",
      family_name(c.family), c.layers, c.hidden, c.ffn, c.heads, c.kv_heads, c.head_dim, c.vocab,
      c.context, c.tied_embeddings ? ", tied embeddings" : "",
      c.experts > 0 ? fmt::format(", {} experts of which a token goes through {}", c.experts,
                                  c.active_experts)
                    : std::string());
  if (!facts.kv.empty()) {
    fmt::print("recipe {}: {}\n", facts.recipe.value("name", "?"),
               facts.recipe.value("description", ""));
    fmt::print("KV cache {}, {} prefix tokens, {:.3f} bits a weight in the layers\n", facts.kv,
               facts.prefix_tokens.size(), mean_bits(facts));
  }
  fmt::print("\n{:<8} {:<22} {:>14}  {:<28} {:>6} {:>9}\n", "layers", "linear", "shape", "format",
             "bits", "MB");
  for (const Row& row : table_of(facts)) {
    const std::string layers = row.first_layer < 0 ? std::string()
                               : row.first_layer == row.last_layer
                                   ? fmt::format("{}", row.first_layer)
                                   : fmt::format("{}-{}", row.first_layer, row.last_layer);
    fmt::print("{:<8} {:<22} {:>14}  {:<28} {:>6} {:>9}\n", layers, row.kind,
               fmt::format("{} x {}", row.rows, row.cols), row.format,
               row.bytes > 0 ? fmt::format("{:.3f}", row.bits) : "",
               row.bytes > 0 ? fmt::format("{:.2f}", static_cast<double>(row.bytes) / 1e6) : "");
  }
}

Status inspect(const InspectArguments& arguments) {
  ModelFacts facts;
  facts.path = arguments.path;
  ATOM_TRY(Checkpoint::is_checkpoint(facts.path) ? collect_checkpoint(facts)
                                                 : collect_source(facts));
  facts.disk_bytes = size_on_disk(facts.path);
  if (arguments.json) {
    print_json(facts_json(facts));
  } else {
    print_facts(facts);
  }
  return {};
}

}  // namespace

void add_inspect_command(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("inspect", "Show what a model consists of");
  command->footer(
      "Prints the shape of the model, and the format, bits and bytes of its linears; for an Atom\n"
      "checkpoint also its recipe and KV cache, and with --json the report that the quantizer "
      "left.\n"
      "\n"
      "Example:\n"
      "  atom inspect model-w4a8 --json");
  auto arguments = std::make_shared<InspectArguments>();
  add_model_path(*command, arguments->path);
  command->add_flag("--json", arguments->json, "Print one JSON object");
  command->callback([arguments, &action] { action = [arguments] { return inspect(*arguments); }; });
}

}  // namespace atom::cli
