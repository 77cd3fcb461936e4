// What a GEMM of a quantized linear works on.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cuda/gemm/w4a8_layout.h"
#include "backend/cuda/linear/weight_view.h"
#include "tensor/dtype.h"

namespace atom::cuda {

enum class GemmFormat : uint8_t {
  kW4A8,   // two-level weights, INT8 activations (w4a8_layout.h)
  kW8A8,   // INT8 weights, one scale a row, INT8 activations (w4a8_layout.h, wide blocks)
  kW4A4,   // weights and activations of at most 4 bits in groups (w4a4_layout.h)
  kFp4,    // as kW4A4 with weights of E2M1
  kW4A16,  // weights of at most 4 bits in groups, halves as activations (w4a16_layout.h)
};
// Whether blocks are those of w4a4_layout.h.
constexpr bool has_group_scales(GemmFormat format) {
  return format == GemmFormat::kW4A4 || format == GemmFormat::kFp4;
}

// y [tokens, rows] (row stride rows) = x * w^T, or += with accumulate; gated: y [tokens, rows / 2]
// = silu(x * gate^T) * (x * up^T), of weights in the order of pack_weights.h. All pointers are GPU
// memory.
struct GemmArgs {
  GemmFormat format = GemmFormat::kW4A8;
  int64_t rows = 0;      // N
  int64_t tokens = 0;    // M
  int64_t capacity = 0;  // tokens the activation buffers are laid out for, a multiple of 256
  w4a8::Shape shape;     // K
  const uint8_t* weights = nullptr;  // blocks, with the scales of groups
  // [rows, padded to 64]; w4a4: of the outliers; nvfp4: units, then as many of the outliers
  const float* row_scales = nullptr;
  const int8_t* x = nullptr;  // blocks; w4a16: of halves
  // [capacity] (nvfp4: units); w4a4: [body blocks * groups][capacity]; w4a16: null.
  const float* x_scales = nullptr;
  const float* x_outlier_scales = nullptr;  // [capacity], null without outliers
  const int32_t* x_sums = nullptr;          // w4a8, w8a8: [capacity] sum of a token's body codes
  const float* bias = nullptr;              // [rows] or null
  void* y = nullptr;
  DType y_type = DType::kF16;  // kF16 or kF32
  bool accumulate = false;
  bool gated = false;  // of F16, not with accumulate
  // Scratch shared by all launches on one stream: gemm_workspace_bytes(), zeroed once.
  void* workspace = nullptr;
  // Weights that the stream's next GEMM will read, or none: few tokens' kernels ask for part of
  // them once their own are on the way.
  std::span<const uint8_t> next = {};
};

// A GEMM for each expert of a mixture, in one launch: tokens offsets[e] .. offsets[e + 1] - 1 of x
// and y meet w[e]. The tokens of all are GemmArgs::tokens, whose own weights do not count.
struct ExpertGroups {
  const WeightView* w = nullptr;     // [count] in GPU memory: blocks of one format and shape
  const int32_t* offsets = nullptr;  // [count + 1] in GPU memory
  int count = 0;
  int64_t most_tokens = 0;  // that one expert can have
};

// Tiles of tokens may begin where the places of codes and scales repeat. An expert's first tile
// begins with up to so many, less one, tokens of the expert before it, which it does not write.
constexpr int token_step(GemmFormat format) { return has_group_scales(format) ? 16 : 8; }

// Bytes of a token's activations that meet a block of weights.
constexpr int64_t act_bytes(GemmFormat format) {
  return (format == GemmFormat::kW4A16 ? 2 : 1) * int64_t{w4a8::kActBlockBytes};
}

}  // namespace atom::cuda
