#include "backend/cuda/bench/vendor_gemm.h"

#include <cublasLt.h>

#include <algorithm>
#include <vector>

#include "backend/cuda/bench/timing.h"
#include "base/random.h"
#include "tensor/dtype.h"

namespace atom::cuda::bench {
namespace {

constexpr int64_t kWorkspace = int64_t{64} << 20;

// Random operands that are valid for the type: no NaN and no denormal-only patterns.
DeviceArray<uint8_t> operand(VendorType type, int64_t elements, uint64_t seed) {
  if (type == VendorType::kInt8) return random_bytes(elements, seed);
  std::vector<uint8_t> host(static_cast<size_t>(1 << 20) + 74);
  Random random(seed);
  for (size_t i = 0; i + 1 < host.size(); i += 2) {
    if (type == VendorType::kF16) {
      const uint16_t half = f32_to_f16(static_cast<float>(random.normal()));
      host[i] = static_cast<uint8_t>(half);
      host[i + 1] = static_cast<uint8_t>(half >> 8);
    } else {
      // e4m3 of magnitude 2^-6 .. 15: exponents 1 .. 10.
      for (size_t j = 0; j < 2; ++j) {
        host[i + j] = static_cast<uint8_t>(random.below(2) << 7 | (8 + random.below(80)));
      }
    }
  }
  const int64_t bytes = elements * (type == VendorType::kF16 ? 2 : 1);
  auto array = DeviceArray<uint8_t>::allocate(bytes).value();
  const auto step = static_cast<int64_t>(host.size());
  for (int64_t at = 0; at < bytes; at += step) {
    ATOM_CUDA_CHECK(cudaMemcpy(array.data() + at, host.data(),
                               static_cast<size_t>(std::min(step, bytes - at)),
                               cudaMemcpyHostToDevice));
  }
  return array;
}

void check(cublasStatus_t status) {
  ATOM_CHECK(status == CUBLAS_STATUS_SUCCESS, cublasLtGetStatusString(status));
}

}  // namespace

double vendor_gemm_us(VendorType type, int64_t n, int64_t k, int64_t m) {
  static const cublasLtHandle_t handle = [] {
    cublasLtHandle_t h;
    check(cublasLtCreate(&h));
    return h;
  }();
  const bool integer = type == VendorType::kInt8;
  const cudaDataType in = type == VendorType::kF16   ? CUDA_R_16F
                          : type == VendorType::kFp8 ? CUDA_R_8F_E4M3
                                                     : CUDA_R_8I;
  const cudaDataType out = integer ? CUDA_R_32I : CUDA_R_16F;
  cublasLtMatmulDesc_t op;
  check(cublasLtMatmulDescCreate(&op, integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                                 integer ? CUDA_R_32I : CUDA_R_32F));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  check(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                       sizeof(transposed)));
  if (type == VendorType::kFp8) {
    const int8_t fast = 1;
    check(cublasLtMatmulDescSetAttribute(op, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)));
  }
  // Column-major: y^T [N, M] = (w^T)^T [N, K] x^T [K, M].
  cublasLtMatrixLayout_t a, b, d;
  check(cublasLtMatrixLayoutCreate(&a, in, static_cast<uint64_t>(k), static_cast<uint64_t>(n), k));
  check(cublasLtMatrixLayoutCreate(&b, in, static_cast<uint64_t>(k), static_cast<uint64_t>(m), k));
  check(cublasLtMatrixLayoutCreate(&d, out, static_cast<uint64_t>(n), static_cast<uint64_t>(m), n));
  cublasLtMatmulPreference_t preference;
  check(cublasLtMatmulPreferenceCreate(&preference));
  check(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspace, sizeof(kWorkspace)));
  std::vector<cublasLtMatmulHeuristicResult_t> found(6);
  int count = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle, op, a, b, d, d, preference, static_cast<int>(found.size()), found.data(), &count);
  double best = -1;
  if (status == CUBLAS_STATUS_SUCCESS && count > 0) {
    const int64_t bytes = (n * k + m * k) * (type == VendorType::kF16 ? 2 : 1);
    const int copies = rotations(bytes);
    std::vector<DeviceArray<uint8_t>> w, x;
    for (int i = 0; i < copies; ++i) {
      w.push_back(operand(type, n * k, static_cast<uint64_t>(2 * i)));
      x.push_back(operand(type, m * k, static_cast<uint64_t>(2 * i + 1)));
    }
    auto y = DeviceArray<uint8_t>::allocate(n * m * 4).value();
    auto workspace = DeviceArray<uint8_t>::allocate(kWorkspace).value();
    const float one = 1, zero = 0;
    const int32_t one_i = 1, zero_i = 0;
    for (int i = 0; i < count; ++i) {
      const auto run = [&](int copy, cudaStream_t stream) {
        const auto c = static_cast<size_t>(copy);
        check(cublasLtMatmul(handle, op, integer ? static_cast<const void*>(&one_i) : &one,
                             w[c].data(), a, x[c].data(), b,
                             integer ? static_cast<const void*>(&zero_i) : &zero, y.data(), d,
                             y.data(), d, &found[static_cast<size_t>(i)].algo, workspace.data(),
                             kWorkspace, stream));
      };
      const double quick = median_us(copies, run, 5);
      if (best < 0 || quick < best * 1.02) {
        const double us = median_us(copies, run);
        if (best < 0 || us < best) best = us;
      }
    }
  }
  check(cublasLtMatmulPreferenceDestroy(preference));
  check(cublasLtMatrixLayoutDestroy(a));
  check(cublasLtMatrixLayoutDestroy(b));
  check(cublasLtMatrixLayoutDestroy(d));
  check(cublasLtMatmulDescDestroy(op));
  return best;
}

}  // namespace atom::cuda::bench
