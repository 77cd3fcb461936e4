// A routing as kernels see it.
#pragma once

#include <cstdint>

namespace atom::cuda {

// Kernels keep a number for each expert in shared memory.
inline constexpr int64_t kMostExperts = 256;

// Pointers are GPU memory; routed rows stand expert after expert, as in HostRouting.
struct RoutingView {
  int experts = 0, active = 0;  // E, A
  int32_t* chosen = nullptr;    // [T, A] experts, the best first
  int32_t* offsets = nullptr;   // [E + 1]: expert e has rows [offsets[e], offsets[e + 1])
  int32_t* tokens = nullptr;    // [T A]: the token of each row
  int32_t* rows = nullptr;      // [T, A]
  float* weights = nullptr;     // [T, A]
};

}  // namespace atom::cuda
