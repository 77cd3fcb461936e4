// Mixtures of experts as layers: what is refused, orders of channels, and the checkpoint.
#include <gtest/gtest.h>

#include "io/test_files.h"
#include "model/checkpoint_model.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;
using testing::worst_difference;

std::unique_ptr<ModelSource> mixtral() {
  return must(open_model_source(testing::model_data("mixtral")));
}

// The message for a layer of model mixtral (D 64, F 96, 4 experts) that `damage` has changed.
template <class Damage>
std::string mixture_refusal(Damage damage) {
  const auto source = mixtral();
  PackedLayer layer = must(read_float_layer(*source, 0, DType::kF32));
  damage(layer);
  return validate(layer, source->config(), 0, "model", 1).message();
}

TEST(ExpertLayers, ErrorsNameTheExpert) {
  EXPECT_EQ(mixture_refusal([](PackedLayer&) {}), "");
  EXPECT_EQ(mixture_refusal([](PackedLayer& layer) { layer.router.pop_back(); }),
            "model: layer 1: router: 255 elements, expected 256");
  EXPECT_EQ(mixture_refusal([](PackedLayer& layer) { layer.router[7] = INFINITY; }),
            "model: layer 1: router[7]: not finite");
  EXPECT_EQ(mixture_refusal([](PackedLayer& layer) { layer.mlps.pop_back(); }),
            "model: layer 1: 3 feed-forward networks, expected 4");
  EXPECT_EQ(mixture_refusal([](PackedLayer& layer) { layer.mlps[2].down.values.pop_back(); }),
            "model: layer 1: expert 2: down_proj: values: 6143 elements, expected 6144");
  EXPECT_EQ(
      mixture_refusal([](PackedLayer& layer) { std::swap(layer.mlps[3].up, layer.mlps[3].down); }),
      "model: layer 1: expert 3: up_proj: shape [64, 96], expected [96, 64]");
  const auto halves = must(read_float_layer(*mixtral(), 0, DType::kBF16));
  EXPECT_EQ(mixture_refusal([&](PackedLayer& layer) { layer.mlps[1] = halves.mlps[1]; }),
            "model: layer 1: expert 1: gate_proj: format BF16 differs from its site's, F32");
}

std::vector<float> run_all(Backend& backend, DecoderWeights weights) {
  const auto decoder = must(Decoder::create(
      backend, std::make_shared<const DecoderWeights>(std::move(weights)), {.max_tokens = 128}));
  std::vector<float> all;
  for (const testing::Prompt& prompt : testing::read_golden("mixtral").prompts) {
    const std::vector<float> logits = testing::run_prompt(*decoder, prompt, 128);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

// Experts share the order of their input, each has one of its own for its hidden channels, and the
// router reads the original order: nothing changes.
TEST(ExpertLayers, PermutedChannelsComputeTheSame) {
  const auto reversed = [](std::vector<float>& values, int64_t cols, bool rows) {
    if (rows) {  // the order of rows reversed, each row as it is
      std::reverse(values.begin(), values.end());
    }
    for (size_t first = 0; first < values.size(); first += static_cast<size_t>(cols)) {
      const auto row = values.begin() + static_cast<ptrdiff_t>(first);
      std::reverse(row, row + cols);
    }
  };
  for (const char* name : testing::kBackends) {
    const auto backend = testing::make_backend(name);
    const auto source = mixtral();
    DecoderWeights weights = must(load_float_ends(*backend, *source, DType::kF32, {}));
    for (int64_t i = 0; i < weights.config.layers; ++i) {
      PackedLayer layer = must(read_float_layer(*source, i, DType::kF32));
      for (int32_t c = 63; c >= 0; --c) layer.gate_up_perm.push_back(c);
      for (size_t e = 0; e < layer.mlps.size(); ++e) {
        PackedMlp& mlp = layer.mlps[e];
        for (PackedLinear* linear : {&mlp.gate, &mlp.up}) {
          reversed(linear->values, linear->cols, false);
          if (e == 1) reversed(linear->values, linear->cols, true);
        }
        if (e == 1) reversed(mlp.down.values, mlp.down.cols, false);
      }
      weights.layers.push_back(must(load_layer(*backend, layer)));
    }
    EXPECT_LT(worst_difference(run_all(*backend, std::move(weights)),
                               testing::read_golden("mixtral").logits),
              2e-5)
        << name;
  }
}

TEST(ExpertLayers, CheckpointsGiveBackWhatWasWritten) {
  const testing::TempFolder folder;
  const auto source = mixtral();
  const ModelConfig& config = source->config();
  CheckpointWriter writer = must(CheckpointWriter::create(
      folder.path(),
      {.config = config, .config_json = source->config_json(), .kv = {}, .prefix_tokens = {}}));
  for (const std::string_view name : {kEmbedTensor, kHeadTensor}) {
    const LinearSpec spec{std::string(name), config.vocab, config.hidden};
    ASSERT_TRUE(writer.add_linear(name, must(read_float_linear(*source, spec, DType::kBF16))).ok());
  }
  std::vector<float> norm(static_cast<size_t>(config.hidden));
  ASSERT_TRUE(source->read(kLastNormTensor, norm).ok());
  ASSERT_TRUE(writer.add_floats(kLastNormTensor, {config.hidden}, norm).ok());
  for (int64_t i = 0; i < config.layers; ++i) {
    const PackedLayer layer = must(read_float_layer(*source, i, DType::kBF16));
    const Status status = write_checkpoint_layer(writer, config, i, layer);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  const Status status = writer.finish();
  ASSERT_TRUE(status.ok()) << status.message();

  const Checkpoint checkpoint = must(Checkpoint::open(folder.path()));
  EXPECT_EQ(checkpoint.meta().config, config);
  for (int64_t i = 0; i < config.layers; ++i) {
    const PackedLayer wanted = must(read_float_layer(*source, i, DType::kBF16));
    const PackedLayer found = must(read_checkpoint_layer(checkpoint, i));
    EXPECT_EQ(found.router, wanted.router);
    ASSERT_EQ(found.mlps.size(), 4u);
    for (size_t n = 0; n < wanted.linears().size(); ++n) {
      EXPECT_EQ(found.linears()[n]->values16, wanted.linears()[n]->values16) << n;
    }
  }
  for (const char* name : testing::kBackends) {
    const auto backend = testing::make_backend(name);
    EXPECT_EQ(run_all(*backend, must(load_checkpoint_model(*backend, checkpoint))),
              run_all(*backend, must(load_float_model(*backend, *source, DType::kBF16, {}))))
        << name;
  }
}

}  // namespace
}  // namespace atom
