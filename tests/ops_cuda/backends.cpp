// The op suite on the GPU: ref and the CUDA backend with Hopper's kernels, tensor core attention
// among them, and with those of every chip, whose attention is exact.
#include "ops/backends.h"

#include "backend/cuda/cuda_backend.h"
#include "backend/ref/ref_backend.h"

namespace atom {

// They are never destroyed: cuBLASLt was loaded later than they were made, so that at the process's
// end its own state goes before their handles would.
const std::vector<Backend*>& all_backends() {
  static const auto& backends = *new std::vector<Backend*>([] {
    std::vector<Backend*> made = {make_ref_backend().release()};
    for (const bool portable : {true, false}) {
      Result<std::unique_ptr<Backend>> cuda = make_cuda_backend({.portable = portable});
      ATOM_CHECK(cuda.ok(), cuda.status().message().c_str());
      made.push_back(std::move(cuda).value().release());
    }
    return made;
  }());
  return backends;
}

Backend& ref_backend() { return *all_backends().front(); }

std::vector<Backend*> other_backends() {
  return {all_backends().begin() + 1, all_backends().end()};
}

}  // namespace atom
