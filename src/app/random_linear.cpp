#include "app/random_linear.h"

#include <bit>
#include <vector>

#include "ops/numerics.h"
#include "tensor/packing.h"

namespace atom {
namespace {

// The size of a weight, which keeps the residual finite over all layers.
constexpr float kWeight = 0.01f;
constexpr float kUnit = 0x1p-12f;  // of E4M3 scales

void fill_random(std::vector<uint8_t>& bytes, int64_t size, Random& random) {
  bytes.resize(static_cast<size_t>(size));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next() >> 56);
}

// Values of either sign with magnitudes in [2^-7, 2^-6).
void fill_floats(PackedLinear& p, int64_t count, Random& random) {
  if (p.format.weight.dtype == DType::kF32) {
    for (int64_t i = 0; i < count; ++i) {
      const auto bits = static_cast<uint32_t>(random.next() >> 32);
      p.values.push_back(std::bit_cast<float>((bits & 0x807fffffu) | 0x3c000000u));
    }
    return;
  }
  const bool half = p.format.weight.dtype == DType::kF16;
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = static_cast<uint32_t>(random.next() >> 48);
    p.values16.push_back(
        static_cast<uint16_t>(half ? (bits & 0x83ffu) | 0x2000u : (bits & 0x807fu) | 0x3c00u));
  }
}

void fill_scales(PackedLinear& p, Random& random) {
  if (p.format.weight.kind == WeightKind::kGrouped) {
    const WeightFormat& w = p.format.weight;
    // By the root mean square of all codes.
    const float scale = kWeight / (w.bits == 8 ? 74.0f : w.grid == CodeGrid::kE2M1 ? 5.9f : 4.6f);
    const auto groups = static_cast<size_t>(p.rows * p.groups());
    if (w.scales == GroupScales::kE4M3) {
      p.row_scales.assign(static_cast<size_t>(p.rows), f32_to_f16(kUnit));
      p.group_scales.assign(groups, e4m3_bits(numerics::nearest_e4m3(scale / kUnit)));
    } else {
      p.scales.assign(groups, f32_to_f16(scale));
    }
    return;
  }
  for (int64_t i = 0; i < p.rows * p.groups(); ++i) {
    const int64_t scale = 8 + random.below(9);
    p.group_scales.push_back(static_cast<uint8_t>(scale));
    p.group_zeros.push_back(static_cast<int8_t>(-(15 * scale + 1) / 2));
  }
  p.row_scales.assign(static_cast<size_t>(p.rows), f32_to_f16(kWeight / 55.0f));
}

void fill_outliers(PackedLinear& p, Random& random) {
  const int64_t count = p.rows * p.format.weight.outliers;
  if (p.format.weight.outlier_kind == OutlierKind::kFloat) {
    p.outlier_values.assign(static_cast<size_t>(count), f32_to_f16(kWeight));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    p.outlier_codes.push_back(static_cast<int8_t>(random.below(255) - 127));
  }
  if (count > 0 && p.format.weight.kind == WeightKind::kGrouped) {
    p.outlier_scales.assign(static_cast<size_t>(p.rows), f32_to_f16(kWeight / 74.0f));
  }
}

}  // namespace

Result<PackedLinear> random_linear(const LinearFormat& format, int64_t rows, int64_t cols,
                                   Random& random) {
  ATOM_TRY(validate(format, cols));
  PackedLinear p;
  p.format = format;
  p.rows = rows;
  p.cols = cols;
  if (format.weight.kind == WeightKind::kFloat) {
    fill_floats(p, rows * cols, random);
    return p;
  }
  fill_random(p.codes, rows * p.body() / (format.weight.bits == 8 ? 1 : 2), random);
  fill_scales(p, random);
  fill_outliers(p, random);
  return p;
}

}  // namespace atom
