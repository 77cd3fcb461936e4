#include "app/device.h"

#include "backend/cpu/cpu_backend.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/ref/ref_backend.h"

namespace atom {

Result<std::unique_ptr<Backend>> make_backend(std::string_view device) {
  if (device == "cpu") return make_cpu_backend({});
  if (device == "ref") return make_ref_backend();
  if (device == "cuda") return make_cuda_backend({});
  return error(ErrorCode::kInvalidArgument, "device '{}': not one of cpu, ref, cuda", device);
}

}  // namespace atom
