#include "tensor/packed_linear.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "base/random.h"
#include "tensor/joined_rows.h"
#include "tensor/packing.h"
#include "tensor/quantized_linear.h"

namespace atom {
namespace {

constexpr int64_t kRows = 3;

// Twice E2M1's numbers, by their bits.
constexpr int kE2M1Codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

LinearFormat grouped(int bits, OutlierKind kind = OutlierKind::kInt8) {
  return {.weight = {.kind = WeightKind::kGrouped,
                     .bits = bits,
                     .group = 8,
                     .outliers = kind == OutlierKind::kNone ? 0 : 2,
                     .outlier_kind = kind},
          .act = {}};
}
LinearFormat nvfp4(OutlierKind kind = OutlierKind::kInt8) {
  LinearFormat format = grouped(4, kind);
  format.weight.grid = CodeGrid::kE2M1;
  format.weight.scales = GroupScales::kE4M3;
  return format;
}
LinearFormat two_level(OutlierKind kind = OutlierKind::kInt8) {
  LinearFormat format = grouped(4, kind);
  format.weight.kind = WeightKind::kTwoLevel;
  return format;
}

// A linear with random codes and the weights it must decode to.
struct Packed {
  PackedLinear linear;
  std::vector<double> weights;  // [N, K]
};

// Groups of 8, body of 16 channels.
Packed make_packed(const LinearFormat& format, uint64_t seed) {
  Random random(seed);
  Packed made;
  PackedLinear& p = made.linear;
  p.format = format;
  p.rows = kRows;
  const WeightFormat& w = format.weight;
  p.cols = 16 + w.outliers;
  made.weights.resize(static_cast<size_t>(kRows * p.cols));
  if (w.kind == WeightKind::kFloat) {
    for (double& weight : made.weights) {
      weight = static_cast<double>(random.below(200) - 100) / 8;  // exact in all three types
      const auto value = static_cast<float>(weight);
      if (w.dtype == DType::kF32) p.values.push_back(value);
      if (w.dtype == DType::kF16) p.values16.push_back(f32_to_f16(value));
      if (w.dtype == DType::kBF16) p.values16.push_back(f32_to_bf16(value));
    }
    return made;
  }
  const bool two = w.kind == WeightKind::kTwoLevel, e4m3 = w.scales == GroupScales::kE4M3;
  p.codes.resize(static_cast<size_t>(kRows * (w.bits == 8 ? 16 : 8)));
  for (int64_t n = 0; n < kRows; ++n) {
    const double row_scale = 0.25 * static_cast<double>(n + 1);
    const double unit = std::ldexp(1.0, static_cast<int>(n) - 15);
    if (two) p.row_scales.push_back(f32_to_f16(static_cast<float>(row_scale)));
    if (e4m3) p.row_scales.push_back(f32_to_f16(static_cast<float>(unit)));
    double* row = made.weights.data() + n * p.cols;
    for (int64_t g = 0; g < 2; ++g) {
      const int64_t s = 1 + random.below(16);
      const int64_t z = -128 + random.below(256 - 15 * s);
      double scale = (random.below(2) != 0 ? 0.125 : -0.125) * static_cast<double>(s);
      if (e4m3) {
        const auto bits = static_cast<uint8_t>(random.below(kMostE4M3Bits + 1));
        p.group_scales.push_back(bits);
        scale = e4m3_value(bits) * unit;
      } else if (two) {
        p.group_scales.push_back(static_cast<uint8_t>(s));
        p.group_zeros.push_back(static_cast<int8_t>(z));
      } else {
        p.scales.push_back(f32_to_f16(static_cast<float>(scale)));
      }
      for (int64_t k = 8 * g; k < 8 * g + 8; ++k) {
        const int levels = 1 << w.bits;
        auto code = static_cast<int>(random.below(levels) - (two ? 0 : levels / 2));
        if (w.bits == 8) {
          p.codes[static_cast<size_t>(n * 16 + k)] = static_cast<uint8_t>(code);
        } else {
          set_nibble(p.codes.data() + n * 8, k, code);
        }
        if (w.grid == CodeGrid::kE2M1) code = kE2M1Codes[code & 15];
        row[k] = two ? static_cast<double>(code * s + z) * row_scale : code * scale;
      }
    }
    if (w.outlier_kind == OutlierKind::kInt8 && !two) p.outlier_scales.push_back(f32_to_f16(0.5f));
    for (int64_t k = 16; k < p.cols; ++k) {
      const auto code = static_cast<int8_t>(random.below(256) - 128);
      if (w.outlier_kind == OutlierKind::kInt8) {
        p.outlier_codes.push_back(code);
        row[k] = code * (two ? row_scale : 0.5);
      } else {
        p.outlier_values.push_back(f32_to_f16(code));
        row[k] = code;
      }
    }
  }
  return made;
}

std::vector<LinearFormat> all_formats() {
  std::vector<LinearFormat> formats;
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    formats.push_back({.weight = {.dtype = dtype}, .act = {}});
  }
  for (const OutlierKind kind : {OutlierKind::kNone, OutlierKind::kFloat, OutlierKind::kInt8}) {
    for (const int bits : {3, 4, 8}) formats.push_back(grouped(bits, kind));
    formats.push_back(grouped(4, kind));
    formats.back().weight.grid = CodeGrid::kE2M1;
    formats.push_back(nvfp4(kind));
    formats.push_back(two_level(kind));
  }
  return formats;
}

TEST(Packing, NibblesRoundTripAndKeepTheirNeighbours) {
  uint8_t row[8] = {};
  for (int64_t k = 0; k < 16; ++k) set_nibble(row, k, static_cast<int>(k) - 8);
  for (int64_t k = 0; k < 16; ++k) EXPECT_EQ(signed_nibble(row, k), k - 8);
  EXPECT_EQ(row[0], 0x98);  // low nibble first: -8, -7
  for (int64_t k = 0; k < 16; ++k) set_nibble(row, k, static_cast<int>(k));
  for (int64_t k = 0; k < 16; ++k) EXPECT_EQ(unsigned_nibble(row, k), k);
  set_nibble(row, 5, 12);
  for (int64_t k = 0; k < 16; ++k) EXPECT_EQ(unsigned_nibble(row, k), k == 5 ? 12 : k);
}

TEST(Packing, BitsOfE2M1RoundTrip) {
  for (int bits = 0; bits < 16; ++bits) {
    EXPECT_EQ(e2m1_code(bits), kE2M1Codes[bits]);
    EXPECT_EQ(e2m1_bits(kE2M1Codes[bits]), bits == 8 ? 0 : bits);  // one zero
  }
  const uint8_t row[1] = {0xf3};
  EXPECT_EQ(grouped_nibble(CodeGrid::kE2M1, row, 0), 3);
  EXPECT_EQ(grouped_nibble(CodeGrid::kE2M1, row, 1), -12);
  EXPECT_EQ(grouped_nibble(CodeGrid::kInt, row, 1), -1);
}

TEST(Packing, BitsOfE4M3RoundTrip) {
  EXPECT_EQ(e4m3_value(0), 0.0f);
  EXPECT_EQ(e4m3_value(1), 0x1p-9f);
  EXPECT_EQ(e4m3_value(8), 0x1p-6f);
  EXPECT_EQ(e4m3_value(0x38), 1.0f);
  EXPECT_EQ(e4m3_value(kMostE4M3Bits), 448.0f);
  for (uint8_t bits = 0; bits <= kMostE4M3Bits; ++bits) {
    EXPECT_EQ(e4m3_bits(e4m3_value(bits)), bits);
  }
}

// F16 has every product of an E4M3 number and a unit that validate() lets through.
TEST(QuantizedLinear, F16ScalesAreExact) {
  PackedLinear p = make_packed(nvfp4(OutlierKind::kNone), 1).linear;
  for (int exponent = -15; exponent <= 7; ++exponent) {
    p.row_scales[0] = f32_to_f16(std::ldexp(1.0f, exponent));
    for (uint8_t bits = 0; bits <= kMostE4M3Bits; ++bits) {
      p.group_scales[0] = bits;
      ASSERT_TRUE(validate(p).ok());
      ASSERT_EQ(f16_to_f32(f16_scales(p)[0]), std::ldexp(e4m3_value(bits), exponent));
    }
  }
}

TEST(PackedLinear, DequantizesEveryFormat) {
  for (const LinearFormat& format : all_formats()) {
    SCOPED_TRACE(describe(format));
    const Packed made = make_packed(format, 1);
    const Status status = validate(made.linear);
    ASSERT_TRUE(status.ok()) << status.message();
    std::vector<double> got(made.weights.size());
    dequantize(made.linear, got);
    EXPECT_EQ(got, made.weights);
    EXPECT_GT(made.linear.bytes(), 0);
  }
}

TEST(PackedLinear, BytesAreThoseOfTheEffectiveBits) {
  for (const LinearFormat& format : all_formats()) {
    SCOPED_TRACE(describe(format));
    const PackedLinear p = make_packed(format, 1).linear;
    const auto weights = static_cast<double>(p.rows * p.cols);
    EXPECT_DOUBLE_EQ(8.0 * static_cast<double>(p.bytes()),
                     effective_bits(format.weight, p.cols) * weights);
  }
}

TEST(JoinedRows, ComeOnePartAfterAnother) {
  for (const LinearFormat& format : all_formats()) {
    SCOPED_TRACE(describe(format));
    Packed a = make_packed(format, 1), b = make_packed(format, 2), c = make_packed(format, 3);
    for (Packed* part : {&a, &b, &c}) part->linear.bias = {1.0f, 2.0f, 3.0f};
    const PackedLinear* parts[] = {&a.linear, &b.linear, &c.linear};
    const PackedLinear whole = JoinedRows(parts).join();
    const Status status = validate(whole);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(whole.rows, 3 * kRows);
    EXPECT_EQ(whole.bias.size(), 9u);
    std::vector<double> want = a.weights;
    want.insert(want.end(), b.weights.begin(), b.weights.end());
    want.insert(want.end(), c.weights.begin(), c.weights.end());
    std::vector<double> got(want.size());
    dequantize(whole, got);
    EXPECT_EQ(got, want);
  }
}

TEST(JoinedRows, ComeInTurns) {
  for (const LinearFormat& format : all_formats()) {
    SCOPED_TRACE(describe(format));
    Packed a = make_packed(format, 1), b = make_packed(format, 2);
    a.linear.bias = {1.0f, 2.0f, 3.0f};
    b.linear.bias = {4.0f, 5.0f, 6.0f};
    const PackedLinear* parts[] = {&a.linear, &b.linear};
    const PackedLinear whole = JoinedRows(parts, 1).join();
    const Status status = validate(whole);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(whole.bias, (std::vector<float>{1.0f, 4.0f, 2.0f, 5.0f, 3.0f, 6.0f}));
    const std::ptrdiff_t cols = whole.cols;
    std::vector<double> want, got(static_cast<size_t>(2 * kRows * cols));
    for (int64_t row = 0; row < kRows; ++row) {
      for (const Packed* part : {&a, &b}) {
        want.insert(want.end(), part->weights.begin() + row * cols,
                    part->weights.begin() + (row + 1) * cols);
      }
    }
    dequantize(whole, got);
    EXPECT_EQ(got, want);
    got.assign(got.size(), 0.0);
    dequantize(JoinedRows(parts, kRows).join(), got);  // a single turn
    EXPECT_TRUE(std::equal(a.weights.begin(), a.weights.end(), got.begin()));
    EXPECT_TRUE(std::equal(b.weights.begin(), b.weights.end(), got.begin() + kRows * cols));
  }
}

TEST(JoinedRows, RowsStandWhereTheJointOnesCameFrom) {
  Packed a = make_packed(all_formats()[0], 1), b = make_packed(all_formats()[0], 2);
  a.linear.bias = {1.0f, 2.0f, 3.0f};
  b.linear.bias = {4.0f, 5.0f, 6.0f};
  const PackedLinear* parts[] = {&a.linear, &b.linear};
  for (const int64_t run : {int64_t{0}, int64_t{1}, kRows}) {
    const JoinedRows rows(parts, run);
    EXPECT_EQ(rows.single(), nullptr);
    ASSERT_EQ(rows.rows(), 2 * kRows);
    const PackedLinear whole = rows.join();
    for (int64_t n = 0; n < rows.rows(); ++n) {
      const JoinedRows::Row row = rows.row(n);
      EXPECT_EQ(row.part->bias[static_cast<size_t>(row.index)], whole.bias[static_cast<size_t>(n)]);
    }
  }
  const JoinedRows alone(a.linear);
  EXPECT_EQ(alone.single(), &a.linear);
  EXPECT_EQ(alone.row(2).part, &a.linear);
  EXPECT_EQ(alone.row(2).index, 2);
}

TEST(PackedLinear, MakesFloatLinears) {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const PackedLinear p = make_float_linear(values, 2, 3);
  ASSERT_TRUE(validate(p).ok());
  std::vector<double> got(6);
  dequantize(p, got);
  EXPECT_TRUE(std::ranges::equal(got, values));
}

// --- refusals

using Damage = std::function<void(PackedLinear&)>;

void expect_refused(const LinearFormat& format, const char* array, const Damage& damage) {
  PackedLinear p = make_packed(format, 1).linear;
  p.bias = {1.0f, 2.0f, 3.0f};
  ASSERT_TRUE(validate(p).ok());
  damage(p);
  const Status status = validate(p);
  EXPECT_FALSE(status.ok()) << describe(format) << ": " << array << " passed";
  EXPECT_NE(status.message().find(array), std::string::npos)
      << array << " is not in: " << status.message();
}

TEST(PackedLinear, RefusesWrongSizes) {
  const LinearFormat f32, f16 = {.weight = {.dtype = DType::kF16}, .act = {}};
  const auto both_ways = [](const LinearFormat& format, const char* name, auto member) {
    expect_refused(format, name, [member](PackedLinear& p) { (p.*member).pop_back(); });
    expect_refused(format, name, [member](PackedLinear& p) { (p.*member).emplace_back(); });
    expect_refused(format, name, [member](PackedLinear& p) { (p.*member).clear(); });
  };
  both_ways(f32, "values", &PackedLinear::values);
  both_ways(f16, "values", &PackedLinear::values16);
  for (const int bits : {3, 4, 8}) {
    both_ways(grouped(bits), "qweight", &PackedLinear::codes);
    both_ways(grouped(bits), "scales", &PackedLinear::scales);
    both_ways(grouped(bits), "outlier_qweight", &PackedLinear::outlier_codes);
    both_ways(grouped(bits), "outlier_scales", &PackedLinear::outlier_scales);
  }
  both_ways(grouped(4, OutlierKind::kFloat), "outlier_weight", &PackedLinear::outlier_values);
  both_ways(two_level(), "qweight", &PackedLinear::codes);
  both_ways(two_level(), "group_scales", &PackedLinear::group_scales);
  both_ways(two_level(), "group_zeros", &PackedLinear::group_zeros);
  both_ways(two_level(), "row_scales", &PackedLinear::row_scales);
  both_ways(nvfp4(), "group_scales", &PackedLinear::group_scales);
  both_ways(nvfp4(), "row_scales", &PackedLinear::row_scales);
  both_ways(two_level(), "outlier_qweight", &PackedLinear::outlier_codes);
  expect_refused(f32, "bias", [](PackedLinear& p) { p.bias.pop_back(); });
}

// Arrays of other formats would be silently ignored otherwise.
TEST(PackedLinear, RefusesArraysThatTheFormatLacks) {
  const LinearFormat f32;
  expect_refused(f32, "qweight", [](PackedLinear& p) { p.codes = {0}; });
  expect_refused(f32, "values", [](PackedLinear& p) { p.values16 = {0}; });
  expect_refused(grouped(4), "values", [](PackedLinear& p) { p.values = {0.0f}; });
  expect_refused(grouped(4), "row_scales", [](PackedLinear& p) { p.row_scales = {0, 0, 0}; });
  expect_refused(two_level(), "scales", [](PackedLinear& p) { p.scales = {0}; });
  expect_refused(two_level(), "outlier_scales", [](PackedLinear& p) {
    p.outlier_scales = {0, 0, 0};
  });
  expect_refused(grouped(4, OutlierKind::kNone), "outlier_qweight",
                 [](PackedLinear& p) { p.outlier_codes = {0}; });
}

TEST(PackedLinear, RefusesBadScales) {
  for (const int bits : {0x7c00, 0xfc00, 0x7e00, 0xffff}) {  // infinities and NaN
    const auto bad = static_cast<uint16_t>(bits);
    expect_refused(grouped(4), "scales[3]", [bad](PackedLinear& p) { p.scales[3] = bad; });
    expect_refused(grouped(4), "outlier_scales[1]",
                   [bad](PackedLinear& p) { p.outlier_scales[1] = bad; });
    expect_refused(two_level(), "row_scales[2]", [bad](PackedLinear& p) { p.row_scales[2] = bad; });
    expect_refused(grouped(4, OutlierKind::kFloat), "outlier_weight[0]",
                   [bad](PackedLinear& p) { p.outlier_values[0] = bad; });
  }
  const uint16_t negative = f32_to_f16(-0.5f);
  expect_refused(two_level(), "row_scales[0]",
                 [&](PackedLinear& p) { p.row_scales[0] = negative; });
  expect_refused(grouped(4), "outlier_scales[0]",
                 [&](PackedLinear& p) { p.outlier_scales[0] = negative; });
  PackedLinear p = make_packed(grouped(4), 1).linear;
  p.scales[0] = negative;  // signed scales are legal
  EXPECT_TRUE(validate(p).ok());
}

TEST(PackedLinear, RefusesGroupsThatLeaveInt8) {
  expect_refused(two_level(), "group_scales[1]", [](PackedLinear& p) { p.group_scales[1] = 0; });
  expect_refused(two_level(), "group_scales[1]", [](PackedLinear& p) { p.group_scales[1] = 17; });
  expect_refused(two_level(), "group_zeros[4]", [](PackedLinear& p) {
    p.group_scales[4] = 16;
    p.group_zeros[4] = 127 - 15 * 16 + 1;
  });
  PackedLinear p = make_packed(two_level(), 1).linear;
  p.group_scales[4] = 16;
  p.group_zeros[4] = 127 - 15 * 16;
  EXPECT_TRUE(validate(p).ok());
}

TEST(PackedLinear, RefusesScalesThatAreNotE4M3) {
  for (const int bad : {0x7f, 0x80, 0xff}) {
    expect_refused(nvfp4(), "group_scales[2]",
                   [bad](PackedLinear& p) { p.group_scales[2] = static_cast<uint8_t>(bad); });
  }
  // Zero, 2^-16, 2^8, 3, -1, infinity and NaN.
  for (const int bad : {0, 0x0100, 0x5c00, 0x4200, 0xbc00, 0x7c00, 0x7e00}) {
    expect_refused(nvfp4(), "row_scales[1]",
                   [bad](PackedLinear& p) { p.row_scales[1] = static_cast<uint16_t>(bad); });
  }
}

TEST(PackedLinear, RefusesTheRest) {
  expect_refused(grouped(4), "rows", [](PackedLinear& p) { p.rows = 0; });
  expect_refused(grouped(4), "rows", [](PackedLinear& p) { p.rows = -3; });
  expect_refused(grouped(4), "bits", [](PackedLinear& p) { p.format.weight.bits = 6; });
  expect_refused(grouped(4), "outliers", [](PackedLinear& p) { p.cols = 2; });
  expect_refused(grouped(4), "bias[1]",
                 [](PackedLinear& p) { p.bias[1] = std::numeric_limits<float>::quiet_NaN(); });
  // A product that overflows must not pass for a small one.
  expect_refused(grouped(4), "rows", [](PackedLinear& p) { p.rows = int64_t{1} << 62; });
  expect_refused({}, "rows", [](PackedLinear& p) { p.rows = p.cols = int64_t{1} << 32; });
  expect_refused({}, "values", [](PackedLinear& p) { p.rows = int64_t{1} << 40; });
}

}  // namespace
}  // namespace atom
