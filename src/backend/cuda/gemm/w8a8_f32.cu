#include "backend/cuda/gemm/w8a8_tiles.cuh"

namespace atom::cuda::w8a8 {

std::span<const gemm::KernelEntry> tiles_f32() {
  static const auto kernels = tiles<float>();
  return kernels;
}

}  // namespace atom::cuda::w8a8
