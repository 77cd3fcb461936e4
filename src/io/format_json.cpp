#include "io/format_json.h"

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/printable.h"
#include "io/decimal.h"

namespace atom {
namespace {

// The words for an enumeration's values, in both directions.
template <class E, size_t N>
using Words = std::array<std::pair<std::string_view, E>, N>;

constexpr Words<WeightKind, 3> kWeightKinds = {{{"float", WeightKind::kFloat},
                                                {"grouped", WeightKind::kGrouped},
                                                {"two_level", WeightKind::kTwoLevel}}};
constexpr Words<OutlierKind, 3> kOutlierKinds = {
    {{"none", OutlierKind::kNone}, {"float", OutlierKind::kFloat}, {"int8", OutlierKind::kInt8}}};
constexpr Words<CodeGrid, 2> kCodeGrids = {{{"int", CodeGrid::kInt}, {"fp4", CodeGrid::kE2M1}}};
constexpr Words<GroupScales, 2> kGroupScales = {
    {{"float", GroupScales::kFloat}, {"e4m3", GroupScales::kE4M3}}};
constexpr Words<ActRule, 3> kActRules = {{{"symmetric", ActRule::kSymmetric},
                                          {"signed", ActRule::kSigned},
                                          {"asymmetric", ActRule::kAsymmetric}}};
constexpr Words<DType, 3> kFloatTypes = {
    {{"f32", DType::kF32}, {"f16", DType::kF16}, {"bf16", DType::kBF16}}};
constexpr Words<KvKind, 3> kKvKinds = {
    {{"f32", KvKind::kF32}, {"f16", KvKind::kF16}, {"int", KvKind::kInt}}};

template <class E, size_t N>
Result<E> read_word(const JsonView& json, std::string_view key, const Words<E, N>& words) {
  const std::string text = ATOM_TRY(json.get_string(key));
  std::string known;
  for (const auto& [word, value] : words) {
    if (word == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(word);
  }
  return error(ErrorCode::kInvalidArgument, "{}: '{}' is '{}', not one of {}", json.place(), key,
               printable(text), known);
}

template <class E, size_t N>
std::string word_of(E value, const Words<E, N>& words) {
  for (const auto& [word, candidate] : words) {
    if (candidate == value) return std::string(word);
  }
  ATOM_CHECK(false, "an enumeration value without a word");
}

constexpr int64_t kManyChannels = int64_t{1} << 24;

Result<WeightFormat> weight_format_from_json(const JsonView& json) {
  WeightFormat format;
  format.kind = ATOM_TRY(read_word(json, "kind", kWeightKinds));
  if (format.kind == WeightKind::kFloat) {
    ATOM_TRY(json.expect_keys({"kind", "dtype"}));
    format.dtype = ATOM_TRY(read_word(json, "dtype", kFloatTypes));
    return format;
  }
  ATOM_TRY(
      json.expect_keys({"kind", "bits", "grid", "scales", "group", "outliers", "outlier_kind"}));
  format.bits = static_cast<int>(ATOM_TRY(json.get_int("bits", 2, 8, format.bits)));
  format.group = ATOM_TRY(json.get_int("group", 0, kManyChannels, format.group));
  format.outliers = ATOM_TRY(json.get_int("outliers", 0, kManyChannels, 0));
  if (json.has("grid")) format.grid = ATOM_TRY(read_word(json, "grid", kCodeGrids));
  if (json.has("scales")) format.scales = ATOM_TRY(read_word(json, "scales", kGroupScales));
  if (json.has("outlier_kind")) {
    format.outlier_kind = ATOM_TRY(read_word(json, "outlier_kind", kOutlierKinds));
  }
  return format;
}

Result<ActFormat> act_format_from_json(const JsonView& json) {
  if (!json.is_object()) {  // every field has a default, so that nothing below would notice
    return error(ErrorCode::kCorrupt, "{}: expected an object", json.place());
  }
  ATOM_TRY(json.expect_keys({"bits", "grid", "scales", "group", "rule", "clip", "search"}));
  ActFormat format;
  format.quantized = true;
  format.bits = static_cast<int>(ATOM_TRY(json.get_int("bits", 2, 8, format.bits)));
  format.group = ATOM_TRY(json.get_int("group", 0, kManyChannels, format.group));
  if (json.has("grid")) format.grid = ATOM_TRY(read_word(json, "grid", kCodeGrids));
  if (json.has("scales")) format.scales = ATOM_TRY(read_word(json, "scales", kGroupScales));
  if (json.has("rule")) format.rule = ATOM_TRY(read_word(json, "rule", kActRules));
  format.clip = static_cast<float>(ATOM_TRY(json.get_number("clip", 1.0)));
  format.search = ATOM_TRY(json.get_bool("search", false));
  return format;
}

}  // namespace

Result<LinearFormat> linear_format_from_json(const JsonView& json) {
  ATOM_TRY(json.expect_keys({"weight", "act"}));
  LinearFormat format;
  format.weight = ATOM_TRY(weight_format_from_json(ATOM_TRY(json.at("weight"))));
  if (json.has("act")) format.act = ATOM_TRY(act_format_from_json(ATOM_TRY(json.at("act"))));
  return format;
}

Json to_json(const LinearFormat& format) {
  const WeightFormat& w = format.weight;
  Json json;
  Json& weight = json["weight"];
  weight["kind"] = word_of(w.kind, kWeightKinds);
  if (w.kind == WeightKind::kFloat) {
    weight["dtype"] = word_of(w.dtype, kFloatTypes);
  } else {
    weight["bits"] = w.bits;
    if (w.grid != CodeGrid::kInt) weight["grid"] = word_of(w.grid, kCodeGrids);
    if (w.scales != GroupScales::kFloat) weight["scales"] = word_of(w.scales, kGroupScales);
    weight["group"] = w.group;
    weight["outliers"] = w.outliers;
    weight["outlier_kind"] = word_of(w.outlier_kind, kOutlierKinds);
  }
  if (format.act.quantized) {
    json["act"] = {{"bits", format.act.bits},
                   {"group", format.act.group},
                   {"rule", word_of(format.act.rule, kActRules)},
                   {"clip", decimal_value(format.act.clip)},
                   {"search", format.act.search}};
    if (format.act.grid != CodeGrid::kInt) {
      json["act"]["grid"] = word_of(format.act.grid, kCodeGrids);
    }
    if (format.act.scales != GroupScales::kFloat) {
      json["act"]["scales"] = word_of(format.act.scales, kGroupScales);
    }
  }
  return json;
}

Result<KvFormat> kv_format_from_json(const JsonView& json) {
  ATOM_TRY(json.expect_keys({"kind", "bits", "pre_rope", "centered", "hadamard"}));
  KvFormat format;
  format.kind = ATOM_TRY(read_word(json, "kind", kKvKinds));
  format.bits = static_cast<int>(ATOM_TRY(json.get_int("bits", 2, 8, format.bits)));
  format.pre_rope = ATOM_TRY(json.get_bool("pre_rope", false));
  format.centered = ATOM_TRY(json.get_bool("centered", false));
  format.hadamard = ATOM_TRY(json.get_bool("hadamard", false));
  return format;
}

Json to_json(const KvFormat& format) {
  Json json = {{"kind", word_of(format.kind, kKvKinds)}};
  if (format.kind == KvKind::kInt) json["bits"] = format.bits;
  json["pre_rope"] = format.pre_rope;
  json["centered"] = format.centered;
  json["hadamard"] = format.hadamard;
  return json;
}

}  // namespace atom
