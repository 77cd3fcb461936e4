// 16-bit floats, exhaustively, against formulations of their own.
#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "base/random.h"

namespace atom {
namespace {

// The definition of binary16 with nothing but arithmetic.
double half_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 0x1f, mantissa = bits & 0x3ff;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(Half, EveryPatternDecodes) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double want = half_value(half);
    const float got = f16_to_f32(half);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
    } else {
      ASSERT_EQ(got, want) << bits;
      ASSERT_EQ(std::signbit(got), (bits & 0x8000) != 0) << bits;
    }
  }
}

TEST(Half, EveryPatternSurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value)))) << bits;
    } else {
      ASSERT_EQ(f32_to_f16(value), half) << bits;
    }
  }
}

// Between each two neighbours: the midpoint goes to the even one, its float neighbours to theirs.
TEST(Half, RoundsHalfToEven) {
  for (uint16_t low = 0; low < 0x7c00; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    // Past the largest finite half stands infinity, as if at 65536.
    const double above = high == 0x7c00 ? 65536.0 : half_value(high);
    const auto middle = static_cast<float>((half_value(low) + above) / 2);
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(f32_to_f16(middle), even) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 1e9f)), high) << low;
    ASSERT_EQ(f32_to_f16(-middle), even | 0x8000) << low;
  }
}

TEST(Half, ExtremesAndSpecials) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  EXPECT_EQ(f32_to_f16(kInf), 0x7c00);
  EXPECT_EQ(f32_to_f16(-kInf), 0xfc00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e-30f), 0);
  EXPECT_EQ(f32_to_f16(-1e-30f), 0x8000);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(std::numeric_limits<float>::quiet_NaN()))));
}

double bfloat_value(uint16_t bits) {
  const int exponent = (bits >> 7) & 0xff, mantissa = bits & 0x7f;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 255) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -133);
  return sign * std::ldexp(128 + mantissa, exponent - 134);
}

TEST(Bfloat, EveryPatternDecodesAndSurvives) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto bfloat = static_cast<uint16_t>(bits);
    const double want = bfloat_value(bfloat);
    const float got = bf16_to_f32(bfloat);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(got)))) << bits;
    } else {
      ASSERT_EQ(got, want) << bits;
      ASSERT_EQ(f32_to_bf16(got), bfloat) << bits;
    }
  }
}

TEST(Bfloat, RoundsHalfToEven) {
  for (uint16_t low = 0; low < 0x7f80; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double above = high == 0x7f80 ? std::ldexp(1.0, 128) : bfloat_value(high);
    const auto middle = static_cast<float>((bfloat_value(low) + above) / 2);
    ASSERT_EQ(f32_to_bf16(middle), low % 2 == 0 ? low : high) << low;
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, 0.0f)), low) << low;
    ASSERT_EQ(f32_to_bf16(std::nextafter(middle, std::numeric_limits<float>::infinity())), high)
        << low;
  }
}

// A NaN whose payload lies in the dropped bits must not become infinity.
TEST(Bfloat, NanStaysNan) {
  for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fc00000u, 0x7fffffffu}) {
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(bits)))));
  }
}

TEST(Dtype, NamesAndSizes) {
  EXPECT_STREQ(dtype_name(DType::kBF16), "BF16");
  EXPECT_STREQ(dtype_name(DType::kF32), "F32");
  EXPECT_EQ(dtype_bytes(DType::kF32), 4);
  EXPECT_EQ(dtype_bytes(DType::kI32), 4);
  EXPECT_EQ(dtype_bytes(DType::kF16), 2);
  EXPECT_EQ(dtype_bytes(DType::kBF16), 2);
  EXPECT_EQ(dtype_bytes(DType::kU8), 1);
}

}  // namespace
}  // namespace atom
