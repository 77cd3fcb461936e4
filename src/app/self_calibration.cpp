#include "app/self_calibration.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <span>

#include "app/float_storage.h"
#include "base/interrupt.h"
#include "base/parallel.h"
#include "base/progress.h"
#include "base/random.h"
#include "engine/sampler.h"
#include "model/batching.h"
#include "model/decoder.h"
#include "model/float_loader.h"

namespace atom {
namespace {

// Windows that are written side by side: enough to share the reading of weights, few enough for
// their caches to stay in memory.
constexpr int64_t kSideBySide = 16;

// Fills columns 1 and following of tokens [windows, context] from the first on.
Status write_windows(Decoder& decoder, KvCache& cache, Tensor& logits, WindowBatcher& batcher,
                     std::span<int32_t> tokens, int64_t context, uint64_t first_seed,
                     Progress& progress) {
  const int64_t windows = static_cast<int64_t>(tokens.size()) / context;
  const int64_t vocab = decoder.config().vocab;
  std::vector<int32_t> rows(static_cast<size_t>(windows));
  std::iota(rows.begin(), rows.end(), 0);
  std::vector<Sampler> samplers;
  for (int64_t w = 0; w < windows; ++w) {
    samplers.emplace_back(
        SamplingParams{.temperature = 1.0, .seed = first_seed + static_cast<uint64_t>(w)});
  }
  std::vector<SamplingScratch> scratch(static_cast<size_t>(windows));
  std::vector<float> host(static_cast<size_t>(windows * vocab));
  for (int64_t t = 0; t + 1 < context; ++t) {
    ATOM_TRY(check_interrupted());
    ATOM_TRY(decoder.run(batcher.chunk(tokens, t, t + 1), cache));
    decoder.compute_logits(rows, logits);
    decoder.backend().read(logits, windows, host);
    parallel_for(windows, [&](int64_t w) {
      const auto own = std::span<float>(host).subspan(static_cast<size_t>(w * vocab),
                                                      static_cast<size_t>(vocab));
      tokens[static_cast<size_t>(w * context + t + 1)] =
          samplers[static_cast<size_t>(w)].sample(own, scratch[static_cast<size_t>(w)]);
    });
    progress.advance(windows);
  }
  return {};
}

}  // namespace

Result<std::vector<int32_t>> write_calibration_text(Backend& backend, const ModelSource& source,
                                                    const SelfCalibrationOptions& options) {
  const ModelConfig& config = source.config();
  const int64_t context = std::min(options.context, config.context);
  const int64_t side_by_side = std::min(options.windows, kSideBySide);
  const DType storage = ATOM_TRY(exact_storage(source));
  const auto weights = std::make_shared<const DecoderWeights>(
      ATOM_TRY(load_float_model(backend, source, storage, {.kind = KvKind::kF16})));
  const std::unique_ptr<Decoder> decoder = ATOM_TRY(Decoder::create(
      backend, weights,
      {.max_tokens = side_by_side, .max_logit_rows = side_by_side, .positions = context}));
  WindowBatcher batcher(side_by_side, context, weights->prefix_tokens);
  const std::unique_ptr<KvCache> cache = ATOM_TRY(decoder->make_cache(batcher.pages()));
  const std::unique_ptr<Tensor> logits = ATOM_TRY(backend.make_tensor(side_by_side, config.vocab));

  std::vector<int32_t> tokens(static_cast<size_t>(options.windows * context));
  Random random(options.seed);
  for (int64_t w = 0; w < options.windows; ++w) {
    tokens[static_cast<size_t>(w * context)] =
        config.bos_id >= 0 ? config.bos_id : static_cast<int32_t>(random.below(config.vocab));
  }
  const uint64_t first_seed = random.next();
  Progress progress("writing calibration text", options.windows * (context - 1),
                    options.show_progress);
  for (int64_t w = 0; w < options.windows; w += side_by_side) {
    const int64_t count = std::min(side_by_side, options.windows - w);
    const auto part = std::span(tokens).subspan(static_cast<size_t>(w * context),
                                                static_cast<size_t>(count * context));
    ATOM_TRY(write_windows(*decoder, *cache, *logits, batcher, part, context,
                           first_seed + static_cast<uint64_t>(w), progress));
  }
  return tokens;
}

}  // namespace atom
