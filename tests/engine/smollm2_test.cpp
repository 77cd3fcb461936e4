// The beginning of a real model in 4 bits: outputs do not depend on what else runs, nor on where
// keys and values come from.
#include <gtest/gtest.h>

#include <memory>

#include "base/parallel.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/engine_testing.h"
#include "engine/generator.h"
#include "model/model_testing.h"
#include "quant/layers_in_memory.h"

namespace atom {
namespace {

using testing::must;
using testing::RecordingSink;

constexpr std::chrono::milliseconds kLong{300000};

// A model without its later layers and tokens, so that the test is fast with sanitizers too.
class PartOfModel final : public ModelSource {
 public:
  PartOfModel(std::unique_ptr<ModelSource> whole, int64_t layers, int64_t vocab)
      : whole_(std::move(whole)), config_(whole_->config()) {
    config_.layers = layers;
    config_.vocab = vocab;
  }
  const ModelConfig& config() const override { return config_; }
  const std::string& origin() const override { return whole_->origin(); }
  std::string config_json() const override { return whole_->config_json(); }
  Result<TextAssets> text_assets() const override { return whole_->text_assets(); }
  bool has(std::string_view name) const override { return whole_->has(name); }
  Result<std::vector<int64_t>> shape(std::string_view name) const override {
    return whole_->shape(name);
  }
  Result<std::string> stored_type(std::string_view name) const override {
    return whole_->stored_type(name);
  }
  Status read(std::string_view name, std::span<float> out) const override {
    if (name != "model.embed_tokens.weight") return whole_->read(name, out);
    std::vector<float> all(static_cast<size_t>(whole_->config().vocab * config_.hidden));
    ATOM_TRY(whole_->read(name, all));
    std::copy_n(all.begin(), out.size(), out.begin());
    return {};
  }

 private:
  std::unique_ptr<ModelSource> whole_;
  ModelConfig config_;
};

std::vector<int32_t> random_tokens(int64_t count, int64_t vocab, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(100 + random.below(vocab - 100));
  return tokens;
}

// In the formats of recipe w4a8, made in a moment: rounded to nearest, with what little a short
// text teaches about keys and channels.
DecoderWeights quantize(const ModelSource& source, Backend& backend) {
  Recipe recipe = must(load_recipe("w4a8"));
  recipe.gptq = false;
  recipe.scale_rule = ScaleRule::kAbsmax;
  recipe.windows = recipe.reorder_windows = 1;
  recipe.context = 128;
  testing::LayersInMemory layers;
  const std::vector<int32_t> text = random_tokens(recipe.context, source.config().vocab, 4);
  const QuantizeReport report = must(quantize_model(source, backend, recipe, text, layers, false));
  return layers.load(backend, source.config(), recipe.kv,
                     static_cast<int64_t>(report.prefix_tokens.size()));
}

class SmolLm2EngineTest : public ::testing::Test {
 protected:
  void SetUp() override {
    set_thread_count(1);
    const auto path = testing::smollm2_path();
    if (path.empty()) {
      std::fprintf(stderr, "%s\n", testing::kNoSmolLm2);
      GTEST_SKIP() << testing::kNoSmolLm2;
    }
    backend_ = testing::make_backend("cpu");
    const PartOfModel source(must(open_model_source(path)), 4, 4096);
    weights_ = std::make_shared<const DecoderWeights>(quantize(source, *backend_));
    decoder_ = must(Decoder::create(
        *backend_, weights_,
        {.max_tokens = 256, .max_logit_rows = 16, .positions = weights_->prefix_tokens + 2100}));
  }

  void TearDown() override { set_thread_count(0); }

  std::vector<int32_t> some_tokens(int64_t count, uint64_t seed) const {
    return random_tokens(count, weights_->config.vocab, seed);
  }

  std::unique_ptr<Backend> backend_;
  std::shared_ptr<const DecoderWeights> weights_;
  std::unique_ptr<Decoder> decoder_;
};

TEST_F(SmolLm2EngineTest, TokensDoNotDependOnWhatElseRuns) {
  constexpr int64_t kGenerate = 36;
  // Four prompts longer than a chunk of attention, twelve short ones; most share a beginning.
  const std::vector<int32_t> common = some_tokens(520, 1);
  std::vector<std::vector<int32_t>> prompts;
  for (uint64_t i = 0; i < 16; ++i) {
    const int64_t shared = i % 4 == 0 ? 505 + static_cast<int64_t>(i) : 24;
    std::vector<int32_t> prompt(common.begin(), common.begin() + shared);
    const std::vector<int32_t> own = some_tokens(3 + static_cast<int64_t>(i), 10 + i);
    prompt.insert(prompt.end(), own.begin(), own.end());
    prompts.push_back(std::move(prompt));
  }
  std::vector<std::vector<int32_t>> alone;
  for (const auto& prompt : prompts) {
    const auto generator = must(Generator::create(*decoder_, 600));
    alone.push_back(must(generator->generate(prompt, {.max_tokens = kGenerate, .ignore_eos = true},
                                             [](int32_t) { return true; }))
                        .tokens);
  }
  const auto together = [&](int64_t pages, bool prefix_cache) {
    const auto engine = must(Engine::create(*decoder_, pages,
                                            {.max_sequences = 16,
                                             .max_batch_tokens = 256,
                                             .context = 600,
                                             .prefix_cache = prefix_cache}));
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    for (const auto& prompt : prompts) {
      sinks.push_back(std::make_shared<RecordingSink>());
      EXPECT_TRUE(engine
                      ->submit({.prompt = prompt,
                                .max_tokens = kGenerate,
                                .ignore_eos = true,
                                .sink = sinks.back()})
                      .accepted());
    }
    EXPECT_TRUE(engine->wait_idle(kLong));
    for (size_t i = 0; i < sinks.size(); ++i) {
      EXPECT_EQ(sinks[i]->tokens(), alone[i]) << "request " << i;
    }
    return engine->stats();
  };
  EXPECT_EQ(together(300, false).cached_tokens, 0);
  EXPECT_GT(together(300, true).cached_tokens, 0);
  EXPECT_GT(together(42, true).preemptions, 0);
}

TEST_F(SmolLm2EngineTest, ASharedPromptIsComputedOnce) {
  const auto engine =
      must(Engine::create(*decoder_, 200, {.max_sequences = 16, .max_batch_tokens = 256}));
  const std::vector<int32_t> prompt = some_tokens(2000, 3);
  double seconds[2] = {};
  std::vector<int32_t> tokens[2];
  for (int i = 0; i < 2; ++i) {
    const auto sink = std::make_shared<RecordingSink>();
    ASSERT_TRUE(
        engine->submit({.prompt = prompt, .max_tokens = 4, .ignore_eos = true, .sink = sink})
            .accepted());
    ASSERT_TRUE(engine->wait_idle(kLong));
    EXPECT_EQ(sink->end().cached_tokens, i == 0 ? 0 : 1984);
    seconds[i] = seconds_between(sink->end().arrival, sink->end().first_token);
    tokens[i] = sink->tokens();
  }
  EXPECT_EQ(tokens[0], tokens[1]);
  std::printf("first token of 2000: %.1f ms, and again %.1f ms (%.1f%%)\n", seconds[0] * 1e3,
              seconds[1] * 1e3, 100 * seconds[1] / seconds[0]);
}

}  // namespace
}  // namespace atom
