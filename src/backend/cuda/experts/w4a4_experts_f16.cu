#include "backend/cuda/gemm/w4a4_tiles.cuh"

namespace atom::cuda::w4a4 {

std::span<const gemm::KernelEntry> experts_f16() {
  static const auto kernels = expert_tiles<CodeGrid::kInt, __half>();
  return kernels;
}

}  // namespace atom::cuda::w4a4
