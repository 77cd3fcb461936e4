#include "ops/routing.h"

#include <algorithm>
#include <cmath>

namespace atom {
namespace {

// The experts of the largest scores, the best first: chosen[A], and the softmax over them.
void choose(std::span<const float> scores, std::span<int32_t> chosen, std::span<float> weights) {
  // Above, or equal and earlier in order: a strict order even where scores are NaN.
  const auto better = [&](int32_t a, int32_t b) {
    const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    if (std::isnan(x) || std::isnan(y)) return !std::isnan(x) || (std::isnan(y) && a < b);
    return x > y || (x == y && a < b);
  };
  size_t count = 0;
  for (int32_t e = 0; e < static_cast<int32_t>(scores.size()); ++e) {
    size_t place = count;
    while (place > 0 && better(e, chosen[place - 1])) --place;
    if (place == chosen.size()) continue;
    count = std::min(count + 1, chosen.size());
    std::copy_backward(chosen.begin() + static_cast<ptrdiff_t>(place),
                       chosen.begin() + static_cast<ptrdiff_t>(count) - 1,
                       chosen.begin() + static_cast<ptrdiff_t>(count));
    chosen[place] = e;
  }
  const double largest = scores[static_cast<size_t>(chosen[0])];
  double sum = 0;
  for (const int32_t e : chosen) sum += std::exp(scores[static_cast<size_t>(e)] - largest);
  for (size_t i = 0; i < chosen.size(); ++i) {
    const double score = scores[static_cast<size_t>(chosen[i])];
    weights[i] = static_cast<float>(std::exp(score - largest) / sum);
  }
}

}  // namespace

RoutingTable::RoutingTable(int64_t experts, int64_t active, int64_t max_tokens)
    : experts_(experts), active_(active), max_tokens_(max_tokens) {
  ATOM_CHECK(active >= 1 && active <= experts && max_tokens >= 0, "a token needs an expert");
  const auto rows = static_cast<size_t>(max_tokens * active);
  table_.offsets.resize(static_cast<size_t>(experts) + 1);
  next_.resize(static_cast<size_t>(experts));
  table_.tokens.reserve(rows);
  table_.rows.reserve(rows);
  table_.weights.reserve(rows);
  chosen_.reserve(rows);
}

void RoutingTable::route(std::span<const float> scores, int64_t tokens) {
  ATOM_CHECK(tokens <= max_tokens_, "more tokens than the routing has room for");
  const auto rows = static_cast<size_t>(tokens * active_);
  const auto active = static_cast<size_t>(active_), experts = static_cast<size_t>(experts_);
  table_.tokens.resize(rows);
  table_.rows.resize(rows);
  table_.weights.resize(rows);
  chosen_.resize(rows);
  for (size_t t = 0; t < static_cast<size_t>(tokens); ++t) {
    choose(scores.subspan(t * experts, experts), std::span(chosen_).subspan(t * active, active),
           std::span(table_.weights).subspan(t * active, active));
  }
  // A counting sort: the rows of an expert in the order of their tokens.
  std::fill(table_.offsets.begin(), table_.offsets.end(), 0);
  for (const int32_t e : chosen_) ++table_.offsets[static_cast<size_t>(e) + 1];
  for (size_t e = 0; e < experts; ++e) table_.offsets[e + 1] += table_.offsets[e];
  std::copy_n(table_.offsets.begin(), experts, next_.begin());
  for (size_t i = 0; i < rows; ++i) {
    const int32_t row = next_[static_cast<size_t>(chosen_[i])]++;
    table_.rows[i] = row;
    table_.tokens[static_cast<size_t>(row)] = static_cast<int32_t>(i / active);
  }
}

}  // namespace atom
