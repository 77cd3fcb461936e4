#include "backend/cuda/vendor/cublaslt.h"

#include <dlfcn.h>

#include <optional>

#include "base/log.h"

namespace atom::cuda {
namespace {

void* open_library() {
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"}) {
    if (void* library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
  }
  return nullptr;
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

std::optional<CublasLt> load() {
  void* library = open_library();
  CublasLt lt;
  if (library != nullptr && find(library, "cublasLtCreate", lt.create) &&
      find(library, "cublasLtDestroy", lt.destroy) &&
      find(library, "cublasLtGetStatusString", lt.status_string) &&
      find(library, "cublasLtMatmul", lt.matmul) &&
      find(library, "cublasLtMatmulAlgoGetHeuristic", lt.get_heuristic) &&
      find(library, "cublasLtMatmulDescCreate", lt.desc_create) &&
      find(library, "cublasLtMatmulDescDestroy", lt.desc_destroy) &&
      find(library, "cublasLtMatmulDescSetAttribute", lt.desc_set) &&
      find(library, "cublasLtMatrixLayoutCreate", lt.layout_create) &&
      find(library, "cublasLtMatrixLayoutDestroy", lt.layout_destroy) &&
      find(library, "cublasLtMatmulPreferenceCreate", lt.preference_create) &&
      find(library, "cublasLtMatmulPreferenceDestroy", lt.preference_destroy) &&
      find(library, "cublasLtMatmulPreferenceSetAttribute", lt.preference_set)) {
    return lt;
  }
  log_warning("cuBLASLt (libcublasLt.so) was not found: products of floats are slow");
  return std::nullopt;
}

}  // namespace

const CublasLt* find_cublaslt() {
  static const std::optional<CublasLt> library = load();
  return library ? &*library : nullptr;
}

}  // namespace atom::cuda
