#include "ops/draw.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "base/parallel.h"
#include "ops/argmax.h"

namespace atom {
namespace {

// How far a weight's bits are below those of 1: the heavier of two weights has the smaller one.
uint32_t rank_of(float weight) {
  return std::bit_cast<uint32_t>(1.0f) - std::bit_cast<uint32_t>(weight);
}

// Ranks of the same upper bits are a bin, 16 of them an octave of weight. Beyond the last one whole
// weights are 0.
constexpr int kBinBits = 19;
constexpr size_t kBins = (uint32_t{40 << 23} >> kBinBits) + 1;
static_assert(kFullWeight == uint64_t{1} << 40);

// The tokens that top_k leaves, and of these those that top_p leaves, the best first.
std::span<const RankedToken> best_of(const TokenDraw& draw, DrawScratch& scratch) {
  const std::span<const RankedToken> ranked = scratch.ranking.best(scratch.weights, draw.top_k);
  if (draw.top_p == 0) return ranked;
  uint64_t all = 0, sum = 0;
  for (const RankedToken& token : ranked) all += whole_weight(token.logit);
  const uint64_t enough = enough_weight(draw.top_p, all);
  size_t count = 0;
  while (sum < enough) sum += whole_weight(ranked[count++].logit);
  return ranked.first(count);
}

// The last token in the order of ranks that top_p leaves of all, whose whole weights sum up to
// `all`. Which bin it is in shows without sorting.
RankedToken last_of_nucleus(uint64_t top_p, uint64_t all, DrawScratch& scratch) {
  const std::vector<float>& weights = scratch.weights;
  std::array<uint64_t, kBins> sums = {};
  for (const float weight : weights) {
    const size_t bin = rank_of(weight) >> kBinBits;
    if (bin < kBins) sums[bin] += whole_weight(weight);
  }
  uint64_t needed = enough_weight(top_p, all);
  size_t bin = 0;
  while (sums[bin] < needed) needed -= sums[bin++];
  std::vector<RankedToken>& candidates = scratch.candidates;
  candidates.clear();
  for (size_t i = 0; i < weights.size(); ++i) {
    if (rank_of(weights[i]) >> kBinBits != bin) continue;
    candidates.push_back({weights[i], static_cast<int32_t>(i)});
  }
  std::sort(candidates.begin(), candidates.end(), ranks_before);
  size_t last = 0;
  while (whole_weight(candidates[last].logit) < needed) {
    needed -= whole_weight(candidates[last++].logit);
  }
  return candidates[last];
}

// Takes all weight from what ranks behind `last`, and sums up the blocks anew. Returns the sum.
uint64_t drop_behind(const RankedToken& last, const TokenDraw& draw, DrawScratch& scratch) {
  uint64_t all = 0;
  std::fill(scratch.block_sums.begin(), scratch.block_sums.end(), 0);
  for (size_t i = 0; i < scratch.weights.size(); ++i) {
    float& weight = scratch.weights[i];
    if (ranks_before(last, {weight, static_cast<int32_t>(i)})) weight = 0;
    const uint64_t whole = whole_weight(weight);
    if (whole < draw.min_weight) continue;
    scratch.block_sums[i / static_cast<size_t>(kLogitBlock)] += whole;
    all += whole;
  }
  return all;
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
  const bool limited = draw.top_k > 0 && draw.top_k < static_cast<int64_t>(logits.size());
  const bool filtered = limited || draw.top_p > 0;
  uint64_t sum = weigh_tokens(logits, best.logit, draw.scale, filtered ? 0 : draw.min_weight,
                              scratch.weights, scratch.block_sums);
  if (limited) return draw_from_ranked(best_of(draw, scratch), draw, scratch);
  if (filtered) sum = drop_behind(last_of_nucleus(draw.top_p, sum, scratch), draw, scratch);
  return draw_from_all(draw, sum, scratch);
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
