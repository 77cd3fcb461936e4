// Single elements of a page's record in any layout.
#pragma once

#include <cuda_fp16.h>

#include "backend/cuda/attention/page_format.h"

namespace atom::cuda::attention {

// {scale, minimum} of a token's key or value in an integer cache; {1, 0} in a float one.
__device__ inline float2 element_scale(const PageLayout& layout, const uint8_t* record, bool value,
                                       int token) {
  if (layout.kind != KvKind::kInt) return make_float2(1.0f, 0.0f);
  return __half22float2(*reinterpret_cast<const __half2*>(record + layout.scale(value, token)));
}

// A code or a float as it is stored.
__device__ inline float stored_element(const PageLayout& layout, const uint8_t* record, bool value,
                                       int token, int channel) {
  const PagePlace at = layout.place(value, token, channel);
  const uint8_t* from = record + at.byte;
  switch (layout.bits) {
    case 32:
      return *reinterpret_cast<const float*>(from);
    case 16:
      return __half2float(*reinterpret_cast<const __half*>(from));
    case 8:
      return static_cast<float>(*from);
    default:
      return static_cast<float>(*from >> at.shift & 15);
  }
}

}  // namespace atom::cuda::attention
