// What becomes of one head of a query, a key or a value on its way into the pages, in the registers
// of a few lanes: pieces of rope_append_registers.cu and rope_append_tiles.cu. Compiled without
// contraction.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/attention/page_format.h"
#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/norm_sum.cuh"
#include "ops/numerics.h"

namespace atom::cuda {

__device__ inline float shuffle_xor(float v, int lanes) {
  return __shfl_xor_sync(0xffffffffu, v, lanes);
}
__device__ inline uint32_t shuffle_xor(uint32_t v, int lanes) {
  return __shfl_xor_sync(0xffffffffu, v, lanes);
}
__device__ inline float2 as_floats(uint32_t halves) {
  return __half22float2(*reinterpret_cast<const __half2*>(&halves));
}

// What a cache's vector is rounded by: numerics::kv_code in the instructions' own clamp to [0, 1],
// for which the codes' inverse scale is a power of two, `steps`, less.
struct KvCodes {
  float minimum, inverse, top, steps;

  // Stores {scale, minimum}, rounded to halves, where `to` is not null.
  __device__ KvCodes(float2 range, int bits, uint8_t* to) {
    steps = __int_as_float((127 + bits) << 23);
    const float step = __int_as_float((127 - bits) << 23);
    const numerics::KvRange exact = bits == 4 ? numerics::kv_range(range.x, range.y, 4)
                                              : numerics::kv_range(range.x, range.y, bits);
    const __half2 rounded =
        __halves2half2(__float2half_rn(exact.scale), __float2half_rn(exact.min));
    if (to != nullptr) *reinterpret_cast<__half2*>(to) = rounded;
    const float2 scale = __half22float2(rounded);
    minimum = scale.y;
    inverse = scale.x == 0.0f ? 0.0f : __frcp_rn(scale.x) * step;
    top = 1.0f - step;
  }
  // The code in the low bits, kRounderBits above them. A NaN becomes 0.
  __device__ uint32_t operator()(float x) const {
    const float part = fminf(__saturatef((x - minimum) * inverse), top);
    return __float_as_uint(fmaf(part, steps, kRounder));
  }
};

// Where a token's vector of one head goes.
struct VectorPlace {
  uint8_t* record;
  int slot;
};
__device__ inline VectorPlace place_of(const RopeAppendParams& p, int slot, int head) {
  return {.record = p.cache.records +
                    static_cast<int64_t>(slot / kPageTokens16) * p.cache.page_stride +
                    static_cast<int64_t>(head) * p.cache.record_bytes,
          .slot = slot % kPageTokens16};
}

// A head's channels in the registers of kLanes lanes, 4 or 8: lane l holds, in part j, channels
// 4 kLanes j + 4l .. + 3, so that RoPE's pairs and most of the Hadamard's butterflies stay within a
// lane. The steps are those of ops/numerics.h.
template <int kDim, int kLanes>
struct HeadParts {
  static constexpr int kParts = kDim / (4 * kLanes);
  float x[kParts][4];

  static __device__ int channel(int part, int l) { return 4 * kLanes * part + 4 * l; }

  __device__ void load(const float* from, int l) {
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      const float4 v = *reinterpret_cast<const float4*>(from + channel(j, l));
      x[j][0] = v.x;
      x[j][1] = v.y;
      x[j][2] = v.z;
      x[j][3] = v.w;
    }
  }
  __device__ void load(const __half* from, int l) {
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      const uint2 raw = *reinterpret_cast<const uint2*>(from + channel(j, l));
      const float2 low = as_floats(raw.x), high = as_floats(raw.y);
      x[j][0] = low.x;
      x[j][1] = low.y;
      x[j][2] = high.x;
      x[j][3] = high.y;
    }
  }
  __device__ void store(float* to, int l) const {
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      *reinterpret_cast<float4*>(to + channel(j, l)) =
          make_float4(x[j][0], x[j][1], x[j][2], x[j][3]);
    }
  }

  // The sums of numerics::rms_factor: a head of at most 256 channels is one group of its lanes, and
  // eight neighbours are parts of two lanes.
  __device__ void normalise(const float* weight, float eps, int l) {
    float sums[kParts];
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      float pair[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float square = x[j][e] * x[j][e];
        pair[e] = square + shuffle_xor(square, 1);
      }
      sums[j] = (pair[0] + pair[2]) + (pair[1] + pair[3]);
    }
#pragma unroll
    for (int step = kParts / 2; step > 0; step /= 2) {
#pragma unroll
      for (int j = 0; j < step; ++j) sums[j] += sums[j + step];
    }
#pragma unroll
    for (int lanes = kLanes / 2; lanes > 1; lanes /= 2) sums[0] += shuffle_xor(sums[0], lanes);
    float groups[kNormWarps] = {sums[0]};
    const float factor = norm_factor(groups, kDim, eps);
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      const float4 w = *reinterpret_cast<const float4*>(weight + channel(j, l));
      x[j][0] = x[j][0] * factor * w.x;
      x[j][1] = x[j][1] * factor * w.y;
      x[j][2] = x[j][2] * factor * w.z;
      x[j][3] = x[j][3] * factor * w.w;
    }
  }

  // angles(j, e): {cos, sin} of the pairs (i, i + DH / 2) of channels e and e + 1 of part j.
  template <class Angles>
  __device__ void rotate(const Angles& angles) {
#pragma unroll
    for (int j = 0; j < kParts / 2; ++j) {
#pragma unroll
      for (int e = 0; e < 4; e += 2) {
        const float4 two = angles(j, e);
        numerics::rotate_pair(x[j][e], x[j + kParts / 2][e], two.x, two.y);
        numerics::rotate_pair(x[j][e + 1], x[j + kParts / 2][e + 1], two.z, two.w);
      }
    }
  }

  // mean(j): of part j.
  template <class Mean>
  __device__ void subtract(const Mean& mean) {
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      const float4 m = mean(j);
      x[j][0] -= m.x;
      x[j][1] -= m.y;
      x[j][2] -= m.z;
      x[j][3] -= m.w;
    }
  }

  static __device__ void butterfly(float& low, float& high) {
    const float a = low, b = high;
    low = a + b;
    high = a - b;
  }
  __device__ void hadamard(float factor, int l) {
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      butterfly(x[j][0], x[j][1]);
      butterfly(x[j][2], x[j][3]);
      butterfly(x[j][0], x[j][2]);
      butterfly(x[j][1], x[j][3]);
    }
#pragma unroll
    for (int lanes = 1; lanes < kLanes; lanes *= 2) {
      // The higher lane's is other - own: a product with +-1 and a sum, rounded once.
      const float sign = (l & lanes) != 0 ? -1.0f : 1.0f;
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) x[j][e] = fmaf(x[j][e], sign, shuffle_xor(x[j][e], lanes));
      }
    }
#pragma unroll
    for (int step = 1; step < kParts; step *= 2) {
#pragma unroll
      for (int j = 0; j < kParts; ++j) {
        if ((j & step) != 0) continue;
#pragma unroll
        for (int e = 0; e < 4; ++e) butterfly(x[j][e], x[j + step][e]);
      }
    }
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) x[j][e] *= factor;
    }
  }

  __device__ float2 range() const {
    float low = x[0][0], high = x[0][0];
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        low = fminf(low, x[j][e]);
        high = fmaxf(high, x[j][e]);
      }
    }
#pragma unroll
    for (int lanes = 1; lanes < kLanes; lanes *= 2) {
      low = fminf(low, shuffle_xor(low, lanes));
      high = fmaxf(high, shuffle_xor(high, lanes));
    }
    return make_float2(low, high);
  }
};

// A head of a query or key, shared out to four lanes.
template <int kDim>
struct RopeHead : HeadParts<kDim, 4> {
  using HeadParts<kDim, 4>::kParts, HeadParts<kDim, 4>::x;

  // Codes of a key. A part's four are the even or the odd bytes of one of its two words, by lane;
  // each lane ends with both words of a quarter of the parts.
  __device__ void store_key(const KvCodes& codes, const VectorPlace& to, bool real, int a) const {
    constexpr int kHalf = kParts / 2, kQuarter = kParts / 4;
    uint32_t own[kParts];
#pragma unroll
    for (int j = 0; j < kParts; ++j) {
      // Of the rounder's bits, two of the four leave the word.
      own[j] = (codes(x[j][0]) - kRounderBits * 17) + (codes(x[j][2]) << 4) +
               (codes(x[j][1]) << 16) + (codes(x[j][3]) << 20);
    }
    const bool odd = a % 2 != 0, second = a / 2 != 0;
    uint32_t words[kHalf];
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      const uint32_t theirs = shuffle_xor(odd ? own[j] : own[j + kHalf], 1);
      words[j] = odd ? own[j + kHalf] << 8 | theirs : own[j] | theirs << 8;
    }
    uint32_t pairs[kQuarter][2];
#pragma unroll
    for (int j = 0; j < kQuarter; ++j) {
      const uint32_t theirs = shuffle_xor(second ? words[j] : words[j + kQuarter], 2);
      pairs[j][0] = second ? theirs : words[j];
      pairs[j][1] = second ? words[j + kQuarter] : theirs;
    }
    if (!real) return;
    const int part = (odd ? kHalf : 0) + (second ? kQuarter : 0);
    uint8_t* bytes = to.record + to.slot * (kDim / 2) + part * 8;
    if constexpr (kQuarter == 2) {
      *reinterpret_cast<uint4*>(bytes) =
          make_uint4(pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]);
    } else {
      *reinterpret_cast<uint2*>(bytes) = make_uint2(pairs[0][0], pairs[0][1]);
    }
  }
};

}  // namespace atom::cuda
