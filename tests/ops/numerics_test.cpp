// The shared float expressions against what they approximate, in double.
#include "ops/numerics.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "base/random.h"
#include "tensor/packing.h"

namespace atom {
namespace {

TEST(Numerics, ExpIsWithinThreeUlp) {
  for (int i = -870000; i <= 880000; ++i) {
    const float x = static_cast<float>(i) * 1e-4f;
    const double want = std::exp(static_cast<double>(x));
    ASSERT_NEAR(numerics::exp(x), want, 2.4e-7 * want) << x;
  }
  EXPECT_EQ(numerics::exp(0.0f), 1.0f);
}

TEST(Numerics, ExpSaturates) {
  EXPECT_EQ(numerics::exp(1e30f), numerics::exp(88.0f));
  EXPECT_EQ(numerics::exp(-1e30f), numerics::exp(-87.0f));
  EXPECT_TRUE(std::isfinite(numerics::exp(std::numeric_limits<float>::infinity())));
  EXPECT_TRUE(std::isfinite(numerics::exp(std::numeric_limits<float>::quiet_NaN())));
}

TEST(Numerics, HadamardIsItsOwnInverseAndOrthonormal) {
  Random random(1);
  for (const size_t n : {1u, 2u, 64u, 128u, 256u}) {
    std::vector<float> x(n);
    for (float& v : x) v = static_cast<float>(random.normal());
    std::vector<float> y = x;
    numerics::hadamard(y);
    for (size_t i = 0; i < n; ++i) {
      // The entry of row i, column j is -1 to the number of bits that both have.
      double want = 0;
      for (size_t j = 0; j < n; ++j) want += std::popcount(i & j) % 2 == 0 ? x[j] : -x[j];
      ASSERT_NEAR(y[i], want / std::sqrt(static_cast<double>(n)), 2e-6);
    }
    numerics::hadamard(y);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(y[i], x[i], 2e-6);
  }
}

TEST(Numerics, RotatePairTurnsByTheAngle) {
  float a = 1.0f, b = 0.0f;
  numerics::rotate_pair(a, b, std::cos(0.5f), std::sin(0.5f));
  EXPECT_FLOAT_EQ(a, std::cos(0.5f));
  EXPECT_FLOAT_EQ(b, std::sin(0.5f));
  numerics::rotate_pair(a, b, std::cos(0.5f), -std::sin(0.5f));
  EXPECT_NEAR(a, 1.0f, 1e-6);
  EXPECT_NEAR(b, 0.0f, 1e-6);
}

TEST(Numerics, RmsFactor) {
  const std::vector<float> x = {3.0f, -4.0f, 0.0f, 0.0f};
  EXPECT_EQ(numerics::rms_factor(x, 0.0f), 0.4f);
  EXPECT_EQ(numerics::rms_factor(std::vector<float>(8, 0.0f), 0.25f), 2.0f);
  // Every element counts once, whatever the length and the lane.
  for (const size_t n : {1u, 7u, 64u, 576u, 1023u, 1024u, 1025u, 4096u, 11008u}) {
    Random random(n);
    std::vector<float> row(n);
    double sum = 0;
    for (float& v : row) {
      v = static_cast<float>(random.normal());
      sum += static_cast<double>(v) * static_cast<double>(v);
    }
    const double want = 1.0 / std::sqrt(sum / static_cast<double>(n) + 1e-5);
    EXPECT_NEAR(numerics::rms_factor(row, 1e-5f) / want, 1.0, 3e-7) << n;
  }
}

// A search never does worse than any single clip that it tries, the format's own among them.
TEST(Numerics, SearchFindsTheLeastErrorOfItsClips) {
  Random random(3);
  int better = 0;
  for (int trial = 0; trial < 300; ++trial) {
    std::vector<float> x(32);
    for (float& v : x) v = static_cast<float>(random.normal());
    x[5] *= 6.0f;
    const auto error_of = [&](const ActFormat& format) {
      std::vector<int8_t> codes(x.size());
      const double scale = numerics::quantize_group(x, format, codes.data());
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double miss = x[i] - codes[i] * scale;
        sum += miss * miss;
      }
      return sum;
    };
    for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
      ActFormat format = {.quantized = true, .bits = 4, .rule = rule, .search = true};
      const double searched = error_of(format);
      format.search = false;
      const double plain = error_of(format);
      better += searched < plain;
      for (const float clip : numerics::kSearchClips) {
        format.clip = clip;
        ASSERT_LE(searched, error_of(format) * (1 + 1e-5));
      }
    }
  }
  EXPECT_GT(better, 300);
}

TEST(Numerics, GroupScaleRules) {
  using numerics::group_scale;
  EXPECT_EQ(group_scale(-1.0f, 7.0f, 4, ActRule::kSymmetric, 1.0f).scale, 1.0f);
  EXPECT_EQ(group_scale(-1.0f, 7.0f, 4, ActRule::kSymmetric, 1.0f).low, -8);
  EXPECT_EQ(group_scale(-127.0f, 1.0f, 8, ActRule::kSymmetric, 1.0f).low, -127);
  EXPECT_EQ(group_scale(-127.0f, 1.0f, 8, ActRule::kSymmetric, 1.0f).high, 127);
  EXPECT_EQ(group_scale(-8.0f, 7.0f, 4, ActRule::kSigned, 1.0f).scale, 1.0f);
  EXPECT_EQ(group_scale(-7.0f, 8.0f, 4, ActRule::kSigned, 1.0f).scale, -1.0f);
  EXPECT_EQ(group_scale(-8.0f, 8.0f, 4, ActRule::kSigned, 1.0f).scale, -1.0f);
  const numerics::GroupScale g = group_scale(-5.0f, 10.0f, 4, ActRule::kAsymmetric, 1.0f);
  EXPECT_EQ(g.scale, 1.0f);
  EXPECT_EQ(g.low, -5);
  EXPECT_EQ(g.high, 10);
  // The range always holds 0, so that the zero point is a code.
  EXPECT_EQ(group_scale(5.0f, 15.0f, 4, ActRule::kAsymmetric, 1.0f).low, 0);
  EXPECT_EQ(group_scale(-15.0f, -5.0f, 4, ActRule::kAsymmetric, 1.0f).high, 0);
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {0.0f, 1e-38f, 1e37f, kInf, kNan}) {
    for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
      EXPECT_EQ(group_scale(-bad, bad, 4, rule, 1.0f).scale, 0.0f) << bad;
    }
  }
}

// Against the table of codes: the nearest, of two the one with an even mantissa (even bits).
TEST(Numerics, NearestE2M1) {
  constexpr int kCodes[] = {0, 1, 2, 3, 4, 6, 8, 12};
  for (int i = -12 * 64; i <= 12 * 64; ++i) {
    const float x = static_cast<float>(i) / 64;
    int best = 0;
    for (int b = 1; b < 8; ++b) {
      const float miss = std::fabs(std::fabs(x) - static_cast<float>(kCodes[b]));
      const float least = std::fabs(std::fabs(x) - static_cast<float>(kCodes[best]));
      if (miss < least || (miss == least && b % 2 == 0)) best = b;
    }
    ASSERT_EQ(numerics::nearest_e2m1(x), static_cast<float>(x < 0 ? -kCodes[best] : kCodes[best]))
        << x;
    // One step of the float away from a tie decides it.
    for (const float toward : {-20.0f, 20.0f}) {
      const float near = std::nextafter(x, toward);
      if (std::fabs(near) > 12) continue;
      const float code = numerics::nearest_e2m1(near);
      for (const int c : kCodes) {
        ASSERT_LE(std::fabs(near - code), std::fabs(std::fabs(near) - static_cast<float>(c)));
      }
    }
  }
  EXPECT_EQ(numerics::nearest_e2m1(1e-40f), 0.0f);
}

// Against all numbers that E4M3 has: the nearest, of two the one with even bits.
TEST(Numerics, NearestE4M3) {
  for (int i = 0; i <= 448 * 64; ++i) {
    const float x = std::ldexp(static_cast<float>(i), i % 2 == 0 ? -6 : -14);
    uint8_t best = 0;
    for (uint8_t b = 1; b <= kMostE4M3Bits; ++b) {
      const float miss = std::fabs(x - e4m3_value(b)), least = std::fabs(x - e4m3_value(best));
      if (miss < least || (miss == least && b % 2 == 0)) best = b;
    }
    ASSERT_EQ(numerics::nearest_e4m3(x), e4m3_value(best)) << x;
  }
}

TEST(Numerics, UnitsOfE4M3Scales) {
  using numerics::group_scale, numerics::scale_unit;
  EXPECT_EQ(scale_unit(1.0f), 0x1p-11f);
  EXPECT_EQ(scale_unit(std::nextafter(2.0f, 0.0f)), 0x1p-11f);
  EXPECT_EQ(scale_unit(0.0f), scale_unit(numerics::kTiny));
  EXPECT_EQ(scale_unit(std::numeric_limits<float>::infinity()), scale_unit(numerics::kHuge));
  for (const float most : {numerics::kTiny, 0x1.8p-60f, 1.0f, 1.9f, 3e20f, numerics::kHuge}) {
    const float unit = scale_unit(most);
    for (const float x : {most, most / 3, most * 0x1p-10f, most * 0x1p-16f}) {
      const auto g = group_scale(-x, x / 2, 4, ActRule::kSymmetric, 1.0f, CodeGrid::kE2M1, unit);
      if (x < numerics::kTiny) continue;
      EXPECT_EQ(g.scale, numerics::nearest_e4m3(x / 12 / unit) * unit) << most << " " << x;
      EXPECT_TRUE(g.scale == 0.0f || std::isnormal(g.inverse)) << most << " " << x;
      EXPECT_LE(g.scale / unit, 342.0f);
    }
  }
}

// --- KV

struct Decoded {
  std::vector<int> codes;
  double scale, min;
};
Decoded quantize_kv(const std::vector<float>& x, int bits) {
  std::vector<uint8_t> codes(x.size());
  const numerics::KvScale s = numerics::quantize_kv(x, bits, codes.data());
  return {{codes.begin(), codes.end()}, f16_to_f32(s.scale), f16_to_f32(s.min)};
}

TEST(Numerics, KvCodesCoverTheRange) {
  const Decoded d = quantize_kv({-3.0f, 12.0f, 0.5f, 1.5f}, 4);
  EXPECT_EQ(d.scale, 1.0);
  EXPECT_EQ(d.min, -3.0);
  EXPECT_EQ(d.codes, (std::vector<int>{0, 15, 4, 4}));  // 3.5 and 4.5 both go to the even 4
}

TEST(Numerics, KvConstantVectorsKeepTheirValue) {
  const Decoded d = quantize_kv({0.75f, 0.75f, 0.75f}, 4);
  EXPECT_EQ(d.scale, 0.0);
  EXPECT_EQ(d.min, 0.75);
  EXPECT_EQ(d.codes, (std::vector<int>{0, 0, 0}));
}

TEST(Numerics, KvErrorIsHalfAStep) {
  Random random(7);
  for (const int bits : {3, 4, 8}) {
    for (int trial = 0; trial < 100; ++trial) {
      std::vector<float> x(128);
      for (float& v : x) v = static_cast<float>(random.normal() + 2.0);
      const Decoded d = quantize_kv(x, bits);
      const auto [low, high] = std::ranges::minmax(x);
      for (size_t i = 0; i < x.size(); ++i) {
        const double miss = std::abs(d.min + d.codes[i] * d.scale - x[i]);
        // The F16 scale and minimum may fall short of the ends by their own rounding.
        const double rounding = 0x1p-11 * (std::abs(low) + (high - low));
        ASSERT_LE(miss, 0.5001 * d.scale + rounding);
      }
    }
  }
}

TEST(Numerics, KvSaturatesBeyondF16) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const std::vector<float>& x :
       {std::vector{-1e30f, 1e30f}, std::vector{1e30f, 2e30f}, std::vector{-kInf, kInf, 0.0f}}) {
    const Decoded d = quantize_kv(x, 4);
    EXPECT_TRUE(std::isfinite(d.scale)) << x[0];
    EXPECT_TRUE(std::isfinite(d.min)) << x[0];
  }
  for (const int code : quantize_kv({1.0f, kNan, 2.0f, kInf}, 8).codes) {
    EXPECT_GE(code, 0);
    EXPECT_LE(code, 255);
  }
}

}  // namespace
}  // namespace atom
