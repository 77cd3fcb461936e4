// Matrix products by the vendor's library: linears of unquantized models, and what the quantizer
// multiplies in floats.
#pragma once

#include <cuda_runtime_api.h>

#include <compare>
#include <cstdint>
#include <map>
#include <memory>

#include "backend/cuda/runtime/device.h"
#include "backend/cuda/vendor/cublaslt.h"
#include "tensor/dtype.h"

namespace atom::cuda {

enum class MatmulType : uint8_t {
  kF32,  // floats, multiplied and summed as such (no TF32); c in f32
  kF16,  // halves, summed in f32; c in f16 or f32
  kI8,   // int8, summed exactly; c in i32; K and strides multiples of 16
};

// A row-major matrix in GPU memory.
struct MatmulOperand {
  const void* data = nullptr;
  int64_t stride = 0;       // elements from row to row
  bool transposed = false;  // stored the other way round
};

// c [M, N] = alpha * a [M, K] * b [N, K]^T + beta * c, or with a stored as [K, M], b as [K, N].
struct MatmulArgs {
  MatmulType type = MatmulType::kF32;
  int64_t m = 0, n = 0, k = 0;
  MatmulOperand a, b;
  void* c = nullptr;
  int64_t c_stride = 0;
  DType c_type = DType::kF32;
  float alpha = 1.0f, beta = 0.0f;  // kI8: whole numbers
  const float* scales = nullptr;    // alpha and beta in GPU memory, in place of these; or null
  const void* bias = nullptr;       // [N] of c's type, added to every row; or null
};

class Matmul {
 public:
  Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;
  ~Matmul();

  // Starts the product. False, and nothing was started, where the library is missing or has no
  // kernel for it. The algorithm for a shape is what the library proposes first, asked for once; a
  // product whose like has run before allocates nothing and can be recorded in a CUDA graph.
  // Products of one object run one after another: they share their scratch.
  bool run(const MatmulArgs& args, cudaStream_t stream);

 private:
  struct Key {
    MatmulType type = MatmulType::kF32;
    DType c_type = DType::kF32;
    int64_t m = 0, n = 0, k = 0, a_stride = 0, b_stride = 0, c_stride = 0;
    bool a_transposed = false, b_transposed = false, bias = false, adds = false, scales = false;
    uint64_t alignment = 0;  // of the least aligned operand
    auto operator<=>(const Key&) const = default;
  };
  struct Plan;

  bool prepare();
  const Plan* find_plan(const MatmulArgs& args);
  std::unique_ptr<Plan> make_plan(const MatmulArgs& args, uint64_t alignment) const;

  bool prepared_ = false;
  const CublasLt* lt_ = nullptr;  // null: not there
  cublasLtHandle_t handle_ = nullptr;
  DeviceArray<uint8_t> workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;  // null: no kernel
};

}  // namespace atom::cuda
