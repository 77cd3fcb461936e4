#include "load/latency_histogram.h"

#include <algorithm>
#include <cmath>

namespace atom {
namespace {

constexpr int kSteps = 1024;  // buckets an octave
constexpr int kOctaves = 40;
constexpr double kSmallest = 1e-6;

size_t bucket_of(double seconds) {
  if (!(seconds > kSmallest)) return 0;
  int exponent = 0;  // seconds = kSmallest * fraction * 2^exponent, fraction in [0.5, 1)
  const double fraction = std::frexp(seconds / kSmallest, &exponent);
  if (exponent > kOctaves) return static_cast<size_t>(kOctaves) * kSteps - 1;
  const int step = static_cast<int>((fraction - 0.5) * 2 * kSteps);
  return static_cast<size_t>(std::max(exponent - 1, 0)) * kSteps + static_cast<size_t>(step);
}

// The middle of a bucket.
double seconds_of(size_t bucket) {
  const auto octave = static_cast<int>(bucket / kSteps);
  const double step = static_cast<double>(bucket % kSteps) + 0.5;
  return kSmallest * std::ldexp(1 + step / kSteps, octave);
}

}  // namespace

void LatencyHistogram::record(double seconds) {
  if (counts_.empty()) {
    counts_.resize(static_cast<size_t>(kOctaves) * kSteps);
    min_ = max_ = seconds;
  }
  ++counts_[bucket_of(seconds)];
  ++count_;
  sum_ += seconds;
  min_ = std::min(min_, seconds);
  max_ = std::max(max_, seconds);
}

double LatencyHistogram::percentile(double share) const {
  if (count_ == 0) return 0;
  const auto rank = std::clamp<int64_t>(
      static_cast<int64_t>(std::ceil(share * static_cast<double>(count_) - 1e-9)), 1, count_);
  if (rank == count_) return max_;
  int64_t below = 0;
  for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
    below += counts_[bucket];
    if (below >= rank) return std::clamp(seconds_of(bucket), min_, max_);
  }
  return max_;
}

std::vector<LatencyHistogram::Point> LatencyHistogram::cumulative(int64_t max_points) const {
  std::vector<Point> points;
  if (count_ == 0) return points;
  const double total = static_cast<double>(count_);
  int64_t below = 0;
  double next_share = 0;
  points.push_back({min_, 0});
  for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
    if (counts_[bucket] == 0) continue;
    below += counts_[bucket];
    const double share = static_cast<double>(below) / total;
    if (share < next_share) continue;
    points.push_back({std::clamp(seconds_of(bucket), min_, max_), share});
    next_share = share + 1.0 / static_cast<double>(std::max<int64_t>(1, max_points - 2));
  }
  if (points.back().share < 1) points.push_back({max_, 1});
  return points;
}

}  // namespace atom
