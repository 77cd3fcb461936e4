// Brings weights from the checkpoint's layout into the kernels' order, on the host, while loading.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "base/status.h"
#include "tensor/joined_rows.h"
#include "tensor/packed_linear.h"

namespace atom::cuda {

// Makes the blocks of a linear where they are wanted, a row block at a time, of 64 or 128 rows as
// the layout has it. The linear's parts must outlive it.
struct BlockPacker {
  int64_t row_blocks = 0;
  int64_t row_block_bytes = 0;
  // Writes every byte of row block i; several threads may do so for different ones.
  std::function<void(int64_t i, uint8_t* to)> pack;
  // [rows, padded to 64], 0 in the padding: of whole rows (w4a8, w8a8, w4a16) or of their outliers
  // (w4a4).
  std::vector<float> row_scales;
};

// A GEMM that gates wants gate_proj's and up_proj's rows in turns of so many (epilogue.cuh): to be
// brought into this order before they are packed.
inline constexpr int64_t kGateRun = 8;

// Blocks along K of a linear with `cols` input channels.
w4a8::Shape w4a8_shape(const WeightFormat& format, int64_t cols);

// The power of two that takes the largest scale of a row to 2^14 or more, below 2^15. REQUIRES:
// kGrouped.
int scale_exponent(const PackedLinear& linear, int64_t row);

// kTwoLevel weights with a group of 32, 64 or a multiple of 128, outliers none or INT8.
Result<BlockPacker> pack_w4a8(const JoinedRows& linear);
// kGrouped weights of 8 bits with one scale a row and no outliers.
Result<BlockPacker> pack_w8a8(const JoinedRows& linear);
// kGrouped weights of at most 4 bits that take activations of at most 4 bits; groups and outliers
// as above.
Result<BlockPacker> pack_w4a4(const JoinedRows& linear);
// The same in w4a4_s4_layout.h; groups of multiples of 128 only.
Result<BlockPacker> pack_w4a4_s4(const JoinedRows& linear);
// kGrouped weights and activations of E2M1 under E4M3 scales, groups of 16 or a multiple of it;
// outliers as above. row_scales: units, then those of the outliers.
Result<BlockPacker> pack_nvfp4(const JoinedRows& linear);
// The same in nvfp4_sm100a_layout.h.
Result<BlockPacker> pack_nvfp4_sm100a(const JoinedRows& linear);
// kGrouped weights of at most 4 bits without outliers that take float activations; groups as above.
Result<BlockPacker> pack_w4a16(const JoinedRows& linear);

}  // namespace atom::cuda
