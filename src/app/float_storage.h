// How a float model is kept in memory.
#pragma once

#include "base/status.h"
#include "io/model_source.h"
#include "tensor/dtype.h"

namespace atom {

// The narrowest type that holds every linear of the source exactly: kF16 or kBF16 where the file
// stores all of them so, else kF32.
Result<DType> exact_storage(const ModelSource& source);

}  // namespace atom
