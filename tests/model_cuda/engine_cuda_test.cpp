// The engine on a GPU: steps started ahead give the tokens of steps that wait for each other.
#include <cstdlib>

#include "backend/cuda/cuda_backend.h"
#include "base/random.h"
#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "engine/engine_testing.h"
#include "io/checkpoint.h"
#include "model/checkpoint_model.h"
#include "model/model_testing.h"

namespace atom {
namespace {

using testing::must;
using testing::RecordingSink;

// Hides that a runner overlaps, and counts what its steps bring.
class CountingRunner : public Runner {
 public:
  struct Counts {
    int64_t ahead = 0;  // batches that were started while one ran
    double seconds = 0;
  };
  CountingRunner(std::unique_ptr<Runner> runner, bool overlaps, Counts& counts)
      : runner_(std::move(runner)), limits_(runner_->limits()), counts_(counts) {
    limits_.overlaps = overlaps;
  }
  const RunnerLimits& limits() const override { return limits_; }
  Status start(const Batch& batch, int64_t whole_rows) override {
    counts_.ahead += running_++;
    return runner_->start(batch, whole_rows);
  }
  Result<StepOutput> wait() override {
    --running_;
    Result<StepOutput> output = runner_->wait();
    if (output.ok()) counts_.seconds += output->seconds;
    return output;
  }

 private:
  std::unique_ptr<Runner> runner_;
  RunnerLimits limits_;
  Counts& counts_;
  int64_t running_ = 0;
};

struct Run {
  std::vector<std::vector<int32_t>> tokens;
  CountingRunner::Counts counts;
};

// Who takes part: those that take the likeliest token, that draw, that want logits.
enum class Mixture : uint8_t { kGreedy, kDrawing, kBoth, kAll };

// Requests of many lengths, all at once.
constexpr int64_t kRequests = 16;

Run run(Decoder& decoder, bool overlaps, Mixture mixture) {
  Run result;
  auto core = must(EngineCore::create(
      std::make_unique<CountingRunner>(must(make_decoder_runner(decoder, 400)), overlaps,
                                       result.counts),
      {.max_sequences = kRequests, .max_batch_tokens = 64, .prefix_cache = false}));
  Random random(7);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int64_t i = 0; i < kRequests; ++i) {
    Request request = {.max_tokens = 5 + random.below(60), .ignore_eos = true};
    request.prompt.resize(static_cast<size_t>(1 + random.below(90)));
    for (int32_t& token : request.prompt) {
      token = static_cast<int32_t>(random.below(decoder.config().vocab));
    }
    if (mixture == Mixture::kDrawing || (mixture != Mixture::kGreedy && i % 4 != 0)) {
      request.sampling = {.temperature = 0.8, .seed = static_cast<uint64_t>(i)};
      if (i % 2 == 0) request.sampling.top_k = 20;
      if (i % 3 == 0) request.sampling.top_p = 0.9;
      if (i % 5 == 0) request.sampling.min_p = 0.05;
    }
    if (mixture == Mixture::kAll && i % 3 == 0) request.logprobs = 2;
    sinks.push_back(std::make_shared<RecordingSink>());
    request.sink = sinks.back();
    EXPECT_TRUE(core->validate(request).ok());
    core->add(static_cast<RequestId>(i + 1), std::move(request), EngineClock::now());
  }
  while (core->step()) {
  }
  for (const auto& sink : sinks) {
    EXPECT_TRUE(sink->ended());
    result.tokens.push_back(sink->tokens());
  }
  return result;
}

// Both runs form the same batches, in which the GPU gives the same bits: outputs end by their
// length alone, which a plan foresees, and nobody waits for another's end.
void expect_same_tokens(Decoder& decoder) {
  for (const Mixture mixture :
       {Mixture::kGreedy, Mixture::kDrawing, Mixture::kBoth, Mixture::kAll}) {
    SCOPED_TRACE(static_cast<int>(mixture));
    const Run waiting = run(decoder, false, mixture), ahead = run(decoder, true, mixture);
    EXPECT_EQ(waiting.tokens, ahead.tokens);
    EXPECT_EQ(waiting.counts.ahead, 0);
    if (mixture != Mixture::kAll) {
      EXPECT_GT(ahead.counts.ahead, 50);
    }
    EXPECT_GT(ahead.counts.seconds, 0);
  }
}

TEST(CudaEngine, StepsAheadChooseTheSameTokens) {
  const auto backend = must(make_cuda_backend({}));
  const auto source = must(open_model_source(testing::model_data("llama")));
  const auto weights = std::make_shared<const DecoderWeights>(
      must(load_float_model(*backend, *source, DType::kF16, {.kind = KvKind::kF16})));
  const auto decoder =
      must(Decoder::create(*backend, weights, {.max_tokens = 64, .max_logit_rows = 16}));
  expect_same_tokens(*decoder);
}

TEST(CudaEngine, StepsAheadOfACheckpointChooseTheSameTokens) {
  const char* path = std::getenv("ATOM_TEST_CHECKPOINT");
  if (path == nullptr) GTEST_SKIP() << "ATOM_TEST_CHECKPOINT names no checkpoint";
  const auto backend = must(make_cuda_backend({}));
  const auto weights = std::make_shared<const DecoderWeights>(
      must(load_checkpoint_model(*backend, must(Checkpoint::open(path)))));
  const auto decoder = must(Decoder::create(
      *backend, weights, {.max_tokens = 64, .max_logit_rows = 16, .positions = 256}));
  expect_same_tokens(*decoder);
}

}  // namespace
}  // namespace atom
