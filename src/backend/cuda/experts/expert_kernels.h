// Kernels of mixtures of experts, but for the linears, as host code sees them. All pointers are GPU
// memory.
#pragma once

#include <cuda_runtime_api.h>

#include <type_traits>

#include "backend/cuda/experts/routing_view.h"
#include "backend/cuda/rows/row_kernels.h"

namespace atom::cuda {

// Fills a routing: Backend::route.
struct RouteParams {
  const float* scores = nullptr;  // [T, E]
  int tokens = 0;                 // T
  RoutingView routing;
};
void launch_route(const RouteParams& params, cudaStream_t stream);

// What activations consist of; arrays that their format lacks are null.
template <bool kConst>
struct ActivationArrays {
  template <class T>
  using Pointer = std::conditional_t<kConst, const T, T>*;

  CodePlaces places;
  Pointer<int8_t> codes = nullptr;
  Pointer<float> scales = nullptr;
  Pointer<float> outlier_scales = nullptr;  // [T]
  Pointer<int32_t> sums = nullptr;          // [T]
  Pointer<float> values = nullptr;          // [T, value_count]
  Pointer<uint16_t> halves = nullptr;       // half_count of a token, as places has them
};

// Activations of routed rows from those of their tokens: Backend::gather_routed.
struct GatherRoutedParams {
  const int32_t* sources = nullptr;  // [rows] tokens
  int rows = 0;
  ActivationArrays<true> from;
  ActivationArrays<false> to;  // of the same format, perhaps of another capacity
  int scale_count = 0, value_count = 0, half_count = 0;  // of a token
};
void launch_gather_routed(const GatherRoutedParams& params, cudaStream_t stream);

// y[t] += the weighted rows of token t: Backend::combine.
struct CombineParams {
  const float* x = nullptr;  // [T A, cols]
  float* y = nullptr;        // [T, cols]
  int tokens = 0, cols = 0;
  RoutingView routing;
};
void launch_combine(const CombineParams& params, cudaStream_t stream);

}  // namespace atom::cuda
