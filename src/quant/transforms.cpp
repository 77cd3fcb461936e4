#include "quant/transforms.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/parallel.h"

namespace atom {
namespace {

// x := H x / sqrt(n) in double for a strided vector: weights are rotated once, so exactly.
void hadamard(float* x, int64_t n, int64_t stride) {
  std::vector<double> v(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) v[static_cast<size_t>(i)] = x[i * stride];
  for (size_t half = 1; half < v.size(); half *= 2) {
    for (size_t i = 0; i < v.size(); ++i) {
      if ((i & half) != 0) continue;
      const double a = v[i], b = v[i + half];
      v[i] = a + b;
      v[i + half] = a - b;
    }
  }
  const double factor = 1.0 / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) {
    x[i * stride] = static_cast<float>(v[static_cast<size_t>(i)] * factor);
  }
}

}  // namespace

void fold_value_hadamard(PackedLayer& layer, const ModelConfig& config) {
  const int64_t dh = config.head_dim;
  PackedLinear& v = layer.v;
  PackedLinear& o = layer.o;
  for (int64_t head = 0; head < config.kv_heads; ++head) {
    for (int64_t k = 0; k < v.cols; ++k)
      hadamard(&v.values[static_cast<size_t>(head * dh * v.cols + k)], dh, v.cols);
    if (!v.bias.empty()) hadamard(&v.bias[static_cast<size_t>(head * dh)], dh, 1);
  }
  parallel_for(o.rows, [&](int64_t n) {
    for (int64_t head = 0; head < config.heads; ++head) {
      hadamard(&o.values[static_cast<size_t>(n * o.cols + head * dh)], dh, 1);
    }
  });
}

std::vector<float> balance_factors(std::span<const float> energy,
                                   std::span<const PackedLinear* const> linears, double strength) {
  std::vector<double> weights(energy.size(), 0.0);
  for (const PackedLinear* linear : linears) {
    ATOM_CHECK(linear->cols == static_cast<int64_t>(energy.size()), "a linear of another input");
    for (size_t i = 0; i < linear->values.size(); ++i) {
      const double value = linear->values[i];
      weights[i % weights.size()] += value * value;
    }
  }
  std::vector<double> logs(energy.size(), 0.0);
  double sum = 0;
  int64_t active = 0;
  for (size_t k = 0; k < energy.size(); ++k) {
    if (!(energy[k] > 0 && weights[k] > 0)) continue;
    logs[k] = std::log(energy[k] / weights[k]) * strength / 4;
    sum += logs[k];
    ++active;
  }
  std::vector<float> factors(energy.size(), 1.0f);
  for (size_t k = 0; k < energy.size(); ++k) {
    if (!(energy[k] > 0 && weights[k] > 0)) continue;
    factors[k] = static_cast<float>(std::exp(logs[k] - sum / static_cast<double>(active)));
  }
  return factors;
}

void multiply_columns(PackedLinear& linear, std::span<const float> factors) {
  ATOM_CHECK(static_cast<int64_t>(factors.size()) == linear.cols, "factors of another width");
  for (size_t i = 0; i < linear.values.size(); ++i) linear.values[i] *= factors[i % factors.size()];
}

void divide_rows(PackedLinear& linear, std::span<const float> factors) {
  ATOM_CHECK(static_cast<int64_t>(factors.size()) == linear.rows, "factors of another height");
  for (size_t i = 0; i < linear.values.size(); ++i) {
    linear.values[i] /= factors[i / static_cast<size_t>(linear.cols)];
  }
  for (size_t n = 0; n < linear.bias.size(); ++n) linear.bias[n] /= factors[n];
}

void permute_columns(PackedLinear& linear, std::span<const int32_t> perm) {
  ATOM_CHECK(static_cast<int64_t>(perm.size()) == linear.cols, "permutation of another width");
  std::vector<float> row(perm.size());
  for (int64_t n = 0; n < linear.rows; ++n) {
    float* values = linear.values.data() + n * linear.cols;
    for (size_t k = 0; k < perm.size(); ++k) row[k] = values[perm[k]];
    std::copy(row.begin(), row.end(), values);
  }
}

void permute_rows(PackedLinear& linear, std::span<const int32_t> perm) {
  ATOM_CHECK(static_cast<int64_t>(perm.size()) == linear.rows, "permutation of another height");
  const std::vector<float> values = linear.values, bias = linear.bias;
  for (size_t n = 0; n < perm.size(); ++n) {
    const float* from = values.data() + perm[n] * linear.cols;
    std::copy(from, from + linear.cols,
              linear.values.data() + static_cast<int64_t>(n) * linear.cols);
    if (!bias.empty()) linear.bias[n] = bias[static_cast<size_t>(perm[n])];
  }
}

std::vector<int32_t> order_by_salience(std::span<const float> salience) {
  std::vector<int32_t> order(salience.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return salience[static_cast<size_t>(a)] < salience[static_cast<size_t>(b)];
  });
  return order;
}

std::vector<float> permute_square(std::span<const float> m, std::span<const int32_t> perm) {
  const size_t n = perm.size();
  std::vector<float> result(n * n);
  for (size_t i = 0; i < n; ++i) {
    const float* from = m.data() + static_cast<size_t>(perm[i]) * n;
    for (size_t j = 0; j < n; ++j) result[i * n + j] = from[perm[j]];
  }
  return result;
}

}  // namespace atom
