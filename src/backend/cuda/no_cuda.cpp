// Linked instead of the backend where there is no nvcc.
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/kernel_bench.h"

namespace atom {

namespace {

Status no_cuda() {
  return error(ErrorCode::kUnsupported,
               "device 'cuda': this build has no CUDA (configure with -DATOM_CUDA=ON)");
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(const CudaOptions&) { return no_cuda(); }

Result<KernelBenchMachine> measure_cuda_machine() { return no_cuda(); }

Status bench_cuda_kernels(const KernelBenchMachine&, const KernelBenchOptions&,
                          const std::function<Status(const KernelFigure&)>&) {
  return no_cuda();
}

}  // namespace atom
