// Weights in the order the kernels read them.
//
// Rows go into panels of 16, one row a 32-bit lane of a 512-bit vector (or of two 256-bit ones).
// Byte panels, steps of four channels; code + zero point, an unsigned byte:
//
//     step j:   | row 0: 4j 4j+1 4j+2 4j+3 | row 1: 4j .. 4j+3 | ... | row 15: 4j .. 4j+3 |   64 B
//
// Sixteen consecutive steps are also an AMX tile (16 rows x 64 channels). Nibble panels, steps of
// eight channels: byte i of row r holds channel 8j + i in its low half, 8j + 4 + i in its high
// half.
//
//     step j:   | row 0: (8j | 8j+4) (8j+1 | 8j+5) .. (8j+3 | 8j+7) | row 1 ... | row 15 |     64 B
//
// Nibbles of E2M1 are its bits, which a kernel looks up in a table of the codes + zero point.
//
// A panel's scales stand group by group, 16 rows together. Rows past N are zero.
#pragma once

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/kernels.h"
#include "ops/backend.h"

namespace atom::cpu {

class CpuLinear final : public LinearWeights {
 public:
  // Repacks into the arena's memory. Fails for shapes whose integer sums could leave int32, and
  // when memory is short.
  static Result<std::unique_ptr<CpuLinear>> create(const PackedLinear& packed,
                                                   HugePageArena& arena);

  const LinearFormat& format() const override { return format_; }
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override;

  int64_t panels() const { return (rows_ + kPanelRows - 1) / kPanelRows; }
  bool two_level() const { return format_.weight.kind == WeightKind::kTwoLevel; }
  const uint8_t* panel_codes(int64_t panel) const { return codes.data() + panel * panel_bytes; }
  const uint8_t* panel_outliers(int64_t panel) const {
    return outlier_codes.data() + panel * outlier_steps * kStepBytes;
  }

  // Row n as floats, [K] in packed column order.
  void dequantize_row(int64_t n, float* out) const;

  // --- integer formats
  CodeStorage storage = CodeStorage::kNone;
  int zero_point = 0;  // what was added, or is by the table, to a body code to make it unsigned
  int64_t body = 0;    // Kb
  int64_t group = 0;   // body channels under one scale
  int64_t groups = 0;  // Kb / group
  int64_t panel_bytes = 0;
  int64_t outliers = 0;                  // Ko
  int64_t outlier_steps = 0;             // ceil(Ko / 4) when they are INT8
  AlignedBuffer<uint8_t> codes;          // [panel][step][64]
  AlignedBuffer<uint16_t> scales;        // kGrouped: F16 [panel][group][16]
  AlignedBuffer<uint8_t> group_scales;   // kTwoLevel: [panel][group][16]
  AlignedBuffer<int8_t> group_zeros;     // kTwoLevel: [panel][group][16]
  AlignedBuffer<float> row_scales;       // kTwoLevel: [panel][16]
  AlignedBuffer<uint8_t> outlier_codes;  // INT8, code + 128: [panel][step][64]
  AlignedBuffer<float> outlier_scales;   // INT8: [panel][16]; kTwoLevel: the row scales

  // --- floats, row-major
  AlignedBuffer<float> values;             // kF32: [N, K]
  AlignedBuffer<uint16_t> values16;        // kF16, kBF16: [N, K]
  AlignedBuffer<uint16_t> outlier_values;  // float outliers: F16 [N, Ko]

  AlignedBuffer<float> bias;  // [panel][16] or empty

 private:
  CpuLinear(const LinearFormat& format, int64_t rows, int64_t cols)
      : format_(format), rows_(rows), cols_(cols) {}
  bool repack_codes(const PackedLinear& packed, HugePageArena& arena);
  bool repack_scales(const PackedLinear& packed);
  bool repack_outliers(const PackedLinear& packed, HugePageArena& arena);
  int body_code(int64_t n, int64_t k) const;

  LinearFormat format_;
  int64_t rows_, cols_;
};

}  // namespace atom::cpu
