// Two-level weights on their way from shared memory into tensor core operands.
#pragma once

#include <cuda_runtime.h>

#include "backend/cuda/gemm/w4a8_layout.h"

namespace atom::cuda::w4a8 {

// Expands 8 codes to two words of weight + 128: the low nibbles' and the high nibbles'.
__device__ inline void expand(uint32_t codes, uint32_t scale, uint32_t zeros, uint32_t& low,
                              uint32_t& high) {
  low = (codes & 0x0f0f0f0fu) * scale + zeros;
  high = ((codes >> 4) & 0x0f0f0f0fu) * scale + zeros;
}

// One thread's part of a 64 x 128 body block as it lies in shared memory.
template <int kGroups>
struct Codes {
  uint4 q[2];
  uint32_t pairs[kGroups];

  __device__ void load(const uint8_t* block, int thread) {
    q[0] = reinterpret_cast<const uint4*>(block)[thread];
    q[1] = reinterpret_cast<const uint4*>(block + 2048)[thread];
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      pairs[g] = *reinterpret_cast<const uint32_t*>(block + kScaleOffset + g * kScaleBytes +
                                                    thread / 4 * 4);
    }
  }
  // The A fragment of k-step `step`.
  __device__ void unpack(int step, uint32_t* a) const {
    const uint32_t pair = pairs[step * kGroups / 4];
    const uint4& chunk = q[step / 2];
    expand(step % 2 ? chunk.z : chunk.x, pair & 0xff, __byte_perm(pair, 0, 0x1111), a[0], a[2]);
    expand(step % 2 ? chunk.w : chunk.y, (pair >> 16) & 0xff, __byte_perm(pair, 0, 0x3333), a[1],
           a[3]);
  }
};

}  // namespace atom::cuda::w4a8
