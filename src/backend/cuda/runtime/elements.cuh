// Elements of tensors that are floats or halves.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

namespace atom::cuda {

// Element i of an array of halves or floats.
__device__ inline float element(const void* x, bool halves, int64_t i) {
  return halves ? __half2float(static_cast<const __half*>(x)[i]) : static_cast<const float*>(x)[i];
}

__device__ inline const void* element_address(const void* x, bool halves, int64_t i) {
  return static_cast<const uint8_t*>(x) + i * (halves ? 2 : 4);
}
__device__ inline void* element_address(void* x, bool halves, int64_t i) {
  return static_cast<uint8_t*>(x) + i * (halves ? 2 : 4);
}

// x[i] = value, or += with accumulate.
__device__ inline void store_element(void* x, bool halves, int64_t i, float value,
                                     bool accumulate) {
  if (accumulate) value += element(x, halves, i);
  if (halves) {
    static_cast<__half*>(x)[i] = __float2half_rn(value);
  } else {
    static_cast<float*>(x)[i] = value;
  }
}

// The nearest half within the range of halves.
__device__ inline __half saturated_half(float value) {
  constexpr float kMost = 65504.0f;
  return __float2half_rn(fminf(fmaxf(value, -kMost), kMost));
}

// Sixteen bytes that are read once.
__device__ inline uint4 load_once(const void* from) {
  return __ldcs(static_cast<const uint4*>(from));
}

// kCount elements on their way into registers; aligned to 16 bytes.
template <class In, int kCount>
struct RawElements {
  static constexpr int kWords = kCount * static_cast<int>(sizeof(In)) / 16;
  uint4 words[kWords];

  __device__ void load(const In* from) {
#pragma unroll
    for (int i = 0; i < kWords; ++i) words[i] = load_once(from + i * (16 / sizeof(In)));
  }
  __device__ float operator[](int i) const {
    return static_cast<float>(reinterpret_cast<const In*>(words)[i]);
  }
};

}  // namespace atom::cuda
