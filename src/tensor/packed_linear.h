// One linear's weights in the backend-neutral layout of the Atom checkpoint: what the quantizer
// makes, docs/checkpoint.md describes, and every backend repacks while loading.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "tensor/formats.h"

namespace atom {

// N rows (output channels), K columns (input channels): body columns, then outlier columns.
// Only the arrays that the format calls for are filled; the others are empty.
struct PackedLinear {
  LinearFormat format;
  int64_t rows = 0;  // N
  int64_t cols = 0;  // K

  // kFloat
  std::vector<float> values;       // [N, K] when format.weight.dtype is kF32
  std::vector<uint16_t> values16;  // [N, K] bit patterns when it is kF16 or kBF16

  // kGrouped and kTwoLevel body. 3- and 4-bit codes: two a byte, low nibble first.
  //   kGrouped   signed two's complement nibbles, or E2M1's bits; 8-bit codes a byte each
  //   kTwoLevel  unsigned 0..15
  std::vector<uint8_t> codes;  // [N, Kb/2], or [N, Kb] for 8 bits
  //   scales of GroupScales::kE4M3: group_scales, bits of E4M3, times row_scales, powers of two
  std::vector<uint16_t> scales;       // kGrouped: F16 [N, Kb/G], unless they are E4M3
  std::vector<uint8_t> group_scales;  // kTwoLevel: [N, Kb/G], 1..16; E4M3: 0 .. kMostE4M3Bits
  std::vector<int8_t> group_zeros;    // kTwoLevel: [N, Kb/G]; 0 <= q*s + z + 128 <= 255 for q 0..15
  std::vector<uint16_t> row_scales;   // kTwoLevel and E4M3: F16 [N]

  // Outlier columns
  std::vector<int8_t> outlier_codes;     // kInt8: [N, Ko]; kTwoLevel: on the row's own grid
  std::vector<uint16_t> outlier_scales;  // kInt8 with kGrouped: F16 [N]
  std::vector<uint16_t> outlier_values;  // kFloat outliers: F16 [N, Ko]

  std::vector<float> bias;  // [N] or empty

  int64_t body() const { return body_channels(format.weight, cols); }
  int64_t groups() const { return group_count(body(), format.weight.group); }
  // Bytes of all arrays.
  int64_t bytes() const;
};

// Checks every array's size and every value's range (scales finite, group scales 1..16, expanded
// codes within int8); errors name the array. What passes cannot make a backend misbehave.
Status validate(const PackedLinear& linear);

// The real value of every weight, [N, K] in the packed column order: for the ref backend and tests.
void dequantize(const PackedLinear& linear, std::span<double> out);

// A float linear: dtype kF32, copied from values [rows, cols].
PackedLinear make_float_linear(std::span<const float> values, int64_t rows, int64_t cols);

}  // namespace atom
