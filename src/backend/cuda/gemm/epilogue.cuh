// From wgmma's accumulators to rows of y. A warpgroup's tile is 64 output channels x kTokens tokens
// with the tokens in the registers' columns, so that y's rows (tokens) are gathered through shared
// memory, kChunk tokens at a time: y[token][channel 0..63] leaves in 16-byte pieces.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda {

template <class Out, int kTokens>
struct EpilogueTile {
  static constexpr int kChunk = output_chunk(kTokens, sizeof(Out));
  static constexpr int kChunks = kTokens / kChunk;
  static constexpr int kBuffers = kChunks < 3 ? kChunks : 3;
  static constexpr int kBoxes = sizeof(Out) / 2;  // of 128 bytes of channels
  static constexpr int kBoxBytes = kChunk * 128;
  static constexpr int kBufferBytes = kBoxes * kBoxBytes;  // of one chunk
  static constexpr int kBytes = kBuffers * kBufferBytes;   // of one warpgroup

  // Byte of a chunk's value: 128-byte rows of a token under the 128-byte swizzle, as the copy
  // engine wants them and stmatrix writes them without bank conflicts.
  __device__ static int place(int token, int channel) {
    const int byte = channel * static_cast<int>(sizeof(Out));
    return byte / 128 * kBoxBytes + token * 128 + ((byte / 16 % 8) ^ (token % 8)) * 16 + byte % 16;
  }
};

template <class Out>
__device__ Out from_float(float value) {
  if constexpr (std::is_same_v<Out, __half>) return __float2half_rn(value);
  if constexpr (std::is_same_v<Out, float>) return value;
}
template <class Out>
__device__ float to_float(Out value) {
  return static_cast<float>(value);
}

__device__ inline uint32_t pack_pair(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// The tokens of y that a tile may write.
struct TokenRange {
  int first, end;
  __device__ bool contains(int token) const { return token >= first && token < end; }
};

// Copies a staged chunk to y 16 bytes at a time: a chunk whose tokens are not all the tile's.
template <class Out, int kTokens>
__device__ void write_pieces(const uint8_t* staged, const OutputArgs& out, const TokenRange& range,
                             int row0, int token0, int thread) {
  using Tile = EpilogueTile<Out, kTokens>;
  constexpr int kWidth = 16 / static_cast<int>(sizeof(Out)), kPieces = 64 / kWidth;
  auto* y = static_cast<Out*>(out.y);
  for (int i = thread; i < Tile::kChunk * kPieces; i += 128) {
    const int token = token0 + i / kPieces, row = row0 + i % kPieces * kWidth;
    if (!range.contains(token) || row >= out.rows) continue;
    *reinterpret_cast<uint4*>(y + static_cast<int64_t>(token) * out.rows + row) =
        *reinterpret_cast<const uint4*>(staged + Tile::place(i / kPieces, i % kPieces * kWidth));
  }
}

// Copies a staged chunk to y element by element: ragged channels, or y += without box copies.
template <class Out, int kTokens>
__device__ void write_slowly(const uint8_t* staged, const OutputArgs& out, const TokenRange& range,
                             int row0, int token0, int thread) {
  using Tile = EpilogueTile<Out, kTokens>;
  auto* y = static_cast<Out*>(out.y);
  for (int i = thread; i < Tile::kChunk * 64; i += 128) {
    const int token = token0 + i / 64, row = row0 + i % 64;
    if (!range.contains(token) || row >= out.rows) continue;
    Out value = *reinterpret_cast<const Out*>(staged + Tile::place(i / 64, i % 64));
    Out* to = y + static_cast<int64_t>(token) * out.rows + row;
    if (out.accumulate) value = from_float<Out>(to_float(*to) + to_float(value));
    *to = value;
  }
}

// values: the accumulators as floats, already scaled; word 4j + 2h + i is channel l/4 + 8h of the
// warp's 16, token 8j + 2(l%4) + i. `staging`: EpilogueTile::kBytes of this warpgroup's own, whose
// last use is in bulk stores of the same threads. The copy engine carries the rows to y
// while the caller goes on. kPart: the range may begin inside the tile, or end before y does.
template <class Out, int kTokens, bool kPart>
__device__ void store_tile(const float (&values)[kTokens / 2], uint8_t* staging,
                           const OutputArgs& out, const TokenRange& range, int row0, int token0,
                           int thread, int barrier_id) {
  using Tile = EpilogueTile<Out, kTokens>;
  const int warp = thread / 32, lane = thread % 32;
  ptx::bulk_store_wait_read<0>();
  ptx::named_sync(barrier_id, 128);
#pragma unroll
  for (int chunk = 0; chunk < Tile::kChunks; ++chunk) {
    const int chunk_token = token0 + chunk * Tile::kChunk;
    if (chunk_token >= range.end || row0 >= out.rows) break;
    const bool whole =
        !kPart || (chunk_token >= range.first && chunk_token + Tile::kChunk <= range.end);
    uint8_t* buffer = staging + chunk % Tile::kBuffers * Tile::kBufferBytes;
    if (chunk >= Tile::kBuffers) {
      ptx::bulk_store_wait_read<Tile::kBuffers - 1>();
      ptx::named_sync(barrier_id, 128);
    }
    if constexpr (sizeof(Out) == 2) {
      const uint32_t base = ptx::shared_address(buffer);
#pragma unroll
      for (int j = 0; j < Tile::kChunk / 8; ++j) {
        const float* v = &values[chunk * (Tile::kChunk / 2) + j * 4];
        const int token = j * 8 + lane % 8;
        ptx::store_matrix_transposed(base + Tile::place(token, warp * 16 + lane / 8 % 2 * 8),
                                     pack_pair(v[0], v[1]), pack_pair(v[2], v[3]));
      }
    } else {
#pragma unroll
      for (int e = 0; e < Tile::kChunk / 2; ++e) {
        const int token = e / 4 * 8 + 2 * (lane % 4) + e % 2;
        const int row = warp * 16 + lane / 4 + 8 * (e / 2 % 2);
        *reinterpret_cast<float*>(buffer + Tile::place(token, row)) =
            values[chunk * (Tile::kChunk / 2) + e];
      }
    }
    if (out.by_copy) ptx::fence_to_copies();
    ptx::named_sync(barrier_id, 128);
    if (!out.by_copy || !whole) {
      if (out.by_copy) {
        write_pieces<Out, kTokens>(buffer, out, range, row0, chunk_token, thread);
      } else {
        write_slowly<Out, kTokens>(buffer, out, range, row0, chunk_token, thread);
      }
      if (Tile::kChunks > Tile::kBuffers) ptx::named_sync(barrier_id, 128);
    } else if (thread == 0) {
#pragma unroll
      for (int box = 0; box < Tile::kBoxes; ++box) {
        const int row = row0 + box * (64 / Tile::kBoxes);
        const uint32_t from = ptx::shared_address(buffer + box * Tile::kBoxBytes);
        if (out.accumulate) {
          ptx::box_add(&out.y_map, row, chunk_token, from);
        } else {
          ptx::box_store(&out.y_map, row, chunk_token, from);
        }
      }
    }
    ptx::bulk_store_commit();
  }
}

}  // namespace atom::cuda
