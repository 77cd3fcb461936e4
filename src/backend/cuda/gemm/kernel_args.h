// What host code hands to every GEMM kernel.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace atom::cuda {

// Where the products go: y [tokens, rows].
struct OutputArgs {
  CUtensorMap y_map;  // of y, in boxes of 128 bytes x a chunk of tokens (epilogue.cuh)
  bool by_copy;       // y_map is there, and stores or adds; else element by element
  void* y;
  const float* bias;
  int rows, tokens;
  bool accumulate;
};

// Tokens that leave a tile of `tokens` at once: all of a small tile, or else the largest of 64
// (only for 2-byte outputs), 32, 16 and so on that divides it.
constexpr int output_chunk(int tokens, int element_bytes) {
  const int most = element_bytes == 2 ? 64 : 32;
  if (tokens <= most) return tokens;
  int chunk = most;
  while (tokens % chunk != 0) chunk /= 2;
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
