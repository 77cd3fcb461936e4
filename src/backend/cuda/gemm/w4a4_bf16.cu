#include "backend/cuda/gemm/w4a4_tiles.cuh"

namespace atom::cuda::w4a4 {

std::span<const gemm::KernelEntry> tiles_bf16() {
  static const auto kernels = tiles<__nv_bfloat16>();
  return kernels;
}

}  // namespace atom::cuda::w4a4
