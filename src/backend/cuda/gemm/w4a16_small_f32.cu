#include "backend/cuda/gemm/w4a16_tiles.cuh"

namespace atom::cuda::w4a16 {

std::span<const gemm::KernelEntry> small_f32() {
  static const auto kernels = small_tiles<float>();
  return kernels;
}

}  // namespace atom::cuda::w4a16
