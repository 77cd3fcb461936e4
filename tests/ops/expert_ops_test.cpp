// Mixtures of experts: routing against a sort written out here, grouped linears against each
// expert's linear of its rows alone, and the weighted sum.
#include <algorithm>
#include <numeric>

#include "base/parallel.h"
#include "ops/ops_fixture.h"

namespace atom {
namespace {

struct RouteCase {
  int64_t experts = 0, active = 0, tokens = 0;
};
constexpr RouteCase kRouteCases[] = {{8, 2, 1}, {8, 2, 17},  {8, 2, 129}, {4, 4, 5},  {5, 1, 3},
                                     {1, 1, 6}, {64, 8, 33}, {3, 2, 200}, {256, 6, 9}};

std::unique_ptr<Routing> make_routing(Backend& backend, const RouteCase& c) {
  auto routing = backend.make_routing(c.experts, c.active, c.tokens + 1);
  if (!routing.ok()) {
    ADD_FAILURE() << routing.status().message();
    std::abort();
  }
  return std::move(routing).value();
}

std::unique_ptr<Routing> route(Backend& backend, const RouteCase& c, const Matrix& scores) {
  std::unique_ptr<Routing> routing = make_routing(backend, c);
  EXPECT_EQ(routing->experts(), c.experts);
  EXPECT_EQ(routing->active(), c.active);
  EXPECT_EQ(routing->max_tokens(), c.tokens + 1);
  backend.route(*make_input(backend, scores), c.tokens, *routing);
  return routing;
}

// Scores of a token and its experts, the best first.
std::vector<int32_t> best_experts(std::span<const float> scores, int64_t active) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(active));
  return order;
}

int32_t expert_of(const HostRouting& routing, int32_t row) {
  const auto after = std::ranges::upper_bound(routing.offsets, row);
  return static_cast<int32_t>(after - routing.offsets.begin()) - 1;
}

void expect_routed(const HostRouting& routing, const RouteCase& c, const Matrix& scores) {
  const auto rows = static_cast<size_t>(c.tokens * c.active);
  ASSERT_EQ(routing.offsets.size(), static_cast<size_t>(c.experts + 1));
  ASSERT_EQ(routing.offsets.front(), 0);
  ASSERT_EQ(routing.offsets.back(), static_cast<int32_t>(rows));
  ASSERT_TRUE(std::ranges::is_sorted(routing.offsets));
  ASSERT_EQ(routing.tokens.size(), rows);
  ASSERT_EQ(routing.rows.size(), rows);
  ASSERT_EQ(routing.weights.size(), rows);
  for (int64_t t = 0; t < c.tokens; ++t) {
    const std::vector<int32_t> experts = best_experts(scores.row(t), c.active);
    double sum = 0;
    for (const int32_t e : experts) sum += std::exp(static_cast<double>(scores.at(t, e)));
    for (size_t i = 0; i < experts.size(); ++i) {
      const size_t at = static_cast<size_t>(t * c.active) + i;
      const int32_t row = routing.rows[at];
      ASSERT_TRUE(row >= 0 && row < static_cast<int32_t>(rows));
      ASSERT_EQ(expert_of(routing, row), experts[i]) << "token " << t;
      ASSERT_EQ(routing.tokens[static_cast<size_t>(row)], t);
      const double weight = std::exp(static_cast<double>(scores.at(t, experts[i]))) / sum;
      ASSERT_NEAR(routing.weights[at], weight, 1e-6);
    }
  }
  for (size_t e = 0; e + 1 < routing.offsets.size(); ++e) {
    const auto first = routing.tokens.begin() + routing.offsets[e];
    const auto end = routing.tokens.begin() + routing.offsets[e + 1];
    ASSERT_TRUE(std::is_sorted(first, end));
  }
}

TEST(Experts, TokensGoWhereTheirScoresSay) {
  for (const RouteCase& c : kRouteCases) {
    SCOPED_TRACE(fmt::format("{} of {} experts, {} tokens", c.active, c.experts, c.tokens));
    const Matrix scores = random_matrix(c.tokens, c.experts, 31, false);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const auto routing = route(*backend, c, scores);
      expect_routed(backend->read(*routing, c.tokens), c, scores);
    }
  }
}

TEST(Experts, OfEqualScoresTheFirstExpertsAreTaken) {
  const RouteCase c = {8, 3, 2};
  Matrix scores(2, 8);
  for (const int64_t e : {1, 4, 6, 7}) scores.at(1, e) = 2.0f;
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto routing = route(*backend, c, scores);
    const HostRouting host = backend->read(*routing, 2);
    expect_routed(host, c, scores);
    EXPECT_EQ(host.offsets, (std::vector<int32_t>{0, 1, 3, 4, 4, 5, 5, 6, 6}));
  }
}

// Whatever a broken model computes, each token gets its number of different experts.
TEST(Experts, ScoresThatAreNoNumbersStillRoute) {
  const RouteCase c = {4, 2, 4};
  Matrix scores(4, 4);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const float values[4][4] = {
      {nan, nan, nan, nan}, {nan, 1, nan, 2}, {inf, -inf, inf, nan}, {-inf, -inf, nan, -inf}};
  for (int64_t t = 0; t < 4; ++t) std::ranges::copy(values[t], scores.row(t).begin());
  const std::vector<std::vector<int32_t>> want = {{0, 1}, {3, 1}, {0, 2}, {0, 1}};
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto routing = route(*backend, c, scores);
    const HostRouting host = backend->read(*routing, 4);
    for (size_t t = 0; t < 4; ++t) {
      for (size_t i = 0; i < 2; ++i) {
        EXPECT_EQ(expert_of(host, host.rows[2 * t + i]), want[t][i]) << t << " " << i;
      }
    }
  }
}

// --- grouped linears

std::vector<LinearFormat> expert_formats() {
  LinearFormat mixed = grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32));
  mixed.weight.kind = WeightKind::kFloat;  // what the quantizer runs
  LinearFormat half;
  half.weight.dtype = DType::kBF16;
  return {grouped_format(4, 128, 64, OutlierKind::kInt8, act_format(4, 128)),
          grouped_format(4, 32, 16, OutlierKind::kInt8, act_format(4, 32, ActRule::kAsymmetric)),
          grouped_format(4, 32, 5, OutlierKind::kFloat, act_format(4, 32)),
          grouped_format(4, 64, 0, OutlierKind::kNone),
          grouped_format(8, 0, 0, OutlierKind::kNone, act_format(8, 0)),
          two_level_format(128, 64, OutlierKind::kInt8, act_format(8, 0)),
          two_level_format(32, 5, OutlierKind::kFloat, act_format(4, 0)),
          mixed,
          half,
          nvfp4_format(16, 32, OutlierKind::kInt8, nvfp4_acts()),
          LinearFormat{}};
}

// A layer's experts, and tokens on their way through them.
struct Mixture {
  RouteCase c;
  LinearFormat format;
  std::vector<PackedLinear> packed;
  Matrix x, scores;

  Mixture(const RouteCase& route_case, const LinearFormat& linear_format, int64_t rows, bool skewed)
      : c(route_case), format(linear_format) {
    const WeightFormat& w = format.weight;
    const int64_t cols = (w.group == 0 ? 96 : 3 * w.group) + w.outliers;
    for (int64_t e = 0; e < c.experts; ++e) {
      packed.push_back(random_linear(format, rows, cols, 50 + static_cast<uint64_t>(e),
                                     Scales::kRandom, e % 2 == 0));
    }
    x = random_matrix(c.tokens, cols, 51);
    scores = random_matrix(c.tokens, c.experts, 52, false);
    // Every token to expert 1: others stay empty.
    for (int64_t t = 0; skewed && t < c.tokens; ++t) scores.at(t, 1) += 100.0f;
  }
  int64_t routed_rows() const { return c.tokens * c.active; }
};

// The routed rows after the experts, and their weighted sum added to a start.
struct MixtureResult {
  HostRouting routing;
  HostActivations routed;
  Matrix y, sum;
};

Matrix start_of_sum(const Mixture& m) {
  return random_matrix(m.c.tokens, m.packed[0].rows, 53, false);
}

MixtureResult run(Backend& backend, const Mixture& m) {
  const int64_t cols = m.x.cols, rows = m.packed[0].rows;
  std::vector<std::unique_ptr<const LinearWeights>> weights;
  for (const PackedLinear& packed : m.packed) weights.push_back(load(backend, packed));
  const auto acts = make_acts(backend, m.format, cols, m.c.tokens);
  const auto routed = make_acts(backend, m.format, cols, m.routed_rows());
  backend.quantize(*make_input(backend, m.x), m.c.tokens, {}, *acts);
  const auto routing = route(backend, m.c, m.scores);
  backend.gather_routed(*acts, *routing, m.c.tokens, *routed);
  const auto y = make_output(backend, m.routed_rows(), rows);
  backend.grouped_linear({.x = routed.get(),
                          .w = weights,
                          .routing = routing.get(),
                          .y = y.get(),
                          .tokens = m.c.tokens});
  const auto sum = make_output(backend, m.c.tokens, rows);
  backend.write(*sum, start_of_sum(m).values);
  backend.combine(*y, *routing, m.c.tokens, *sum);
  return {backend.read(*routing, m.c.tokens), backend.read(*routed, m.routed_rows()),
          read_output(backend, *y, m.routed_rows()), read_output(backend, *sum, m.c.tokens)};
}

// Codes of routed rows are those of their tokens.
void expect_gathered(Backend& backend, const Mixture& m, const MixtureResult& result) {
  Matrix sources(m.routed_rows(), m.x.cols);
  for (int64_t i = 0; i < m.routed_rows(); ++i) {
    std::ranges::copy(m.x.row(result.routing.tokens[static_cast<size_t>(i)]),
                      sources.row(i).begin());
  }
  const auto acts = make_acts(backend, m.format, m.x.cols, m.routed_rows());
  backend.quantize(*make_input(backend, sources), m.routed_rows(), {}, *acts);
  expect_same(result.routed, backend.read(*acts, m.routed_rows()));
}

// What linear() makes of one expert's rows alone.
Matrix expert_alone(Backend& backend, const Mixture& m, const HostRouting& routing, size_t e) {
  const int64_t first = routing.offsets[e], count = routing.offsets[e + 1] - first;
  Matrix x(count, m.x.cols);
  for (int64_t i = 0; i < count; ++i) {
    std::ranges::copy(m.x.row(routing.tokens[static_cast<size_t>(first + i)]), x.row(i).begin());
  }
  const auto acts = make_acts(backend, m.format, x.cols, count);
  const auto weights = load(backend, m.packed[e]);
  backend.quantize(*make_input(backend, x), count, {}, *acts);
  const auto y = make_output(backend, count, m.packed[e].rows);
  backend.linear({.x = acts.get(), .w = weights.get(), .y = y.get(), .tokens = count});
  return read_output(backend, *y, count);
}

// As in linear_ops_test.cpp; the sum over experts adds a few float steps of its own.
constexpr double kExpertLimit = 1e-11;

void check(const Mixture& m) {
  SCOPED_TRACE(fmt::format("{}: {} of {} experts, {} tokens, {} rows", format_name(m.format),
                           m.c.active, m.c.experts, m.c.tokens, m.packed[0].rows));
  const int64_t rows = m.packed[0].rows;
  const MixtureResult want = run(ref_backend(), m);
  // ref's rows and sums, from its plain linear and in double.
  Matrix sum = start_of_sum(m);
  for (size_t e = 0; e < m.packed.size(); ++e) {
    const int64_t first = want.routing.offsets[e];
    if (want.routing.offsets[e + 1] == first) continue;
    const Matrix alone = expert_alone(ref_backend(), m, want.routing, e);
    expect_same(
        alone.values,
        std::span(want.y.values).subspan(static_cast<size_t>(first * rows), alone.values.size()));
  }
  for (int64_t t = 0; t < m.c.tokens; ++t) {
    for (int64_t n = 0; n < rows; ++n) {
      double value = sum.at(t, n);
      for (int64_t i = t * m.c.active; i < (t + 1) * m.c.active; ++i) {
        const auto at = static_cast<size_t>(i);
        value += static_cast<double>(want.routing.weights[at]) *
                 static_cast<double>(want.y.at(want.routing.rows[at], n));
      }
      sum.at(t, n) = static_cast<float>(value);
    }
  }
  expect_close(want.sum, sum, kExpertLimit);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const MixtureResult got = run(*backend, m);
    EXPECT_EQ(got.routing.offsets, want.routing.offsets);
    EXPECT_EQ(got.routing.rows, want.routing.rows);
    expect_gathered(*backend, m, got);
    // As in linear_ops_test.cpp.
    const double limit = takes_halves(*backend, m.format) ? 0x1p-21 : kExpertLimit;
    expect_close(got.y, want.y, limit);
    expect_close(got.sum, want.sum, limit);
  }
}

TEST(Experts, GroupedLinearsAgreeWithRef) {
  for (const LinearFormat& format : expert_formats()) {
    check(Mixture({4, 2, 19}, format, 40, false));
    check(Mixture({8, 2, 1}, format, 33, false));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Experts, EveryShapeAgreesWithRef) {
  for (const LinearFormat& format : {expert_formats()[0], expert_formats()[5]}) {
    for (const RouteCase& c : {RouteCase{8, 2, 129}, {3, 3, 6}, {4, 1, 17}, {1, 1, 3}}) {
      for (const int64_t rows : {1, 50, 200}) check(Mixture(c, format, rows, false));
    }
    check(Mixture({4, 1, 70}, format, 24, true));
    if (testing::Test::HasFailure()) return;
  }
}

TEST(Experts, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const LinearFormat& format : {expert_formats()[0], expert_formats()[5], LinearFormat{}}) {
    const Mixture m({4, 2, 33}, format, 200, false);
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      set_thread_count(1);
      const MixtureResult want = run(*backend, m);
      for (const int threads : {2, 5}) {
        set_thread_count(threads);
        const MixtureResult got = run(*backend, m);
        expect_same(got.y.values, want.y.values);
        expect_same(got.sum.values, want.sum.values);
      }
      set_thread_count(0);
    }
  }
}

}  // namespace
}  // namespace atom
