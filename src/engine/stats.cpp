#include "engine/stats.h"

#include <cmath>
#include <limits>
#include <numeric>

namespace atom {
namespace {

constexpr double kFirstBucketSeconds = 100e-6;
constexpr double kFadeSeconds = 5.0;

}  // namespace

double DurationHistogram::upper_bound_seconds(size_t bucket) {
  if (bucket + 1 >= std::tuple_size_v<decltype(counts)>) {
    return std::numeric_limits<double>::infinity();
  }
  return std::ldexp(kFirstBucketSeconds, static_cast<int>(bucket));
}

void DurationHistogram::add(double seconds) {
  size_t bucket = 0;
  while (seconds >= upper_bound_seconds(bucket)) ++bucket;
  ++counts[bucket];
  sum_seconds += seconds;
}

int64_t DurationHistogram::total() const {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

void Rate::add(double count, EngineClock::time_point now) {
  faded_ = faded_ * fade(seconds_between(last_, now)) + count;
  last_ = now;
}

double Rate::per_second(EngineClock::time_point now) const {
  return faded_ / kFadeSeconds * fade(seconds_between(last_, now));
}

double Rate::fade(double seconds) { return std::exp(-seconds / kFadeSeconds); }

}  // namespace atom
