// Linked instead of the backend where there is no nvcc.
#include "backend/cuda/cuda_backend.h"

namespace atom {

Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaOptions&) {
  return error(ErrorCode::kUnsupported,
               "device 'cuda': this build has no CUDA (configure with -DATOM_CUDA=ON)");
}

}  // namespace atom
