// Percentiles of any number of latencies in constant memory.
#pragma once

#include <cstdint>
#include <vector>

namespace atom {

// Counts in buckets whose width is a 1024th of the power of two below them, as HdrHistogram does:
// a percentile is within 0.1% of the exact one. From 1 microsecond to 12 days; beyond, the ends.
class LatencyHistogram {
 public:
  void record(double seconds);

  int64_t count() const { return count_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  double min() const { return min_; }
  double max() const { return max_; }
  // The smallest latency that at least this share of all do not exceed (nearest rank); 0 if there
  // is none. share within [0, 1].
  double percentile(double share) const;

  struct Point {
    double seconds;
    double share;  // of the latencies that do not exceed it
  };
  // The cumulative distribution, at most max_points of it; empty if there are no latencies.
  std::vector<Point> cumulative(int64_t max_points) const;

 private:
  std::vector<int64_t> counts_;  // empty until the first latency
  int64_t count_ = 0;
  double sum_ = 0;
  double min_ = 0;
  double max_ = 0;
};

}  // namespace atom
