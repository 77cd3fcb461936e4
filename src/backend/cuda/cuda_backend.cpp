#include "backend/cuda/cuda_backend.h"

namespace atom {

Result<std::unique_ptr<Backend>> make_cuda_backend() {
  return error(ErrorCode::kUnsupported,
               "device 'cuda': this build has GPU kernels but no model operators on them yet");
}

}  // namespace atom
