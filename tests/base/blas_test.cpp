#include "base/blas.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/parallel.h"
#include "base/random.h"

namespace atom {
namespace {

std::vector<float> random_matrix(int64_t rows, int64_t cols, uint64_t seed) {
  Random random(seed);
  std::vector<float> m(static_cast<size_t>(rows * cols));
  for (float& v : m) v = static_cast<float>(random.normal());
  return m;
}

TEST(Blas, GemmTransposesAsAsked) {
  const int64_t m = 5, n = 7, k = 3;
  const auto a = random_matrix(m, k, 1), b = random_matrix(k, n, 2);
  std::vector<float> at(a.size()), bt(b.size());
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < k; ++j) at[size_t(j * m + i)] = a[size_t(i * k + j)];
  }
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < n; ++j) bt[size_t(j * k + i)] = b[size_t(i * n + j)];
  }
  for (const bool ta : {false, true}) {
    for (const bool tb : {false, true}) {
      std::vector<float> c(size_t(m * n), 1.0f);
      blas::gemm(ta, tb, m, n, k, 2.0f, ta ? at.data() : a.data(), ta ? m : k,
                 tb ? bt.data() : b.data(), tb ? k : n, 0.5f, c.data(), n);
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          double sum = 0;
          for (int64_t l = 0; l < k; ++l)
            sum += a[size_t(i * k + l)] * double{b[size_t(l * n + j)]};
          EXPECT_NEAR(c[size_t(i * n + j)], 2 * sum + 0.5, 1e-5);
        }
      }
    }
  }
}

// Two products at the same moment, time and again: a BLAS whose threads share packing buffers
// (OpenBLAS's serial build does) gets a few of these wrong.
TEST(Blas, IsSafeToCallFromSeveralThreads) {
  const int64_t m = 64, n = 192, k = 576;
  std::vector<float> a[2], b[2], expected[2], c[2];
  for (uint64_t i = 0; i < 2; ++i) {
    a[i] = random_matrix(m, k, 3 + i);
    b[i] = random_matrix(n, k, 5 + i);
    expected[i].assign(size_t(m * n), 0.0f);
    blas::gemm(false, true, m, n, k, 1, a[i].data(), k, b[i].data(), k, 1, expected[i].data(), n);
  }
  set_thread_count(2);
  int64_t wrong = 0;
  for (int round = 0; round < 500; ++round) {
    for (auto& result : c) result.assign(size_t(m * n), 0.0f);
    parallel_for(2, [&](int64_t i) {
      const auto s = static_cast<size_t>(i);
      blas::gemm(false, true, m, n, k, 1, a[s].data(), k, b[s].data(), k, 1, c[s].data(), n);
    });
    wrong += (c[0] != expected[0]) + (c[1] != expected[1]);
  }
  set_thread_count(0);
  EXPECT_EQ(wrong, 0);
}

TEST(Blas, AddGramFillsTheLowerTriangle) {
  const int64_t n = 6, k = 4;
  const auto a = random_matrix(k, n, 1);
  std::vector<float> c(size_t(n * n), 1.0f);
  blas::add_gram(n, k, a.data(), n, c.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t l = 0; l < k && j <= i; ++l) {
        sum += a[size_t(l * n + i)] * double{a[size_t(l * n + j)]};
      }
      EXPECT_NEAR(c[size_t(i * n + j)], 1 + sum, 1e-5);
    }
  }
}

TEST(Blas, CholeskyAndTriangularInverse) {
  const int64_t n = 20;
  const auto x = random_matrix(40, n, 9);
  std::vector<double> a(size_t(n * n)), l;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t t = 0; t < 40; ++t)
        a[size_t(i * n + j)] += double{x[size_t(t * n + i)]} * x[size_t(t * n + j)];
    }
  }
  l = a;
  ASSERT_EQ(blas::cholesky(n, l.data()), 0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t k = 0; k <= j; ++k) sum += l[size_t(i * n + k)] * l[size_t(j * n + k)];
      EXPECT_NEAR(sum, a[size_t(i * n + j)], 1e-9);
    }
  }
  std::vector<double> inverse = l;
  ASSERT_EQ(blas::invert_lower(n, inverse.data()), 0);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (int64_t k = j; k <= i; ++k) sum += l[size_t(i * n + k)] * inverse[size_t(k * n + j)];
      EXPECT_NEAR(sum, i == j ? 1.0 : 0.0, 1e-9);
    }
  }
  std::vector<double> indefinite = {1, 2, 2, 1};
  EXPECT_EQ(blas::cholesky(2, indefinite.data()), 2);
}

}  // namespace
}  // namespace atom
