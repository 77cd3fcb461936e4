#include "model/checkpoint_model.h"

#include <gtest/gtest.h>

#include "io/test_files.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;
using testing::worst_difference;

// A checkpoint of qwen3 with linears in BF16, its float type, and everything that a layer may have
// besides: norms a head, a permutation, a mean of the keys, a prefix of two tokens.
class CheckpointModel : public ::testing::Test {
 protected:
  void SetUp() override {
    source_ = must(open_model_source(testing::model_data("qwen3")));
    CheckpointMeta meta;
    meta.config = source_->config();
    meta.config_json = source_->config_json();
    meta.kv = {.kind = KvKind::kF32, .centered = true};
    meta.prefix_tokens = {17, 4};
    CheckpointWriter writer = must(CheckpointWriter::create(folder_.path(), meta));
    const auto add_end = [&](std::string_view name) {
      const LinearSpec spec{std::string(name), meta.config.vocab, meta.config.hidden};
      const PackedLinear linear = must(read_float_linear(*source_, spec, DType::kBF16));
      ASSERT_TRUE(writer.add_linear(name, linear).ok());
    };
    add_end(kEmbedTensor);
    add_end(kHeadTensor);
    std::vector<float> norm(static_cast<size_t>(meta.config.hidden));
    ASSERT_TRUE(source_->read(kLastNormTensor, norm).ok());
    ASSERT_TRUE(writer.add_floats(kLastNormTensor, {meta.config.hidden}, norm).ok());
    for (int64_t i = 0; i < meta.config.layers; ++i) {
      PackedLayer layer = must(read_float_layer(*source_, i, DType::kBF16));
      const int64_t kv_cols = meta.config.kv_heads * meta.config.head_dim;
      for (int64_t c = 0; c < kv_cols; ++c) {
        layer.k_mean.push_back(0.01f * static_cast<float>(c));
      }
      for (int64_t c = 0; c < 2 * kv_cols; ++c) {
        layer.prefix_k.push_back(0.02f * static_cast<float>(c % 31));
        layer.prefix_v.push_back(0.03f * static_cast<float>(c % 17));
      }
      // Another order of o's input channels.
      for (int64_t c = layer.o.cols - 1; c >= 0; --c) {
        layer.o_perm.push_back(static_cast<int32_t>(c));
      }
      for (int64_t n = 0; n < layer.o.rows; ++n) {
        const auto row = layer.o.values16.begin() + n * layer.o.cols;
        std::reverse(row, row + layer.o.cols);
      }
      const Status status = write_checkpoint_layer(writer, meta.config, i, layer);
      ASSERT_TRUE(status.ok()) << status.message();
      layers_.push_back(std::move(layer));
    }
    const Status status = writer.finish();
    ASSERT_TRUE(status.ok()) << status.message();
  }

  testing::TempFolder folder_;
  std::unique_ptr<ModelSource> source_;
  std::vector<PackedLayer> layers_;
};

TEST_F(CheckpointModel, LayersComeBackAsTheyWere) {
  const Checkpoint checkpoint = must(Checkpoint::open(folder_.path()));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const PackedLayer found = must(read_checkpoint_layer(checkpoint, static_cast<int64_t>(i)));
    const PackedLayer& wanted = layers_[i];
    EXPECT_EQ(found.attention_norm, wanted.attention_norm);
    EXPECT_EQ(found.mlp_norm, wanted.mlp_norm);
    EXPECT_EQ(found.q_norm, wanted.q_norm);
    EXPECT_EQ(found.k_norm, wanted.k_norm);
    EXPECT_EQ(found.k_mean, wanted.k_mean);
    EXPECT_EQ(found.prefix_k, wanted.prefix_k);
    EXPECT_EQ(found.prefix_v, wanted.prefix_v);
    EXPECT_EQ(found.o_perm, wanted.o_perm);
    EXPECT_TRUE(found.qkv_perm.empty());  // the identity
    EXPECT_EQ(found.q.values16, wanted.q.values16);
    EXPECT_EQ(found.o.values16, wanted.o.values16);
    EXPECT_EQ(found.mlps[0].down.values16, wanted.mlps[0].down.values16);
  }
}

TEST_F(CheckpointModel, ComputesLikeTheLayersItWasMadeOf) {
  const testing::Golden golden = testing::read_golden("qwen3");
  const testing::Prompt& prompt = golden.prompts.back();
  for (const char* name : testing::kBackends) {
    const auto backend = testing::make_backend(name);
    const auto run = [&](DecoderWeights weights) {
      const auto decoder =
          must(Decoder::create(*backend, std::make_shared<const DecoderWeights>(std::move(weights)),
                               {.max_tokens = 80}));
      return testing::run_prompt(*decoder, prompt, 80);
    };
    const Checkpoint checkpoint = must(Checkpoint::open(folder_.path()));
    DecoderWeights direct = must(load_float_ends(*backend, *source_, DType::kBF16,
                                                 {.kind = KvKind::kF32, .centered = true}));
    direct.prefix_tokens = 2;
    for (const PackedLayer& layer : layers_) {
      direct.layers.push_back(must(load_layer(*backend, layer)));
    }
    const std::vector<float> found = run(must(load_checkpoint_model(*backend, checkpoint)));
    EXPECT_EQ(found, run(std::move(direct))) << name;
    // The prefix does count.
    EXPECT_GT(worst_difference(found, std::span(golden.logits).last(found.size())), 1e-2);
  }
}

}  // namespace
}  // namespace atom
