// A whole model on one backend: token ids in, logits out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "model/layer_runner.h"
#include "model/weights.h"
#include "ops/backend.h"
#include "ops/batch.h"

namespace atom {

// What scratch memory is made for.
struct DecoderLimits {
  int64_t max_tokens = 512;     // of a batch
  int64_t max_logit_rows = 64;  // logits computed at once
  int64_t positions = 0;        // prefix and tokens of the longest sequence; 0: the model's context
};

class Decoder {
 public:
  // All memory but the KV cache is taken here. The backend must outlive the decoder.
  static Result<std::unique_ptr<Decoder>> create(Backend& backend,
                                                 std::shared_ptr<const DecoderWeights> weights,
                                                 const DecoderLimits& limits);

  // A cache of `pages` pages in the model's format, with its prefix in place. The backend must
  // outlive it.
  Result<std::unique_ptr<KvCache>> make_cache(int64_t pages) const;

  // Runs the batch's tokens through all layers: their keys and values go into the cache, and the
  // logits of batch.logit_rows (at most max_logit_rows) into the leading rows of logits [>=R, V].
  // Fails on a token id beyond the vocabulary and on a position beyond the limit. Where
  // reading.chosen is given, a token id -1 - r stands for what row r of the step before chose into
  // it.
  Status forward(const Batch& batch, KvCache& cache, Tensor& logits,
                 const StepReading& reading = {});

  // The two halves of forward, for when more logits are wanted than fit at once: run() leaves the
  // last layer's output of every token in place, compute_logits() turns any rows of it into logits.
  Status run(const Batch& batch, KvCache& cache);
  void compute_logits(std::span<const int32_t> rows, Tensor& logits);

  Backend& backend() { return backend_; }
  const DecoderWeights& weights() const { return *weights_; }
  const ModelConfig& config() const { return weights_->config; }
  const DecoderLimits& limits() const { return limits_; }  // positions filled in

 private:
  Decoder(Backend& backend, std::shared_ptr<const DecoderWeights> weights,
          const DecoderLimits& limits);
  // earlier: for tokens of the step before, or null.
  Status check(const Batch& batch, const KvCache& cache, const TokenIds* earlier) const;
  void run_layers(const Batch& batch, KvCache& cache, const TokenIds* earlier);

  Backend& backend_;
  std::shared_ptr<const DecoderWeights> weights_;
  DecoderLimits limits_;
  std::unique_ptr<LayerRunner> layers_;
  std::unique_ptr<Tensor> x_;                // [max_tokens, D] residual
  std::unique_ptr<Tensor> last_;             // [max_logit_rows, D] residual of the rows wanted
  std::unique_ptr<Activations> head_input_;  // [max_logit_rows, D]
  int64_t run_tokens_ = 0;                   // rows of x_ that the last run() filled
};

}  // namespace atom
