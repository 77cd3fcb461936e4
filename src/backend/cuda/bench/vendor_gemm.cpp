#include "backend/cuda/bench/vendor_gemm.h"

#include <algorithm>
#include <optional>

#include "backend/cuda/bench/timing.h"
#include "backend/cuda/vendor/cublaslt.h"
#include "base/random.h"

namespace atom::cuda::bench {
namespace {

constexpr int64_t kWorkspace = int64_t{64} << 20;
constexpr int kProposals = 6;

enum class VendorType : uint8_t { kF16, kInt8, kFp8 };

// Random operands that are valid for the type: no NaN and no denormal-only patterns.
Result<DeviceArray<uint8_t>> operand(VendorType type, int64_t elements, uint64_t seed) {
  if (type == VendorType::kInt8) return random_bytes(elements, seed);
  if (type == VendorType::kF16) return random_halves(elements, seed);
  std::vector<uint8_t> host((size_t{1} << 18) + 74);
  Random random(seed);
  // e4m3 of magnitude 2^-6 .. 15: exponents 1 .. 10.
  for (uint8_t& byte : host) {
    byte = static_cast<uint8_t>(random.below(2) << 7 | (8 + random.below(80)));
  }
  return repeated(elements, host);
}

// One product as the library describes it. Column-major: y^T [N, M] = (w^T)^T [N, K] x^T [K, M].
class Product {
 public:
  Product(const CublasLt& lt, VendorType type, const KernelSize& size)
      : lt_(lt), integer_(type == VendorType::kInt8) {
    const cudaDataType in = type == VendorType::kF16   ? CUDA_R_16F
                            : type == VendorType::kFp8 ? CUDA_R_8F_E4M3
                                                       : CUDA_R_8I;
    const auto n = static_cast<uint64_t>(size.rows), k = static_cast<uint64_t>(size.inputs),
               m = static_cast<uint64_t>(size.tokens);
    check(lt.create(&handle_));
    check(lt.desc_create(&op_, integer_ ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                         integer_ ? CUDA_R_32I : CUDA_R_32F));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    check(lt.desc_set(op_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    if (type == VendorType::kFp8) {
      const int8_t fast = 1;
      check(lt.desc_set(op_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof(fast)));
    }
    check(lt.layout_create(&a_, in, k, n, size.inputs));
    check(lt.layout_create(&b_, in, k, m, size.inputs));
    check(lt.layout_create(&d_, integer_ ? CUDA_R_32I : CUDA_R_16F, n, m, size.rows));
    check(lt.preference_create(&preference_));
    check(lt.preference_set(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &kWorkspace,
                            sizeof(kWorkspace)));
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;
  ~Product() {
    (void)lt_.preference_destroy(preference_);
    for (cublasLtMatrixLayout_t layout : {a_, b_, d_}) (void)lt_.layout_destroy(layout);
    (void)lt_.desc_destroy(op_);
    (void)lt_.destroy(handle_);
  }

  // What the library proposes; none where it has no such product.
  std::vector<cublasLtMatmulHeuristicResult_t> proposals() const {
    std::vector<cublasLtMatmulHeuristicResult_t> found(kProposals);
    int count = 0;
    const cublasStatus_t status = lt_.get_heuristic(handle_, op_, a_, b_, d_, d_, preference_,
                                                    kProposals, found.data(), &count);
    found.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(count) : 0);
    return found;
  }
  void run(const cublasLtMatmulAlgo_t& algorithm, const void* w, const void* x, void* y,
           void* workspace, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    const int32_t whole_one = 1, whole_zero = 0;
    check(lt_.matmul(handle_, op_, integer_ ? static_cast<const void*>(&whole_one) : &one, w, a_, x,
                     b_, integer_ ? static_cast<const void*>(&whole_zero) : &zero, y, d_, y, d_,
                     &algorithm, workspace, kWorkspace, stream));
  }

 private:
  void check(cublasStatus_t status) const {
    ATOM_CHECK(status == CUBLAS_STATUS_SUCCESS, lt_.status_string(status));
  }

  const CublasLt& lt_;
  bool integer_;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t op_ = nullptr;
  cublasLtMatrixLayout_t a_ = nullptr, b_ = nullptr, d_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

// Median microseconds by the fastest of the library's proposals, if it has such a product.
Result<std::optional<double>> best_us(const CublasLt& lt, VendorType type, const KernelSize& size,
                                      int samples) {
  const Product product(lt, type, size);
  const auto proposals = product.proposals();
  if (proposals.empty()) return std::optional<double>();
  const int64_t weights = size.rows * size.inputs, inputs = size.tokens * size.inputs;
  const int copies = rotations((weights + inputs) * (type == VendorType::kF16 ? 2 : 1));
  std::vector<DeviceArray<uint8_t>> w, x;
  for (int i = 0; i < copies; ++i) {
    w.push_back(ATOM_TRY(operand(type, weights, static_cast<uint64_t>(2 * i))));
    x.push_back(ATOM_TRY(operand(type, inputs, static_cast<uint64_t>(2 * i + 1))));
  }
  auto y = ATOM_TRY(DeviceArray<uint8_t>::allocate(size.rows * size.tokens * 4));
  auto workspace = ATOM_TRY(DeviceArray<uint8_t>::allocate(kWorkspace));
  std::vector<Work> works;
  for (const cublasLtMatmulHeuristicResult_t& proposal : proposals) {
    works.push_back({.copies = copies, .run = [&](int copy, cudaStream_t stream) {
                       const auto c = static_cast<size_t>(copy);
                       product.run(proposal.algo, w[c].data(), x[c].data(), y.data(),
                                   workspace.data(), stream);
                     }});
  }
  constexpr int kChoosingSamples = 9;
  const std::vector<Timing> timings = time_in_turns(works, kChoosingSamples);
  const auto best = std::ranges::min_element(timings, {}, &Timing::median) - timings.begin();
  return std::optional(time_us(copies, works[static_cast<size_t>(best)].run, samples).median);
}

}  // namespace

Result<std::vector<KernelBaseline>> vendor_gemms(const KernelSize& size, int samples) {
  std::vector<KernelBaseline> baselines;
  const CublasLt* lt = find_cublaslt();
  if (lt == nullptr) return baselines;
  constexpr std::pair<VendorType, const char*> kTypes[] = {
      {VendorType::kF16, "fp16"}, {VendorType::kInt8, "int8"}, {VendorType::kFp8, "fp8"}};
  for (const auto& [type, name] : kTypes) {
    const std::optional<double> us = ATOM_TRY(best_us(*lt, type, size, samples));
    if (us) baselines.push_back({.name = name, .us = *us});
  }
  return baselines;
}

}  // namespace atom::cuda::bench
