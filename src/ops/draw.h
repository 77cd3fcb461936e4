// Drawing a token from a row of logits on the host.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/logits.h"
#include "ops/token_draw.h"

namespace atom {

// Memory that a draw takes for a moment; one for each thread that draws.
struct DrawScratch {
  TokenRanking ranking;
  std::vector<float> weights;        // [V]
  std::vector<uint64_t> block_sums;  // of weights that were not dropped
  std::vector<RankedToken> candidates;
  std::vector<int32_t> kept;
};

// The token drawn from logits [V], V < 2^23:
//   1. Where draw.scale is 0 or the largest logit is not finite, the argmax.
//   2. Tokens weigh relative_weight(); those below draw.min_weight, rounded down, drop out.
//   3. Of all tokens, the draw.top_k that rank first are kept; of these, the first whose weights
//      together reach enough_weight(). What min_weight dropped counts for both.
//   4. Of what is left, in the order of ids, the first token at which the sum of weights goes
//   beyond
//      share_of(draw.random, their sum).
// Sums are of integers, and therefore the same in any order.
int32_t draw_token(std::span<const float> logits, const TokenDraw& draw, DrawScratch& scratch);

// Draws from several rows side by side.
class TokenChooser {
 public:
  // ids[i] = the token drawn from row i of logits [R, V] by draws[i]; without draws, its argmax.
  // ids: [R].
  void choose(std::span<const float> logits, std::span<const TokenDraw> draws,
              std::span<int32_t> ids);

 private:
  std::vector<DrawScratch> scratch_;  // one for each task
};

}  // namespace atom
