#include "quant/recipe.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/format_json.h"

namespace atom {
namespace {

constexpr std::array<std::string_view, kInputSites> kSiteNames = {"qkv", "o", "gate_up", "down"};
constexpr int64_t kManyTokens = int64_t{1} << 40;

Result<InputSite> site_from_name(const JsonView& json) {
  const std::string name = ATOM_TRY(json.as_string());
  for (size_t s = 0; s < kSiteNames.size(); ++s) {
    if (kSiteNames[s] == name) return static_cast<InputSite>(s);
  }
  return error(ErrorCode::kInvalidArgument, "{}: '{}' is not one of qkv, o, gate_up, down",
               json.place(), name);
}

Result<std::vector<int64_t>> int_list(const JsonView& json, int64_t max) {
  std::vector<int64_t> values;
  for (size_t i = 0; i < json.size(); ++i) {
    values.push_back(ATOM_TRY(ATOM_TRY(json.at(i)).as_int(0, max)));
  }
  return values;
}

Result<FormatOverride> parse_override(const JsonView& json) {
  ATOM_TRY(json.expect_keys({"sites", "layers", "weight", "act"}));
  FormatOverride result;
  if (json.has("sites")) {
    const JsonView sites = ATOM_TRY(json.at("sites"));
    for (size_t i = 0; i < sites.size(); ++i) {
      result.sites.push_back(ATOM_TRY(site_from_name(ATOM_TRY(sites.at(i)))));
    }
  }
  if (json.has("layers")) result.layers = ATOM_TRY(int_list(ATOM_TRY(json.at("layers")), 1 << 20));
  Json format = {{"weight", json.json().value("weight", Json::object())}};
  if (json.has("act")) format["act"] = json.json()["act"];
  result.format = ATOM_TRY(linear_format_from_json(JsonView(format, json.place())));
  return result;
}

Status parse_weights(const JsonView& json, Recipe& recipe) {
  ATOM_TRY(json.expect_keys({"gptq", "scale", "clip", "damping", "inputs"}));
  recipe.gptq = ATOM_TRY(json.get_bool("gptq", true));
  const std::string scale = ATOM_TRY(json.get_string("scale", "absmax"));
  if (scale != "absmax" && scale != "search") {
    return error(ErrorCode::kInvalidArgument, "{}: 'scale' is '{}', not absmax or search",
                 json.place(), scale);
  }
  recipe.scale_rule = scale == "search" ? ScaleRule::kSearch : ScaleRule::kAbsmax;
  recipe.clip = static_cast<float>(ATOM_TRY(json.get_number("clip", 1.0)));
  if (!(recipe.clip > 0 && recipe.clip <= 1)) {
    return error(ErrorCode::kInvalidArgument, "{}: 'clip' is {}, not within (0, 1]", json.place(),
                 recipe.clip);
  }
  recipe.damping = ATOM_TRY(json.get_number("damping", 0.01));
  if (!(recipe.damping > 0 && recipe.damping <= 1)) {
    return error(ErrorCode::kInvalidArgument, "{}: 'damping' is {}, not within (0, 1]",
                 json.place(), recipe.damping);
  }
  const std::string inputs = ATOM_TRY(json.get_string("inputs", "quantized"));
  if (inputs != "float" && inputs != "quantized") {
    return error(ErrorCode::kInvalidArgument, "{}: 'inputs' is '{}', not float or quantized",
                 json.place(), inputs);
  }
  recipe.inputs = inputs == "float" ? HessianInputs::kFloat : HessianInputs::kQuantized;
  return {};
}

Status parse_calibration(const JsonView& json, Recipe& recipe) {
  ATOM_TRY(json.expect_keys({"windows", "context", "seed", "offsets", "reorder_windows"}));
  recipe.windows = ATOM_TRY(json.get_int("windows", 1, 1 << 20, recipe.windows));
  recipe.reorder_windows = ATOM_TRY(json.get_int("reorder_windows", 1, 1 << 20, recipe.windows));
  recipe.context = ATOM_TRY(json.get_int("context", 16, 1 << 20, recipe.context));
  recipe.seed = static_cast<uint64_t>(ATOM_TRY(json.get_int("seed", 0, INT64_MAX, 0)));
  if (json.has("offsets")) {
    recipe.window_offsets = ATOM_TRY(int_list(ATOM_TRY(json.at("offsets")), kManyTokens));
  }
  return {};
}

Status parse_prefix(const JsonView& json, Recipe& recipe) {
  if (json.is_string()) {
    const std::string word = ATOM_TRY(json.as_string());
    if (word != "bos") {
      return error(ErrorCode::kInvalidArgument, "{}: '{}' is neither \"bos\" nor token ids",
                   json.place(), word);
    }
    recipe.bos_prefix = true;
    return {};
  }
  for (const int64_t token : ATOM_TRY(int_list(json, INT32_MAX))) {
    recipe.prefix_tokens.push_back(static_cast<int32_t>(token));
  }
  return {};
}

// The outliers that a body of whole groups leaves: at least `wanted`; 0 if none were wanted and the
// groups come out even; -1 if it would take more than half of the channels.
int64_t grown_outliers(int64_t channels, int64_t wanted, int64_t group) {
  const int64_t body_unit = group == 0 ? 4 : group;
  const int64_t body = (channels - wanted) / body_unit * body_unit;
  const int64_t outliers = channels - body;
  if (wanted == 0) return outliers == 0 ? 0 : -1;
  return body > 0 && outliers <= channels / 2 ? outliers : -1;
}

}  // namespace

Result<LinearFormat> Recipe::format_for(InputSite site, int64_t layer, int64_t channels) const {
  LinearFormat format = linear;
  for (const FormatOverride& o : overrides) {
    const bool here =
        (o.sites.empty() || std::find(o.sites.begin(), o.sites.end(), site) != o.sites.end()) &&
        (o.layers.empty() || std::find(o.layers.begin(), o.layers.end(), layer) != o.layers.end());
    if (here) format = o.format;
  }
  WeightFormat& weight = format.weight;
  if (weight.kind != WeightKind::kFloat) {
    // Models too narrow for the recipe get fewer outliers and smaller groups.
    const int64_t wanted = std::min(weight.outliers, channels / 4);
    const bool grouped_acts = format.act.quantized && format.act.group != 0;
    int64_t group = weight.group;
    int64_t outliers = grown_outliers(channels, wanted, group);
    while (outliers < 0 && group > 8) {
      group /= 2;
      outliers = grown_outliers(channels, wanted, group);
    }
    if (outliers < 0) {
      return error(ErrorCode::kInvalidArgument,
                   "{}: groups of {} do not fit the {} input channels of {} in layer {}", name,
                   weight.group, channels, kSiteNames[static_cast<size_t>(site)], layer);
    }
    weight.group = group;
    weight.outliers = outliers;
    if (grouped_acts) format.act.group = group;
  }
  ATOM_TRY(validate(format, channels)
               .with_context(fmt::format("{}: {} in layer {}", name,
                                         kSiteNames[static_cast<size_t>(site)], layer)));
  return format;
}

bool Recipe::needs_calibration() const {
  return balance > 0 || reorder || gptq || scale_rule == ScaleRule::kSearch || kv.centered ||
         bos_prefix || !prefix_tokens.empty();
}

Result<Recipe> parse_recipe(const JsonView& json) {
  ATOM_TRY(json.expect_keys({"name", "description", "linear", "overrides", "embedding", "kv",
                             "balance", "reorder", "weights", "prefix", "calibration"}));
  Recipe recipe;
  recipe.name = ATOM_TRY(json.get_string("name"));
  recipe.description = ATOM_TRY(json.get_string("description", ""));
  recipe.linear = ATOM_TRY(linear_format_from_json(ATOM_TRY(json.at("linear"))));
  if (json.has("overrides")) {
    const JsonView overrides = ATOM_TRY(json.at("overrides"));
    for (size_t i = 0; i < overrides.size(); ++i) {
      recipe.overrides.push_back(ATOM_TRY(parse_override(ATOM_TRY(overrides.at(i)))));
    }
  }
  recipe.embedding = ATOM_TRY(linear_format_from_json(ATOM_TRY(json.at("embedding"))));
  recipe.kv = ATOM_TRY(kv_format_from_json(ATOM_TRY(json.at("kv"))));
  recipe.balance = ATOM_TRY(json.get_number("balance", 0.0));
  if (!(recipe.balance >= 0 && recipe.balance <= 1)) {
    return error(ErrorCode::kInvalidArgument, "{}: 'balance' is {}, not within [0, 1]",
                 json.place(), recipe.balance);
  }
  recipe.reorder = ATOM_TRY(json.get_bool("reorder", false));
  if (json.has("weights")) {
    ATOM_TRY(parse_weights(ATOM_TRY(json.at("weights")), recipe));
  } else {
    recipe.gptq = false;
  }
  if (json.has("prefix")) ATOM_TRY(parse_prefix(ATOM_TRY(json.at("prefix")), recipe));
  if (json.has("calibration")) {
    ATOM_TRY(parse_calibration(ATOM_TRY(json.at("calibration")), recipe));
  }
  if (recipe.linear.weight.kind == WeightKind::kFloat &&
      (recipe.gptq || recipe.reorder || recipe.balance > 0)) {
    return error(ErrorCode::kInvalidArgument,
                 "{}: float weights take neither gptq nor reorder nor balance", json.place());
  }
  return recipe;
}

Json recipe_to_json(const Recipe& recipe) {
  Json json = {{"name", recipe.name}, {"description", recipe.description}};
  json["linear"] = to_json(recipe.linear);
  for (const FormatOverride& o : recipe.overrides) {
    Json item = to_json(o.format);
    for (const InputSite site : o.sites) {
      item["sites"].push_back(std::string(kSiteNames[static_cast<size_t>(site)]));
    }
    if (!o.layers.empty()) item["layers"] = o.layers;
    json["overrides"].push_back(std::move(item));
  }
  json["embedding"] = to_json(recipe.embedding);
  json["kv"] = to_json(recipe.kv);
  json["balance"] = recipe.balance;
  json["reorder"] = recipe.reorder;
  json["weights"] = {{"gptq", recipe.gptq},
                     {"scale", recipe.scale_rule == ScaleRule::kSearch ? "search" : "absmax"},
                     {"clip", std::stod(fmt::format("{}", recipe.clip))},
                     {"damping", recipe.damping},
                     {"inputs", recipe.inputs == HessianInputs::kFloat ? "float" : "quantized"}};
  if (recipe.bos_prefix) json["prefix"] = "bos";
  if (!recipe.prefix_tokens.empty()) json["prefix"] = recipe.prefix_tokens;
  json["calibration"] = {{"windows", recipe.windows},
                         {"context", recipe.context},
                         {"seed", recipe.seed},
                         {"reorder_windows", recipe.reorder_windows}};
  if (!recipe.window_offsets.empty()) json["calibration"]["offsets"] = recipe.window_offsets;
  return json;
}

Result<Recipe> load_recipe(std::string_view name_or_path) {
  std::string names;
  for (const RecipePreset& preset : recipe_presets()) {
    names += (names.empty() ? "" : ", ") + std::string(preset.name);
    if (preset.name != name_or_path) continue;
    const std::string origin = "recipe " + std::string(preset.name);
    const Json json = ATOM_TRY(parse_json(preset.json, origin));
    return parse_recipe(JsonView(json, origin));
  }
  const std::filesystem::path path(name_or_path);
  if (path.extension() != ".json") {
    return error(ErrorCode::kInvalidArgument,
                 "recipe '{}' is neither a .json file nor one of the presets: {}", name_or_path,
                 names);
  }
  const Json json = ATOM_TRY(read_json_file(path, 1 << 20));
  return parse_recipe(JsonView(json, path.string()));
}

}  // namespace atom
