// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "base/status.h"

namespace atom {

struct SamplingParams {
  double temperature = 0.0;         // 0: always the largest logit
  int64_t top_k = 0;                // keep the k most likely; 0: all
  double top_p = 1.0;               // keep the most likely that together reach this probability
  double min_p = 0.0;               // drop what is below this share of the most likely
  double repetition_penalty = 1.0;  // makes tokens seen before less likely where above 1
  uint64_t seed = 0;
};

// Checks the ranges; the message names the parameter.
Status validate(const SamplingParams& params);

// The filters apply in the order of the fields above, each to what the one before it left, after
// the repetition penalty, as in transformers. The same seed gives the same choices on every
// machine. Equal logits count as ordered by id; NaN counts as minus infinity.
class Sampler {
 public:
  explicit Sampler(const SamplingParams& params) : params_(params), random_(params.seed) {}

  // logits [V]; history: the tokens so far, for the repetition penalty.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history);

 private:
  struct Candidate {
    double logit;
    int32_t id;
  };
  void collect(std::span<const float> logits, std::span<const int32_t> history);
  int32_t draw();

  SamplingParams params_;
  Random random_;
  std::vector<Candidate> candidates_;  // what draw() has not looked at yet
  std::vector<Candidate> kept_;        // what it chooses from
  std::vector<bool> seen_;
};

}  // namespace atom
