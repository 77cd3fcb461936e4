// gemm_w8a8_sm90a: y = dequant(x8 * w8^T), one scale a row and one a token: the baseline that 4-bit
// weights are measured against, on the same way of the operands, schedule and end of a tile.
//   x    as w4a8 without outlier columns
//   w    64 x 128 blocks of code + 128 in wgmma's A order (w4a8_layout.h, wide); f32 row scales
//   y    [M, N] f16 or f32
// Work: as w4a8_sm90a.cuh, its products of unsigned by signed bytes included; a fragment is loaded
// where w4a8 expands it.   Bound: HBM below about 128 tokens, then the tensor cores and shared
// memory.
#pragma once

#include "backend/cuda/gemm/w4a8_sm90a.cuh"

namespace atom::cuda::w8a8 {

// One thread's part of a block: it stays in shared memory until it is multiplied.
struct Bytes {
  const uint4* from;

  __device__ void load(const uint8_t* block, int thread) {
    from = reinterpret_cast<const uint4*>(block) + thread;
  }
  // The A fragment of k-step `step`.
  __device__ void unpack(int step, uint32_t* a) const {
    const uint4 words = from[step * 128];
    a[0] = words.x;
    a[1] = words.y;
    a[2] = words.z;
    a[3] = words.w;
  }
};

struct Format {
  using Acc = int32_t;
  static constexpr bool kTokenGroupScales = false, kRowScaleLast = true;
  static constexpr int kTokenStep = token_step(GemmFormat::kW8A8);
  template <int kGroups>
  static constexpr int block_bytes() {
    return w4a8::kWideBlockBytes;
  }
  template <int kGroups>
  using Codes = Bytes;
  template <class K>
  using Math = w4a8::Math<K>;
};

}  // namespace atom::cuda::w8a8
