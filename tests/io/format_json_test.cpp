#include "io/format_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace atom {
namespace {

LinearFormat round_trip(const LinearFormat& format) {
  const Json json = parse_json(to_json(format).dump(), "j").value();
  return linear_format_from_json(JsonView(json, "j")).value();
}

TEST(FormatJson, LinearFormatsRoundTrip) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    LinearFormat format;
    format.weight.dtype = dtype;
    EXPECT_EQ(round_trip(format), format);
  }
  for (const WeightKind kind : {WeightKind::kGrouped, WeightKind::kTwoLevel}) {
    for (const OutlierKind outliers :
         {OutlierKind::kNone, OutlierKind::kFloat, OutlierKind::kInt8}) {
      for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
        LinearFormat format;
        format.weight = {kind, DType::kF32, 3, 64, 48, outliers};
        EXPECT_EQ(round_trip(format), format);
        format.act = {true, 8, 32, rule, 0.9f, true};
        EXPECT_EQ(round_trip(format), format);
      }
    }
  }
}

// Integers are not named, so that what was written before there were other grids still is the same.
TEST(FormatJson, GridsRoundTrip) {
  LinearFormat format;
  format.weight.kind = WeightKind::kGrouped;
  format.act.quantized = true;
  EXPECT_FALSE(to_json(format)["weight"].contains("grid"));
  EXPECT_FALSE(to_json(format)["act"].contains("grid"));
  format.weight.grid = CodeGrid::kE2M1;
  EXPECT_EQ(round_trip(format), format);
  format.act.grid = CodeGrid::kE2M1;
  EXPECT_EQ(round_trip(format), format);
  EXPECT_EQ(to_json(format)["weight"]["grid"], "fp4");
  EXPECT_FALSE(to_json(format)["weight"].contains("scales"));
  EXPECT_FALSE(to_json(format)["act"].contains("scales"));
  format.weight.scales = GroupScales::kE4M3;
  EXPECT_EQ(round_trip(format), format);
  format.act.scales = GroupScales::kE4M3;
  EXPECT_EQ(round_trip(format), format);
  EXPECT_EQ(to_json(format)["act"]["scales"], "e4m3");
}

TEST(FormatJson, KvFormatsRoundTrip) {
  for (const KvFormat& format : {KvFormat{}, KvFormat{KvKind::kF16, 4, false, true, false},
                                 KvFormat{KvKind::kInt, 3, true, false, true}}) {
    const Json json = to_json(format);
    EXPECT_EQ(kv_format_from_json(JsonView(json, "j")).value(), format) << json.dump();
  }
}

TEST(FormatJson, AbsentFieldsAndDecimals) {
  const Json json = {{"weight", {{"kind", "grouped"}}}, {"act", {{"clip", 0.9}}}};
  const LinearFormat format = linear_format_from_json(JsonView(json, "j")).value();
  EXPECT_EQ(format.weight.bits, 4);
  EXPECT_EQ(format.weight.group, 128);
  EXPECT_TRUE(format.act.quantized);
  EXPECT_EQ(format.act.clip, 0.9f);
  EXPECT_EQ(to_json(format)["act"]["clip"].dump(), "0.9");
}

TEST(FormatJson, ErrorsNameTheField) {
  const auto error_of = [](const Json& json) {
    return linear_format_from_json(JsonView(json, "j")).status().message();
  };
  const auto weight_error = [&](const Json& weight) { return error_of({{"weight", weight}}); };
  EXPECT_EQ(weight_error({{"kind", "fan\ncy"}}),
            "j: weight: 'kind' is 'fan\\x0acy', not one of float, grouped, two_level");
  EXPECT_EQ(weight_error({{"kind", "grouped"}, {"grid", "nf4"}}),
            "j: weight: 'grid' is 'nf4', not one of int, fp4");
  EXPECT_EQ(weight_error({{"kind", "grouped"}, {"scales", "e8m0"}}),
            "j: weight: 'scales' is 'e8m0', not one of float, e4m3");
  EXPECT_EQ(weight_error({{"kind", "grouped"}, {"bits", 99}}),
            "j: weight.bits: 99 is not within 2..8");
  EXPECT_EQ(weight_error({{"kind", "grouped"}, {"bit", 4}}), "j: weight: unknown field 'bit'");
  EXPECT_EQ(weight_error({{"kind", "float"}, {"dtype", "f32"}, {"bits", 4}}),
            "j: weight: unknown field 'bits'");
  EXPECT_EQ(weight_error(4), "j: weight: expected an object, found 4");
  const Json weight = {{"kind", "grouped"}};
  EXPECT_EQ(error_of({{"weight", weight}, {"act", 4}}), "j: act: expected an object");
  EXPECT_EQ(error_of({{"weight", weight}, {"kv", 4}}), "j: unknown field 'kv'");
  EXPECT_EQ(error_of(Json::object()), "j: 'weight' is missing");
}

}  // namespace
}  // namespace atom
