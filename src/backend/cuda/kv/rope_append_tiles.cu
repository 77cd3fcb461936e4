// rope_append for many tokens: qkv of halves, caches of codes of at most 4 bits, heads of 64 or 128
// channels that rotate as a whole.
//   qkv [T, (H + 2 KH) * DH] f16 -> q [T, H * DH] f32, records of the cache (page_format.h)
// Work: a CTA takes a tile of up to 16 consecutive tokens, which are a page where there is a whole
// one, and some heads of one kind. Rows, each warp its own, and what its warps share, angles, means
// and head norms, come by asynchronous copies into shared memory.
//
//   queries, keys   eight tokens, one or two heads one after the other; a token's four lanes a
//                   hold, in part j, channels 16j + 4a .. + 3:
//                     channel | e: 1, 2 | lane: 4, 8 | part: 16, 32, 64 |
//                   RoPE's pairs and all strides of the Hadamard but two are a lane's own; queries
//                   leave 64 bytes a token at once, and keys, after an exchange of codes, too
//   values          sixteen tokens of 64 channels, a lane's own, so that the codes of a page come
//                   together in shared memory and leave in whole lines. A page's values are its
//                   tokens' side by side: a token alone stores 16 bits at a time
//
// The steps are those of ops/numerics.h one by one: queries and codes are the same bits everywhere
// (compiled without contraction).   Bound: HBM, and instructions that do not all hide behind it.
#include <cuda_fp16.h>

#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/kv/rope_head.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kLeastTokens = 224;  // below, a token's heads are better side by side
constexpr int kFewTokens = 640;    // so few leave room for warps with a head each
constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kTokens = kRopeTileTokens;
constexpr int kHalfTile = kTokens / 2;  // tokens of a warp of queries or keys
constexpr int kMostPairHeads = 2;       // its heads, one after the other
// Heads of a CTA of queries or keys.
__host__ __device__ constexpr int group_heads(int pair_heads) { return pair_heads * kWarps / 2; }
constexpr int kValueChannels = 64;  // of a lane
constexpr int kChunk = 16;          // bytes of a copy
// Bytes from token to token in shared memory: what pads them keeps lanes of different tokens on
// different banks.
constexpr int kValuePitch = 2 * kValueChannels * 2 + 16;
constexpr int kWarpBytes = kTokens * kValuePitch;

// The row of a tile's token; lanes without a token keep the others company.
__device__ inline int row_of(const RopeTile& tile, int r) {
  return tile.first + min(r, tile.count - 1);
}
// Its slot, or -1: there is no such token, or it is padding.
__device__ inline int slot_of(const RopeAppendParams& p, const RopeTile& tile, int r) {
  if (r >= tile.count) return -1;
  return tile.slot >= 0 ? tile.slot + r : p.slots[tile.first + r];
}
__device__ inline int position_of(const RopeAppendParams& p, const RopeTile& tile, int r) {
  if (tile.slot >= 0) return tile.position + min(r, tile.count - 1);
  const int row = row_of(tile, r);
  return p.slots[row] < 0 ? 0 : p.positions[row];
}

// Copies kRows rows of kBytes each into the warp's shared memory, kPitch apart: those of tokens
// first, first + 1 .. of the tile. Of what is not among the first real_bytes of a row, the row's
// beginning takes the place.
template <int kRows, int kBytes, int kPitch>
__device__ void copy_rows(uint32_t to, const uint8_t* from, int64_t row_bytes, const RopeTile& tile,
                          int first, int real_bytes, int lane) {
  constexpr int kChunks = kBytes / kChunk, kAtOnce = 32 / kChunks;
  static_assert(32 % kChunks == 0 && kRows % kAtOnce == 0);
  const int chunk = lane % kChunks * kChunk, own = lane / kChunks;
  from += chunk < real_bytes ? chunk : 0;
  to += static_cast<uint32_t>(own * kPitch + chunk);
#pragma unroll
  for (int r = 0; r < kRows; r += kAtOnce) {
    ptx::copy16(to + static_cast<uint32_t>(r * kPitch),
                from + row_of(tile, first + r + own) * row_bytes);
  }
}

// A token's angles in shared memory, in bytes.
constexpr int angle_pitch(int dim) { return dim * static_cast<int>(sizeof(float)) + 16; }

// Copies the angles of the tile's tokens, a row each, into shared memory.
template <int kDim>
__device__ void copy_angles(const RopeAppendParams& p, const RopeTile& tile, uint8_t* to) {
  constexpr int kBytes = kDim * static_cast<int>(sizeof(float));
  constexpr int kChunks = kBytes / kChunk, kAtOnce = kThreads / kChunks;
  const int thread = static_cast<int>(threadIdx.x), chunk = thread % kChunks * kChunk;
#pragma unroll
  for (int r = 0; r < kTokens; r += kAtOnce) {
    const int token = r + thread / kChunks;
    const int64_t position = position_of(p, tile, token);
    ptx::copy16(ptx::shared_address(to + token * angle_pitch(kDim) + chunk),
                reinterpret_cast<const uint8_t*>(p.cos_sin) + position * kBytes + chunk);
  }
}

// What the warps of a CTA of queries or keys share.
template <int kDim>
struct PairShared {
  __align__(16) uint8_t angles[kTokens * angle_pitch(kDim)];
  __align__(16) float mean[group_heads(kMostPairHeads)][kDim];  // of keys
  __align__(16) float norm[kDim];
};

// Copies `count` floats into shared memory, four a thread; none from null.
__device__ inline void copy_floats(float* to, const float* from, int count) {
  const int thread = static_cast<int>(threadIdx.x);
  if (from != nullptr && 4 * thread < count) {
    ptx::copy16(ptx::shared_address(to + 4 * thread), from + 4 * thread);
  }
}

template <int kDim, bool kQueries, bool kNorms, int kPairHeads>
__device__ void work_pairs(const RopeAppendParams& p, const RopeTile& tile, int group,
                           uint8_t* shared, PairShared<kDim>& all) {
  constexpr int kGroupHeads = group_heads(kPairHeads);
  constexpr int kPitch = kPairHeads * kDim * 2 + 32;
  static_assert(kHalfTile * kPitch <= kWarpBytes);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int r = lane / 4, a = lane % 4, kv_heads = p.cache.kv_heads;
  const int first = warp % 2 * kHalfTile;
  const int heads = kQueries ? p.heads : kv_heads;
  const int head0 = group * kGroupHeads + warp / 2 * kPairHeads;
  const bool idle = first >= tile.count || head0 >= heads;
  const int row = row_of(tile, first + r);

  // No kernel writes these; the batch's arrays were there before the kernel in front began.
  const int slot = slot_of(p, tile, first + r);
  copy_angles<kDim>(p, tile, all.angles);
  const float* norm = kQueries ? p.q_norm : p.k_norm;
  const float* mean = kQueries ? nullptr : p.k_mean;
  static_assert(kGroupHeads * kDim <= 4 * kThreads);
  copy_floats(all.norm, norm, kDim);
  copy_floats(all.mean[0], mean == nullptr ? nullptr : mean + group * kGroupHeads * kDim,
              min(kGroupHeads, heads - group * kGroupHeads) * kDim);
  wait_for_previous();
  let_next_start();
  if (!idle) {  // a row goes on behind these heads, with values at last
    const int64_t row_bytes = int64_t{p.heads + 2 * kv_heads} * kDim * 2;
    copy_rows<kHalfTile, kPairHeads * kDim * 2, kPitch>(
        ptx::shared_address(shared),
        static_cast<const uint8_t*>(p.qkv) + (int64_t{head0} + (kQueries ? 0 : p.heads)) * kDim * 2,
        row_bytes, tile, first, kPairHeads * kDim * 2, lane);
  }
  ptx::copy16_wait();
  __syncthreads();
  if (idle) return;
  const auto* own_angles =
      reinterpret_cast<const float*>(all.angles + (first + r) * angle_pitch(kDim));
#pragma unroll(kNorms ? kPairHeads : 1)  // what spills no registers
  for (int h = 0; h < kPairHeads; ++h) {
    const int head = head0 + h;
    if (head >= heads) break;
    RopeHead<kDim> x;
    x.load(reinterpret_cast<const __half*>(shared + r * kPitch + h * kDim * 2), a);
    if constexpr (kNorms) {
      if (norm != nullptr) x.normalise(all.norm, p.norm_eps, a);
    }
    x.rotate([&](int j, int e) {
      return *reinterpret_cast<const float4*>(own_angles + 2 * (x.channel(j, a) + e));
    });
    if (mean != nullptr) {
      const float* of_head = all.mean[head % kGroupHeads];
      x.subtract(
          [&](int j) { return *reinterpret_cast<const float4*>(of_head + x.channel(j, a)); });
    }
    if (p.hadamard != 0.0f) x.hadamard(p.hadamard, a);
    if constexpr (kQueries) {
      if (slot >= 0) x.store(p.q + (int64_t{row} * p.heads + head) * kDim, a);
    } else {
      const VectorPlace to = place_of(p, slot, head);
      uint8_t* scale = to.record + Int4Pages(kDim).key_scale(to.slot);
      x.store_key(KvCodes(x.range(), p.bits, slot >= 0 && a == 0 ? scale : nullptr), to, slot >= 0,
                  a);
    }
  }
}

template <int kDim>
__device__ void work_values(const RopeAppendParams& p, const RopeTile& tile, int group,
                            uint8_t* shared) {
  constexpr int kPieces = kDim / kValueChannels;  // lanes that share a vector
  constexpr int kWarpHeads = 2 / kPieces;
  constexpr int kQuads = kValueChannels / 8;
  constexpr int kPiece = 512, kPiecePitch = kPiece + 64;  // bytes of the codes
  static_assert(2 * kPiecePitch <= kWarpBytes);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int r = lane % kTokens, part = lane / kTokens, kv_heads = p.cache.kv_heads;
  const int head0 = (group * kWarps + warp) * kWarpHeads, head = head0 + part / kPieces;
  const int piece = part % kPieces;
  const int slot = slot_of(p, tile, r);
  wait_for_previous();
  let_next_start();
  if (head0 >= kv_heads) return;
  const int64_t row_bytes = int64_t{p.heads + 2 * kv_heads} * kDim * 2;
  const int count = min(kWarpHeads, kv_heads - head0);
  copy_rows<kTokens, kWarpHeads * kDim * 2, kValuePitch>(
      ptx::shared_address(shared),
      static_cast<const uint8_t*>(p.qkv) + (int64_t{head0} + p.heads + kv_heads) * kDim * 2,
      row_bytes, tile, 0, count * kDim * 2, lane);
  ptx::copy16_wait();
  __syncwarp();
  uint4 raw[kQuads];
#pragma unroll
  for (int i = 0; i < kQuads; ++i) {
    raw[i] = *reinterpret_cast<const uint4*>(shared + r * kValuePitch + part * kValueChannels * 2 +
                                             16 * i);
  }
  const auto* halves = reinterpret_cast<const __half2*>(raw);
  __half2 low = halves[0], high = halves[0];
#pragma unroll
  for (int i = 1; i < kValueChannels / 2; ++i) {
    low = __hmin2(low, halves[i]);
    high = __hmax2(high, halves[i]);
  }
  float2 range = make_float2(fminf(__low2float(low), __high2float(low)),
                             fmaxf(__low2float(high), __high2float(high)));
  if constexpr (kPieces == 2) {
    range = make_float2(fminf(range.x, shuffle_xor(range.x, kTokens)),
                        fmaxf(range.y, shuffle_xor(range.y, kTokens)));
  }
  const bool real = slot >= 0 && head < kv_heads;
  const VectorPlace to = place_of(p, slot, head);
  const Int4Pages pages(kDim);
  const KvCodes codes(range, p.bits,
                      real && piece == 0 ? to.record + pages.value_scale(to.slot) : nullptr);

  // Eight channels apart are a unit of 16 bits, the element g of four quads. They form a page whose
  // slots are the tokens of the tile.
  uint32_t units[2][8] = {};  // of two channel tiles each; the rounder's bits are above these
#pragma unroll
  for (int k = 0; k < kQuads; ++k) {
    const uint32_t two[4] = {raw[k].x, raw[k].y, raw[k].z, raw[k].w};
#pragma unroll
    for (int g = 0; g < 8; ++g) {
      const float2 v = as_floats(two[g / 2]);
      units[k / 4][g] += codes(g % 2 == 0 ? v.x : v.y) << (4 * (k % 4));
    }
  }
  const auto in_piece = [](int token, int g, int k) {
    return 64 * g + token % 8 / 2 * 16 + k * 8 + token / 8 * 4 + token % 2 * 2;
  };
  __syncwarp();  // all have read the rows
#pragma unroll
  for (int g = 0; g < 8; ++g) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      *reinterpret_cast<uint16_t*>(shared + part * kPiecePitch + in_piece(r, g, k)) =
          static_cast<uint16_t>(units[k][g]);
    }
  }
  __syncwarp();
  const int first = __shfl_sync(0xffffffffu, slot, 0);
  if (__all_sync(0xffffffffu, first % kPageTokens16 == 0 && slot == first + r)) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int of = head0 + k / kPieces;
      if (of >= kv_heads) break;
      const VectorPlace page = place_of(p, first, of);
      *reinterpret_cast<uint4*>(page.record + pages.key_bytes() + k % kPieces * kPiece +
                                lane * 16) =
          *reinterpret_cast<const uint4*>(shared + k * kPiecePitch + lane * 16);
    }
    return;
  }
  // Token after token, so that what leaves together is of one page.
  const int g = lane % 8, k = lane / 8 % 2;
#pragma unroll 4
  for (int t = 0; t < tile.count; ++t) {
    const int its = __shfl_sync(0xffffffffu, slot, t);
    if (its < 0 || head >= kv_heads) continue;
    const VectorPlace place = place_of(p, its, head);
    *reinterpret_cast<uint16_t*>(place.record + pages.key_bytes() + piece * kPiece +
                                 in_piece(place.slot, g, k)) =
        *reinterpret_cast<const uint16_t*>(shared + part * kPiecePitch + in_piece(t, g, k));
  }
}

// CTAs for some heads of a kind.
__host__ __device__ constexpr int pair_groups(int heads, int pair_heads) {
  return (heads + group_heads(pair_heads) - 1) / group_heads(pair_heads);
}
__host__ __device__ constexpr int value_groups(int heads, int dim) {
  const int each = kWarps * 2 * kValueChannels / dim;
  return (heads + each - 1) / each;
}

// Registers for as many CTAs a multiprocessor as there is shared memory for, unless norms want
// more.
template <int kDim, bool kNorms, int kPairHeads>
__global__ __launch_bounds__(kThreads, kNorms ? 6 : 7) void rope_append_tiles_kernel(
    const __grid_constant__ RopeAppendParams p) {
  __shared__ __align__(16) uint8_t shared[kWarps][kWarpBytes];
  __shared__ PairShared<kDim> all;
  uint8_t* own = shared[threadIdx.x / 32];
  const int group = static_cast<int>(blockIdx.x);
  const RopeTile tile = p.tiles[blockIdx.y];
  const int queries = pair_groups(p.heads, kPairHeads);
  const int keys = pair_groups(p.cache.kv_heads, kPairHeads);
  if (group < queries) {
    work_pairs<kDim, true, kNorms, kPairHeads>(p, tile, group, own, all);
  } else if (group < queries + keys) {
    work_pairs<kDim, false, kNorms, kPairHeads>(p, tile, group - queries, own, all);
  } else {
    work_values<kDim>(p, tile, group - queries - keys, own);
  }
}

template <int kDim, bool kNorms, int kPairHeads>
void start_with(const RopeAppendParams& p, cudaStream_t stream) {
  const int groups = pair_groups(p.heads, kPairHeads) + pair_groups(p.cache.kv_heads, kPairHeads) +
                     value_groups(p.cache.kv_heads, kDim);
  launch_chained(rope_append_tiles_kernel<kDim, kNorms, kPairHeads>,
                 dim3(static_cast<unsigned>(groups), static_cast<unsigned>(p.tile_count)), kThreads,
                 0, p, stream);
}

template <int kDim>
void start(const RopeAppendParams& p, cudaStream_t stream) {
  const bool few = p.tokens <= kFewTokens;
  if (p.q_norm != nullptr || p.k_norm != nullptr) {
    few ? start_with<kDim, true, 1>(p, stream) : start_with<kDim, true, 2>(p, stream);
  } else {
    few ? start_with<kDim, false, 1>(p, stream) : start_with<kDim, false, 2>(p, stream);
  }
}

}  // namespace

bool launch_rope_append_tiles(const RopeAppendParams& params, cudaStream_t stream) {
  const PageLayout& layout = params.cache.layout;
  if (params.tile_count == 0 || params.tokens < kLeastTokens || !params.halves ||
      params.rotary_dim != layout.head_dim || !layout.fragments || layout.bits != 4) {
    return false;
  }
  if (layout.head_dim == 64) return start<64>(params, stream), true;
  if (layout.head_dim == 128) return start<128>(params, stream), true;
  return false;
}

}  // namespace atom::cuda
