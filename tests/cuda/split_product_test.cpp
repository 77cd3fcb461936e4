// Products of floats as halves in pairs, against double.
#include "backend/cuda/vendor/split_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "base/random.h"

namespace atom::cuda {
namespace {

// Rows of normal numbers; a few columns are a thousand times as large as the others, and a few as
// small.
std::vector<float> random_rows(int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  std::vector<float> x(static_cast<size_t>(rows * cols));
  for (size_t i = 0; i < x.size(); ++i) {
    const auto col = static_cast<int64_t>(i) % cols;
    const double size = col % 97 == 5 ? 1000.0 : col % 89 == 3 ? 0.001 : 1.0;
    x[i] = static_cast<float>(random.normal() * size);
  }
  return x;
}

double squared_error(const std::vector<float>& got, const std::vector<double>& want) {
  double miss = 0, whole = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    miss += (got[i] - want[i]) * (got[i] - want[i]);
    whole += want[i] * want[i];
  }
  return miss / whole;
}

// Two halves keep 22 bits; the tensor cores' sums in floats are what is lost.
constexpr double kLimit = 1e-11;

TEST(SplitProduct, LinearIsCloseToDouble) {
  if (find_cublaslt() == nullptr) GTEST_SKIP() << "no cuBLASLt";
  constexpr int64_t kTokens = 301, kCols = 520, kRows = 264;
  const std::vector<float> x = random_rows(kTokens, kCols, 1), w = random_rows(kRows, kCols, 2);
  const std::vector<float> start = random_rows(kTokens, kRows, 3), bias = random_rows(1, kRows, 4);
  const auto device_x = DeviceArray<float>::copy_of(x).value();
  const auto device_w = DeviceArray<float>::copy_of(w).value();
  const auto device_bias = DeviceArray<float>::copy_of(bias).value();
  for (const bool accumulate : {false, true}) {
    auto y = DeviceArray<float>::copy_of(start).value();
    Matmul matmul;
    SplitProduct split;
    ASSERT_TRUE(split.linear(matmul,
                             {.x = device_x.data(),
                              .w = device_w.data(),
                              .bias = device_bias.data(),
                              .y = y.data(),
                              .tokens = kTokens,
                              .rows = kRows,
                              .cols = kCols,
                              .accumulate = accumulate},
                             nullptr));
    std::vector<double> want(start.size());
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t n = 0; n < kRows; ++n) {
        const auto i = static_cast<size_t>(t * kRows + n);
        want[i] = bias[static_cast<size_t>(n)] + (accumulate ? start[i] : 0.0f);
        for (int64_t k = 0; k < kCols; ++k) {
          want[i] += static_cast<double>(x[static_cast<size_t>(t * kCols + k)]) *
                     w[static_cast<size_t>(n * kCols + k)];
        }
      }
    }
    const double error = squared_error(y.to_host(), want);
    std::printf("linear: normalised squared error %.2g\n", error);
    EXPECT_LT(error, kLimit);
  }
}

TEST(SplitProduct, GramIsCloseToDoubleAndSymmetric) {
  if (find_cublaslt() == nullptr) GTEST_SKIP() << "no cuBLASLt";
  constexpr int64_t kTokens = 300, kChannels = 2120;  // two panels
  const std::vector<float> x = random_rows(kTokens, kChannels, 5);
  const auto device_x = DeviceArray<float>::copy_of(x).value();
  auto h = DeviceArray<float>::allocate(kChannels * kChannels).value();
  h.fill_bytes(0);
  Matmul matmul;
  SplitProduct split;
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(split.gram(
        matmul, {.x = device_x.data(), .h = h.data(), .tokens = kTokens, .channels = kChannels},
        nullptr));
  }
  const std::vector<float> got = h.to_host();
  std::vector<double> want(got.size());
  for (int64_t t = 0; t < kTokens; ++t) {
    const float* row = x.data() + t * kChannels;
    for (int64_t i = 0; i < kChannels; ++i) {
      double* to = want.data() + i * kChannels;
      for (int64_t j = 0; j < kChannels; ++j) to[j] += 2.0 * row[i] * row[j];
    }
  }
  const double error = squared_error(got, want);
  std::printf("gram: normalised squared error %.2g\n", error);
  EXPECT_LT(error, kLimit);
  for (int64_t i = 0; i < kChannels; ++i) {
    for (int64_t j = 0; j < i; ++j) {
      ASSERT_EQ(got[static_cast<size_t>(i * kChannels + j)],
                got[static_cast<size_t>(j * kChannels + i)]);
    }
  }
}

}  // namespace
}  // namespace atom::cuda
