// A mixture of experts through the quantizer, in memory.
#include <gtest/gtest.h>

#include "base/random.h"
#include "model/model_testing.h"
#include "quant/layers_in_memory.h"

namespace atom {
namespace {

using testing::LayersInMemory;
using testing::must;

Recipe recipe_of(const std::string& name) {
  Recipe recipe = must(load_recipe(name));
  recipe.windows = 8;
  recipe.reorder_windows = 8;
  recipe.context = 128;
  return recipe;
}

class ExpertQuantizer : public ::testing::TestWithParam<const char*> {
 protected:
  LayersInMemory quantize(const Recipe& recipe, int64_t tokens) {
    Random random(5);
    std::vector<int32_t> text(static_cast<size_t>(tokens));
    for (int32_t& token : text) token = static_cast<int32_t>(random.below(128));
    LayersInMemory layers;
    report_ = must(quantize_model(*source_, *backend_, recipe, text, layers, false));
    return layers;
  }

  std::unique_ptr<ModelSource> source_ = must(open_model_source(testing::model_data("mixtral")));
  std::unique_ptr<Backend> backend_ = testing::make_backend("cpu");
  int64_t prefix() const { return static_cast<int64_t>(report_.prefix_tokens.size()); }

  QuantizeReport report_;
};
INSTANTIATE_TEST_SUITE_P(Recipes, ExpertQuantizer,
                         ::testing::Values("w4a8", "atom", "atom-plus", "rtn"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST_P(ExpertQuantizer, MakesSoundLayersThatComputeAlikeInEveryBatch) {
  const Recipe recipe = recipe_of(GetParam());
  const LayersInMemory made = quantize(recipe, 1024);
  const ModelConfig& config = source_->config();
  ASSERT_EQ(made.layers.size(), 2u);
  for (size_t i = 0; i < made.layers.size(); ++i) {
    const Status status =
        validate(made.layers[i], config, prefix(), "quantized", static_cast<int64_t>(i));
    EXPECT_TRUE(status.ok()) << status.message();
  }
  ASSERT_EQ(report_.linears.size(), 2u * (4 + 3 * 4));
  const std::vector<LinearSpec> names = layer_linears(config, 1);
  for (size_t i = 0; i < names.size(); ++i) {
    const LinearReport& report = report_.linears[names.size() + i];
    EXPECT_EQ(report.name, names[i].name);
    EXPECT_LT(report.error, 0.05) << report.name;
  }
  const auto decoder = must(Decoder::create(
      *backend_,
      std::make_shared<const DecoderWeights>(made.load(*backend_, config, recipe.kv, prefix())),
      {.max_tokens = 128}));
  const testing::Prompt prompt = testing::read_golden("mixtral").prompts.back();
  const std::vector<float> whole = testing::run_prompt(*decoder, prompt, 128);
  for (const float logit : whole) ASSERT_TRUE(std::isfinite(logit));
  for (const int64_t chunk : {1, 7, 33}) {
    EXPECT_EQ(testing::run_prompt(*decoder, prompt, chunk), whole) << chunk;
  }
}

// Sixteen tokens reach no expert often enough.
TEST_P(ExpertQuantizer, DoesWithoutTokensForAnExpert) {
  const LayersInMemory made = quantize(recipe_of(GetParam()), 16);
  for (const PackedLayer& layer : made.layers) {
    const Status status = validate(layer, source_->config(), prefix(), "quantized", 0);
    EXPECT_TRUE(status.ok()) << status.message();
  }
  for (const LinearReport& report : report_.linears) EXPECT_LT(report.error, 0.2) << report.name;
}

}  // namespace
}  // namespace atom
