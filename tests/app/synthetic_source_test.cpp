#include "app/synthetic_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "app/text_side.h"
#include "base/json.h"
#include "io/hf_config.h"

namespace atom {
namespace {

double spread(std::span<const float> row) {
  double sum = 0;
  for (const float v : row) sum += static_cast<double>(v) * v;
  return std::sqrt(sum / static_cast<double>(row.size()));
}

TEST(SyntheticSource, HasTheShapeAndItsOutliers) {
  const auto source = make_synthetic_source("llama-2-7b", 2).value();
  const ModelConfig& config = source->config();
  EXPECT_EQ(config.layers, 2);
  EXPECT_EQ(config.hidden, 4096);
  const Json json = parse_json(source->config_json(), "config").value();
  EXPECT_EQ(parse_hf_config(json, "config").value(), config);
  for (const TensorSpec& tensor : model_tensors(config)) {
    EXPECT_EQ(source->shape(tensor.name).value(), tensor.shape) << tensor.name;
  }
  EXPECT_FALSE(source->has("model.layers.2.input_layernorm.weight"));

  std::vector<float> norm(4096);
  ASSERT_TRUE(source->read("model.layers.1.input_layernorm.weight", norm).ok());
  EXPECT_EQ(norm[0], 1.0f);
  EXPECT_EQ(norm[50], 20.0f);

  const std::string name = "model.layers.1.self_attn.v_proj.weight";
  std::vector<float> values(4096 * 4096), again(values.size());
  ASSERT_TRUE(source->read(name, values).ok());
  ASSERT_TRUE(source->read(name, again).ok());
  EXPECT_EQ(values, again);
  const std::span<const float> all(values);
  EXPECT_NEAR(spread(all.first(4096)), 1.0 / 64, 0.1 / 64);
  EXPECT_NEAR(spread(all.subspan(50 * 4096, 4096)), 20.0 / 64, 2.0 / 64);
}

TEST(SyntheticSource, TokensAreBytes) {
  const auto source = make_synthetic_source("llama-2-7b", 1).value();
  const Tokenizer tokenizer = make_tokenizer(source->text_assets().value(), "test").value();
  EXPECT_EQ(tokenizer.vocab_size(), 256);
  const std::string text = "a \u00e9\n\x7f";
  const std::vector<int32_t> tokens =
      tokenizer.encode(text, /*add_special=*/false, /*parse_special=*/false).value();
  EXPECT_EQ(tokens, (std::vector<int32_t>{'a', ' ', 0xc3, 0xa9, '\n', 0x7f}));
  EXPECT_EQ(tokenizer.decode(tokens, false), text);
}

TEST(SyntheticSource, Refuses) {
  EXPECT_EQ(make_synthetic_source("llama-2-8b").status().code(), ErrorCode::kInvalidArgument);
  EXPECT_FALSE(make_synthetic_source("llama-2-7b", 33).ok());
  const auto source = make_synthetic_source("llama-2-7b", 1).value();
  std::vector<float> few(3);
  EXPECT_EQ(source->read("model.norm.weight", few).code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(source->read("model.layers.1.mlp.up_proj.weight", few).code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace atom
