#include "backend/ref/ref_choose.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace atom::ref {

int32_t choose_token(std::span<const float> logits, const TokenDraw& draw) {
  float largest = -std::numeric_limits<float>::infinity();
  int32_t best = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!(logits[i] > largest)) continue;
    largest = logits[i];
    best = static_cast<int32_t>(i);
  }
  if (draw.scale == 0 || !std::isfinite(largest)) return best;

  struct Token {
    float weight;
    int32_t id;
  };
  std::vector<Token> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    tokens.push_back({relative_weight(logits[i], largest, draw.scale), static_cast<int32_t>(i)});
  }
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](const Token& a, const Token& b) { return a.weight > b.weight; });
  const auto sum = [&] {
    uint64_t total = 0;
    for (const Token& token : tokens) total += whole_weight(token.weight);
    return total;
  };
  if (draw.top_k > 0) tokens.resize(std::min(tokens.size(), static_cast<size_t>(draw.top_k)));
  if (draw.top_p > 0) {
    const uint64_t enough = enough_weight(draw.top_p, sum());
    uint64_t reached = 0;
    size_t count = 0;
    while (reached < enough) reached += whole_weight(tokens[count++].weight);
    tokens.resize(count);
  }
  std::erase_if(tokens, [&](const Token& t) { return whole_weight(t.weight) < draw.min_weight; });
  std::sort(tokens.begin(), tokens.end(),
            [](const Token& a, const Token& b) { return a.id < b.id; });
  uint64_t before = share_of(draw.random, sum());
  for (const Token& token : tokens) {
    const uint64_t weight = whole_weight(token.weight);
    if (weight > before) return token.id;
    before -= weight;
  }
  return best;
}

}  // namespace atom::ref
