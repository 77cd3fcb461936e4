#include "engine/logprobs.h"

#include <cmath>

namespace atom {

Distribution::Distribution(std::span<const float> logits, int top, TokenRanking& ranking)
    : largest_(best_token(logits).logit) {
  if (std::isfinite(largest_)) log_sum_ = std::log(sum_of_exponentials(logits, largest_, 1.0f));
  if (top == 0) return;
  for (const RankedToken& token : ranking.best(logits, top)) {
    top_.push_back(logprob(token.id, token.logit));
  }
}

ScoredToken Distribution::score(int32_t token, float logit) const {
  return {.token = token, .logprob = logprob(token, logit).logprob, .top = top_};
}

TokenLogprob Distribution::logprob(int32_t token, float logit) const {
  const auto value = static_cast<float>(static_cast<double>(logit) - largest_ - log_sum_);
  // In this order NaN becomes the least.
  return {.token = token, .logprob = value > kLeastLogprob ? value : kLeastLogprob};
}

}  // namespace atom
