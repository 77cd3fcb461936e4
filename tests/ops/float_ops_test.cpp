// Operators between floats: lookups are exact, the norm is close.
#include <cstdint>

#include "ops/ops_fixture.h"

namespace atom {
namespace {

// Half a dozen float roundings of 2^-24 relative: NMSE of some 1e-14.
constexpr double kNormLimit = 1e-12;

TEST(RmsNorm, AgreesWithDouble) {
  for (const int64_t tokens : {1, 3, 17, 129}) {
    for (const int64_t channels : {1, 7, 33, 200, 576}) {
      SCOPED_TRACE(fmt::format("{} x {}", tokens, channels));
      Matrix x = random_matrix(tokens + 1, channels, 81);
      for (float& v : x.row(0)) v *= 1e-3f;  // where eps counts
      const std::vector<float> weight = random_weight(channels, 82);
      Matrix want(tokens, channels);
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = 0;
        for (const double v : x.row(t)) sum += v * v;
        const double factor = 1 / std::sqrt(sum / static_cast<double>(channels) + 1e-5f);
        for (int64_t k = 0; k < channels; ++k) {
          want.at(t, k) = static_cast<float>(x.at(t, k) * factor * weight[static_cast<size_t>(k)]);
        }
      }
      for (Backend* backend : all_backends()) {
        SCOPED_TRACE(backend->detail());
        const auto input = make_input(*backend, x);
        const auto y = make_output(*backend, tokens, channels);
        backend->rmsnorm({.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = tokens}, *y);
        expect_close(read_output(*backend, *y, tokens), want, kNormLimit);
      }
    }
  }
}

TEST(RmsNorm, ZerosStayZero) {
  const std::vector<float> weight = random_weight(33, 1);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, Matrix(3, 33));
    const auto y = make_output(*backend, 3, 33);
    backend->rmsnorm({.x = input.get(), .weight = weight, .eps = 1e-5f, .tokens = 3}, *y);
    expect_same(read_output(*backend, *y, 3).values, Matrix(3, 33).values);
  }
}

// Every stored weight is a float exactly: a code has at most 8 bits and a scale 11.
TEST(Embed, LooksRowsUpExactly) {
  std::vector<LinearFormat> formats;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    formats.push_back({.weight = {.dtype = dtype}, .act = {}});
  }
  for (const int bits : {3, 4, 8}) {
    formats.push_back(grouped_format(bits, 32, 0, OutlierKind::kNone));
    formats.push_back(grouped_format(bits, 32, 32, OutlierKind::kInt8, act_format(4, 32)));
  }
  formats.push_back(grouped_format(4, 0, 4, OutlierKind::kFloat));
  formats.push_back(two_level_format(32, 32, OutlierKind::kInt8, act_format(8, 0)));
  formats.push_back(two_level_format(0, 4, OutlierKind::kFloat));
  const std::vector<int32_t> ids = {0, 32, 5, 5, 31, 1};
  for (const LinearFormat& format : formats) {
    SCOPED_TRACE(format_name(format));
    const PackedLinear table = random_linear(format, 33, 96, 91);
    std::vector<double> values(33 * 96);
    dequantize(table, values);
    Matrix want(6, 96);
    for (size_t t = 0; t < ids.size(); ++t) {
      for (size_t k = 0; k < 96; ++k) {
        want.row(static_cast<int64_t>(t))[k] =
            static_cast<float>(values[static_cast<size_t>(ids[t]) * 96 + k]);
      }
    }
    for (Backend* backend : all_backends()) {
      SCOPED_TRACE(backend->detail());
      const auto y = make_output(*backend, 6, 96);
      backend->embed(*load(*backend, table), ids, *y);
      expect_same(read_output(*backend, *y, 6).values, want.values);
    }
  }
}

TEST(GatherRows, CopiesRows) {
  const Matrix x = random_matrix(17, 33, 95);
  const std::vector<int32_t> rows = {16, 0, 3, 3, 9};
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto input = make_input(*backend, x);
    const auto y = make_output(*backend, 5, 33);
    backend->gather_rows(*input, rows, *y);
    const Matrix got = read_output(*backend, *y, 5);
    for (size_t i = 0; i < rows.size(); ++i) {
      expect_same(got.row(static_cast<int64_t>(i)), x.row(rows[i]));
    }
  }
}

TEST(HostAccess, ReadsWhatWasWritten) {
  const Matrix x = random_matrix(17, 33, 96);
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    const auto tensor = make_input(*backend, x);
    EXPECT_EQ(tensor->rows(), 17);
    EXPECT_EQ(tensor->cols(), 33);
    Matrix some(5, 33);
    backend->read(*tensor, 5, some.values);
    for (int64_t t = 0; t < 5; ++t) expect_same(some.row(t), x.row(t));
    const Matrix two = random_matrix(2, 33, 97);
    backend->write(*tensor, two.values);  // leading rows only
    Matrix all(17, 33);
    backend->read(*tensor, 17, all.values);
    for (int64_t t = 0; t < 17; ++t) expect_same(all.row(t), t < 2 ? two.row(t) : x.row(t));
  }
}

TEST(Objects, AbsurdSizesAreErrors) {
  constexpr int64_t kHuge = INT64_MAX / 2;
  for (Backend* backend : all_backends()) {
    SCOPED_TRACE(backend->detail());
    EXPECT_FALSE(backend->make_tensor(kHuge, 1000).ok());
    EXPECT_FALSE(backend->make_tensor(-1, 8).ok());
    EXPECT_FALSE(backend->make_activations({}, 1000, kHuge).ok());
    EXPECT_FALSE(
        backend->make_kv_cache({.layers = 30, .kv_heads = 8, .head_dim = 128, .pages = kHuge})
            .ok());
  }
}

}  // namespace
}  // namespace atom
