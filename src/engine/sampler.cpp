#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace atom {
namespace {

Status out_of_range(const char* name, double value, const char* range) {
  return error(ErrorCode::kInvalidArgument, "{} = {}: must be {}", name, value, range);
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
  return {};
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history) {
  ATOM_CHECK(!logits.empty(), "a vocabulary has tokens");
  collect(logits, history);
  if (params_.temperature == 0.0) {
    const auto more = [](const Candidate& a, const Candidate& b) { return a.logit < b.logit; };
    return std::max_element(candidates_.begin(), candidates_.end(), more)->id;
  }
  return draw();
}

void Sampler::collect(std::span<const float> logits, std::span<const int32_t> history) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double logit = logits[i];
    candidates_[i] = {std::isnan(logit) ? -std::numeric_limits<double>::infinity() : logit,
                      static_cast<int32_t>(i)};
  }
  if (params_.repetition_penalty == 1.0) return;
  seen_.assign(logits.size(), false);
  for (const int32_t token : history) {
    if (token < 0 || token >= static_cast<int64_t>(logits.size())) continue;
    if (seen_[static_cast<size_t>(token)]) continue;
    seen_[static_cast<size_t>(token)] = true;
    double& logit = candidates_[static_cast<size_t>(token)].logit;
    logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
  }
}

int32_t Sampler::draw() {
  const auto less = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
  };
  const Candidate best = *std::max_element(candidates_.begin(), candidates_.end(), less);
  if (!std::isfinite(best.logit)) return best.id;
  const auto weight = [&](const Candidate& c) {
    return std::exp((c.logit - best.logit) / params_.temperature);
  };
  const auto sum_of_weights = [&](const std::vector<Candidate>& candidates) {
    double sum = 0;
    for (const Candidate& c : candidates) sum += weight(c);
    return sum;
  };

  double sum = 0;  // of the weights of kept_
  kept_.clear();
  if (params_.top_k == 0 && params_.top_p == 1.0 && params_.min_p == 0.0) {
    kept_.swap(candidates_);
    sum = sum_of_weights(kept_);
  } else {
    // A heap yields the most likely candidates in order without sorting the whole vocabulary.
    std::make_heap(candidates_.begin(), candidates_.end(), less);
    const auto pop = [&] {
      std::pop_heap(candidates_.begin(), candidates_.end(), less);
      kept_.push_back(candidates_.back());
      candidates_.pop_back();
    };
    if (params_.top_k > 0) {
      while (!candidates_.empty() && static_cast<int64_t>(kept_.size()) < params_.top_k) pop();
      candidates_.clear();
    }
    const double enough = params_.top_p * (sum_of_weights(kept_) + sum_of_weights(candidates_));
    size_t count = 0;
    while (count == 0 || sum < enough) {
      if (count == kept_.size() && !candidates_.empty()) pop();
      if (count == kept_.size() || weight(kept_[count]) < params_.min_p) break;
      sum += weight(kept_[count++]);
    }
    kept_.resize(count);
  }

  double left = random_.uniform() * sum;
  for (const Candidate& c : kept_) {
    left -= weight(c);
    if (left < 0) return c.id;
  }
  return kept_.front().id;  // rounding left a crumb over
}

}  // namespace atom
