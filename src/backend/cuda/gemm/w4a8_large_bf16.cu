#include "backend/cuda/gemm/w4a8_tiles.cuh"

namespace atom::cuda::w4a8 {

std::span<const gemm::KernelEntry> large_bf16() {
  static const auto kernels = large_tiles<__nv_bfloat16>();
  return kernels;
}

}  // namespace atom::cuda::w4a8
