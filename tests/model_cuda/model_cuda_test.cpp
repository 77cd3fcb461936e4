// Whole models on the GPU: the tiny models of every family against transformers' logits.
#include "backend/cuda/cuda_backend.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;

testing::Model on_gpu(const std::filesystem::path& path, const KvFormat& kv) {
  testing::Model model;
  model.backend = must(make_cuda_backend({}));
  const auto source = must(open_model_source(path));
  model.weights = std::make_shared<const DecoderWeights>(
      must(load_float_model(*model.backend, *source, DType::kF32, kv)));
  model.decoder = must(Decoder::create(*model.backend, model.weights, {.max_tokens = 128}));
  return model;
}

std::vector<float> run_all(Decoder& decoder, const testing::Golden& golden, int64_t chunk) {
  std::vector<float> all;
  for (const testing::Prompt& prompt : golden.prompts) {
    const std::vector<float> logits = testing::run_prompt(decoder, prompt, chunk);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

// The limits of the CPU's decoder tests.
TEST(CudaModel, LogitsOfTinyModelsAreThoseOfTransformers) {
  for (const char* name : testing::kTinyModels) {
    SCOPED_TRACE(name);
    const testing::Golden golden = testing::read_golden(name);
    const testing::Model model = on_gpu(testing::model_data(name), {});
    EXPECT_LT(testing::worst_difference(run_all(*model.decoder, golden, 128), golden.logits), 2e-5);
    // Token by token: most steps are replayed graphs.
    EXPECT_LT(testing::worst_difference(run_all(*model.decoder, golden, 1), golden.logits), 2e-5);
  }
}

// With a cache in halves: its own rounding, of queries and weights as well where the tensor cores
// compute.
TEST(CudaModel, HalfCaches) {
  for (const char* name : {"llama", "qwen3"}) {
    SCOPED_TRACE(name);
    const testing::Golden golden = testing::read_golden(name);
    const testing::Model model = on_gpu(testing::model_data(name), {.kind = KvKind::kF16});
    EXPECT_LT(testing::worst_difference(run_all(*model.decoder, golden, 16), golden.logits), 5e-3);
  }
}

}  // namespace
}  // namespace atom
