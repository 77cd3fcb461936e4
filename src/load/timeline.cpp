#include "load/timeline.h"

#include <algorithm>
#include <cmath>

namespace atom {

void Timeline::reach(double seconds) {
  while (seconds >= bin_seconds_ * static_cast<double>(kBins)) {
    for (size_t i = 0; i < kBins / 2; ++i) bins_[i] = bins_[2 * i] + bins_[2 * i + 1];
    std::fill(bins_.begin() + kBins / 2, bins_.end(), 0.0);
    bin_seconds_ *= 2;
  }
}

void Timeline::add(double seconds, double amount) {
  if (!(seconds >= 0)) return;
  reach(seconds);
  bins_[std::min(static_cast<size_t>(seconds / bin_seconds_), kBins - 1)] += amount;
}

void Timeline::add_span(double begin, double end) {
  begin = std::max(begin, 0.0);
  if (!(end > begin)) return;
  reach(end);
  const auto first = std::min(static_cast<size_t>(begin / bin_seconds_), kBins - 1);
  for (size_t i = first; i < kBins; ++i) {
    const double bin_begin = static_cast<double>(i) * bin_seconds_;
    if (bin_begin >= end) break;
    bins_[i] += std::max(0.0, std::min(end, bin_begin + bin_seconds_) - std::max(begin, bin_begin));
  }
}

std::vector<double> Timeline::rates(double end) const {
  std::vector<double> rates;
  for (size_t i = 0; i < kBins; ++i) {
    const double begin = static_cast<double>(i) * bin_seconds_;
    if (begin >= end) break;
    // A sliver of a bin would show a rate made of one token.
    const double width = std::min(bin_seconds_, end - begin);
    if (i > 0 && width < bin_seconds_ / 2) break;
    rates.push_back(bins_[i] / width);
  }
  return rates;
}

}  // namespace atom
