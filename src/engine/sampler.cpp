#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace atom {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();
// Candidates looked at first where top_p or min_p decide how many count: enough as a rule.
constexpr int64_t kFirstCandidates = 128;

Status out_of_range(const char* name, double value, const char* range) {
  return error(ErrorCode::kInvalidArgument, "{} = {}: must be {}", name, value, range);
}

bool has_penalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
         params.frequency_penalty != 0.0;
}

bool is_set(std::span<const uint64_t> bits, size_t i) {
  return (bits[i / 64] >> (i % 64) & 1) != 0;
}

// The first token of the mask within the vocabulary, or -1.
int32_t first_allowed(std::span<const uint64_t> allowed, size_t vocab) {
  for (size_t i = 0; i < vocab; ++i) {
    if (i % 64 == 0 && allowed[i / 64] == 0) {
      i += 63;
    } else if (is_set(allowed, i)) {
      return static_cast<int32_t>(i);
    }
  }
  return -1;
}

void forbid_others(std::span<const uint64_t> allowed, std::span<float> logits) {
  for (size_t begin = 0; begin < logits.size(); begin += 64) {
    const uint64_t word = allowed[begin / 64];
    if (word == ~uint64_t{0}) continue;
    const size_t end = std::min(begin + 64, logits.size());
    for (size_t i = begin; i < end; ++i) {
      if ((word >> (i - begin) & 1) == 0) logits[i] = kNone;
    }
  }
}

}  // namespace

Status validate(const SamplingParams& p) {
  // Written so that NaN fails.
  if (!(p.temperature >= 0.0 && p.temperature <= 100.0)) {
    return out_of_range("temperature", p.temperature, "within 0..100");
  }
  if (p.top_k < 0) {
    return out_of_range("top_k", static_cast<double>(p.top_k), "0 (all) or more");
  }
  if (!(p.top_p > 0.0 && p.top_p <= 1.0)) return out_of_range("top_p", p.top_p, "in (0, 1]");
  if (!(p.min_p >= 0.0 && p.min_p <= 1.0)) return out_of_range("min_p", p.min_p, "within 0..1");
  if (!(p.repetition_penalty > 0.0 && p.repetition_penalty <= 100.0)) {
    return out_of_range("repetition_penalty", p.repetition_penalty, "in (0, 100]");
  }
  if (!(p.presence_penalty >= -100.0 && p.presence_penalty <= 100.0)) {
    return out_of_range("presence_penalty", p.presence_penalty, "within -100..100");
  }
  if (!(p.frequency_penalty >= -100.0 && p.frequency_penalty <= 100.0)) {
    return out_of_range("frequency_penalty", p.frequency_penalty, "within -100..100");
  }
  for (const auto& [token, bias] : p.logit_bias) {
    if (token < 0) return out_of_range("logit_bias: token", token, "0 or more");
    if (!(bias >= -100.0f && bias <= 100.0f)) {
      return error(ErrorCode::kInvalidArgument,
                   "logit_bias of token {} = {}: must be within -100..100", token, bias);
    }
  }
  return {};
}

bool takes_best(const SamplingParams& params) {
  return params.temperature == 0.0 && !has_penalties(params) && params.logit_bias.empty();
}

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt)
    : params_(params), random_(params.seed), counts_(has_penalties(params)) {
  if (params.repetition_penalty == 1.0) return;
  for (const int32_t token : prompt) seen_[token].in_prompt = true;
}

int32_t Sampler::sample(std::span<float> logits, SamplingScratch& scratch,
                        std::span<const uint64_t> allowed) {
  ATOM_CHECK(!logits.empty(), "a vocabulary has tokens");
  adjust(logits, scratch.changed);
  int32_t token = 0;  // where no logit is a number
  if (!allowed.empty()) {
    token = first_allowed(allowed, logits.size());
    if (token < 0) return -1;
    forbid_others(allowed, logits);
  }
  const RankedToken best = best_token(logits);
  if (best.logit > kNone) token = best.id;
  if (params_.temperature > 0.0 && std::isfinite(best.logit)) {
    token = draw(logits, best.logit, scratch);
  }
  chosen_logit_ = logits[static_cast<size_t>(token)];
  // From the back: a token may have been changed twice.
  for (size_t i = scratch.changed.size(); i-- > 0;) {
    if (scratch.changed[i].id == token) chosen_logit_ = scratch.changed[i].logit;
  }
  if (counts_) ++seen_[token].in_output;
  return token;
}

// before receives the tokens whose logits change, with these.
void Sampler::adjust(std::span<float> logits, std::vector<RankedToken>& before) const {
  before.clear();
  const auto repetition = static_cast<float>(params_.repetition_penalty);
  for (const auto& [token, seen] : seen_) {
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) continue;
    float& logit = logits[static_cast<size_t>(token)];
    before.push_back({logit, token});
    logit = logit > 0 ? logit / repetition : logit * repetition;
    if (seen.in_output > 0) {
      logit -= static_cast<float>(params_.presence_penalty +
                                  params_.frequency_penalty * static_cast<double>(seen.in_output));
    }
  }
  for (const auto& [token, bias] : params_.logit_bias) {
    if (static_cast<size_t>(token) >= logits.size()) continue;
    before.push_back({logits[static_cast<size_t>(token)], token});
    logits[static_cast<size_t>(token)] += bias;
  }
}

int32_t Sampler::draw(std::span<const float> logits, float best, SamplingScratch& scratch) {
  // Below the smallest normal temperature all weight is on the best in any case.
  const auto scale = static_cast<float>(1.0 / std::max(params_.temperature, 1e-30));
  if (params_.top_k == 0 && params_.top_p == 1.0 && params_.min_p == 0.0) {
    return draw_from_all(logits, best, scale, scratch);
  }
  return draw_from_best(logits, best, scale, scratch);
}

int32_t Sampler::draw_from_all(std::span<const float> logits, float best, float scale,
                               SamplingScratch& scratch) {
  std::vector<double>& sums = scratch.block_sums;
  const double sum = sum_of_exponentials(logits, best, scale, &sums);
  double left = random_.uniform() * sum;
  size_t block = 0;
  while (block + 1 < sums.size() && left >= sums[block]) left -= sums[block++];
  const size_t begin = block * static_cast<size_t>(kLogitBlock);
  const size_t end = std::min(begin + static_cast<size_t>(kLogitBlock), logits.size());
  size_t chosen = logits.size();
  for (size_t i = begin; i < end && left >= 0; ++i) {
    const float weight = exp_nonpositive((logits[i] - best) * scale);
    if (weight > 0) chosen = i;
    left -= static_cast<double>(weight);
  }
  // Rounding may leave a crumb over: then it is the last of the block, or else the best.
  return chosen < logits.size() ? static_cast<int32_t>(chosen) : best_token(logits).id;
}

int32_t Sampler::draw_from_best(std::span<const float> logits, float best, float scale,
                                SamplingScratch& scratch) {
  std::vector<double>& weights = scratch.weights;
  const auto vocab = static_cast<int64_t>(logits.size());
  const bool limited = params_.top_k > 0 && params_.top_k < vocab;
  const auto weight_of = [&](const RankedToken& t) {
    return static_cast<double>(exp_nonpositive((t.logit - best) * scale));
  };
  double all = 0;  // weight of what top_k leaves; where only min_p cuts, it is not needed
  int64_t looked_at = limited ? params_.top_k : std::min(kFirstCandidates, vocab);
  std::span<const RankedToken> ranked = scratch.ranking.best(logits, looked_at);
  if (limited) {
    for (const RankedToken& t : ranked) all += weight_of(t);
  } else if (params_.top_p < 1.0) {
    all = sum_of_exponentials(logits, best, scale);
  }
  const double enough =
      params_.top_p < 1.0 ? params_.top_p * all : std::numeric_limits<double>::infinity();
  weights.clear();
  double sum = 0;
  for (;;) {
    while (weights.size() < ranked.size() && (weights.empty() || sum < enough)) {
      const double weight = weight_of(ranked[weights.size()]);
      if (!weights.empty() && (weight == 0.0 || weight < params_.min_p)) break;
      weights.push_back(weight);
      sum += weight;
    }
    if (limited || weights.size() < ranked.size() || looked_at == vocab) break;
    looked_at = std::min(8 * looked_at, vocab);
    ranked = scratch.ranking.best(logits, looked_at);
  }
  double left = random_.uniform() * sum;
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return ranked[i].id;
  }
  return ranked[0].id;  // rounding left a crumb over
}

}  // namespace atom
