// Log-probabilities of tokens under a row of logits.
#pragma once

#include <cstdint>
#include <span>

#include "engine/request.h"
#include "ops/logits.h"

namespace atom {

// The softmax of one row, with its most likely tokens. Built before a sampler overwrites the row.
class Distribution {
 public:
  // top: how many of the most likely tokens to report.
  Distribution(std::span<const float> logits, int top, TokenRanking& ranking);

  // logit: the token's.
  ScoredToken score(int32_t token, float logit) const;

 private:
  TokenLogprob logprob(int32_t token, float logit) const;

  float largest_ = 0;
  double log_sum_ = 0;  // of the exponentials of the logits less the largest
  std::vector<TokenLogprob> top_;
};

}  // namespace atom
