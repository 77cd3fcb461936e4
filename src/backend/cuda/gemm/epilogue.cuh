// From wgmma's accumulators to rows of y. A warpgroup's tile is 64 output channels x kTokens tokens
// with the tokens in the registers' columns, so that y's rows (tokens) are gathered through shared
// memory, kChunk tokens at a time: y[token][channel 0..63] leaves in 16-byte pieces.
//
// Where y is silu(gate) * up, the weights' rows come as packed by pack_weights.h: of each 16 rows
// of a warp eight are gates and the eight behind them their ups, so that a thread has both sums,
// and a tile makes 32 channels of y.
//
//   row of the warp's 16    0..7: gate of channels 8w..8w+7    8..15: up of the same
//   thread l's sums         (l/4, token)                       (l/4 + 8, token)
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/gemm/kernel_args.h"
#include "backend/cuda/ptx/sync.cuh"

namespace atom::cuda {

// kGated: of y = silu(gate) * up, which is of halves.
template <class Out, int kTokens, bool kGated = false>
struct EpilogueTile {
  static constexpr int kChannels = output_channels(kGated);
  static constexpr int kChunk = output_chunk(kTokens, sizeof(Out));
  static constexpr int kChunks = kTokens / kChunk;
  static constexpr int kRowBytes = box_row_bytes(kGated);  // of a token in a box
  static constexpr int kBoxes = kChannels * static_cast<int>(sizeof(Out)) / kRowBytes;
  static constexpr int kBoxBytes = kChunk * kRowBytes;
  static constexpr int kBufferBytes = kBoxes * kBoxBytes;  // of one chunk
  // As many chunks as lie in shared memory at a time; gated ones are half as large.
  static constexpr int kMostBuffers = kGated ? 6 : 3;
  static constexpr int kBuffers = kChunks < kMostBuffers ? kChunks : kMostBuffers;
  static constexpr int kBytes = kBuffers * kBufferBytes;  // of one warpgroup

  // Byte of a chunk's value: rows of a token under the swizzle of as many bytes, as the copy engine
  // wants them and stmatrix writes them without bank conflicts.
  __device__ static int place(int token, int channel) {
    constexpr int kPieces = kRowBytes / 16;
    const int byte = channel * static_cast<int>(sizeof(Out));
    return byte / kRowBytes * kBoxBytes + token * kRowBytes +
           ((byte / 16 % kPieces) ^ (token * kRowBytes / 128 % kPieces)) * 16 + byte % 16;
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
template <class Out, class Tile>
__device__ void write_pieces(const uint8_t* staged, const OutputArgs& out, const TokenRange& range,
                             int row0, int token0, int thread) {
  constexpr int kWidth = 16 / static_cast<int>(sizeof(Out)), kPieces = Tile::kChannels / kWidth;
  auto* y = static_cast<Out*>(out.y);
  for (int i = thread; i < Tile::kChunk * kPieces; i += 128) {
    const int token = token0 + i / kPieces, row = row0 + i % kPieces * kWidth;
    if (!range.contains(token) || row >= out.rows) continue;
    *reinterpret_cast<uint4*>(y + static_cast<int64_t>(token) * out.rows + row) =
        *reinterpret_cast<const uint4*>(staged + Tile::place(i / kPieces, i % kPieces * kWidth));
  }
}

// Copies a staged chunk to y element by element: ragged channels, or y += without box copies.
template <class Out, class Tile>
__device__ void write_slowly(const uint8_t* staged, const OutputArgs& out, const TokenRange& range,
                             int row0, int token0, int thread) {
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

// silu(gate) * up of two tokens, by approximations within 2^-18 relatively. Each has a reciprocal
// of its own, though one would serve both: a token's bits must not depend on those beside it.
__device__ inline float2 gated_pair(float2 gate, float2 up) {
  const auto silu = [](float g) {
    constexpr float kLog2E = 1.44269504f;
    float e, inverse;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(e) : "f"(g * -kLog2E));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(1.0f + e));
    return g * inverse;
  };
  return make_float2(silu(gate.x) * up.x, silu(gate.y) * up.y);
}
// Halves, what is too large as the largest.
__device__ inline uint32_t pack_saturated(float2 v) {
  const __half2 most = __half2half2(__ushort_as_half(0x7bff));
  const __half2 pair = __hmax2_nan(__hmin2_nan(__float22half2_rn(v), most), __hneg2(most));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Brings a chunk's values, in the order of store_tile's, to their places in shared memory.
template <class Out, class Tile>
__device__ void stage_chunk(const float* values, uint8_t* buffer, int warp, int lane) {
  if constexpr (sizeof(Out) == 2) {
    const uint32_t base = ptx::shared_address(buffer);
#pragma unroll
    for (int j = 0; j < Tile::kChunk / 8; ++j) {
      const float* v = values + j * 4;
      ptx::store_matrix_transposed(
          base + Tile::place(j * 8 + lane % 8, warp * 16 + lane / 8 % 2 * 8), pack_pair(v[0], v[1]),
          pack_pair(v[2], v[3]));
    }
  } else {
#pragma unroll
    for (int e = 0; e < Tile::kChunk / 2; ++e) {
      const int token = e / 4 * 8 + 2 * (lane % 4) + e % 2;
      const int row = warp * 16 + lane / 4 + 8 * (e / 2 % 2);
      *reinterpret_cast<float*>(buffer + Tile::place(token, row)) = values[e];
    }
  }
}
// The same of silu(gate) * up.
template <class Tile>
__device__ void stage_gated(const float* values, uint8_t* buffer, int warp, int lane) {
  const auto halves = [values](int j) {  // of tokens 8j + 2(l%4) and the one behind
    const float* v = values + 4 * j;
    return pack_saturated(gated_pair(make_float2(v[0], v[1]), make_float2(v[2], v[3])));
  };
  const uint32_t base = ptx::shared_address(buffer);
  constexpr int kRuns = Tile::kChunk / 8;  // of eight tokens, two at a time; a single one twice
#pragma unroll
  for (int j = 0; j < kRuns; j += 2) {
    const int k = j + 1 < kRuns ? j + 1 : j;
    const uint32_t first = halves(j), second = k == j ? first : halves(k);
    ptx::store_matrix_transposed(
        base + Tile::place((lane / 8 % 2 == 0 ? j : k) * 8 + lane % 8, warp * 8), first, second);
  }
}

// values: the accumulators as floats, already scaled; word 4j + 2h + i is channel l/4 + 8h of the
// warp's 16, token 8j + 2(l%4) + i. `staging`: EpilogueTile::kBytes of this warpgroup's own, whose
// last use is in bulk stores of the same threads. The copy engine carries the rows to y
// while the caller goes on. kPart: the range may begin inside the tile, or end before y does.
// kGated: y is silu(gate) * up. row0: y's channel.
template <class Out, int kTokens, bool kPart, bool kGated = false>
__device__ void store_tile(const float (&values)[kTokens / 2], uint8_t* staging,
                           const OutputArgs& out, const TokenRange& range, int row0, int token0,
                           int thread, int barrier_id) {
  using Tile = EpilogueTile<Out, kTokens, kGated>;
  static_assert(Tile::kBytes <= EpilogueTile<Out, kTokens>::kBytes);
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
    const float* chunk_values = &values[chunk * (Tile::kChunk / 2)];
    if constexpr (kGated) {
      stage_gated<Tile>(chunk_values, buffer, warp, lane);
    } else {
      stage_chunk<Out, Tile>(chunk_values, buffer, warp, lane);
    }
    if (out.by_copy) ptx::fence_to_copies();
    ptx::named_sync(barrier_id, 128);
    if (!out.by_copy || !whole) {
      if (kGated || out.by_copy) {
        write_pieces<Out, Tile>(buffer, out, range, row0, chunk_token, thread);
      } else {
        write_slowly<Out, Tile>(buffer, out, range, row0, chunk_token, thread);
      }
      if (Tile::kChunks > Tile::kBuffers) ptx::named_sync(barrier_id, 128);
    } else if (thread == 0) {
#pragma unroll
      for (int box = 0; box < Tile::kBoxes; ++box) {
        const int row = row0 + box * (Tile::kChannels / Tile::kBoxes);
        const uint32_t from = ptx::shared_address(buffer + box * Tile::kBoxBytes);
        if (!kGated && out.accumulate) {
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
