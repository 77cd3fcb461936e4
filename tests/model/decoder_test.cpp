#include "model/decoder.h"

#include <gtest/gtest.h>

#include <tuple>

#include "model/model_testing.h"

namespace atom {
namespace {

using testing::Golden;
using testing::load_model;
using testing::Model;
using testing::must;
using testing::Prompt;
using testing::run_prompt;
using testing::worst_difference;

class TinyModel : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  std::string backend() const { return std::get<0>(GetParam()); }
  std::string name() const { return std::get<1>(GetParam()); }
};

TEST_P(TinyModel, LogitsAreThoseOfTransformers) {
  const Golden golden = testing::read_golden(name());
  const Model model = load_model(testing::model_data(name()), backend(), {.max_tokens = 128});
  std::vector<float> found;
  for (const Prompt& prompt : golden.prompts) {
    const std::vector<float> logits = run_prompt(*model.decoder, prompt, 128);
    found.insert(found.end(), logits.begin(), logits.end());
  }
  // transformers computes in float32: 2e-6 at most was seen.
  EXPECT_LT(worst_difference(found, golden.logits), 2e-5);
}

TEST_P(TinyModel, ChunksDoNotChangeLogits) {
  const Golden golden = testing::read_golden(name());
  const Model model = load_model(testing::model_data(name()), backend(), {.max_tokens = 128});
  const Prompt& prompt = golden.prompts.back();
  const std::vector<float> whole = run_prompt(*model.decoder, prompt, 128);
  for (const int64_t chunk : {1, 7, 16, 33}) {
    EXPECT_LT(worst_difference(run_prompt(*model.decoder, prompt, chunk), whole), 1e-5)
        << "chunks of " << chunk;
  }
}

INSTANTIATE_TEST_SUITE_P(AllFamilies, TinyModel,
                         ::testing::Combine(::testing::ValuesIn(testing::kBackends),
                                            ::testing::ValuesIn(testing::kTinyModels)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param);
                         });

class DecoderTest : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Backends, DecoderTest, ::testing::ValuesIn(testing::kBackends),
                         [](const auto& info) { return std::string(info.param); });

// Three sequences at different depths in one batch: a prompt, a decode step and a later chunk.
TEST_P(DecoderTest, SequencesOfABatchDoNotMix) {
  const Golden golden = testing::read_golden("qwen3");
  const Model model = load_model(testing::model_data("qwen3"), GetParam(), {.max_tokens = 128});
  Decoder& decoder = *model.decoder;
  const int64_t vocab = decoder.config().vocab;
  const std::vector<int32_t>& tokens = golden.prompts.back().tokens;
  const std::span<const int32_t> all(tokens);
  struct Part {
    std::span<const int32_t> past, now;
    std::vector<int32_t> pages;
  };
  const Part parts[] = {{{}, all.first(20), {5, 2}},
                        {all.subspan(3, 30), all.subspan(33, 1), {1, 7}},
                        {all.subspan(10, 16), all.subspan(26, 9), {0, 6}}};

  std::vector<float> expected;
  for (const Part& part : parts) {
    Prompt alone{{part.past.begin(), part.past.end()}, {}};
    alone.tokens.insert(alone.tokens.end(), part.now.begin(), part.now.end());
    alone.rows = {static_cast<int32_t>(alone.tokens.size() - 1)};
    const std::vector<float> logits = run_prompt(decoder, alone, 128);
    expected.insert(expected.end(), logits.begin(), logits.end());
  }

  const auto cache = must(decoder.make_cache(8));
  const auto logits = must(decoder.backend().make_tensor(3, vocab));
  Batch past, now;
  for (const Part& part : parts) {
    if (!part.past.empty()) add_sequence(past, part.past, 0, part.pages, 0);
    add_sequence(now, part.now, static_cast<int64_t>(part.past.size()), part.pages, 0);
    now.logit_rows.push_back(static_cast<int32_t>(now.size() - 1));
  }
  ASSERT_TRUE(decoder.run(past, *cache).ok());
  ASSERT_TRUE(decoder.forward(now, *cache, *logits).ok());
  std::vector<float> found(static_cast<size_t>(3 * vocab));
  decoder.backend().read(*logits, 3, found);
  EXPECT_LT(worst_difference(found, expected), 1e-5);
}

// A prefix whose keys and values were computed beforehand equals the same tokens in front.
TEST_P(DecoderTest, PrefixStandsForTokensInFront) {
  const Golden golden = testing::read_golden("llama");
  const Model model = load_model(testing::model_data("llama"), GetParam(), {.max_tokens = 128});
  const ModelConfig& config = model.weights->config;
  const std::vector<int32_t>& tokens = golden.prompts.back().tokens;
  constexpr int64_t kPrefix = 3;
  const int64_t kv_cols = config.kv_heads * config.head_dim;

  // The prefix's K (rotated here on the host) and V, layer by layer.
  const auto backend = testing::make_backend(GetParam());
  const auto source = must(open_model_source(testing::model_data("llama")));
  DecoderWeights weights = must(load_float_ends(*backend, *source, DType::kF32, {}));
  weights.prefix_tokens = kPrefix;
  const auto runner = must(LayerRunner::create(*backend, config, kPrefix, kPrefix));
  const auto cache = must(backend->make_kv_cache({.layers = 1,
                                                  .kv_heads = config.kv_heads,
                                                  .head_dim = config.head_dim,
                                                  .pages = 1,
                                                  .format = {}}));
  const auto x = must(backend->make_tensor(kPrefix, config.hidden));
  const std::vector<int32_t> pages = {0};
  Batch batch;
  add_sequence(batch, std::span(tokens).first(kPrefix), 0, pages, 0);
  backend->embed({.table = weights.embed.get(), .ids = batch.tokens}, *x);
  for (int64_t i = 0; i < config.layers; ++i) {
    LayerWeights layer =
        must(load_layer(*backend, must(read_float_layer(*source, i, DType::kF32))));
    ASSERT_TRUE(runner->prepare(layer).ok());
    runner->attention(layer, 0, batch, *cache, *x);
    runner->mlp(layer, kPrefix, *x);
    const int64_t cols = runner->qkv().cols();
    std::vector<float> qkv(static_cast<size_t>(kPrefix * cols));
    backend->read(runner->qkv(), kPrefix, qkv);
    for (int64_t t = 0; t < kPrefix; ++t) {
      const float* k = qkv.data() + (t + 1) * cols - 2 * kv_cols;
      const float* angles = runner->cos_sin().data() + t * config.head_dim;
      for (int64_t c = 0; c < kv_cols; ++c) {
        const int64_t half = config.head_dim / 2, channel = c % config.head_dim;
        const float* turn = angles + 2 * (channel % half);
        layer.prefix_k.push_back(channel < half ? k[c] * turn[0] - k[c + half] * turn[1]
                                                : k[c] * turn[0] + k[c - half] * turn[1]);
      }
      layer.prefix_v.insert(layer.prefix_v.end(), k + kv_cols, k + 2 * kv_cols);
    }
    weights.layers.push_back(std::move(layer));
  }
  const auto with_prefix = must(Decoder::create(
      *backend, std::make_shared<const DecoderWeights>(std::move(weights)), {.max_tokens = 128}));

  const Prompt whole{tokens, {3, 20, 74}};
  const Prompt rest{{tokens.begin() + kPrefix, tokens.end()}, {0, 17, 71}};
  EXPECT_LT(
      worst_difference(run_prompt(*with_prefix, rest, 128), run_prompt(*model.decoder, whole, 128)),
      1e-5);
}

// Keys stored minus a constant, and rotated together with the queries, leave attention as it is.
TEST_P(DecoderTest, CenteredAndRotatedKeysComputeTheSame) {
  const Golden golden = testing::read_golden("qwen2");
  const auto backend = testing::make_backend(GetParam());
  const auto source = must(open_model_source(testing::model_data("qwen2")));
  DecoderWeights weights = must(load_float_ends(
      *backend, *source, DType::kF32, {.kind = KvKind::kF32, .centered = true, .hadamard = true}));
  for (int64_t i = 0; i < weights.config.layers; ++i) {
    PackedLayer layer = must(read_float_layer(*source, i, DType::kF32));
    for (int64_t c = 0; c < layer.k.rows; ++c) {
      layer.k_mean.push_back(0.1f * static_cast<float>(c % 7) - 0.2f);
    }
    weights.layers.push_back(must(load_layer(*backend, layer)));
  }
  const auto decoder = must(Decoder::create(
      *backend, std::make_shared<const DecoderWeights>(std::move(weights)), {.max_tokens = 128}));
  std::vector<float> found;
  for (const Prompt& prompt : golden.prompts) {
    const std::vector<float> logits = run_prompt(*decoder, prompt, 128);
    found.insert(found.end(), logits.begin(), logits.end());
  }
  EXPECT_LT(worst_difference(found, golden.logits), 2e-5);
}

TEST_P(DecoderTest, RefusesTokensAndPositionsOutOfRange) {
  const Model model =
      load_model(testing::model_data("llama"), GetParam(), {.max_tokens = 32, .positions = 20});
  const auto cache = must(model.decoder->make_cache(2));
  const std::vector<int32_t> pages = {0, 1};
  const auto run = [&](const std::vector<int32_t>& tokens, int64_t past) {
    Batch batch;
    add_sequence(batch, tokens, past, pages, 0);
    return model.decoder->run(batch, *cache);
  };
  EXPECT_TRUE(run({0, 127}, 0).ok());
  const Status too_high = run({5, 128}, 0);
  EXPECT_EQ(too_high.code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(too_high.message(), "token id 128 is beyond the vocabulary of 128");
  EXPECT_EQ(run({-1}, 0).code(), ErrorCode::kInvalidArgument);
  EXPECT_TRUE(run({1}, 19).ok());
  EXPECT_EQ(run({1}, 20).message(), "position 20 is beyond the context of 20");
}

TEST_P(DecoderTest, RefusesAnAbsurdContext) {
  const Model model = load_model(testing::model_data("llama"), GetParam(), {.max_tokens = 8});
  EXPECT_EQ(model.decoder->limits().positions, 128);  // the model's own
  const auto refused = Decoder::create(*model.backend, model.weights,
                                       {.max_tokens = 8, .positions = int64_t{1} << 40});
  EXPECT_EQ(refused.status().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace atom
