#include "backend/cuda/gemm/w4a4_tiles.cuh"

namespace atom::cuda::w4a4 {

std::span<const gemm::KernelEntry> fp4_tiles_f32() {
  static const auto kernels = tiles<CodeGrid::kE2M1, float>();
  return kernels;
}

}  // namespace atom::cuda::w4a4
