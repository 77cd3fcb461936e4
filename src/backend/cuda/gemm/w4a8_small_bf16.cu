#include "backend/cuda/gemm/w4a8_tiles.cuh"

namespace atom::cuda::w4a8 {

std::span<const gemm::KernelEntry> small_bf16() {
  static const auto kernels = small_tiles<__nv_bfloat16>();
  return kernels;
}

}  // namespace atom::cuda::w4a8
