// Makes the backend that runs on an NVIDIA GPU. No CUDA header is needed to include this.
#pragma once

#include <memory>

#include "base/status.h"
#include "ops/backend.h"

namespace atom {

// Error: kUnsupported with the reason when this build or this machine cannot run it.
Result<std::unique_ptr<Backend>> make_cuda_backend();

}  // namespace atom
