// The kernels of the w4a8 GEMM as host code sees them.
#pragma once

#include <cuda.h>

#include <span>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a8 {

struct Config {
  int row_blocks;  // of 64 channels, a warpgroup
  int tokens;      // of a tile
  int stages;
  int cluster;  // CTAs, neighbours along channels, that share x
  int ctas;     // on a multiprocessor
};

struct Params {
  CUtensorMap x_map;  // of x, when a cluster shares it
  const uint8_t* weights;
  const float* row_scales;
  const int8_t* x;
  const float* x_scales;
  const float* x_outlier_scales;
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
constexpr int threads(const Config& c) { return kMathThreads + (c.ctas == 1 ? 128 : 32); }

// One tile shape, compiled for several group counts and output types.
struct KernelEntry {
  const char* name;
  Config config;
  const void* functions[3][3];  // [1, 2, 4 groups a block][f16, bf16, f32]; null: not built
  int shared_bytes[3][3];
};

std::span<const KernelEntry> sm90a_kernels();

}  // namespace atom::cuda::w4a8
