// Passes over a row of logits: the best tokens without sorting the vocabulary, and sums of
// exponentials. NaN counts as minus infinity throughout; results are the same bits on every
// machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace atom {

struct RankedToken {
  float logit = 0;
  int32_t id = -1;
};

// The larger logit first, the lower id first among equal ones.
inline bool ranks_before(const RankedToken& a, const RankedToken& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The token that ranks first.
RankedToken best_token(std::span<const float> logits);

// Finds the tokens that rank first; holds the memory that takes.
class TokenRanking {
 public:
  // The `count` best of logits [V], best first; all V where count is larger. Valid until the next
  // call.
  std::span<const RankedToken> best(std::span<const float> logits, int64_t count);

 private:
  std::vector<float> maxima_;  // of blocks
  std::vector<float> ordered_;
  std::vector<RankedToken> candidates_;
};

inline constexpr int64_t kLogitBlock = 64;

// The sum of exp_nonpositive((logits[i] - shift) * scale) over all i. REQUIRES: shift is finite and
// no logit is above it, scale > 0.
double sum_of_exponentials(std::span<const float> logits, float shift, float scale);

// weights[i] = relative_weight(logits[i], best, scale); block_sums: of consecutive kLogitBlock
// tokens, the whole_weight()s that are at least `least`. Returns the sum of all blocks. REQUIRES:
// as above.
uint64_t weigh_tokens(std::span<const float> logits, float best, float scale, uint64_t least,
                      std::vector<float>& weights, std::vector<uint64_t>& block_sums);

}  // namespace atom
