#include "ops/ops_fixture.h"

#include <algorithm>
#include <numeric>

#include "tensor/packing.h"

namespace atom {
namespace {

constexpr float kSentinel = -12344.0f;  // exact in F16

float power_of_two(Random& random) {
  return std::ldexp(1.0f, static_cast<int>(random.below(3)) - 1);
}

// A positive F16 scale.
uint16_t random_scale(Random& random, Scales scales) {
  return f32_to_f16(scales == Scales::kPowersOfTwo
                        ? power_of_two(random)
                        : static_cast<float>(0.005 + 0.01 * random.uniform()));
}

int8_t random_int8(Random& random) { return static_cast<int8_t>(random.below(256) - 128); }

// Bits from the least to the largest, or powers of two.
void fill_e4m3(PackedLinear& p, Random& random, Scales scales) {
  const bool exact = scales == Scales::kPowersOfTwo;
  for (int64_t i = 0; i < p.rows; ++i) {
    const int exponent = exact ? 0 : -15 + static_cast<int>(random.below(4));
    p.row_scales.push_back(f32_to_f16(std::ldexp(power_of_two(random), exponent)));
    if (p.row_scales.back() < f32_to_f16(0x1p-15f)) p.row_scales.back() = f32_to_f16(0x1p-15f);
  }
  for (int64_t i = 0; i < p.rows * p.groups(); ++i) {
    p.group_scales.push_back(exact ? e4m3_bits(power_of_two(random))
                                   : static_cast<uint8_t>(random.below(kMostE4M3Bits + 1)));
  }
}

void fill_grouped(PackedLinear& p, Random& random, Scales scales) {
  const bool e4m3 = p.format.weight.scales == GroupScales::kE4M3;
  if (e4m3) fill_e4m3(p, random, scales);
  for (int64_t i = 0; i < p.rows * p.groups() && !e4m3; ++i) {
    const uint16_t sign = random.below(2) != 0 ? 0x8000 : 0;
    p.scales.push_back(random_scale(random, scales) | sign);
  }
  for (int64_t i = 0; i < p.rows && p.format.weight.outlier_kind == OutlierKind::kInt8; ++i) {
    p.outlier_scales.push_back(random_scale(random, scales));
  }
}

void fill_two_level(PackedLinear& p, Random& random, Scales scales) {
  for (int64_t i = 0; i < p.rows * p.groups(); ++i) {
    const int64_t scale = 1 + random.below(16);
    p.group_scales.push_back(static_cast<uint8_t>(scale));
    p.group_zeros.push_back(static_cast<int8_t>(-128 + random.below(256 - 15 * scale)));
  }
  for (int64_t i = 0; i < p.rows; ++i) p.row_scales.push_back(random_scale(random, scales));
}

}  // namespace

bool supports(const Backend& backend, const KvFormat& format) {
  return !format.pre_rope || backend.name() != "cuda";
}

bool attends_in_halves(const Backend& backend) {
  return backend.name() == "cuda" && backend.detail().find("exact attention") == std::string::npos;
}

bool takes_halves(const Backend& backend, const LinearFormat& format) {
  if (backend.name() != "cuda" || format.act.quantized) return false;
  const WeightFormat& w = format.weight;
  if (w.kind == WeightKind::kFloat) return w.dtype == DType::kF16;
  const bool hopper = backend.detail().find("portable") == std::string::npos;
  return hopper && w.kind == WeightKind::kGrouped && w.bits <= 4 && w.grid == CodeGrid::kInt &&
         w.outliers == 0 && (w.group == 32 || w.group == 64 || w.group % 128 == 0);
}

bool multiplies_halves(const Backend& backend, const LinearFormat& format, int64_t tokens) {
  const WeightFormat& w = format.weight;
  const ActFormat& act = format.act;
  return backend.name() == "cuda" && backend.detail().find("portable") == std::string::npos &&
         tokens > 16 && w.kind == WeightKind::kGrouped && w.bits == 8 && w.group == 32 &&
         w.outliers == 0 && act.quantized && act.bits == 8 && act.group == 32;
}

// --- data

Matrix random_matrix(int64_t rows, int64_t cols, uint64_t seed, bool outliers) {
  Random random(seed);
  std::vector<double> gain(static_cast<size_t>(cols), 1.0);
  for (double& g : gain) {
    if (outliers && random.below(16) == 0) g = 20.0 + 80.0 * random.uniform();
  }
  Matrix m(rows, cols);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      m.at(i, j) = static_cast<float>(random.normal() * gain[static_cast<size_t>(j)]);
    }
  }
  return m;
}

std::vector<float> random_weight(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> weight(static_cast<size_t>(size));
  for (float& w : weight) w = static_cast<float>(1.0 + 0.3 * random.normal());
  return weight;
}

std::vector<int32_t> random_permutation(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> perm(static_cast<size_t>(size));
  std::iota(perm.begin(), perm.end(), 0);
  for (size_t i = perm.size(); i > 1; --i) {
    std::swap(perm[i - 1], perm[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  return perm;
}

// --- formats

ActFormat act_format(int bits, int64_t group, ActRule rule, float clip, bool search) {
  return {.quantized = true,
          .bits = bits,
          .group = group,
          .rule = rule,
          .clip = clip,
          .search = search};
}

LinearFormat grouped_format(int bits, int64_t group, int64_t outliers, OutlierKind kind,
                            ActFormat act) {
  return {.weight = {.kind = WeightKind::kGrouped,
                     .bits = bits,
                     .group = group,
                     .outliers = outliers,
                     .outlier_kind = kind},
          .act = act};
}

ActFormat fp4_acts(int64_t group, float clip, bool search) {
  ActFormat format = act_format(4, group, ActRule::kSymmetric, clip, search);
  format.grid = CodeGrid::kE2M1;
  return format;
}

LinearFormat fp4_format(int64_t group, int64_t outliers, OutlierKind kind, ActFormat act) {
  LinearFormat format = grouped_format(4, group, outliers, kind, act);
  format.weight.grid = CodeGrid::kE2M1;
  return format;
}

ActFormat nvfp4_acts(int64_t group, float clip, bool search) {
  ActFormat format = fp4_acts(group, clip, search);
  format.scales = GroupScales::kE4M3;
  return format;
}

LinearFormat nvfp4_format(int64_t group, int64_t outliers, OutlierKind kind, ActFormat act) {
  LinearFormat format = fp4_format(group, outliers, kind, act);
  format.weight.scales = GroupScales::kE4M3;
  return format;
}

LinearFormat two_level_format(int64_t group, int64_t outliers, OutlierKind kind, ActFormat act) {
  LinearFormat format = grouped_format(4, group, outliers, kind, act);
  format.weight.kind = WeightKind::kTwoLevel;
  return format;
}

std::string format_name(const LinearFormat& format) {
  static constexpr const char* kRules[] = {"sym", "signed", "asym"};
  static constexpr const char* kOutliers[] = {"none", "float", "int8"};
  const ActFormat& a = format.act;
  std::string name =
      format.weight.kind == WeightKind::kFloat && a.quantized
          ? fmt::format("{} a{} o{}", describe(format), a.bits, format.weight.outliers)
          : describe(format);
  name += fmt::format(" outliers {}", kOutliers[static_cast<int>(format.weight.outlier_kind)]);
  if (!a.quantized) return name;
  return name + fmt::format(", acts g{} {} clip {}{}", a.group, kRules[static_cast<int>(a.rule)],
                            a.clip, a.search ? " search" : "");
}

PackedLinear random_linear(const LinearFormat& format, int64_t rows, int64_t cols, uint64_t seed,
                           Scales scales, bool bias) {
  Random random(seed);
  PackedLinear p;
  p.format = format;
  p.rows = rows;
  p.cols = cols;
  const WeightFormat& w = format.weight;
  if (w.kind == WeightKind::kFloat) {
    for (int64_t i = 0; i < rows * cols; ++i) {
      const float value = scales == Scales::kPowersOfTwo
                              ? static_cast<float>(random.below(17) - 8)
                              : static_cast<float>(0.05 * random.normal());
      if (w.dtype == DType::kF32) p.values.push_back(value);
      if (w.dtype == DType::kF16) p.values16.push_back(f32_to_f16(value));
      if (w.dtype == DType::kBF16) p.values16.push_back(f32_to_bf16(value));
    }
  } else {
    for (int64_t i = 0; i < rows * (w.bits == 8 ? p.body() : p.body() / 2); ++i) {
      p.codes.push_back(static_cast<uint8_t>(random.below(256)));
    }
    if (w.kind == WeightKind::kGrouped) fill_grouped(p, random, scales);
    if (w.kind == WeightKind::kTwoLevel) fill_two_level(p, random, scales);
    for (int64_t i = 0; i < rows * w.outliers; ++i) {
      if (w.outlier_kind == OutlierKind::kInt8) p.outlier_codes.push_back(random_int8(random));
      if (w.outlier_kind == OutlierKind::kFloat) {
        p.outlier_values.push_back(f32_to_f16(scales == Scales::kPowersOfTwo
                                                  ? static_cast<float>(random.below(17) - 8)
                                                  : static_cast<float>(0.05 * random.normal())));
      }
    }
  }
  for (int64_t i = 0; i < rows && bias; ++i) {
    p.bias.push_back(scales == Scales::kPowersOfTwo ? static_cast<float>(random.below(100) - 50)
                                                    : static_cast<float>(random.normal()));
  }
  const Status status = validate(p);
  EXPECT_TRUE(status.ok()) << format_name(format) << ": " << status.message();
  return p;
}

// --- running ops

Matrix halves_of(Matrix values) {
  for (float& v : values.values) v = f16_to_f32(f32_to_f16(std::clamp(v, -65504.0f, 65504.0f)));
  return values;
}

std::unique_ptr<Tensor> make_input(Backend& backend, const Matrix& values, Precision precision) {
  auto tensor = backend.make_tensor(values.rows, values.cols, precision);
  EXPECT_TRUE(tensor.ok()) << tensor.status().message();
  backend.write(**tensor, values.values);
  return std::move(tensor).value();
}

std::unique_ptr<Tensor> make_output(Backend& backend, int64_t rows, int64_t cols,
                                    Precision precision) {
  Matrix poison(rows + kSentinelRows, cols);
  std::ranges::fill(poison.values, std::numeric_limits<float>::quiet_NaN());
  std::fill_n(poison.values.end() - kSentinelRows * cols, kSentinelRows * cols, kSentinel);
  return make_input(backend, poison, precision);
}

Matrix read_output(Backend& backend, const Tensor& tensor, int64_t rows) {
  EXPECT_EQ(tensor.rows(), rows + kSentinelRows);
  Matrix all(tensor.rows(), tensor.cols());
  backend.read(tensor, tensor.rows(), all.values);
  const auto end = static_cast<size_t>(rows * tensor.cols());
  const auto first = all.values.begin();
  EXPECT_TRUE(std::all_of(first + static_cast<int64_t>(end), all.values.end(), [](float v) {
    return v == kSentinel;
  })) << "rows after the last one were written";
  EXPECT_TRUE(std::none_of(first, first + static_cast<int64_t>(end), [](float v) {
    return std::isnan(v);
  })) << "not all outputs were written, or some are NaN";
  all.values.resize(end);
  all.rows = rows;
  return all;
}

std::unique_ptr<Activations> make_acts(Backend& backend, const LinearFormat& format,
                                       int64_t channels, int64_t max_tokens) {
  EXPECT_TRUE(validate(format, channels).ok()) << format_name(format);
  auto acts = backend.make_activations(format, channels, max_tokens);
  EXPECT_TRUE(acts.ok()) << acts.status().message();
  return std::move(acts).value();
}

std::unique_ptr<LinearWeights> load(Backend& backend, const PackedLinear& packed) {
  auto weights = backend.load_linear(packed);
  EXPECT_TRUE(weights.ok()) << weights.status().message();
  return std::move(weights).value();
}

// --- comparisons

double nmse(std::span<const float> got, std::span<const float> want) {
  double error = 0, power = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double miss = static_cast<double>(got[i]) - want[i];
    error += miss * miss;
    power += static_cast<double>(want[i]) * want[i];
  }
  return power == 0 ? error : error / power;
}

void expect_close(const Matrix& got, const Matrix& want, double limit) {
  ASSERT_EQ(got.rows, want.rows);
  ASSERT_EQ(got.cols, want.cols);
  const double error = nmse(got.values, want.values);
  if (error <= limit) return;  // false for NaN too
  size_t worst = 0;
  const auto miss = [&](size_t i) { return std::abs(got.values[i] - want.values[i]); };
  for (size_t i = 0; i < want.values.size(); ++i) {
    if (!(miss(i) <= miss(worst))) worst = i;
  }
  ADD_FAILURE() << "NMSE " << error << " > " << limit << "; worst at row "
                << static_cast<int64_t>(worst) / want.cols << ", column "
                << static_cast<int64_t>(worst) % want.cols << ": " << got.values[worst] << ", want "
                << want.values[worst];
}

void expect_same(std::span<const float> got, std::span<const float> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    // Equal or both NaN; the bits of a zero's sign carry nothing.
    ASSERT_TRUE(got[i] == want[i] || (std::isnan(got[i]) && std::isnan(want[i])))
        << "element " << i << ": " << got[i] << ", want " << want[i] << " (difference "
        << got[i] - want[i] << ")";
  }
}

void expect_same(const HostActivations& got, const HostActivations& want) {
  ASSERT_EQ(got.codes.size(), want.codes.size());
  for (size_t i = 0; i < want.codes.size(); ++i) {
    ASSERT_EQ(int{got.codes[i]}, int{want.codes[i]}) << "code " << i;
  }
  {
    SCOPED_TRACE("scales");
    expect_same(got.scales, want.scales);
  }
  {
    SCOPED_TRACE("outlier scales");
    expect_same(got.outlier_scales, want.outlier_scales);
  }
  SCOPED_TRACE("values");
  expect_same(got.values, want.values);
}

// --- sequences

TestBatch make_batch(std::span<const SequenceSpec> sequences, int64_t prefix_tokens,
                     uint64_t seed) {
  TestBatch made;
  for (const SequenceSpec& s : sequences) {
    made.page_count += (s.past + s.added + kPageTokens - 1) / kPageTokens;
  }
  made.page_count += 1;  // one that nobody uses
  const std::vector<int32_t> order = random_permutation(made.page_count, seed);
  auto next_page = order.begin();
  for (const SequenceSpec& s : sequences) {
    const int64_t count = (s.past + s.added + kPageTokens - 1) / kPageTokens;
    made.pages.emplace_back(next_page, next_page + count);
    next_page += count;
    made.batch.sequences.push_back({.first_token = made.batch.size(),
                                    .token_count = s.added,
                                    .past = s.past,
                                    .pages = made.pages.back()});
    for (int64_t i = 0; i < s.added; ++i) {
      made.batch.tokens.push_back(0);
      made.batch.positions.push_back(static_cast<int32_t>(prefix_tokens + s.past + i));
    }
  }
  return made;
}

TestBatch make_past_batch(const TestBatch& whole, int64_t prefix_tokens) {
  TestBatch made;
  made.page_count = whole.page_count;
  for (size_t i = 0; i < whole.batch.sequences.size(); ++i) {
    const SequenceSlice& slice = whole.batch.sequences[i];
    if (slice.past == 0) continue;
    made.pages.push_back(whole.pages[i]);
    made.batch.sequences.push_back({.first_token = made.batch.size(),
                                    .token_count = slice.past,
                                    .past = 0,
                                    .pages = made.pages.back()});
    for (int64_t token = 0; token < slice.past; ++token) {
      made.batch.tokens.push_back(0);
      made.batch.positions.push_back(static_cast<int32_t>(prefix_tokens + token));
    }
  }
  return made;
}

std::vector<float> make_cos_sin(int64_t positions, int64_t rotary_dim) {
  std::vector<float> table;
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < rotary_dim / 2; ++i) {
      const double angle =
          static_cast<double>(p) *
          std::pow(1e4, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim));
      table.push_back(static_cast<float>(std::cos(angle)));
      table.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

}  // namespace atom
