#include "model/weights.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/random.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;
using testing::worst_difference;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

PackedLayer read_layer(const std::string& model, int64_t index = 0, DType storage = DType::kF32) {
  const auto source = must(open_model_source(testing::model_data(model)));
  return must(read_float_layer(*source, index, storage));
}

// The message for a layer of model qwen3 (H 4, KH 4, DH 32, D 64, F 96) that `damage` has changed.
template <class Damage>
std::string refusal(Damage damage) {
  const auto source = must(open_model_source(testing::model_data("qwen3")));
  PackedLayer layer = must(read_float_layer(*source, 0, DType::kF32));
  damage(layer);
  return validate(layer, source->config(), 0, "model", 7).message();
}

TEST(LayerWeights, SoundLayersPass) {
  EXPECT_EQ(refusal([](PackedLayer&) {}), "");
  EXPECT_EQ(refusal([](PackedLayer& layer) {
              for (int32_t i = 63; i >= 0; --i) layer.qkv_perm.push_back(i);
              layer.k_mean.assign(128, 0.5f);
            }),
            "");
}

TEST(LayerWeights, ErrorsNameThePart) {
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.mlp_norm.pop_back(); }),
            "model: layer 7: post_attention_layernorm: 63 elements, expected 64");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.q_norm[3] = kNan; }),
            "model: layer 7: q_norm[3]: not finite");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.k_norm.clear(); }),
            "model: layer 7: k_norm: 0 elements, expected 32");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.k_mean.assign(64, 0.0f); }),
            "model: layer 7: k_mean: 64 elements, expected 128");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.prefix_k.assign(128, 0.0f); }),
            "model: layer 7: prefix_k: 128 elements, expected 0");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.gate_up_perm.assign(64, 5); }),
            "model: layer 7: gate_up_perm[1]: channel 5 occurs twice");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.o_perm.assign(128, 128); }),
            "model: layer 7: o_perm[0]: 128 is not a channel");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.qkv_perm.assign(3, 0); }),
            "model: layer 7: qkv_perm: 3 elements, expected 64");
  EXPECT_EQ(refusal([](PackedLayer& layer) { std::swap(layer.o, layer.mlps[0].down); }),
            "model: layer 7: o_proj: shape [64, 96], expected [64, 128]");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.mlps[0].down.values.pop_back(); }),
            "model: layer 7: down_proj: values: 6143 elements, expected 6144");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.v = read_layer("qwen3", 0, DType::kBF16).v; }),
            "model: layer 7: v_proj: format BF16 differs from its site's, F32");
  EXPECT_EQ(refusal([](PackedLayer& layer) { layer.mlps[0].up.bias.assign(96, 0.0f); }),
            "model: layer 7: up_proj: a site's linears must all have a bias or none");
}

// Reordering each site's channels, and saying so in its permutation, changes nothing.
TEST(LayerWeights, PermutedChannelsComputeTheSame) {
  for (const char* backend_name : testing::kBackends) {
    const testing::Golden golden = testing::read_golden("llama_linear");  // has every bias
    const auto backend = testing::make_backend(backend_name);
    const auto source = must(open_model_source(testing::model_data("llama_linear")));
    Random random(1);
    const auto shuffled = [&](int64_t channels) {
      std::vector<int32_t> perm(static_cast<size_t>(channels));
      std::iota(perm.begin(), perm.end(), 0);
      for (int64_t i = channels - 1; i > 0; --i) {
        std::swap(perm[static_cast<size_t>(i)], perm[static_cast<size_t>(random.below(i + 1))]);
      }
      return perm;
    };
    const auto permute_cols = [](PackedLinear& linear, const std::vector<int32_t>& perm) {
      const std::vector<float> old = linear.values;
      for (int64_t n = 0; n < linear.rows; ++n) {
        for (int64_t k = 0; k < linear.cols; ++k) {
          linear.values[static_cast<size_t>(n * linear.cols + k)] =
              old[static_cast<size_t>(n * linear.cols + perm[static_cast<size_t>(k)])];
        }
      }
    };
    const auto permute_rows = [](PackedLinear& linear, const std::vector<int32_t>& perm) {
      const PackedLinear old = linear;
      for (int64_t n = 0; n < linear.rows; ++n) {
        const int64_t from = perm[static_cast<size_t>(n)];
        std::copy_n(old.values.begin() + from * linear.cols, linear.cols,
                    linear.values.begin() + n * linear.cols);
        linear.bias[static_cast<size_t>(n)] = old.bias[static_cast<size_t>(from)];
      }
    };

    DecoderWeights weights = must(load_float_ends(*backend, *source, DType::kF32, {}));
    for (int64_t i = 0; i < weights.config.layers; ++i) {
      PackedLayer layer = must(read_float_layer(*source, i, DType::kF32));
      layer.qkv_perm = shuffled(layer.q.cols);
      layer.o_perm = shuffled(layer.o.cols);
      layer.gate_up_perm = shuffled(layer.mlps[0].gate.cols);
      const std::vector<int32_t> down_perm = shuffled(layer.mlps[0].down.cols);
      for (PackedLinear* linear : {&layer.q, &layer.k, &layer.v}) {
        permute_cols(*linear, layer.qkv_perm);
      }
      permute_cols(layer.o, layer.o_perm);
      for (PackedLinear* linear : {&layer.mlps[0].gate, &layer.mlps[0].up}) {
        permute_cols(*linear, layer.gate_up_perm);
        permute_rows(*linear, down_perm);
      }
      permute_cols(layer.mlps[0].down, down_perm);
      ASSERT_EQ(validate(layer, weights.config, 0, "", i).message(), "");
      weights.layers.push_back(must(load_layer(*backend, layer)));
    }
    const auto decoder = must(Decoder::create(
        *backend, std::make_shared<const DecoderWeights>(std::move(weights)), {.max_tokens = 128}));
    std::vector<float> found;
    for (const testing::Prompt& prompt : golden.prompts) {
      const std::vector<float> logits = testing::run_prompt(*decoder, prompt, 128);
      found.insert(found.end(), logits.begin(), logits.end());
    }
    EXPECT_LT(worst_difference(found, golden.logits), 2e-5) << backend_name;
  }
}

// A source whose only tensor is a 1 x 4 linear with these values.
class OneLinear : public ModelSource {
 public:
  explicit OneLinear(std::vector<float> values) : values_(std::move(values)) {}
  const ModelConfig& config() const override { return config_; }
  const std::string& origin() const override { return origin_; }
  std::string config_json() const override { return "{}"; }
  Result<TextAssets> text_assets() const override { return TextAssets{}; }
  bool has(std::string_view) const override { return true; }
  Result<std::vector<int64_t>> shape(std::string_view) const override {
    return std::vector<int64_t>{1, static_cast<int64_t>(values_.size())};
  }
  Result<std::string> stored_type(std::string_view) const override { return std::string("F32"); }
  Status read(std::string_view name, std::span<float> out) const override {
    if (out.size() != values_.size()) return error(ErrorCode::kCorrupt, "{}: wrong size", name);
    std::copy(values_.begin(), values_.end(), out.begin());
    return {};
  }

 private:
  ModelConfig config_;
  std::string origin_ = "one.gguf";
  std::vector<float> values_;
};

TEST(FloatLoader, NarrowsToTheStorageAskedFor) {
  const OneLinear source({1.0f, -0.1f, 65519.0f, 1.0f + 0x1p-9f});
  const LinearSpec spec{.name = "x", .rows = 1, .cols = 4};
  EXPECT_EQ(must(read_float_linear(source, spec, DType::kF32)).values,
            (std::vector<float>{1.0f, -0.1f, 65519.0f, 1.0f + 0x1p-9f}));
  const PackedLinear half = must(read_float_linear(source, spec, DType::kF16));
  EXPECT_EQ(half.values16, (std::vector<uint16_t>{0x3c00, 0xae66, 0x7bff, 0x3c02}));
  const PackedLinear brain = must(read_float_linear(source, spec, DType::kBF16));
  EXPECT_EQ(brain.values16, (std::vector<uint16_t>{0x3f80, 0xbdcd, 0x4780, 0x3f80}));
  for (const PackedLinear* linear : {&half, &brain}) EXPECT_TRUE(validate(*linear).ok());
}

TEST(FloatLoader, RefusesWhatF16CannotHold) {
  const OneLinear source({1.0f, 65520.0f});
  EXPECT_EQ(read_float_linear(source, {.name = "x", .rows = 1, .cols = 2}, DType::kF16)
                .status()
                .message(),
            "one.gguf: tensor 'x.weight': [1] = 65520 is beyond the range of F16");
}

// Storing a model in the type that its file has loses nothing.
TEST(FloatLoader, StorageOfTheFilesOwnTypeIsExact) {
  const testing::Golden golden = testing::read_golden("qwen2");  // stored as BF16
  for (const char* backend : testing::kBackends) {
    const auto path = testing::model_data("qwen2");
    const testing::Model wide = testing::load_model(path, backend, {.max_tokens = 128});
    const testing::Model narrow =
        testing::load_model(path, backend, {.max_tokens = 128}, DType::kBF16);
    EXPECT_EQ(narrow.weights->layers[0].qkv->format().weight.dtype, DType::kBF16);
    const testing::Prompt& prompt = golden.prompts.back();
    EXPECT_LT(worst_difference(testing::run_prompt(*narrow.decoder, prompt, 128),
                               testing::run_prompt(*wide.decoder, prompt, 128)),
              1e-6);
  }
}

}  // namespace
}  // namespace atom
