#include "engine/decoder_runner.h"

#include <utility>
#include <vector>

namespace atom {
namespace {

// Backends run their operators in the calling thread so far: start() does all the work.
class DecoderRunner : public Runner {
 public:
  DecoderRunner(Decoder& decoder, std::unique_ptr<KvCache> cache, std::unique_ptr<Tensor> logits)
      : decoder_(decoder), cache_(std::move(cache)), logits_(std::move(logits)) {
    const ModelConfig& config = decoder.config();
    const DecoderLimits& limits = decoder.limits();
    limits_ = {.vocab = config.vocab,
               .max_tokens = limits.max_tokens,
               .max_logit_rows = limits.max_logit_rows,
               .pages = cache_->shape().pages,
               .context = limits.positions - decoder.weights().prefix_tokens,
               .prefix_tokens = decoder.weights().prefix_tokens,
               .eos_ids = config.eos_ids,
               .overlaps = false};
  }

  const RunnerLimits& limits() const override { return limits_; }

  Status start(const Batch& batch) override {
    rows_ = 0;
    ATOM_TRY(decoder_.forward(batch, *cache_, *logits_));
    rows_ = static_cast<int64_t>(batch.logit_rows.size());
    return {};
  }

  Result<std::span<float>> wait() override {
    const auto size = static_cast<size_t>(rows_ * limits_.vocab);
    if (host_logits_.size() < size) host_logits_.resize(size);
    const std::span<float> logits(host_logits_.data(), size);
    if (rows_ > 0) decoder_.backend().read(*logits_, rows_, logits);
    return logits;
  }

 private:
  Decoder& decoder_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Tensor> logits_;  // [max_logit_rows, V]
  RunnerLimits limits_;
  int64_t rows_ = 0;                // of the last batch
  std::vector<float> host_logits_;  // [rows, V]
};

}  // namespace

Result<std::unique_ptr<Runner>> make_decoder_runner(Decoder& decoder, int64_t kv_pages) {
  if (kv_pages < 1) {
    return error(ErrorCode::kInvalidArgument, "a KV cache of {} pages: must be 1 or more",
                 kv_pages);
  }
  auto cache = ATOM_TRY(decoder.make_cache(kv_pages));
  auto logits = ATOM_TRY(
      decoder.backend().make_tensor(decoder.limits().max_logit_rows, decoder.config().vocab));
  return std::unique_ptr<Runner>(new DecoderRunner(decoder, std::move(cache), std::move(logits)));
}

}  // namespace atom
