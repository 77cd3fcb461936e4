// Linears of float weights by the vendor's library.
#pragma once

#include "backend/cuda/objects.h"
#include "backend/cuda/vendor/matmul.h"
#include "backend/cuda/vendor/split_product.h"

namespace atom::cuda {

struct VendorProducts {
  Matmul* matmul = nullptr;
  SplitProduct* split = nullptr;  // null where nothing may be allocated: in steps to be recorded
};

// y (+)= x w^T: halves times halves for F16 weights, floats times floats for F32 ones, summed in
// floats. False, and nothing was started, for other weights, where the library is missing or cannot
// do it, and for few tokens of F32 weights, whose own kernel reads them as fast.
bool launch_vendor_linear(const VendorProducts& vendor, const WeightView& w,
                          const CudaActivations& x, CudaTensor& y, int64_t tokens, bool accumulate,
                          cudaStream_t stream);

}  // namespace atom::cuda
