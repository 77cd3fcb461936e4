// Queries, keys and values of new tokens on their way into the cache. All pointers are GPU memory.
#pragma once

#include <cuda_runtime_api.h>

#include "backend/cuda/attention/attention_kernels.h"

namespace atom::cuda {

// Up to 16 consecutive tokens of a batch, in 16 bytes: all that a CTA must know before it can ask
// for what it works on comes by one load. All tiles together are the batch's tokens, and tokens
// that fill a page are a tile.
inline constexpr int kRopeTileTokens = 16;
struct alignas(16) RopeTile {
  int32_t first = 0, count = 0;
  int32_t position = 0, slot = 0;  // of the first, the others' follow it; slot -1: they do not
};

// q/k norm, RoPE, minus the mean, Hadamard (docs/quantization.md, section 7); K and V into the
// pages.
struct RopeAppendParams {
  const void* qkv = nullptr;  // [T, (H + 2 KH) * DH]
  bool halves = false;        // of qkv; else floats
  float* q = nullptr;         // [T, H * DH]
  attention::CacheView cache;
  const int32_t* positions = nullptr;  // [T]
  const int32_t* slots = nullptr;      // [T] page * 16 + slot, or -1: the token is padding
  const RopeTile* tiles = nullptr;     // [tile_count]
  const float* cos_sin = nullptr;      // [positions, R / 2, 2]
  const float* q_norm = nullptr;       // [DH] or null
  const float* k_norm = nullptr;       // [DH] or null
  const float* k_mean = nullptr;       // [KH * DH] or null
  float norm_eps = 0;
  int tokens = 0, heads = 0, rotary_dim = 0;
  int tile_count = 0;     // 0: no tiles were made
  int bits = 0;           // of an integer cache's codes
  float hadamard = 0.0f;  // 1 / sqrt(DH), or 0: none
};
void launch_rope_append(const RopeAppendParams& params, cudaStream_t stream);
// The fast kernels of common head sizes; false where they do not serve the case.
bool launch_rope_append_registers(const RopeAppendParams& params, cudaStream_t stream);
// The same for batches of tiles.
bool launch_rope_append_tiles(const RopeAppendParams& params, cudaStream_t stream);

}  // namespace atom::cuda
