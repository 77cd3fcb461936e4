// The words of CUDA C++ that the kernels here use, for a C++ compiler.
#pragma once

#include <algorithm>
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
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

inline uint4 __ldcs(const uint4* from) { return *from; }
inline void __syncthreads() { atom::emulator::sync_threads(); }
inline void __syncwarp() { atom::emulator::sync_warp(); }
