#include "backend/cpu/linear_weights.h"

#include <algorithm>

#include "base/parallel.h"
#include "tensor/packing.h"
#include "tensor/quantized_linear.h"

namespace atom::cpu {
namespace {

constexpr int kOutlierZero = 128;
// |weight| and |activation| codes are at most 128.
constexpr int64_t kMostChannels = INT32_MAX / (128 * 128);

template <class T>
bool copy_array(AlignedBuffer<T>& to, const std::vector<T>& from, HugePageArena& arena) {
  if (!to.allocate(static_cast<int64_t>(from.size()), &arena)) return false;
  std::copy(from.begin(), from.end(), to.data());
  return true;
}

// [N, G] row-major to [panel][group][16], converted by `convert`.
template <class To, class From, class Convert>
bool interleave(AlignedBuffer<To>& to, const std::vector<From>& from, int64_t rows, int64_t groups,
                Convert convert) {
  const int64_t panels = (rows + kPanelRows - 1) / kPanelRows;
  if (!to.allocate(panels * groups * kPanelRows)) return false;
  for (int64_t n = 0; n < rows; ++n) {
    for (int64_t g = 0; g < groups; ++g) {
      to[((n / kPanelRows) * groups + g) * kPanelRows + n % kPanelRows] =
          convert(from[static_cast<size_t>(n * groups + g)]);
    }
  }
  return true;
}

template <class T>
T same(T value) {
  return value;
}

int64_t byte_offset(int64_t row, int64_t k) { return (k / 4) * kStepBytes + row * 4 + k % 4; }
int64_t nibble_offset(int64_t row, int64_t k) { return (k / 8) * kStepBytes + row * 4 + k % 4; }
int nibble_shift(int64_t k) { return (k % 8) < 4 ? 0 : 4; }

}  // namespace

bool CpuLinear::repack_codes(const PackedLinear& packed, HugePageArena& arena) {
  const WeightFormat& w = format_.weight;
  body = packed.body();
  groups = packed.groups();
  group = w.group == 0 ? body : w.group;
  // Nibbles come in steps of eight channels that may not straddle groups; the rare group that is
  // no multiple of eight is kept in bytes.
  const bool four_bits = w.bits != 8, e2m1 = w.grid == CodeGrid::kE2M1;
  const bool nibbles = four_bits && group % 8 == 0;
  storage = !nibbles ? CodeStorage::kByte : e2m1 ? CodeStorage::kE2M1 : CodeStorage::kNibble;
  zero_point = two_level() ? 0 : e2m1 ? kE2M1ZeroPoint : four_bits ? 8 : 128;
  panel_bytes = nibbles ? body / 8 * kStepBytes : body / 4 * kStepBytes;
  if (!codes.allocate(panels() * panel_bytes, &arena)) return false;
  parallel_for(panels(), [&](int64_t p) {
    uint8_t* panel = codes.data() + p * panel_bytes;
    const int64_t end = std::min(rows_, (p + 1) * kPanelRows);
    for (int64_t n = p * kPanelRows; n < end; ++n) {
      const int64_t row = n % kPanelRows;
      const uint8_t* from = packed.codes.data() + n * (four_bits ? body / 2 : body);
      for (int64_t k = 0; k < body; ++k) {
        int code = 0;
        if (two_level() || storage == CodeStorage::kE2M1) {
          code = unsigned_nibble(from, k);
        } else if (four_bits) {
          code = grouped_nibble(w.grid, from, k) + zero_point;
        } else {
          code = static_cast<int8_t>(from[k]) + zero_point;
        }
        if (nibbles) {
          uint8_t& byte = panel[nibble_offset(row, k)];
          byte = static_cast<uint8_t>(byte | (code << nibble_shift(k)));
        } else {
          panel[byte_offset(row, k)] = static_cast<uint8_t>(code);
        }
      }
    }
  });
  return true;
}

bool CpuLinear::repack_scales(const PackedLinear& packed) {
  if (!two_level()) return interleave(scales, f16_scales(packed), rows_, groups, same<uint16_t>);
  return interleave(group_scales, packed.group_scales, rows_, groups, same<uint8_t>) &&
         interleave(group_zeros, packed.group_zeros, rows_, groups, same<int8_t>) &&
         interleave(row_scales, packed.row_scales, rows_, 1, f16_to_f32);
}

bool CpuLinear::repack_outliers(const PackedLinear& packed, HugePageArena& arena) {
  outliers = format_.weight.outliers;
  if (format_.weight.outlier_kind == OutlierKind::kFloat) {
    return copy_array(outlier_values, packed.outlier_values, arena);
  }
  if (format_.weight.outlier_kind == OutlierKind::kNone) return true;
  outlier_steps = (outliers + 3) / 4;
  if (!outlier_codes.allocate(panels() * outlier_steps * kStepBytes, &arena)) return false;
  for (int64_t n = 0; n < rows_; ++n) {
    uint8_t* panel = outlier_codes.data() + n / kPanelRows * outlier_steps * kStepBytes;
    for (int64_t k = 0; k < outliers; ++k) {
      panel[byte_offset(n % kPanelRows, k)] = static_cast<uint8_t>(
          packed.outlier_codes[static_cast<size_t>(n * outliers + k)] + kOutlierZero);
    }
  }
  return interleave(outlier_scales, two_level() ? packed.row_scales : packed.outlier_scales, rows_,
                    1, f16_to_f32);
}

Result<std::unique_ptr<CpuLinear>> CpuLinear::create(const PackedLinear& packed,
                                                     HugePageArena& arena) {
  std::unique_ptr<CpuLinear> linear(new CpuLinear(packed.format, packed.rows, packed.cols));
  bool fits =
      packed.bias.empty() || interleave(linear->bias, packed.bias, packed.rows, 1, same<float>);
  if (packed.format.weight.kind == WeightKind::kFloat) {
    fits = fits && copy_array(linear->values, packed.values, arena) &&
           copy_array(linear->values16, packed.values16, arena);
  } else {
    if (packed.cols > kMostChannels) {
      return error(ErrorCode::kUnsupported, "cols = {}: sums of more than {} products may overflow",
                   packed.cols, kMostChannels);
    }
    fits = fits && linear->repack_codes(packed, arena) && linear->repack_scales(packed) &&
           linear->repack_outliers(packed, arena);
  }
  if (!fits) {
    return error(ErrorCode::kOutOfMemory, "no memory for a linear of {} x {}", packed.rows,
                 packed.cols);
  }
  return linear;
}

int64_t CpuLinear::bytes() const {
  return codes.bytes() + scales.bytes() + group_scales.bytes() + group_zeros.bytes() +
         row_scales.bytes() + outlier_codes.bytes() + outlier_scales.bytes() + values.bytes() +
         values16.bytes() + outlier_values.bytes() + bias.bytes();
}

int CpuLinear::body_code(int64_t n, int64_t k) const {
  const uint8_t* panel = panel_codes(n / kPanelRows);
  const int64_t row = n % kPanelRows;
  if (storage == CodeStorage::kByte) return panel[byte_offset(row, k)] - zero_point;
  const int nibble = (panel[nibble_offset(row, k)] >> nibble_shift(k)) & 0xf;
  return storage == CodeStorage::kE2M1 ? e2m1_code(nibble) : nibble - zero_point;
}

void CpuLinear::dequantize_row(int64_t n, float* out) const {
  const WeightFormat& w = format_.weight;
  if (w.kind == WeightKind::kFloat) {
    if (w.dtype == DType::kF32) {
      std::copy_n(values.data() + n * cols_, cols_, out);
      return;
    }
    const uint16_t* from = values16.data() + n * cols_;
    for (int64_t k = 0; k < cols_; ++k) {
      out[k] = w.dtype == DType::kF16 ? f16_to_f32(from[k]) : bf16_to_f32(from[k]);
    }
    return;
  }
  const int64_t panel = n / kPanelRows, row = n % kPanelRows;
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t i = (panel * groups + g) * kPanelRows + row;
    const float scale = two_level() ? row_scales[n] : f16_to_f32(scales[i]);
    for (int64_t k = g * group; k < (g + 1) * group; ++k) {
      const int q = body_code(n, k);
      const int code = two_level() ? q * group_scales[i] + group_zeros[i] : q;
      out[k] = static_cast<float>(code) * scale;
    }
  }
  for (int64_t k = 0; k < outliers; ++k) {
    if (w.outlier_kind == OutlierKind::kFloat) {
      out[body + k] = f16_to_f32(outlier_values[n * outliers + k]);
    } else {
      const int code = panel_outliers(panel)[byte_offset(row, k)] - kOutlierZero;
      out[body + k] = static_cast<float>(code) * outlier_scales[n];
    }
  }
}

}  // namespace atom::cpu
