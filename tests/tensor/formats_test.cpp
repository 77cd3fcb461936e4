#include "tensor/formats.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace atom {
namespace {

// w4a4, groups of 128, 64 INT8 outliers of 576 channels.
LinearFormat valid_format() {
  return {.weight = {.kind = WeightKind::kGrouped,
                     .bits = 4,
                     .group = 128,
                     .outliers = 64,
                     .outlier_kind = OutlierKind::kInt8},
          .act = {.quantized = true, .bits = 4, .group = 128}};
}
constexpr int64_t kChannels = 576;

TEST(LinearFormat, ValidOnesPass) {
  EXPECT_TRUE(validate(LinearFormat{}, 7).ok());
  EXPECT_TRUE(validate(valid_format(), kChannels).ok());
  LinearFormat format = valid_format();
  format.act.group = 0;
  EXPECT_TRUE(validate(format, kChannels).ok());
  format.weight.kind = WeightKind::kTwoLevel;
  format.act.bits = 8;
  EXPECT_TRUE(validate(format, kChannels).ok());
  format.weight.group = 0;
  format.weight.outliers = 1;
  EXPECT_TRUE(validate(format, 41).ok());
  format = valid_format();
  format.weight.grid = format.act.grid = CodeGrid::kE2M1;
  EXPECT_TRUE(validate(format, kChannels).ok());
  EXPECT_EQ(describe(format), "wfp4afp4 g128 o64");
  format.weight.scales = format.act.scales = GroupScales::kE4M3;
  format.weight.group = format.act.group = 16;
  EXPECT_TRUE(validate(format, kChannels).ok());
  EXPECT_EQ(describe(format), "wnvfp4anvfp4 g16 o64");
  format = valid_format();
  format.weight.kind = WeightKind::kFloat;  // with quantized activations
  EXPECT_TRUE(validate(format, kChannels).ok());
}

// Each kind of mistake is refused, and the error names the field.
TEST(LinearFormat, BadOnesAreRefused) {
  struct Bad {
    std::function<void(LinearFormat&)> damage;
    const char* field;
    int64_t channels = kChannels;
  };
  const Bad cases[] = {
      {[](LinearFormat&) {}, "channels", 0},
      {[](LinearFormat&) {}, "channels", -5},
      {[](LinearFormat& f) { f.weight.bits = 5; }, "bits"},
      {[](LinearFormat& f) { f.weight.bits = 0; }, "bits"},
      {[](LinearFormat& f) { f.weight.outliers = -1; }, "outliers"},
      {[](LinearFormat& f) { f.weight.outliers = kChannels; }, "outliers"},
      {[](LinearFormat& f) { f.weight.outliers = 0; }, "outliers"},
      {[](LinearFormat& f) { f.weight.outlier_kind = OutlierKind::kNone; }, "outliers"},
      {[](LinearFormat& f) { f.weight.outliers = 63; }, "outliers"},  // body of 513
      {[](LinearFormat& f) { f.weight.group = 2; }, "group"},
      {[](LinearFormat& f) { f.weight.group = -128; }, "group"},
      {[](LinearFormat& f) { f.weight.group = 100; }, "group"},
      {[](LinearFormat& f) { f.weight.group = 1024; }, "group"},
      {[](LinearFormat& f) { f.act.bits = 16; }, "act.bits"},
      {[](LinearFormat& f) { f.act.group = 64; }, "act.group"},
      {[](LinearFormat& f) { f.act.clip = 0.0f; }, "act.clip"},
      {[](LinearFormat& f) { f.act.clip = 1.5f; }, "act.clip"},
      {[](LinearFormat& f) { f.act.clip = std::nanf(""); }, "act.clip"},
      {[](LinearFormat& f) {
         f.act.rule = ActRule::kAsymmetric;
         f.act.bits = 8;
       },
       "act.bits"},
      {[](LinearFormat& f) {
         f.weight.kind = WeightKind::kTwoLevel;
         f.weight.bits = 8;
       },
       "bits"},
      {[](LinearFormat& f) { f.weight.kind = WeightKind::kTwoLevel; }, "act.group"},
      {[](LinearFormat& f) {
         f.weight.grid = CodeGrid::kE2M1;
         f.weight.bits = 3;
       },
       "grid"},
      {[](LinearFormat& f) {
         f.weight.grid = CodeGrid::kE2M1;
         f.weight.kind = WeightKind::kTwoLevel;
         f.act.group = 0;
       },
       "grid"},
      {[](LinearFormat& f) {
         f.act.grid = CodeGrid::kE2M1;
         f.act.bits = 8;
       },
       "act.grid"},
      {[](LinearFormat& f) { f.weight.scales = GroupScales::kE4M3; }, "scales"},
      {[](LinearFormat& f) { f.act.scales = GroupScales::kE4M3; }, "act.scales"},
      {[](LinearFormat& f) {
         f.act.grid = CodeGrid::kE2M1;
         f.act.rule = ActRule::kSigned;
       },
       "act.grid"},
      {[](LinearFormat& f) { f = {.weight = {.dtype = DType::kI8}, .act = {}}; }, "dtype"},
      {[](LinearFormat& f) { f = {.weight = {.outliers = 4}, .act = {}}; }, "outliers"},
      // Float weights may take quantized activations, which must fit as any others.
      {[](LinearFormat& f) { f = {.weight = {}, .act = {.quantized = true}}; }, "group"},
      {[](LinearFormat& f) {
         f.weight.kind = WeightKind::kFloat;
         f.act.bits = 5;
       },
       "act.bits"},
  };
  for (const Bad& bad : cases) {
    LinearFormat format = valid_format();
    bad.damage(format);
    const Status status = validate(format, bad.channels);
    EXPECT_EQ(status.code(), ErrorCode::kInvalidArgument) << describe(format);
    EXPECT_NE(status.message().find(bad.field), std::string::npos)
        << bad.field << " is not in: " << status.message();
  }
}

TEST(KvFormat, Validates) {
  const auto ok = [](KvFormat format, int64_t head_dim) { return validate(format, head_dim).ok(); };
  EXPECT_TRUE(ok({}, 64));
  EXPECT_TRUE(ok({.kind = KvKind::kInt, .bits = 3}, 96));
  EXPECT_TRUE(ok({.kind = KvKind::kInt, .centered = true, .hadamard = true}, 128));
  EXPECT_TRUE(ok({.kind = KvKind::kInt, .pre_rope = true}, 80));
  EXPECT_FALSE(ok({}, 0));
  EXPECT_FALSE(ok({}, 63));
  EXPECT_FALSE(ok({.kind = KvKind::kInt, .bits = 5}, 64));
  EXPECT_FALSE(ok({.kind = KvKind::kInt, .hadamard = true}, 96));
  EXPECT_FALSE(ok({.kind = KvKind::kInt, .pre_rope = true, .hadamard = true}, 64));
  EXPECT_FALSE(ok({.kind = KvKind::kInt, .pre_rope = true, .centered = true}, 64));
}

TEST(Formats, CodeRanges) {
  EXPECT_EQ(qmax(3), 3);
  EXPECT_EQ(qmax(4), 7);
  EXPECT_EQ(qmax(8), 127);
  EXPECT_EQ(largest_code(4, CodeGrid::kInt), 7);
  EXPECT_EQ(smallest_code(4, CodeGrid::kInt), -8);
  EXPECT_EQ(smallest_code(8, CodeGrid::kInt), -127);
  EXPECT_EQ(largest_code(4, CodeGrid::kE2M1), 12);
  EXPECT_EQ(smallest_code(4, CodeGrid::kE2M1), -12);
  EXPECT_EQ(group_count(512, 128), 4);
  EXPECT_EQ(group_count(512, 0), 1);
}

TEST(Formats, EffectiveBits) {
  EXPECT_EQ(effective_bits({.dtype = DType::kBF16}, 100), 16.0);
  EXPECT_EQ(effective_bits({.dtype = DType::kF32}, 100), 32.0);
  WeightFormat w = valid_format().weight;
  // 512 codes of 4 bits, 4 scales, 64 INT8 outliers and their scale, over 576 channels.
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (512 * 4 + 4 * 16 + 64 * 8 + 16) / 576.0);
  w.bits = 3;  // in nibbles
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (512 * 4 + 4 * 16 + 64 * 8 + 16) / 576.0);
  w.bits = 8;
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (512 * 8 + 4 * 16 + 64 * 8 + 16) / 576.0);
  w.outlier_kind = OutlierKind::kFloat;
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (512 * 8 + 4 * 16 + 64 * 16) / 576.0);
  w = {.kind = WeightKind::kGrouped, .bits = 4, .group = 0};
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (576 * 4 + 16) / 576.0);
  // Group scale and zero of a byte each, a row scale; outliers are on the row's grid.
  w = valid_format().weight;
  w.kind = WeightKind::kTwoLevel;
  EXPECT_DOUBLE_EQ(effective_bits(w, 576), (512 * 4 + 4 * 16 + 64 * 8 + 16) / 576.0);
}

TEST(Formats, Descriptions) {
  EXPECT_EQ(describe(valid_format()), "w4a4 g128 o64");
  EXPECT_EQ(describe(LinearFormat{}), "F32");
  EXPECT_EQ(describe(KvFormat{.kind = KvKind::kInt, .centered = true, .hadamard = true}),
            "int4 centered hadamard");
}

}  // namespace
}  // namespace atom
