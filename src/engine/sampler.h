// Choosing the next token from its logits.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/status.h"
#include "ops/draw.h"
#include "ops/logits.h"

namespace atom {

struct SamplingParams {
  double temperature = 0.0;         // 0: always the largest logit
  int64_t top_k = 0;                // keep the k most likely; 0: all
  double top_p = 1.0;               // keep the most likely that together reach this probability
  double min_p = 0.0;               // drop what is below this share of the most likely
  double repetition_penalty = 1.0;  // above 1: tokens of prompt and output become less likely
  double presence_penalty = 0.0;    // taken off the logit of each token of the output
  double frequency_penalty = 0.0;   // the same for each time that it came
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // added to the logits of these tokens
  uint64_t seed = 0;
};

// Checks the ranges; the message names the parameter.
Status validate(const SamplingParams& params);

// Whether a sampler changes no logits: it then chooses by draw_token() (ops/draw.h) alone.
bool keeps_logits(const SamplingParams& params);

// Memory that choosing takes for a moment; one for each thread that samples.
struct SamplingScratch : DrawScratch {
  std::vector<RankedToken> changed;  // logits before penalties and bias
  std::vector<uint64_t> allowed;
};

// Chooses the tokens of one output. Logits change in this order: repetition penalty (positive ones
// are divided by it, others multiplied, as in transformers), presence and frequency penalties (as
// OpenAI defines them), bias, then the tokens that are not allowed drop out. Of what is left, a
// token is drawn (ops/draw.h). The same seed and logits give the same choices on every machine.
// Equal logits count as ordered by id; NaN counts as minus infinity.
class Sampler {
 public:
  // prompt: tokens that the repetition penalty counts as seen.
  explicit Sampler(const SamplingParams& params, std::span<const int32_t> prompt = {});

  // Chooses a token and counts it as part of the output. logits [V] are overwritten; allowed: a bit
  // for each token (TokenConstraint::allowed), or empty: all. Returns -1 if none is allowed.
  int32_t sample(std::span<float> logits, SamplingScratch& scratch,
                 std::span<const uint64_t> allowed = {});
  // How token number `index` of the output is drawn, the first one's number is 0. Its random number
  // is that many numbers into the seed's sequence (base/random.h), whoever asks and however often.
  TokenDraw draw_at(int64_t index) const;
  // The logit of the token chosen last, as it came.
  float chosen_logit() const { return chosen_logit_; }

 private:
  struct Seen {
    bool in_prompt = false;
    int32_t in_output = 0;
  };
  void adjust(std::span<float> logits, std::vector<RankedToken>& before) const;

  SamplingParams params_;
  int64_t chosen_ = 0;   // tokens
  bool counts_ = false;  // whether any penalty wants seen_
  std::unordered_map<int32_t, Seen> seen_;
  float chosen_logit_ = 0;
};

}  // namespace atom
