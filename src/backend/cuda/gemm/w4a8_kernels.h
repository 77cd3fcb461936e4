// The kernels of the w4a8 GEMM as host code sees them.
#pragma once

#include <cuda.h>

#include <span>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a8 {

struct Config {
  bool ping_pong;  // the warpgroups work on tiles of their own, one multiplying while the other ends
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
  const int32_t* x_sums;
  OutputArgs out;
  int capacity;
  int row_blocks;  // of the whole matrix
  Shape shape;
  SchedulePlan plan;
  int32_t* partials;  // [CTA][warpgroup][accumulators / 4][thread] int4
  uint32_t* flags;    // [CTA][warpgroup], zero between launches
};

// Channels of a CTA's tile.
constexpr int tile_rows(const Config& c) { return 64 * c.row_blocks * (c.ping_pong ? 1 : 2); }

inline constexpr int kMathThreads = 256;
// One producer warp; a whole warpgroup where registers are to be moved from it.
constexpr int threads(const Config& c) { return kMathThreads + (c.ctas == 1 ? 128 : 32); }

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
