#include "backend/cuda/gemm/w4a8_tiles.cuh"

namespace atom::cuda::w4a8 {

std::span<const gemm::KernelEntry> few_f32() {
  static const auto kernels = few_tiles<float>();
  return kernels;
}

}  // namespace atom::cuda::w4a8
