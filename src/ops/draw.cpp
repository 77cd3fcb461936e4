#include "ops/draw.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"
#include "ops/argmax.h"

namespace atom {
namespace {

// Candidates looked at first where top_p decides how many count: enough as a rule.
constexpr int64_t kFirstCandidates = 128;

// The tokens that top_k and top_p leave, first the one that ranks first.
std::span<const RankedToken> rank(const TokenDraw& draw, uint64_t all, DrawScratch& scratch) {
  const auto vocab = static_cast<int64_t>(scratch.weights.size());
  const bool limited = draw.top_k > 0 && draw.top_k < vocab;
  int64_t looked_at = limited ? draw.top_k : std::min(kFirstCandidates, vocab);
  std::span<const RankedToken> ranked = scratch.ranking.best(scratch.weights, looked_at);
  if (draw.top_p == 0) return ranked;
  if (limited) {
    all = 0;
    for (const RankedToken& token : ranked) all += whole_weight(token.logit);
  }
  const uint64_t enough = enough_weight(draw.top_p, all);
  uint64_t sum = 0;
  for (size_t count = 0;;) {
    while (count < ranked.size() && sum < enough) sum += whole_weight(ranked[count++].logit);
    if (sum >= enough || looked_at == vocab) return ranked.first(count);
    looked_at = std::min(8 * looked_at, vocab);
    ranked = scratch.ranking.best(scratch.weights, looked_at);
  }
}

// The token of [begin, end) at which the sum of those weights that are at least draw.min_weight
// goes beyond `before`. REQUIRES: there is one.
int32_t cross(const std::vector<float>& weights, size_t begin, const TokenDraw& draw,
              uint64_t before) {
  for (size_t i = begin;; ++i) {
    const uint64_t weight = whole_weight(weights[i]);
    if (weight < draw.min_weight) continue;
    if (weight > before) return static_cast<int32_t>(i);
    before -= weight;
  }
}

int32_t draw_from_all(const TokenDraw& draw, uint64_t sum, const DrawScratch& scratch) {
  uint64_t before = share_of(draw.random, sum);
  size_t block = 0;
  while (before >= scratch.block_sums[block]) before -= scratch.block_sums[block++];
  return cross(scratch.weights, block * static_cast<size_t>(kLogitBlock), draw, before);
}

int32_t draw_from_ranked(std::span<const RankedToken> ranked, const TokenDraw& draw,
                         DrawScratch& scratch) {
  std::vector<int32_t>& kept = scratch.kept;
  kept.clear();
  uint64_t sum = 0;
  for (const RankedToken& token : ranked) {
    const uint64_t weight = whole_weight(token.logit);
    if (weight == 0 || weight < draw.min_weight) break;
    sum += weight;
    kept.push_back(token.id);
  }
  std::sort(kept.begin(), kept.end());
  uint64_t before = share_of(draw.random, sum);
  for (const int32_t id : kept) {
    const uint64_t weight = whole_weight(scratch.weights[static_cast<size_t>(id)]);
    if (weight > before) return id;
    before -= weight;
  }
  return kept.back();  // not reached: before is less than the sum
}

}  // namespace

int32_t draw_token(std::span<const float> logits, const TokenDraw& draw, DrawScratch& scratch) {
  const RankedToken best = best_token(logits);
  if (draw.scale == 0 || !std::isfinite(best.logit)) return best.id;
  const bool filtered =
      draw.top_p > 0 || (draw.top_k > 0 && draw.top_k < static_cast<int64_t>(logits.size()));
  const uint64_t sum = weigh_tokens(logits, best.logit, draw.scale, filtered ? 0 : draw.min_weight,
                                    scratch.weights, scratch.block_sums);
  if (!filtered) return draw_from_all(draw, sum, scratch);
  return draw_from_ranked(rank(draw, sum, scratch), draw, scratch);
}

void TokenChooser::choose(std::span<const float> logits, std::span<const TokenDraw> draws,
                          std::span<int32_t> ids) {
  const size_t rows = ids.size(), vocab = logits.size() / std::max(rows, size_t{1});
  ATOM_CHECK(draws.empty() || draws.size() == rows, "a draw a row");
  const size_t tasks = std::min(rows, static_cast<size_t>(thread_count()));
  if (scratch_.size() < tasks) scratch_.resize(tasks);
  parallel_for(static_cast<int64_t>(tasks), [&](int64_t task) {
    for (auto i = static_cast<size_t>(task); i < rows; i += tasks) {
      const std::span<const float> row = logits.subspan(i * vocab, vocab);
      ids[i] = draws.empty() ? argmax(row)
                             : draw_token(row, draws[i], scratch_[static_cast<size_t>(task)]);
    }
  });
}

}  // namespace atom
