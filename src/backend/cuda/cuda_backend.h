// Makes the backend that runs on an NVIDIA GPU. No CUDA header is needed to include this.
#pragma once

#include <memory>

#include "base/status.h"
#include "ops/backend.h"

namespace atom {

struct CudaOptions {
  // Attention in float throughout, slowly: what the tensor core kernels, which round queries and
  // weights to F16, are measured against.
  bool exact_attention = false;
  // The kernels of every chip, those for INT4 tensor cores too, in place of Hopper's own: how they
  // are tested on Hopper, which emulates INT4 products.
  bool portable = false;
};

// Error: kUnsupported with the reason when this build or this machine cannot run it.
Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaOptions& options);

}  // namespace atom
