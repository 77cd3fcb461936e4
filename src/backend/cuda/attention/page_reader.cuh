// Tensor core operands straight from a page's record in shared memory (page_format.h).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "backend/cuda/attention/page_format.h"

namespace atom::cuda::attention {

__device__ inline float2 scale_pair(const uint8_t* record, int offset) {
  return __half22float2(*reinterpret_cast<const __half2*>(record + offset));
}

// Words from shared memory in the widest loads that their alignment allows.
template <int kCount>
__device__ inline void load_words(uint32_t* to, const uint8_t* from) {
  if constexpr (kCount % 4 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      *reinterpret_cast<uint4*>(to + i) = *reinterpret_cast<const uint4*>(from + 4 * i);
    }
  } else if constexpr (kCount % 2 == 0) {
#pragma unroll
    for (int i = 0; i < kCount; i += 2) {
      *reinterpret_cast<uint2*>(to + i) = *reinterpret_cast<const uint2*>(from + 4 * i);
    }
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) to[i] = *reinterpret_cast<const uint32_t*>(from + 4 * i);
  }
}

// Codes stay f16 subnormals: a fragment's first half of channels (h = 0; rows g of V^T) counts in
// units of 2^-24, the second in 2^-20. Queries are scaled by 4 and 1/4 to meet in the middle.
template <int kHeadDim>
struct Int4Reader {
  using Pages = Int4Pages;
  static constexpr int kBytes = Int4Pages(kHeadDim).bytes();
  static constexpr bool kScaled = true;
  static constexpr float query(int h) { return h == 0 ? 4.0f : 0.25f; }
  static constexpr float kScore = 0x1p22f;
  static constexpr float output(int hi) { return hi == 0 ? 0x1p24f : 0x1p20f; }
  static constexpr uint32_t kLow = 0x000f000fu, kHigh = 0x00f000f0u;
  static constexpr int kKeyWords = kHeadDim / 32;    // of one token, a lane
  static constexpr int kValueWords = kHeadDim / 16;  // a lane

  alignas(16) uint32_t k[2][kKeyWords];
  alignas(16) uint32_t v[kValueWords];

  __device__ void load_keys(const uint8_t* record, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      load_words<kKeyWords>(
          k[half], record + (lane / 4 + 8 * half) * (kHeadDim / 2) + lane % 4 * (kHeadDim / 8));
    }
  }
  // real: tokens of the page that exist, 16 or more for all.
  __device__ void load_values(const uint8_t* record, int lane, int /*real*/) {
#pragma unroll
    for (int word = 0; word < kValueWords; word += 4) {
      if (word + 4 <= kValueWords) {
        load_words<4>(v + word, record + Pages(kHeadDim).value_word(word, 0) + lane * 16);
      } else {
        load_words<kValueWords % 4>(
            v + word, record + Pages(kHeadDim).value_word(word, 0) + lane * (kValueWords % 4) * 4);
      }
    }
  }
  __device__ void key_fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t word = step % 2 ? k[half][step / 2] >> 8 : k[half][step / 2];
      a[half] = word & kLow;
      a[2 + half] = word & kHigh;
    }
  }
  __device__ void value_fragment(int tile, uint32_t (&a)[4]) const {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const uint32_t whole = v[2 * (tile / 2) + t];
      const uint32_t word = tile % 2 ? whole >> 8 : whole;
      a[2 * t] = word & kLow;
      a[2 * t + 1] = word & kHigh;
    }
  }
};

// Codes are f16 subnormals in units of 2^-24.
template <int kHeadDim>
struct Int8Reader {
  using Pages = Int8Pages;
  static constexpr int kBytes = Int8Pages(kHeadDim).bytes();
  static constexpr bool kScaled = true;
  static constexpr float query(int) { return 1.0f; }
  static constexpr float kScore = 0x1p24f;
  static constexpr float output(int) { return 0x1p24f; }
  static constexpr int kSteps = kHeadDim / 16;  // of the keys, a word each; as many tiles of values

  alignas(16) uint32_t k[2][kSteps];
  alignas(16) uint32_t v[2 * kSteps];

  __device__ void load_keys(const uint8_t* record, int lane) {
    constexpr Pages kPages(kHeadDim);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int step = 0; step < kSteps; step += 4) {
        const uint8_t* from = record + kPages.key_piece(step / 4, lane / 4 + 8 * half, lane % 4);
        if (step + 4 <= kSteps) {
          load_words<4>(k[half] + step, from);
        } else {
          load_words<kSteps % 4>(k[half] + step, from);
        }
      }
    }
  }
  __device__ void load_values(const uint8_t* record, int lane, int /*real*/) {
#pragma unroll
    for (int tile = 0; tile < kSteps; tile += 2) {
      load_words<4>(v + 2 * tile, record + Pages(kHeadDim).key_bytes() + tile * 256 + lane * 16);
    }
  }
  __device__ void key_fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) spread(k[half][step], a[half], a[2 + half]);
  }
  __device__ void value_fragment(int tile, uint32_t (&a)[4]) const {
#pragma unroll
    for (int t = 0; t < 2; ++t) spread(v[2 * tile + t], a[2 * t], a[2 * t + 1]);
  }

 private:
  __device__ static void spread(uint32_t word, uint32_t& low, uint32_t& high) {
    low = __byte_perm(word, 0, 0x4140);
    high = __byte_perm(word, 0, 0x4342);
  }
};

template <int kHeadDim>
struct HalfReader {
  using Pages = HalfPages;
  static constexpr int kBytes = HalfPages(kHeadDim).bytes();
  static constexpr bool kScaled = false;
  static constexpr float query(int) { return 1.0f; }
  static constexpr float kScore = 1.0f;
  static constexpr float output(int) { return 1.0f; }

  const uint8_t* record;
  int lane;
  uint32_t mask[2];

  __device__ void load_keys(const uint8_t* from, int l) {
    record = from;
    lane = l;
  }
  // The slots of tokens yet to come may hold anything, NaN included, and 0 * NaN is not 0.
  __device__ void load_values(const uint8_t*, int, int real) {
#pragma unroll
    for (int t = 0; t < 2; ++t) {
      const int token = 8 * t + 2 * (lane % 4);
      mask[t] = token + 1 < real ? 0xffffffffu : token < real ? 0x0000ffffu : 0u;
    }
  }
  __device__ void key_fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint2 pair = *reinterpret_cast<const uint2*>(
          record + step / 2 * 1024 + (lane / 4 + 8 * half) * 64 + lane % 4 * 16 + step % 2 * 8);
      a[half] = pair.x;
      a[2 + half] = pair.y;
    }
  }
  __device__ void value_fragment(int tile, uint32_t (&a)[4]) const {
    const uint4 words = *reinterpret_cast<const uint4*>(record + Pages(kHeadDim).key_bytes() +
                                                        tile * 512 + lane * 16);
    a[0] = words.x & mask[0];
    a[1] = words.y & mask[0];
    a[2] = words.z & mask[1];
    a[3] = words.w & mask[1];
  }
};

}  // namespace atom::cuda::attention
