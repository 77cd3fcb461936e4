// Linears of quantized weights with float activations and many tokens: the vendor's library
// multiplies floats that the weights were expanded to.
#pragma once

#include "backend/cuda/objects.h"
#include "backend/cuda/vendor/matmul.h"

namespace atom::cuda {

class ExpandedLinear {
 public:
  // y (+)= x w^T, some rows of w at a time. False, and nothing was started, for other linears, few
  // tokens, and where the library is missing or GPU memory is short.
  bool run(Matmul& matmul, const WeightView& w, const CudaActivations& x, CudaTensor& y,
           int64_t tokens, bool accumulate, cudaStream_t stream);

 private:
  DeviceArray<float> weights_;  // of the rows at a time; from the first use on
};

}  // namespace atom::cuda
