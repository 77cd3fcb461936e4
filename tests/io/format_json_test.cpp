#include "io/format_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace atom {
namespace {

TEST(FormatJson, LinearFormatsRoundTrip) {
  for (const WeightKind kind : {WeightKind::kFloat, WeightKind::kGrouped, WeightKind::kTwoLevel}) {
    for (const OutlierKind outliers :
         {OutlierKind::kNone, OutlierKind::kFloat, OutlierKind::kInt8}) {
      for (const ActRule rule : {ActRule::kSymmetric, ActRule::kSigned, ActRule::kAsymmetric}) {
        for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
          LinearFormat format;
          format.weight = {kind, dtype, 3, 64, 128, outliers};
          format.act = {true, 8, 32, rule, 0.9f, true};
          const Json json = to_json(format);
          EXPECT_EQ(parse_linear_format(JsonView(json, "j")).value(), format) << json.dump();
        }
      }
    }
  }
}

TEST(FormatJson, KvFormatsRoundTrip) {
  for (const KvKind kind : {KvKind::kF32, KvKind::kF16, KvKind::kInt}) {
    const KvFormat format{kind, 3, true, false, true};
    const Json json = to_json(format);
    EXPECT_EQ(parse_kv_format(JsonView(json, "j")).value(), format) << json.dump();
  }
}

TEST(FormatJson, AbsentFieldsKeepTheFallback) {
  const LinearFormat fallback = {{WeightKind::kGrouped, DType::kF32, 4, 32, 16, OutlierKind::kInt8},
                                 {true, 4, 32, ActRule::kSigned, 0.85f, true}};
  const Json json = {{"weight", {{"outliers", 64}}}, {"act", {{"clip", 0.9}}}};
  LinearFormat expected = fallback;
  expected.weight.outliers = 64;
  expected.act.clip = 0.9f;
  EXPECT_EQ(parse_linear_format(JsonView(json, "j"), fallback).value(), expected);
  EXPECT_EQ(to_json(expected)["act"]["clip"].dump(), "0.9");
}

TEST(FormatJson, ErrorsNameTheField) {
  const auto error_of = [](const Json& json) {
    return parse_linear_format(JsonView(json, "j")).status().message();
  };
  EXPECT_EQ(error_of({{"weight", {{"kind", "fancy"}}}}),
            "j: weight.kind: 'fancy' is not one of float, grouped, two_level");
  EXPECT_EQ(error_of({{"weight", {{"bits", 99}}}}), "j: weight.bits: 99 is not within 1..16");
  EXPECT_EQ(error_of({{"weight", {{"bit", 4}}}}), "j: weight: unknown field 'bit'");
  EXPECT_EQ(error_of({{"act", 4}}), "j: act: expected an object");
  EXPECT_EQ(error_of({{"kv", 4}}), "j: unknown field 'kv'");
}

}  // namespace
}  // namespace atom
