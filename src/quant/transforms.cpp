#include "quant/transforms.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/parallel.h"

namespace atom {
namespace {

// x := H x / sqrt(n) in double: weights are rotated once, so exactly. x: [n, width], a vector a
// column; v: scratch.
void hadamard(float* x, int64_t n, int64_t width, int64_t stride, std::vector<double>& v) {
  v.resize(static_cast<size_t>(n * width));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < width; ++j) v[static_cast<size_t>(i * width + j)] = x[i * stride + j];
  }
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t i = 0; i < n; ++i) {
      if ((i & half) != 0) continue;
      double* low = v.data() + i * width;
      double* high = low + half * width;
      for (int64_t j = 0; j < width; ++j) {
        const double a = low[j], b = high[j];
        low[j] = a + b;
        high[j] = a - b;
      }
    }
  }
  const double factor = 1.0 / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < width; ++j) {
      x[i * stride + j] = static_cast<float>(v[static_cast<size_t>(i * width + j)] * factor);
    }
  }
}

constexpr int64_t kTogether = 64;  // columns of an item

int64_t items_of(int64_t columns) { return (columns + kTogether - 1) / kTogether; }

}  // namespace

void fold_value_hadamard(PackedLayer& layer, const ModelConfig& config) {
  const int64_t dh = config.head_dim;
  PackedLinear& v = layer.v;
  PackedLinear& o = layer.o;
  const int64_t items = items_of(v.cols);
  parallel_for(config.kv_heads * items, [&](int64_t item) {
    const int64_t head = item / items, first = item % items * kTogether;
    std::vector<double> scratch;
    hadamard(&v.values[static_cast<size_t>(head * dh * v.cols + first)], dh,
             std::min(kTogether, v.cols - first), v.cols, scratch);
  });
  std::vector<double> scratch;
  for (int64_t head = 0; head < config.kv_heads && !v.bias.empty(); ++head) {
    hadamard(&v.bias[static_cast<size_t>(head * dh)], dh, 1, 1, scratch);
  }
  parallel_for(o.rows, [&](int64_t n) {
    std::vector<double> of_row;
    for (int64_t head = 0; head < config.heads; ++head) {
      hadamard(&o.values[static_cast<size_t>(n * o.cols + head * dh)], dh, 1, 1, of_row);
    }
  });
}

std::vector<float> balance_factors(std::span<const float> energy,
                                   std::span<const PackedLinear* const> linears, double strength) {
  std::vector<double> weights(energy.size(), 0.0);
  for (const PackedLinear* linear : linears) {
    ATOM_CHECK(linear->cols == static_cast<int64_t>(energy.size()), "a linear of another input");
    parallel_for(items_of(linear->cols), [&](int64_t item) {
      const int64_t first = item * kTogether, end = std::min(linear->cols, first + kTogether);
      for (int64_t n = 0; n < linear->rows; ++n) {
        const float* row = linear->values.data() + n * linear->cols;
        for (int64_t k = first; k < end; ++k) {
          const double value = row[k];
          weights[static_cast<size_t>(k)] += value * value;
        }
      }
    });
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
  parallel_for(linear.rows, [&](int64_t n) {
    float* row = linear.values.data() + n * linear.cols;
    for (size_t k = 0; k < factors.size(); ++k) row[k] *= factors[k];
  });
}

void divide_rows(PackedLinear& linear, std::span<const float> factors) {
  ATOM_CHECK(static_cast<int64_t>(factors.size()) == linear.rows, "factors of another height");
  parallel_for(linear.rows, [&](int64_t n) {
    float* row = linear.values.data() + n * linear.cols;
    for (int64_t k = 0; k < linear.cols; ++k) row[k] /= factors[static_cast<size_t>(n)];
  });
  for (size_t n = 0; n < linear.bias.size(); ++n) linear.bias[n] /= factors[n];
}

void permute_columns(PackedLinear& linear, std::span<const int32_t> perm) {
  ATOM_CHECK(static_cast<int64_t>(perm.size()) == linear.cols, "permutation of another width");
  parallel_for(linear.rows, [&](int64_t n) {
    float* values = linear.values.data() + n * linear.cols;
    const std::vector<float> row(values, values + linear.cols);
    for (size_t k = 0; k < perm.size(); ++k) values[k] = row[static_cast<size_t>(perm[k])];
  });
}

void permute_rows(PackedLinear& linear, std::span<const int32_t> perm) {
  ATOM_CHECK(static_cast<int64_t>(perm.size()) == linear.rows, "permutation of another height");
  std::vector<float> values(linear.values.size());
  parallel_for(linear.rows, [&](int64_t n) {
    std::copy_n(linear.values.data() + perm[static_cast<size_t>(n)] * linear.cols, linear.cols,
                values.data() + n * linear.cols);
  });
  linear.values = std::move(values);
  const std::vector<float> bias = linear.bias;
  for (size_t n = 0; n < bias.size(); ++n) linear.bias[n] = bias[static_cast<size_t>(perm[n])];
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
  parallel_for(static_cast<int64_t>(n), [&](int64_t row) {
    const auto i = static_cast<size_t>(row);
    const float* from = m.data() + static_cast<size_t>(perm[i]) * n;
    for (size_t j = 0; j < n; ++j) result[i * n + j] = from[perm[j]];
  });
  return result;
}

}  // namespace atom
