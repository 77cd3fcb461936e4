#include "quant/recipe.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

namespace atom {
namespace {

Json preset(std::string_view name) {
  for (const RecipePreset& p : recipe_presets()) {
    if (p.name == name) return parse_json(p.json, "preset").value();
  }
  ADD_FAILURE() << "no preset " << name;
  return {};
}

Result<Recipe> parse(const Json& json) { return parse_recipe(JsonView(json, "mine.json")); }

void expect_refused(const Json& json, std::string_view says) {
  const Result<Recipe> recipe = parse(json);
  ASSERT_FALSE(recipe.ok()) << says;
  EXPECT_EQ(recipe.status().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(recipe.status().message().find(says), std::string::npos) << recipe.status().message();
}

TEST(Recipe, PresetsSurviveTheCheckpoint) {
  ASSERT_EQ(recipe_presets().size(), 9u);
  for (const RecipePreset& p : recipe_presets()) {
    SCOPED_TRACE(p.name);
    const Recipe recipe = load_recipe(p.name).value();
    EXPECT_EQ(recipe.name, p.name);
    const Json kept = recipe_to_json(recipe);
    EXPECT_EQ(recipe_to_json(parse(kept).value()), kept);
  }
}

TEST(Recipe, EveryStepIsRead) {
  Json json = preset("atom-plus");
  json["balance"] = 0.25;
  json["prefix"] = {3, 4};
  json["weights"]["damping"] = 0.5;
  json["calibration"] = {{"windows", 5}, {"context", 99}, {"seed", 3}, {"offsets", {7, 8}}};
  json["overrides"] = {{{"sites", {"down"}},
                        {"layers", {2}},
                        {"weight", json["linear"]["weight"]},
                        {"act", {{"bits", 8}, {"group", 0}}}}};
  const Recipe recipe = parse(json).value();
  EXPECT_EQ(recipe.balance, 0.25);
  EXPECT_FALSE(recipe.bos_prefix);
  EXPECT_EQ(recipe.prefix_tokens, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ(recipe.damping, 0.5);
  EXPECT_EQ(recipe.windows, 5);
  EXPECT_EQ(recipe.reorder_windows, 5);
  EXPECT_EQ(recipe.context, 99);
  EXPECT_EQ(recipe.seed, 3u);
  EXPECT_EQ(recipe.window_offsets, (std::vector<int64_t>{7, 8}));
  EXPECT_EQ(recipe.inputs, HessianInputs::kFloat);
  EXPECT_EQ(recipe.scale_rule, ScaleRule::kSearch);
  EXPECT_EQ(recipe_to_json(parse(recipe_to_json(recipe)).value()), recipe_to_json(recipe));
}

TEST(Recipe, SaysWhatIsWrong) {
  const Json good = preset("w4a8");
  ASSERT_TRUE(parse(good).ok());
  const auto with = [&](const char* pointer, Json value) {
    Json json = good;
    json[Json::json_pointer(pointer)] = std::move(value);
    return json;
  };
  expect_refused(with("/speed", 9), "speed");
  expect_refused(with("/balance", 1.01), "'balance' is 1.01");
  expect_refused(with("/balance", -0.5), "'balance' is -0.5");
  expect_refused(with("/weights/scale", "best"), "'best', not absmax or search");
  expect_refused(with("/weights/clip", 0), "'clip' is 0");
  expect_refused(with("/weights/damping", 2), "'damping' is 2");
  expect_refused(with("/weights/inputs", "none"), "'none', not float or quantized");
  expect_refused(with("/prefix", "eos"), "'eos'");
  expect_refused(with("/overrides", {{{"sites", {"head"}}, {"weight", good["linear"]["weight"]}}}),
                 "'head' is not one of qkv, o, gate_up, down");
  expect_refused(with("/linear", preset("w16a16")["linear"]), "float weights");
}

TEST(Recipe, SitesAndLayersCanDiffer) {
  Json json = preset("w4a8");
  const Json eight = {{"weight", {{"kind", "grouped"}, {"bits", 8}, {"group", 0}}},
                      {"act", {{"bits", 8}, {"group", 0}}}};
  json["overrides"] = Json::array({eight, eight});
  json["overrides"][0]["sites"] = {"down"};
  json["overrides"][1]["layers"] = {1};
  json["overrides"][1]["weight"]["bits"] = 3;
  const Recipe recipe = parse(json).value();
  const auto bits = [&](InputSite site, int64_t layer) {
    return recipe.format_for(site, layer, 1024).value().weight.bits;
  };
  EXPECT_EQ(bits(InputSite::kQkv, 0), 4);
  EXPECT_EQ(bits(InputSite::kDown, 0), 8);
  EXPECT_EQ(bits(InputSite::kDown, 1), 3);  // the last match wins
  EXPECT_EQ(bits(InputSite::kQkv, 1), 3);
}

TEST(Recipe, OutliersGrowAndGroupsShrinkToFit) {
  const Recipe atom = load_recipe("atom").value();  // groups of 128, 64 outliers
  const auto fit = [&](int64_t channels) {
    const WeightFormat w = atom.format_for(InputSite::kO, 0, channels).value().weight;
    return std::pair(w.group, w.outliers);
  };
  EXPECT_EQ(fit(576), std::pair(int64_t{128}, int64_t{64}));
  EXPECT_EQ(fit(1536), std::pair(int64_t{128}, int64_t{128}));
  EXPECT_EQ(fit(4096), std::pair(int64_t{128}, int64_t{128}));
  EXPECT_EQ(fit(96), std::pair(int64_t{64}, int64_t{32}));
  EXPECT_EQ(atom.format_for(InputSite::kO, 0, 96).value().act.group, 64);
  const Result<LinearFormat> none =
      load_recipe("w4a16").value().format_for(InputSite::kDown, 3, 172);
  EXPECT_NE(none.status().message().find("172 input channels of down in layer 3"),
            std::string::npos);
}

TEST(Recipe, NeedsTextOnlyForWhatLearns) {
  EXPECT_FALSE(load_recipe("rtn").value().needs_calibration());
  EXPECT_FALSE(load_recipe("w16a16").value().needs_calibration());
  for (const char* name : {"atom", "w4a8", "w4a16"}) {
    EXPECT_TRUE(load_recipe(name).value().needs_calibration()) << name;
  }
  Json json = preset("w8a8");
  json["balance"] = 0.5;
  EXPECT_TRUE(parse(json).value().needs_calibration());
}

TEST(Recipe, FilesAreRead) {
  const std::string path = ::testing::TempDir() + "/atom_recipe_test.json";
  std::ofstream(path) << preset("rtn").dump();
  EXPECT_EQ(load_recipe(path).value().name, "rtn");
  std::ofstream(path) << "[]";
  EXPECT_FALSE(load_recipe(path).ok());
  EXPECT_NE(load_recipe("nonesuch").status().message().find("one of the presets: w4a8, atom"),
            std::string::npos);
}

}  // namespace
}  // namespace atom
