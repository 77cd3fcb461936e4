// Large products of floats by the vendor's library on the tensor cores of halves, each float being
// two of these (split_kernels.h): nearly as exact as products of floats, at several times their
// speed. After Markidis et al., "NVIDIA Tensor Core Programmability, Performance & Precision",
// 2018.
#pragma once

#include "backend/cuda/runtime/device.h"
#include "backend/cuda/vendor/matmul.h"

namespace atom::cuda {

class SplitProduct {
 public:
  // y [T, N] (+)= x [T, K] w [N, K]^T + bias.
  struct LinearParams {
    const float* x = nullptr;
    const float* w = nullptr;
    const float* bias = nullptr;  // [N] or null
    float* y = nullptr;
    int64_t tokens = 0, rows = 0, cols = 0;
    bool accumulate = false;
  };
  // h [K, K] += x [T, K]^T x, symmetric to the last bit where h was.
  struct GramParams {
    const float* x = nullptr;
    float* h = nullptr;
    int64_t tokens = 0, channels = 0;
  };

  // False, and y or h is as before, for small or ragged products, where the library is missing and
  // where memory for the halves is short. May allocate: not for what CUDA graphs record.
  bool linear(Matmul& matmul, const LinearParams& params, cudaStream_t stream);
  bool gram(Matmul& matmul, const GramParams& params, cudaStream_t stream);

 private:
  bool reserve(int64_t left, int64_t right);
  // The bits of the largest magnitude, in word `index`.
  void find_largest(const float* x, int64_t count, int index, cudaStream_t stream);
  float* scales() { return reinterpret_cast<float*>(words_.data() + 2); }

  DeviceArray<uint16_t> left_, right_;
  DeviceArray<uint32_t> words_;  // largest of both operands, then two scales
};

}  // namespace atom::cuda
