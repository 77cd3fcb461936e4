#include "backend/cuda/gemm/w4a16_tiles.cuh"

namespace atom::cuda::w4a16 {

std::span<const gemm::KernelEntry> large_f16() {
  static const auto kernels = large_tiles<__half>();
  return kernels;
}

}  // namespace atom::cuda::w4a16
