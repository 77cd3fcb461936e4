// The kernels of the w4a8 GEMM as host code sees them.
#pragma once

#include <span>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a8 {

struct Config {
  int row_blocks;  // of 64 channels, a warpgroup
  int tokens;      // of a tile
  int ctas;        // on a multiprocessor
  // Measured on an H200, for the choice: cycles of one block along K and of a tile's end, alone on
  // a multiprocessor.
  int block_cycles, end_cycles;
};

struct Params {
  const uint8_t* weights;
  const float* row_scales;
  const int8_t* x;
  const float* x_scales;
  const float* x_outlier_scales;
  const int32_t* x_sums;
  OutputArgs out;
  int capacity;
  int row_blocks;  // of the whole matrix
  Shape shape;
  SchedulePlan plan;
  int32_t* partials;  // [CTA][warpgroup][accumulators / 4][thread] int4
  uint32_t* flags;    // [CTA][warpgroup], zero between launches
};

inline constexpr int kMathThreads = 256;
// One producer warp; a whole warpgroup where registers are to be moved from it.
constexpr int threads(int ctas) { return kMathThreads + (ctas == 1 ? 128 : 32); }

// One tile shape for one output type.
struct KernelEntry {
  const char* name;
  Config config;
  const void* functions[3];  // for 1, 2 and 4 groups a block; null: not built
  int shared_bytes[3];
};

// Shapes for many and for few tokens; each function is a source file of its own.
std::span<const KernelEntry> large_f16();
std::span<const KernelEntry> large_bf16();
std::span<const KernelEntry> large_f32();
std::span<const KernelEntry> small_f16();
std::span<const KernelEntry> small_bf16();
std::span<const KernelEntry> small_f32();

}  // namespace atom::cuda::w4a8
