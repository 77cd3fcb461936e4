// rope_append for heads of 64, 128 and 256 channels that rotate as a whole, and caches of codes of
// at most 4 or of 8 bits or of halves.
//   qkv [T, (H + 2 KH) * DH] f32 or f16 -> q [T, H * DH] f32, records of the cache (page_format.h)
// Work: eight lanes a head, four heads of one kind a warp. Lane l of eight holds, in part j,
// channels 32j + 4l .. + 3:
//
//   channel    | e: 1, 2 | lane: 4, 8, 16 | part: 32, 64, 128 |
//
// so that a load is 128 bytes of eight lanes, RoPE's pairs and most of the Hadamard's butterflies
// stay within a lane, and three strides are shuffles. The steps are those of ops/numerics.h one by
// one: queries and codes are the same bits everywhere (compiled without contraction).
// Bound: HBM for prompts, latency for few tokens.
#include <cuda_fp16.h>

#include <type_traits>

#include "backend/cuda/attention/page_format.h"
#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/kv/rope_head.cuh"
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = 32 * kWarps;
constexpr int kHeads = 4;  // of a warp

// {cos, sin} of a lane's pairs (i, i + DH / 2), two pairs together.
template <int kDim>
struct Angles {
  float4 pairs[kDim / 64][2];

  __device__ void load(const float* from, int l) {
#pragma unroll
    for (int j = 0; j < kDim / 64; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        pairs[j][i] = *reinterpret_cast<const float4*>(from + 2 * (32 * j + 4 * l + 2 * i));
      }
    }
  }
};

template <int kDim>
using Head = HeadParts<kDim, 8>;

// Where a vector goes: a token's slot of a record; `real`: this head exists.
struct Slot {
  uint8_t* record;
  int slot;
  bool value, real;
};

// Codes of four bits in the tensor cores' order: a token's bytes of a key are two of this lane's
// channels each, with the even and the odd lane's alternating in a word.
template <int kDim>
__device__ void store_key4(const uint32_t (&codes)[kDim / 32][4], const Slot& to, int l) {
  constexpr int kParts = kDim / 32, kHalf = kParts / 2;
  uint32_t own[kParts];  // in bytes 0 and 2
#pragma unroll
  for (int j = 0; j < kParts; ++j) {
    own[j] = codes[j][0] + (codes[j][2] << 4) + (codes[j][1] << 16) + (codes[j][3] << 20);
  }
  // The even lane stores the first half of the words, the odd lane the second.
  const bool odd = l % 2 != 0;
  auto* words = reinterpret_cast<uint32_t*>(to.record + to.slot * (kDim / 2)) + l / 2;
#pragma unroll
  for (int j = 0; j < kHalf; ++j) {
    const uint32_t theirs = __shfl_xor_sync(0xffffffffu, odd ? own[j] : own[j + kHalf], 1);
    const uint32_t word = odd ? own[j + kHalf] << 8 | theirs : own[j] | theirs << 8;
    if (to.real) words[4 * (j + (odd ? kHalf : 0))] = word;
  }
}

// Of a value, 16 bits of the token are channels 8 apart in four lanes: of 16 bits a lane has one
// nibble, and each lane ends with the whole ones of a quarter.
template <int kDim>
__device__ void store_value4(const uint32_t (&codes)[kDim / 32][4], const Slot& to, int l) {
  constexpr int kWords = kDim / 16;  // of two 16-bit units: part w / 2, elements 2(w % 2) and + 1
  const int shift = 4 * (l / 2 % 2) + 8 * (l / 4);
  uint32_t words[kWords];
#pragma unroll
  for (int w = 0; w < kWords; ++w) {
    const uint32_t* code = &codes[w / 2][w % 2 * 2];
    words[w] = (code[0] + (code[1] << 16)) << shift;
  }
  const auto keep_half = [&](int count, bool upper, int lanes) {
#pragma unroll
    for (int w = 0; w < kWords / 2; ++w) {
      if (w >= count) break;
      const uint32_t given = upper ? words[w] : words[w + count];
      const uint32_t kept = upper ? words[w + count] : words[w];
      words[w] = kept | __shfl_xor_sync(0xffffffffu, given, lanes);
    }
  };
  const bool upper = l / 4 != 0, second = l / 2 % 2 != 0;
  keep_half(kWords / 2, upper, 4);
  keep_half(kWords / 4, second, 2);
  if (!to.real) return;
  const Int4Pages pages(kDim);
  const int t = to.slot / 8, c = to.slot % 8 / 2, i = to.slot % 2;
#pragma unroll
  for (int k = 0; k < kWords / 4; ++k) {
    const int w = (upper ? kWords / 2 : 0) + (second ? kWords / 4 : 0) + k;
    const int g = 4 * (l % 2) + w % 2 * 2;
    uint8_t* bytes = to.record + pages.value_word(w / 2 * 2 + t, 4 * g + c) + 2 * i;
    *reinterpret_cast<uint16_t*>(bytes) = static_cast<uint16_t>(words[k]);
    *reinterpret_cast<uint16_t*>(bytes + 4 * 16) = static_cast<uint16_t>(words[k] >> 16);
  }
}

// Codes of eight bits: a key's four channels are a word of its page, a value's are bytes apart.
template <int kDim>
__device__ void store8(const uint32_t (&codes)[kDim / 32][4], const Slot& to, int l) {
  if (!to.real) return;
  const Int8Pages pages(kDim);
#pragma unroll
  for (int j = 0; j < kDim / 32; ++j) {
    const int channel = Head<kDim>::channel(j, l);
    if (!to.value) {
      *reinterpret_cast<uint32_t*>(to.record + pages.key(to.slot, channel)) =
          codes[j][0] | codes[j][1] << 8 | codes[j][2] << 16 | codes[j][3] << 24;
      continue;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      to.record[pages.value(to.slot, channel + e)] = static_cast<uint8_t>(codes[j][e]);
    }
  }
}

// Pages: Int4Pages or Int8Pages.
template <class Pages, int kDim>
__device__ void store_codes(const Head<kDim>& head, int bits, const Slot& to, int l) {
  constexpr int kParts = kDim / 32;
  const float2 ends = head.range();
  const numerics::KvRange range = numerics::kv_range(ends.x, ends.y, bits);
  const __half2 rounded = __halves2half2(__float2half_rn(range.scale), __float2half_rn(range.min));
  if (l == 0 && to.real) {
    const int byte = to.value ? Pages(kDim).value_scale(to.slot) : Pages(kDim).key_scale(to.slot);
    *reinterpret_cast<__half2*>(to.record + byte) = rounded;
  }
  const float2 scale = __half22float2(rounded);
  const float inverse = scale.x == 0.0f ? 0.0f : 1.0f / scale.x;
  const auto levels = static_cast<float>((1 << bits) - 1);
  uint32_t codes[kParts][4];
#pragma unroll
  for (int j = 0; j < kParts; ++j) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      codes[j][e] = clamped_code((head.x[j][e] - scale.y) * inverse, 0.0f, levels);
    }
  }
  if constexpr (std::is_same_v<Pages, Int8Pages>) {
    store8<kDim>(codes, to, l);
  } else if (to.value) {
    store_value4<kDim>(codes, to, l);
  } else {
    store_key4<kDim>(codes, to, l);
  }
}

template <int kDim>
__device__ void store_halves(const Head<kDim>& head, const Slot& to, int l) {
  if (!to.real) return;
  const HalfPages pages(kDim);
#pragma unroll
  for (int j = 0; j < kDim / 32; ++j) {
    const int channel = Head<kDim>::channel(j, l);
    __half2 half[2];
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      half[e] = __floats2half2_rn(head.x[j][2 * e], head.x[j][2 * e + 1]);
    }
    if (!to.value) {
      *reinterpret_cast<uint2*>(to.record + pages.key(to.slot, channel)) =
          *reinterpret_cast<const uint2*>(half);
      continue;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      *reinterpret_cast<__half*>(to.record + pages.value(to.slot, channel + e)) =
          e % 2 == 0 ? half[e / 2].x : half[e / 2].y;
    }
  }
}

// Warps that some heads take.
__host__ __device__ constexpr int warps_for(int heads) { return (heads + kHeads - 1) / kHeads; }

template <int kDim, class In>
__global__ __launch_bounds__(kThreads, kDim > 128 ? 4 : 6) void rope_append_registers_kernel(
    const __grid_constant__ RopeAppendParams p) {
  const int lane = static_cast<int>(threadIdx.x) % 32, l = lane % 8;
  const int64_t token = blockIdx.x;
  const int kv_heads = p.cache.kv_heads;
  const int query_warps = warps_for(p.heads), kv_warps = warps_for(kv_heads);
  const int warp = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const bool query = warp < query_warps, value = warp >= query_warps + kv_warps;
  const int count = query ? p.heads : kv_heads;
  const int wanted = (query ? warp : (warp - query_warps) % kv_warps) * kHeads + lane / 8;
  const bool real = wanted < count;
  const int head = min(wanted, count - 1);  // lanes without a head keep the others company
  const int first = query ? 0 : value ? p.heads + kv_heads : p.heads;

  // No kernel writes these; the batch's arrays were there before the kernel in front began.
  const int slot = p.slots[token], listed = p.positions[token];
  const int64_t position = slot < 0 ? 0 : listed;
  Angles<kDim> angles;
  Head<kDim> mean;
  const bool centred = !query && !value && p.k_mean != nullptr;
  if (!value) angles.load(p.cos_sin + position * kDim, l);
  if (centred) mean.load(p.k_mean + head * kDim, l);
  wait_for_previous();
  let_next_start();
  if (warp >= query_warps + 2 * kv_warps || slot < 0) return;

  Head<kDim> x;
  x.load(static_cast<const In*>(p.qkv) + (token * (p.heads + 2 * kv_heads) + first + head) * kDim,
         l);
  if (!value) {
    const float* norm = query ? p.q_norm : p.k_norm;
    if (norm != nullptr) x.normalise(norm, p.norm_eps, l);
    x.rotate([&](int j, int e) { return angles.pairs[j][e / 2]; });
    if (centred) {
      x.subtract([&](int j) {
        return make_float4(mean.x[j][0], mean.x[j][1], mean.x[j][2], mean.x[j][3]);
      });
    }
    if (p.hadamard != 0.0f) x.hadamard(p.hadamard, l);
  }
  if (query) {
    if (real) x.store(p.q + (token * p.heads + head) * kDim, l);
    return;
  }
  const Slot to = {.record = p.cache.records +
                             static_cast<int64_t>(slot / kPageTokens16) * p.cache.page_stride +
                             static_cast<int64_t>(head) * p.cache.record_bytes,
                   .slot = slot % kPageTokens16,
                   .value = value,
                   .real = real};
  if (p.cache.layout.bits == 4) {
    store_codes<Int4Pages>(x, p.bits, to, l);
  } else if (p.cache.layout.bits == 8) {
    store_codes<Int8Pages>(x, p.bits, to, l);
  } else {
    store_halves(x, to, l);
  }
}

template <int kDim, class In>
void start_with(const RopeAppendParams& p, cudaStream_t stream) {
  const int warps = warps_for(p.heads) + 2 * warps_for(p.cache.kv_heads);
  launch_chained(rope_append_registers_kernel<kDim, In>,
                 dim3(static_cast<unsigned>(p.tokens), blocks_for(warps, kWarps)), kThreads, 0, p,
                 stream);
}

template <int kDim>
void start(const RopeAppendParams& p, cudaStream_t stream) {
  if (p.halves) {
    start_with<kDim, __half>(p, stream);
  } else {
    start_with<kDim, float>(p, stream);
  }
}

}  // namespace

bool launch_rope_append_registers(const RopeAppendParams& params, cudaStream_t stream) {
  const int dim = params.cache.layout.head_dim;
  if (params.rotary_dim != dim || !params.cache.layout.fragments) return false;
  if (dim == 64) return start<64>(params, stream), true;
  if (dim == 128) return start<128>(params, stream), true;
  if (dim == 256) return start<256>(params, stream), true;
  return false;
}

}  // namespace atom::cuda
