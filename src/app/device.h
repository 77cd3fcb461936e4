// Choosing the backend by its name on the command line.
#pragma once

#include <memory>
#include <string_view>

#include "base/status.h"
#include "ops/backend.h"

namespace atom {

// "cpu", "ref" or "cuda". Fails (kInvalidArgument) on other names and (kUnsupported) on a backend
// that this build or machine does not have.
Result<std::unique_ptr<Backend>> make_backend(std::string_view device);

}  // namespace atom
