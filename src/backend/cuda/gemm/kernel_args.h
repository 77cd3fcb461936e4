// What host code hands to every GEMM kernel.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace atom::cuda {

// Where the products go: y [tokens, rows].
struct OutputArgs {
  CUtensorMap y_map;  // of y, in boxes of a chunk of tokens (epilogue.cuh)
  bool by_copy;       // y_map is there, and stores or adds; else element by element
  void* y;
  const float* bias;
  int rows, tokens;
  bool accumulate;
  bool gated;  // y = silu(gate) * up, halves, by copy; two rows of weights make one of its channels
  __host__ __device__ int weight_rows() const { return gated ? 2 * rows : rows; }
};

// Channels of y that a block of 64 rows of weights makes.
constexpr int output_channels(bool gated) { return gated ? 32 : 64; }

// Bytes of a token's channels in a box: of halves one box has them all, of floats two.
constexpr int box_row_bytes(bool gated) { return gated ? 64 : 128; }

// Tokens that leave a tile of `tokens` at once, each time behind barriers: all of a small tile, or
// else the largest multiple of eight that divides it, up to 64 (of 4-byte outputs 32).
constexpr int output_chunk(int tokens, int element_bytes) {
  int chunk = element_bytes == 2 ? 64 : 32;
  if (tokens <= chunk + chunk / 4) return tokens;
  while (tokens % chunk != 0) chunk -= 8;
  return chunk;
}

// How the tiles are shared out: see schedule.cuh.
struct SchedulePlan {
  int tiles_w = 0, tiles_t = 0;  // over weight rows and over tokens
  int blocks = 0;                // along K that may be split (outlier blocks go with the last)
  int ctas = 0;
  int whole_tiles = 0;  // the first ones
  int band = 1;         // token tiles visited side by side, while their activations stay in L2
  bool split = false;   // experts: tiles are counted on the GPU, so that whole_tiles is too
};

}  // namespace atom::cuda
