#include "backend/cuda/gemm/w8a8_tiles.cuh"

namespace atom::cuda::w8a8 {

std::span<const gemm::KernelEntry> experts_f16() {
  static const auto kernels = expert_tiles<__half>();
  return kernels;
}

}  // namespace atom::cuda::w8a8
