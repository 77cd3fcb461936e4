// A small seeded generator whose sequence is the same on every platform (splitmix64, Steele et al.
// 2014): std distributions are not.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace atom {

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  // What the call of next() after `earlier` ones returns.
  static uint64_t nth(uint64_t seed, uint64_t earlier) {
    return Random(seed + earlier * kStep).next();
  }

  uint64_t next() {
    uint64_t z = (state_ += kStep);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [0, 1).
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  // Uniform in [0, bound); the bias of the multiplication is below 2^-32 for bounds below 2^32.
  int64_t below(int64_t bound) {
    return static_cast<int64_t>(
        (static_cast<unsigned __int128>(next()) * static_cast<unsigned __int128>(bound)) >> 64);
  }
  // Standard normal (Box-Muller).
  double normal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(2.0 * std::numbers::pi * uniform());
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;
  uint64_t state_;
};

}  // namespace atom
