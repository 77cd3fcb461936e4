// Linked instead of sm_100a's kernels where the build is not for that chip: check_device() lets no
// such GPU through.
#include "backend/cuda/gemm/nvfp4_sm100a.h"
#include "base/check.h"

namespace atom::cuda {

void launch_nvfp4_sm100a(const GemmArgs&, cudaStream_t) {
  ATOM_CHECK(false, "no kernels for sm_100a");
}

void launch_grouped_nvfp4_sm100a(const GemmArgs&, const ExpertGroups&, cudaStream_t) {
  ATOM_CHECK(false, "no kernels for sm_100a");
}

}  // namespace atom::cuda
