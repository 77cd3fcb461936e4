// What happened when, in constant memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace atom {

// Amounts over time in at most kBins equal bins; they begin narrow and double as time goes on.
class Timeline {
 public:
  static constexpr size_t kBins = 400;

  // Adds an amount at a moment, in seconds after the start; moments before it are left out.
  void add(double seconds, double amount);
  // Adds 1 for the time between two moments: the bins' rates are then how many there were at once.
  void add_span(double begin, double end);

  double bin_seconds() const { return bin_seconds_; }
  // Amount a second in each bin up to `end` seconds; of the last bin the part before the end
  // counts, and it is left out where that is less than half.
  std::vector<double> rates(double end) const;

 private:
  void reach(double seconds);
  std::vector<double> bins_ = std::vector<double>(kBins);
  double bin_seconds_ = 0.1;
};

}  // namespace atom
