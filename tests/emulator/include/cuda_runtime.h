// The words of CUDA C++ that the kernels here use, for a C++ compiler.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "cuda_runtime_api.h"
#include "emulator/cta.h"

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __grid_constant__
#define threadIdx (::atom::emulator::thread_index())
#define blockIdx (::atom::emulator::block_index())

using std::max, std::min;

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {}
};
struct float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

inline float __int_as_float(int32_t bits) { return std::bit_cast<float>(bits); }
// Four of the eight bytes of two words, by the nibbles of a selector.
inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t{high} << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    out |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  }
  return out;
}
inline uint4 __ldcs(const uint4* from) { return *from; }
inline void __syncthreads() { atom::emulator::sync_threads(); }
inline void __syncwarp() { atom::emulator::sync_warp(); }
