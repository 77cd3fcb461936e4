#include "backend/cuda/vendor/matmul.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/log.h"

namespace atom::cuda {
namespace {

constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;  // what the vendor recommends for Hopper
constexpr uint64_t kMostAlignment = 256;                // that matters to the choice
constexpr int kProposals = 4;
constexpr size_t kMostPlans = 4096;  // prompts come in any number of tokens

cudaDataType cuda_type(DType type) {
  switch (type) {
    case DType::kF16:
      return CUDA_R_16F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kI32:
      return CUDA_R_32I;
    default:
      return CUDA_R_32F;
  }
}

cudaDataType input_type(MatmulType type) {
  return type == MatmulType::kF16 ? CUDA_R_16F : type == MatmulType::kI8 ? CUDA_R_8I : CUDA_R_32F;
}

uint64_t alignment_of(const void* p) {
  const auto address = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(p));
  return address == 0 ? kMostAlignment
                      : std::min(kMostAlignment, uint64_t{1} << std::countr_zero(address));
}

}  // namespace

// The library's description of a product. It thinks in columns, where our c is c^T [N, M] = b a^T:
// its first operand is our b.
struct Matmul::Plan {
  const CublasLt* lt;
  cublasLtMatmulDesc_t desc = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

  explicit Plan(const CublasLt* library) : lt(library) {}
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    for (cublasLtMatrixLayout_t layout : {first, second, result}) {
      if (layout != nullptr) (void)lt->layout_destroy(layout);
    }
    if (desc != nullptr) (void)lt->desc_destroy(desc);
  }
};

Matmul::Matmul() = default;

Matmul::~Matmul() {
  plans_.clear();
  if (handle_ != nullptr) (void)lt_->destroy(handle_);
}

// Loads the library at the first product.
bool Matmul::prepare() {
  if (prepared_) return lt_ != nullptr;
  prepared_ = true;
  const CublasLt* found = find_cublaslt();
  if (found == nullptr) return false;
  Result<DeviceArray<uint8_t>> workspace = DeviceArray<uint8_t>::allocate(kWorkspaceBytes);
  if (!workspace.ok() || found->create(&handle_) != CUBLAS_STATUS_SUCCESS) {
    log_warning("cuBLASLt did not start: products of floats are slow");
    return false;
  }
  workspace_ = std::move(workspace).value();
  lt_ = found;
  return true;
}

std::unique_ptr<Matmul::Plan> Matmul::make_plan(const MatmulArgs& args, uint64_t alignment) const {
  auto plan = std::make_unique<Plan>(lt_);
  const auto layout = [&](cublasLtMatrixLayout_t& to, cudaDataType type, int64_t rows, int64_t cols,
                          int64_t stride) {
    return lt_->layout_create(&to, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols),
                              stride) == CUBLAS_STATUS_SUCCESS;
  };
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    return lt_->desc_set(plan->desc, attribute, &value, sizeof(value)) == CUBLAS_STATUS_SUCCESS;
  };
  const bool exact = args.type == MatmulType::kI8;
  const cublasComputeType_t compute = exact ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
  const cudaDataType in = input_type(args.type);
  // Our rows are its columns: b [N, K] is K x N to it.
  const cublasOperation_t first_op = args.b.transposed ? CUBLAS_OP_N : CUBLAS_OP_T;
  const cublasOperation_t second_op = args.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  bool made = lt_->desc_create(&plan->desc, compute, exact ? CUDA_R_32I : CUDA_R_32F) ==
                  CUBLAS_STATUS_SUCCESS &&
              set(CUBLASLT_MATMUL_DESC_TRANSA, first_op) &&
              set(CUBLASLT_MATMUL_DESC_TRANSB, second_op) &&
              (args.b.transposed ? layout(plan->first, in, args.n, args.k, args.b.stride)
                                 : layout(plan->first, in, args.k, args.n, args.b.stride)) &&
              (args.a.transposed ? layout(plan->second, in, args.m, args.k, args.a.stride)
                                 : layout(plan->second, in, args.k, args.m, args.a.stride)) &&
              layout(plan->result, cuda_type(args.c_type), args.n, args.m, args.c_stride);
  if (made && args.scales != nullptr) {
    made = set(CUBLASLT_MATMUL_DESC_POINTER_MODE, CUBLASLT_POINTER_MODE_DEVICE);
  }
  if (made && args.bias != nullptr) {
    made = set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS) &&
           set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(args.c_type)) &&
           set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, args.bias);
  }
  cublasLtMatmulPreference_t preference = nullptr;
  if (!made || lt_->preference_create(&preference) != CUBLAS_STATUS_SUCCESS) return nullptr;
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
    (void)lt_->preference_set(preference, attribute, &value, sizeof(value));
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    prefer(attribute, static_cast<uint32_t>(alignment));
  }
  std::array<cublasLtMatmulHeuristicResult_t, kProposals> found = {};
  int count = 0;
  const cublasStatus_t status =
      lt_->get_heuristic(handle_, plan->desc, plan->first, plan->second, plan->result, plan->result,
                         preference, kProposals, found.data(), &count);
  (void)lt_->preference_destroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS) return nullptr;
  for (int i = 0; i < count; ++i) {
    if (found[static_cast<size_t>(i)].state != CUBLAS_STATUS_SUCCESS) continue;
    plan->algorithm = found[static_cast<size_t>(i)].algo;
    return plan;
  }
  return nullptr;
}

const Matmul::Plan* Matmul::find_plan(const MatmulArgs& args) {
  const uint64_t alignment = std::min({alignment_of(args.a.data), alignment_of(args.b.data),
                                       alignment_of(args.c), alignment_of(args.bias)});
  const Key key = {.type = args.type,
                   .c_type = args.c_type,
                   .m = args.m,
                   .n = args.n,
                   .k = args.k,
                   .a_stride = args.a.stride,
                   .b_stride = args.b.stride,
                   .c_stride = args.c_stride,
                   .a_transposed = args.a.transposed,
                   .b_transposed = args.b.transposed,
                   .bias = args.bias != nullptr,
                   .adds = args.beta != 0.0f,
                   .scales = args.scales != nullptr,
                   .alignment = alignment};
  if (const auto known = plans_.find(key); known != plans_.end()) return known->second.get();
  if (plans_.size() >= kMostPlans) plans_.clear();
  return plans_.emplace(key, make_plan(args, alignment)).first->second.get();
}

bool Matmul::run(const MatmulArgs& args, cudaStream_t stream) {
  if (args.m == 0 || args.n == 0) return true;
  if (args.k == 0 || !prepare()) return false;
  const Plan* plan = find_plan(args);
  if (plan == nullptr) return false;
  if (args.bias != nullptr) {
    (void)lt_->desc_set(plan->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &args.bias,
                        sizeof(args.bias));
  }
  const auto whole_alpha = static_cast<int32_t>(args.alpha);
  const auto whole_beta = static_cast<int32_t>(args.beta);
  const bool exact = args.type == MatmulType::kI8;
  const auto factor = [&](int index, const float& number, const int32_t& whole) {
    if (args.scales != nullptr) return static_cast<const void*>(args.scales + index);
    return exact ? static_cast<const void*>(&whole) : &number;
  };
  const cublasStatus_t status =
      lt_->matmul(handle_, plan->desc, factor(0, args.alpha, whole_alpha), args.b.data, plan->first,
                  args.a.data, plan->second, factor(1, args.beta, whole_beta), args.c, plan->result,
                  args.c, plan->result, &plan->algorithm, workspace_.data(),
                  static_cast<size_t>(kWorkspaceBytes), stream);
  // What was accepted when it was planned fails only where the GPU does.
  ATOM_CHECK(status == CUBLAS_STATUS_SUCCESS, lt_->status_string(status));
  return true;
}

}  // namespace atom::cuda
