#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"

namespace atom {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

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

bool keeps_logits(const SamplingParams& params) {
  return !has_penalties(params) && params.logit_bias.empty();
}

Sampler::Sampler(const SamplingParams& params, std::span<const int32_t> prompt)
    : params_(params), counts_(has_penalties(params)) {
  if (params.repetition_penalty == 1.0) return;
  for (const int32_t token : prompt) seen_[token].in_prompt = true;
}

int32_t Sampler::sample(std::span<float> logits, SamplingScratch& scratch,
                        std::span<const uint64_t> allowed) {
  ATOM_CHECK(!logits.empty(), "a vocabulary has tokens");
  adjust(logits, scratch.changed);
  int32_t first = 0;
  if (!allowed.empty()) {
    first = first_allowed(allowed, logits.size());
    if (first < 0) return -1;
    forbid_others(allowed, logits);
  }
  int32_t token = draw_token(logits, draw_at(chosen_++), scratch);
  // Where no logit is a number, any token that is allowed.
  if (!(logits[static_cast<size_t>(token)] > kNone)) token = first;
  chosen_logit_ = logits[static_cast<size_t>(token)];
  // From the back: a token may have been changed twice.
  for (size_t i = scratch.changed.size(); i-- > 0;) {
    if (scratch.changed[i].id == token) chosen_logit_ = scratch.changed[i].logit;
  }
  if (counts_) ++seen_[token].in_output;
  return token;
}

TokenDraw Sampler::draw_at(int64_t index) const {
  const SamplingParams& p = params_;
  if (p.temperature == 0.0 || p.top_k == 1) return {};
  TokenDraw draw;
  // Below the smallest normal temperature all weight is on the best in any case.
  draw.scale = static_cast<float>(1.0 / std::max(p.temperature, 1e-30));
  draw.top_k = static_cast<int32_t>(std::min<int64_t>(p.top_k, INT32_MAX));
  if (p.top_p < 1.0) {
    draw.top_p = std::max(static_cast<uint64_t>(std::ldexp(p.top_p, 64)), uint64_t{1});
  }
  draw.min_weight = static_cast<uint64_t>(std::ceil(p.min_p * static_cast<double>(kFullWeight)));
  draw.random = Random::nth(p.seed, static_cast<uint64_t>(index));
  return draw;
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

}  // namespace atom
