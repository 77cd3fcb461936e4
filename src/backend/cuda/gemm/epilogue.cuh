// From wgmma's accumulators to rows of y. A warpgroup's tile is 64 output channels x kTokens tokens
// with the tokens in the registers' columns, so that y's rows (tokens) are gathered through shared
// memory, kChunk tokens at a time: y[token][channel 0..63] leaves in 16-byte pieces.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda {

template <class Out>
struct EpilogueTile {
  static constexpr int kChunk = sizeof(Out) == 2 ? 64 : 32;
  static constexpr int kRowBytes = 64 * sizeof(Out) + 16;  // padded against bank conflicts
  static constexpr int kBytes = kChunk * kRowBytes;        // of one warpgroup
};

template <class Out>
__device__ Out from_float(float value) {
  if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(value);
  if constexpr (std::is_same_v<Out, __nv_bfloat16>) return __float2bfloat16_rn(value);
  if constexpr (std::is_same_v<Out, float>) return value;
}
template <class Out>
__device__ float to_float(Out value) {
  return static_cast<float>(value);
}

template <class Out>
__device__ uint32_t pack_pair(float low, float high) {
  if constexpr (std::is_same_v<Out, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

// Copies kCount staged tokens to y; thread: 0..127 of the warpgroup.
template <class Out, int kCount>
__device__ void write_rows(const uint8_t* staged, const OutputArgs& out, int row0, int token0,
                           int thread) {
  constexpr int kPiece = 16 / sizeof(Out);     // elements of a 16-byte piece
  constexpr int kPieces = 64 / kPiece;         // of a token
  constexpr int kAtOnce = 128 / kPieces;       // tokens
  const bool wide = out.rows % kPiece == 0 && row0 + 64 <= out.rows && !out.accumulate;
  auto* y = static_cast<Out*>(out.y);
#pragma unroll
  for (int i = 0; i < (kCount + kAtOnce - 1) / kAtOnce; ++i) {
    const int token = i * kAtOnce + thread / kPieces, piece = thread % kPieces;
    if (token >= kCount || token0 + token >= out.tokens) continue;
    const uint8_t* from = staged + token * EpilogueTile<Out>::kRowBytes + piece * 16;
    const int row = row0 + piece * kPiece;
    Out* to = y + static_cast<int64_t>(token0 + token) * out.rows + row;
    if (wide) {
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
      continue;
    }
    for (int e = 0; e < kPiece && row + e < out.rows; ++e) {
      Out value = reinterpret_cast<const Out*>(from)[e];
      if (out.accumulate) value = from_float<Out>(to_float(to[e]) + to_float(value));
      to[e] = value;
    }
  }
}

// values: the accumulators as floats, already scaled; word 4j + 2h + i is channel l/4 + 8h of the
// warp's 16, token 8j + 2(l%4) + i. `staging`: EpilogueTile<Out>::kBytes of this warpgroup's own.
template <class Out, int kTokens>
__device__ void store_tile(const float (&values)[kTokens / 2], uint8_t* staging,
                           const OutputArgs& out, int row0, int token0, int thread,
                           int barrier_id) {
  using Tile = EpilogueTile<Out>;
  constexpr int kChunk = kTokens < Tile::kChunk ? kTokens : Tile::kChunk;
  const int warp = thread / 32, lane = thread % 32;
#pragma unroll
  for (int chunk = 0; chunk < kTokens / kChunk; ++chunk) {
    if (token0 + chunk * kChunk >= out.tokens) break;
    ptx::named_sync(barrier_id, 128);  // the previous chunk has been read
    if constexpr (sizeof(Out) == 2) {
      const uint32_t base = ptx::shared_address(staging);
#pragma unroll
      for (int j = 0; j < kChunk / 8; j += 2) {
        // With 8 tokens in all, the second pair of matrices repeats the first.
        const int second = kChunk >= 16 ? 4 : 0;
        const float* v = &values[chunk * (kChunk / 2) + j * 4];
        const uint32_t m[4] = {pack_pair<Out>(v[0], v[1]), pack_pair<Out>(v[2], v[3]),
                               pack_pair<Out>(v[second], v[second + 1]),
                               pack_pair<Out>(v[second + 2], v[second + 3])};
        const int matrix = lane / 8;
        const int token = j * 8 + (matrix / 2) * (2 * second) + lane % 8;
        ptx::store_matrix_transposed(
            base + token * Tile::kRowBytes + (warp * 16 + (matrix % 2) * 8) * 2, m);
      }
    } else {
#pragma unroll
      for (int e = 0; e < kChunk / 2; ++e) {
        const int token = e / 4 * 8 + 2 * (lane % 4) + e % 2;
        const int row = warp * 16 + lane / 4 + 8 * (e / 2 % 2);
        *reinterpret_cast<float*>(staging + token * Tile::kRowBytes + row * 4) =
            values[chunk * (kChunk / 2) + e];
      }
    }
    ptx::named_sync(barrier_id, 128);
    write_rows<Out, kChunk>(staging, out, row0, token0 + chunk * kChunk, thread);
  }
}

}  // namespace atom::cuda
