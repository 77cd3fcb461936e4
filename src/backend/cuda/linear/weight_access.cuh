// Single weights and runs of 32 codes out of a WeightView.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backend/cuda/gemm/nvfp4_layout.h"
#include "backend/cuda/gemm/nvfp4_sm100a_layout.h"
#include "backend/cuda/gemm/w4a16_layout.h"
#include "backend/cuda/gemm/w4a4_layout.h"
#include "backend/cuda/gemm/w4a4_s4_layout.h"
#include "backend/cuda/linear/weight_view.h"
#include "tensor/packing.h"

namespace atom::cuda {

__device__ inline float half_bits(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

// Weight (n, k) out of the blocks of w4a16.
__device__ inline float w4a16_value(const WeightView& w, int n, int k) {
  const int row = n % w4a16::kBlockRows, in_block = k % w4a8::kBlockCols, groups = w.shape.groups;
  const uint8_t* block =
      w.codes +
      (static_cast<int64_t>(n / w4a16::kBlockRows) * w.shape.body_blocks + k / w4a8::kBlockCols) *
          w4a16::block_bytes(groups);
  const w4a16::Place place = w4a16::code_place(row % w4a8::kBlockRows, in_block % w4a16::kHalfCols);
  const uint32_t word = *reinterpret_cast<const uint32_t*>(
      block + w4a16::code_offset(in_block / w4a16::kHalfCols, row, groups) + place.byte);
  const int code = static_cast<int>(__funnelshift_r(word, word, place.bit) & 15) - w4a16::kZero;
  const uint8_t* scale = block + w4a16::scale_offset(in_block / (w4a8::kBlockCols / groups), row) +
                         w4a8::scale_place(row % w4a8::kBlockRows);
  return static_cast<float>(code) * half_bits(*reinterpret_cast<const uint16_t*>(scale)) *
         (w.row_scales[n] * w4a16::kLowUnit);
}

// What weight (n, k)'s code and its scale stand for, out of the blocks of nvfp4_sm100a.
__device__ inline float nvfp4_sm100a_value(const WeightView& w, int n, int k) {
  using namespace nvfp4_sm100a;
  const int row = n % kBlockRows;
  const bool in_body = k < w.body;
  const int at = in_body ? k : k - w.body, width = in_body ? w4a8::kBlockCols : w4a8::kOutlierCols;
  const int in_block = at % width;
  const int block = at / width + (in_body ? 0 : w.shape.body_blocks);
  const uint8_t* bytes =
      w.codes + (static_cast<int64_t>(n / kBlockRows) * w.shape.blocks() + block) * kBlockBytes;
  if (!in_body) return static_cast<int8_t>(bytes[row_byte(row, in_block)]);
  const int nibble = bytes[row_byte(row, in_block / 2)] >> (in_block % 2 * 4) & 15;
  return static_cast<float>(e2m1_code(nibble)) *
         e4m3_value(bytes[kCodeBytes + scale_byte(row, in_block / nvfp4::kGroup)]);
}

// Weight (n, k) out of the other blocks of a GEMM: what the codes and their scales stand for, an
// outlier's, two-level or INT8 code times 1.
__device__ inline float blocked_value(const WeightView& w, int n, int k) {
  const int row = n % w4a8::kBlockRows;
  const uint8_t* blocks = w.codes + static_cast<int64_t>(n / w4a8::kBlockRows) * w.shape.blocks() *
                                        w.shape.block_bytes();
  const bool in_body = k < w.body;
  const int at = in_body ? k : k - w.body;
  const int width = in_body ? w4a8::kBlockCols : w4a8::kOutlierCols;
  const int in_block = at % width;
  const uint8_t* block =
      blocks + ((in_body ? 0 : w.shape.body_blocks) + at / width) * w.shape.block_bytes();
  const w4a8::Place p = w4a8::fragment_place(row, in_block);
  const int step = in_block / 32;
  if (w.shape.wide) return static_cast<int8_t>(block[w4a8::wide_place(row, in_block)]);
  if (!in_body) {
    return static_cast<int8_t>(
        block[step * 2048 + p.thread * 16 + (2 * p.col_half + p.row_half) * 4 + p.byte]);
  }
  const uint8_t* word = block + step / 2 * 2048 + p.thread * 16 + (2 * (step % 2) + p.row_half) * 4;
  const uint8_t* scale = block + w4a8::kScaleOffset +
                         in_block / (w4a8::kBlockCols / w.shape.groups) * w4a8::kScaleBytes +
                         w4a8::scale_place(row);
  if (w.layout == LinearLayout::kW4A8) {
    const int code = word[p.byte] >> (4 * p.col_half) & 15;
    return static_cast<float>(code * scale[0] + scale[1] - 128);
  }
  int code = 0;
  if (w.layout == LinearLayout::kW4A4) {
    const uint32_t codes = *reinterpret_cast<const uint32_t*>(word);
    code = w.format.grid == CodeGrid::kE2M1
               ? e2m1_code(w4a4::e2m1_bits_in(codes, p.byte, p.col_half))
               : w4a4::code_in(codes, p.byte, p.col_half);
  } else {
    const w4a4_s4::NibblePlace place = w4a4_s4::weight_place(row, in_block);
    const int nibble = block[place.byte] >> place.shift & 15;
    code = w.format.grid == CodeGrid::kE2M1 ? e2m1_code(nibble) : (nibble ^ 8) - 8;
    if (w.layout == LinearLayout::kNvFp4) {
      return static_cast<float>(code) *
             e4m3_value(block[nvfp4::weight_scale_place(row, in_block / nvfp4::kGroup)]);
    }
  }
  return static_cast<float>(code) * half_bits(*reinterpret_cast<const uint16_t*>(scale));
}

__device__ inline int signed_code(const WeightView& w, int n, int k) {
  if (w.format.bits == 8) return static_cast<int8_t>(w.codes[static_cast<int64_t>(n) * w.body + k]);
  const int byte = w.codes[static_cast<int64_t>(n) * (w.body / 2) + k / 2];
  return ((byte >> (4 * (k % 2)) & 15) ^ 8) - 8;
}

// What the weight stands for; a float holds it exactly.
__device__ inline float weight_value(const WeightView& w, int n, int k) {
  const int64_t at = static_cast<int64_t>(n) * w.cols + k;
  if (w.format.kind == WeightKind::kFloat) {
    if (w.format.dtype == DType::kF32) return static_cast<const float*>(w.values)[at];
    const uint16_t bits = static_cast<const uint16_t*>(w.values)[at];
    return w.format.dtype == DType::kF16 ? half_bits(bits)
                                         : __uint_as_float(static_cast<uint32_t>(bits) << 16);
  }
  const bool two_level = w.format.kind == WeightKind::kTwoLevel;
  if (w.layout == LinearLayout::kW4A16) return w4a16_value(w, n, k);
  if (w.layout != LinearLayout::kRows) {
    if (has_e4m3_scales(w.layout)) {
      const int64_t at = k < w.body ? n : n + nvfp4::outlier_scale_offset(w.rows);
      return (w.layout == LinearLayout::kNvFp4 ? blocked_value(w, n, k)
                                               : nvfp4_sm100a_value(w, n, k)) *
             w.row_scales[at];
    }
    return blocked_value(w, n, k) *
           (two_level || w.shape.wide || k >= w.body ? w.row_scales[n] : 1.0f);
  }
  if (k >= w.body) {
    const int column = k - w.body;
    if (w.format.outlier_kind == OutlierKind::kFloat) {
      return half_bits(w.outlier_values[static_cast<int64_t>(n) * w.format.outliers + column]);
    }
    const int code = w.outlier_codes[static_cast<int64_t>(n) * w.outlier_stride + column];
    return static_cast<float>(code) * (two_level ? w.row_scales[n] : w.outlier_scales[n]);
  }
  const int64_t group = static_cast<int64_t>(n) * (w.body / w.group) + k / w.group;
  if (!two_level) return static_cast<float>(signed_code(w, n, k)) * half_bits(w.scales[group]);
  const int q = w.codes[static_cast<int64_t>(n) * (w.body / 2) + k / 2] >> (4 * (k % 2)) & 15;
  return static_cast<float>(q * w.group_scales[group] + w.group_zeros[group]) * w.row_scales[n];
}

}  // namespace atom::cuda
