// accumulate_gram: close to double, and the same bits whatever the number of threads.
#include <algorithm>

#include "base/parallel.h"
#include "ops/ops_fixture.h"

namespace atom {
namespace {

// A float sum over 129 tokens of products of random sign: about 2^-24 * sqrt(129) of an entry's
// scale, squared.
constexpr double kGramLimit = 1e-11;

// h after accumulating x in two calls: all its rows, then its first three once more.
Matrix run(Backend& backend, const Matrix& x, const Matrix& start) {
  const auto input = make_input(backend, x);
  const auto h = make_input(backend, start);
  backend.accumulate_gram(*input, x.rows, *h);
  backend.accumulate_gram(*input, std::min<int64_t>(x.rows, 3), *h);
  Matrix result(x.cols, x.cols);
  backend.read(*h, x.cols, result.values);
  return result;
}

Matrix symmetric_start(int64_t channels) {
  Matrix h(channels, channels);
  for (int64_t i = 0; i < channels; ++i) {
    for (int64_t j = 0; j < channels; ++j) h.at(i, j) = static_cast<float>((i + 1) * (j + 1) % 7);
  }
  return h;
}

TEST(Gram, AgreesWithDouble) {
  for (const int64_t tokens : {1, 3, 17, 129}) {
    for (const int64_t channels : {1, 7, 33, 130}) {
      SCOPED_TRACE(fmt::format("{} x {}", tokens, channels));
      const Matrix x = random_matrix(tokens, channels, 101);
      const Matrix start = symmetric_start(channels);
      Matrix want(channels, channels);
      for (int64_t i = 0; i < channels; ++i) {
        for (int64_t j = 0; j < channels; ++j) {
          double sum = start.at(i, j);
          for (int64_t t = 0; t < tokens; ++t) {
            const double product = static_cast<double>(x.at(t, i)) * x.at(t, j);
            sum += t < 3 ? 2 * product : product;
          }
          want.at(i, j) = static_cast<float>(sum);
        }
      }
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        const Matrix got = run(*backend, x, start);
        expect_close(got, want, kGramLimit);
        for (int64_t i = 0; i < channels; ++i) {
          for (int64_t j = 0; j < i; ++j) ASSERT_EQ(got.at(i, j), got.at(j, i));
        }
      }
    }
  }
}

TEST(Gram, ResultsDoNotDependOnTheNumberOfThreads) {
  const Matrix x = random_matrix(700, 150, 102);
  const Matrix start = symmetric_start(150);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    set_thread_count(1);
    const Matrix want = run(*backend, x, start);
    for (const int threads : {2, 5}) {
      set_thread_count(threads);
      expect_same(run(*backend, x, start).values, want.values);
    }
    set_thread_count(0);
  }
}

// Tokens past the count take no part.
TEST(Gram, UsesTheLeadingTokensOnly) {
  Matrix x = random_matrix(9, 20, 103);
  for (int64_t t = 5; t < 9; ++t) std::ranges::fill(x.row(t), std::nanf(""));
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, x);
    const auto h = make_input(*backend, Matrix(20, 20));
    backend->accumulate_gram(*input, 5, *h);
    Matrix result(20, 20);
    backend->read(*h, 20, result.values);
    for (const float v : result.values) ASSERT_TRUE(std::isfinite(v));
  }
}

}  // namespace
}  // namespace atom
