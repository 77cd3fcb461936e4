// The op suite on the GPU: ref and the CUDA backend with Hopper's kernels, tensor core attention
// among them, and with those of every chip, whose attention is exact.
#include "ops/backends.h"

#include "backend/cuda/cuda_backend.h"
#include "backend/ref/ref_backend.h"

namespace atom {

const std::vector<Backend*>& all_backends() {
  static const std::vector<std::unique_ptr<Backend>> owned = [] {
    std::vector<std::unique_ptr<Backend>> made;
    made.push_back(make_ref_backend());
    for (const bool portable : {true, false}) {
      Result<std::unique_ptr<Backend>> cuda = make_cuda_backend({.portable = portable});
      ATOM_CHECK(cuda.ok(), cuda.status().message().c_str());
      made.push_back(std::move(cuda).value());
    }
    return made;
  }();
  static const std::vector<Backend*> backends = [] {
    std::vector<Backend*> list;
    for (const auto& backend : owned) list.push_back(backend.get());
    return list;
  }();
  return backends;
}

Backend& ref_backend() { return *all_backends().front(); }

std::vector<Backend*> other_backends() {
  return {all_backends().begin() + 1, all_backends().end()};
}

}  // namespace atom
