// How surprised a model is by the tokens that follow.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/decoder.h"

namespace atom {

// What evaluation asks of a decoder: tokens of a batch, and rows whose logits it holds at once.
inline constexpr int64_t kEvalBatchTokens = 1024;
inline constexpr int64_t kEvalLogitRows = 256;

// Losses of rows of the batch that a decoder ran last, in slabs of max_logit_rows, so that the
// logits of a whole batch need not fit.
class RowLosses {
 public:
  // The decoder must outlive it.
  static Result<RowLosses> create(Decoder& decoder);

  // losses[i] = -log softmax(logits of row rows[i])[targets[i]], the softmax in double. Rows ascend
  // and are of the last Decoder::run; targets are within the vocabulary.
  void compute(std::span<const int32_t> rows, std::span<const int32_t> targets,
               std::span<double> losses);

 private:
  RowLosses(Decoder& decoder, std::unique_ptr<Tensor> slab);
  Decoder* decoder_;
  std::unique_ptr<Tensor> slab_;  // [max_logit_rows, V]
  std::vector<float> host_slab_;  // [max_logit_rows, V]
};

}  // namespace atom
