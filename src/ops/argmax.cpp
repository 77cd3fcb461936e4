#include "ops/argmax.h"

#include <algorithm>
#include <limits>

#include "base/multiversion.h"

namespace atom {
namespace {

constexpr int64_t kArgmaxLanes = 16;
using ArgmaxLanes = float __attribute__((vector_size(kArgmaxLanes * sizeof(float))));

ATOM_MULTIVERSION float largest(const float* x, int64_t count) {
  constexpr float kLowest = -std::numeric_limits<float>::infinity();
  ArgmaxLanes most = ArgmaxLanes{} + kLowest;
  int64_t i = 0;
  for (; i + kArgmaxLanes <= count; i += kArgmaxLanes) {
    ArgmaxLanes values;
    __builtin_memcpy(&values, x + i, sizeof values);
    most = values > most ? values : most;  // never a NaN
  }
  float best = kLowest;
  for (int64_t lane = 0; lane < kArgmaxLanes; ++lane) best = most[lane] > best ? most[lane] : best;
  for (; i < count; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

}  // namespace

int32_t argmax(std::span<const float> x) {
  const float best = largest(x.data(), static_cast<int64_t>(x.size()));
  if (best == -std::numeric_limits<float>::infinity()) return 0;
  return static_cast<int32_t>(std::find(x.begin(), x.end(), best) - x.begin());
}

}  // namespace atom
