// The GEMM kernels as host code sees them.
#pragma once

#include <span>

#include "backend/cuda/gemm/gemm_args.h"
#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::gemm {

struct Config {
  int warpgroups;
  int row_blocks;  // of 64 channels, a warpgroup
  int tokens;      // of a tile
  int ctas;        // on a multiprocessor
  int cluster;     // CTAs that share a tile along K
  int share;       // CTAs that share their activations
  int turns;       // warpgroups that share a tile's part along K
  int producers;   // warps that fill the ring
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
  const int32_t* x_sums;  // w4a8 and w8a8
  OutputArgs out;
  int capacity;
  int row_blocks;  // of the whole matrix
  // Of the next GEMM's weights each CTA asks for next_bytes, next_step behind those of the CTA
  // before it; 0: for none.
  const uint8_t* next;
  int64_t next_step;
  int next_bytes;
  w4a8::Shape shape;
  SchedulePlan plan;
  ExpertGroups
      experts;      // of the kernels for them; weights, row_scales and out.bias are theirs then
  void* partials;   // [CTA][warpgroup][accumulators / 4][thread] 16 bytes
  uint32_t* flags;  // [CTA][warpgroup], zero between launches
};

// Many sums need most of a multiprocessor's registers: the math warps take them from a producer
// warpgroup. Fewer leave room for the CTAs of the next kernel, or of the one before; so do two
// warpgroups that take turns. Three warpgroups with whole tiles leave none with 64 sums a thread
// and more, and the end of such a tile needs what there is. sums: rows of blocks times tokens.
constexpr bool moves_registers(int warpgroups, int ctas, int sums, int cluster, int turns) {
  const int few = warpgroups == 3 && cluster == 1 ? 32 : 96;
  return ctas == 1 && turns == 1 && sums > few;
}

// Math threads and producers' warps; a whole warpgroup where registers are to be moved from it.
constexpr int threads(const Config& c) {
  const bool moves =
      moves_registers(c.warpgroups, c.ctas, c.row_blocks * c.tokens, c.cluster, c.turns);
  return c.warpgroups * c.turns * 128 + (moves ? 128 : 32 * c.producers);
}

// One tile shape for one output type.
struct KernelEntry {
  const char* name;
  Config config;
  const void* functions[3];  // for 1, 2 and 4 groups a block; null: not built
  int shared_bytes[3];
};

}  // namespace atom::cuda::gemm

// The tables: every function is a source file of its own; few, medium and large are tokens.
namespace atom::cuda::w4a8 {
std::span<const gemm::KernelEntry> large_f16();
std::span<const gemm::KernelEntry> large_f32();
std::span<const gemm::KernelEntry> medium_f16();
std::span<const gemm::KernelEntry> few_f16();
std::span<const gemm::KernelEntry> medium_f32();
std::span<const gemm::KernelEntry> few_f32();
std::span<const gemm::KernelEntry> experts_f16();
std::span<const gemm::KernelEntry> experts_f32();
}  // namespace atom::cuda::w4a8
namespace atom::cuda::w8a8 {
std::span<const gemm::KernelEntry> tiles_f16();
std::span<const gemm::KernelEntry> tiles_f32();
std::span<const gemm::KernelEntry> experts_f16();
std::span<const gemm::KernelEntry> experts_f32();
}  // namespace atom::cuda::w8a8
namespace atom::cuda::w4a4 {
std::span<const gemm::KernelEntry> tiles_f16();
std::span<const gemm::KernelEntry> tiles_f32();
std::span<const gemm::KernelEntry> experts_f16();
std::span<const gemm::KernelEntry> experts_f32();
std::span<const gemm::KernelEntry> fp4_tiles_f16();
std::span<const gemm::KernelEntry> fp4_tiles_f32();
std::span<const gemm::KernelEntry> fp4_experts_f16();
std::span<const gemm::KernelEntry> fp4_experts_f32();
}  // namespace atom::cuda::w4a4
namespace atom::cuda::w4a16 {
std::span<const gemm::KernelEntry> large_f16();
std::span<const gemm::KernelEntry> large_f32();
std::span<const gemm::KernelEntry> small_f16();
std::span<const gemm::KernelEntry> small_f32();
std::span<const gemm::KernelEntry> experts_f16();
std::span<const gemm::KernelEntry> experts_f32();
}  // namespace atom::cuda::w4a16
