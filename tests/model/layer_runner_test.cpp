#include "model/layer_runner.h"

#include <gtest/gtest.h>

#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;
using testing::worst_difference;

class LayerRunnerTest : public ::testing::TestWithParam<const char*> {
 protected:
  // The residual after layer 0 of llama_llama3, D 64, H * DH 128, F 96, for five tokens.
  std::vector<float> run(const SiteHook& hook) {
    const auto backend = testing::make_backend(GetParam());
    const auto source = must(open_model_source(testing::model_data("llama_llama3")));
    const ModelConfig& config = source->config();
    const DecoderWeights ends = must(load_float_ends(*backend, *source, DType::kF32, {}));
    const LayerWeights layer =
        must(load_layer(*backend, must(read_float_layer(*source, 0, DType::kF32))));
    const auto runner = must(LayerRunner::create(*backend, config, 8, 8));
    EXPECT_TRUE(runner->prepare(layer).ok());
    const auto cache = must(backend->make_kv_cache({.layers = 1,
                                                    .kv_heads = config.kv_heads,
                                                    .head_dim = config.head_dim,
                                                    .pages = 1,
                                                    .format = {}}));
    const auto x = must(backend->make_tensor(8, config.hidden));
    const std::vector<int32_t> tokens = {3, 14, 15, 92, 65}, pages = {0};
    Batch batch;
    add_sequence(batch, tokens, 0, pages, 0);
    backend->embed({.table = ends.embed.get(), .ids = batch.tokens}, *x);
    backend_ = backend.get();
    runner->attention(layer, 0, batch, *cache, *x, hook);
    runner->mlp(layer, batch.size(), *x, hook);
    std::vector<float> result(static_cast<size_t>(5 * config.hidden));
    backend->read(*x, 5, result);
    return result;
  }

  Backend* backend_ = nullptr;  // inside a hook
};
INSTANTIATE_TEST_SUITE_P(Backends, LayerRunnerTest, ::testing::ValuesIn(testing::kBackends),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LayerRunnerTest, HookSeesTheFourSitesInOrder) {
  std::vector<InputSite> sites;
  std::vector<int64_t> channels;
  const std::vector<float> hooked = run([&](InputSite site, Activations& input, int64_t tokens) {
    sites.push_back(site);
    channels.push_back(input.channels());
    EXPECT_EQ(tokens, 5);
  });
  EXPECT_EQ(sites, (std::vector<InputSite>{InputSite::kQkv, InputSite::kO, InputSite::kGateUp,
                                           InputSite::kDown}));
  EXPECT_EQ(channels, (std::vector<int64_t>{64, 128, 64, 96}));
  EXPECT_EQ(hooked, run({}));
}

// What the hook puts in place is what the linear reads: with o's and down's inputs zeroed, the
// layer adds nothing.
TEST_P(LayerRunnerTest, HookMayReplaceTheInput) {
  const auto zero = [&](InputSite site, Activations& input, int64_t tokens) {
    if (site == InputSite::kQkv || site == InputSite::kGateUp) return;
    const auto zeros = must(backend_->make_tensor(tokens, input.channels()));
    backend_->write(*zeros, std::vector<float>(static_cast<size_t>(tokens * input.channels())));
    backend_->quantize(*zeros, tokens, {}, input);
  };
  const std::vector<float> found = run(zero);
  const auto backend = testing::make_backend(GetParam());
  const auto source = must(open_model_source(testing::model_data("llama_llama3")));
  const DecoderWeights ends = must(load_float_ends(*backend, *source, DType::kF32, {}));
  const auto x = must(backend->make_tensor(5, source->config().hidden));
  const std::vector<int32_t> tokens = {3, 14, 15, 92, 65};
  backend->embed({.table = ends.embed.get(), .ids = tokens}, *x);
  std::vector<float> embedded(found.size());
  backend->read(*x, 5, embedded);
  EXPECT_EQ(found, embedded);
  EXPECT_GT(worst_difference(run({}), embedded), 0.1);
}

}  // namespace
}  // namespace atom
