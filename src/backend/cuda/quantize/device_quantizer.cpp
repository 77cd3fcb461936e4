#include "backend/cuda/quantize/device_quantizer.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "backend/cuda/objects.h"
#include "backend/cuda/quantize/factor_kernels.h"
#include "backend/cuda/quantize/weight_kernels.h"
#include "ops/weight_grid.h"
#include "tensor/quantized_linear.h"

namespace atom::cuda {
namespace {

constexpr int64_t kMostChannels = 65535;  // rows that a grid can have

class CudaFactor final : public HessianFactor {
 public:
  explicit CudaFactor(int64_t size) : size_(size) {}
  int64_t size() const override { return size_; }

  DeviceArray<float> upper;     // [K, K] U
  DeviceArray<float> diagonal;  // [K] of H + damp I

 private:
  int64_t size_;
};

template <class T>
void upload(T* to, std::span<const T> from, cudaStream_t stream) {
  ATOM_CUDA_CHECK(
      cudaMemcpyAsync(to, from.data(), from.size_bytes(), cudaMemcpyHostToDevice, stream));
}

template <class T>
void download(std::vector<T>& to, const T* from, cudaStream_t stream) {
  ATOM_CUDA_CHECK(
      cudaMemcpyAsync(to.data(), from, to.size() * sizeof(T), cudaMemcpyDeviceToHost, stream));
}

// Where each array of a linear stands among the outputs of one call: offsets in bytes, those of
// wider elements first.
struct Outputs {
  explicit Outputs(const PackedLinear& p) {
    scales = place(p.scales);
    row_f16 = place(p.row_scales);
    outlier_f16 = place(p.outlier_scales);
    outlier_values = place(p.outlier_values);
    codes = place(p.codes);
    group_scales = place(p.group_scales);
    group_zeros = place(p.group_zeros);
    outlier_codes = place(p.outlier_codes);
  }
  int64_t scales, row_f16, outlier_f16, outlier_values, codes, group_scales, group_zeros,
      outlier_codes;
  int64_t bytes = 0;

 private:
  template <class T>
  int64_t place(const std::vector<T>& array) {
    return std::exchange(bytes, bytes + static_cast<int64_t>(array.size() * sizeof(T)));
  }
};

}  // namespace

template <class T>
Result<T*> CudaQuantizer::reserve(DeviceArray<T>& array, int64_t count) {
  if (array.size() < count) {
    array = DeviceArray<T>();  // first, so that both need not fit
    array = ATOM_TRY(DeviceArray<T>::allocate(count));
  }
  return array.data();
}

void CudaQuantizer::clear(Tensor& tensor) {
  auto& to = static_cast<CudaTensor&>(tensor);
  ATOM_CUDA_CHECK(cudaMemsetAsync(
      to.raw(), 0, static_cast<size_t>(to.rows() * to.cols() * dtype_bytes(to.dtype())), stream_));
}

void CudaQuantizer::read_columns(const Tensor& from, int64_t rows, int64_t first, int64_t count,
                                 std::span<float> to) {
  ATOM_CHECK(rows <= from.rows() && first >= 0 && first + count <= from.cols() &&
                 std::ssize(to) == rows * count,
             "read_columns: shapes");
  const auto width = static_cast<size_t>(count) * sizeof(float);
  ATOM_CUDA_CHECK(cudaMemcpy2DAsync(to.data(), width,
                                    static_cast<const CudaTensor&>(from).data() + first,
                                    static_cast<size_t>(from.cols()) * sizeof(float), width,
                                    static_cast<size_t>(rows), cudaMemcpyDeviceToHost, stream_));
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

void CudaQuantizer::read_diagonal(const Tensor& square, std::span<float> to) {
  ATOM_CHECK(square.rows() == square.cols() && static_cast<int64_t>(to.size()) == square.rows(),
             "read_diagonal: shapes");
  float* diagonal = reserve(vectors_, square.rows()).value();
  launch_diagonal({.square = static_cast<const CudaTensor&>(square).data(),
                   .to = diagonal,
                   .n = static_cast<int>(square.rows())},
                  stream_);
  ATOM_CUDA_CHECK(
      cudaMemcpyAsync(to.data(), diagonal, to.size_bytes(), cudaMemcpyDeviceToHost, stream_));
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
}

Result<std::unique_ptr<HessianFactor>> CudaQuantizer::factor(const HessianArgs& args) {
  const int64_t n = args.gram->rows();
  ATOM_CHECK(args.gram->cols() == n && (args.order.empty() || std::ssize(args.order) == n) &&
                 (args.divisors.empty() || std::ssize(args.divisors) == n),
             "factor: shapes");
  if (n > kMostChannels) {
    return error(ErrorCode::kUnsupported, "device 'cuda': GPTQ over {} channels; at most {}", n,
                 kMostChannels);
  }
  std::vector<float> energy(static_cast<size_t>(n));
  read_diagonal(*args.gram, energy);
  double trace = 0;
  for (size_t i = 0; i < energy.size(); ++i) {
    const size_t k = args.order.empty() ? i : static_cast<size_t>(args.order[i]);
    trace += args.divisors.empty() ? energy[k] : energy[k] / (args.divisors[k] * args.divisors[k]);
  }
  if (!std::isfinite(trace)) {
    return error(ErrorCode::kInvalidArgument, "calibration gave a Hessian that is not finite");
  }
  auto factor = std::make_unique<CudaFactor>(n);
  factor->upper = ATOM_TRY(DeviceArray<float>::allocate(n * n));
  factor->diagonal = ATOM_TRY(DeviceArray<float>::allocate(n));
  const auto order = ATOM_TRY(DeviceArray<int32_t>::copy_of(args.order));
  const auto divisors = ATOM_TRY(DeviceArray<float>::copy_of(args.divisors));
  const int none = 0;
  auto failed = ATOM_TRY(DeviceArray<int>::copy_of({&none, 1}));
  const int64_t padded = (n + kFactorBlock - 1) / kFactorBlock * kFactorBlock;
  double* matrix = ATOM_TRY(reserve(matrix_, n * n));
  double* inverses = ATOM_TRY(reserve(inverses_, padded * kFactorBlock));
  double* panel = ATOM_TRY(reserve(panel_, n * kFactorBlock));
  const int size = static_cast<int>(n);
  launch_reverse({.gram = static_cast<const CudaTensor&>(*args.gram).data(),
                  .order = args.order.empty() ? nullptr : order.data(),
                  .divisors = args.divisors.empty() ? nullptr : divisors.data(),
                  .damp = args.damping * trace / static_cast<double>(n),
                  .n = size,
                  .matrix = matrix,
                  .diagonal = factor->diagonal.data()},
                 stream_);
  launch_invert_factor(
      {.matrix = matrix, .inverses = inverses, .panel = panel, .failed = failed.data(), .n = size},
      stream_);
  launch_upper({.matrix = matrix, .upper = factor->upper.data(), .n = size}, stream_);
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
  const int pivot = failed.to_host()[0];
  if (pivot != 0) {
    return error(ErrorCode::kInvalidArgument,
                 "calibration gave a Hessian that is not positive definite (pivot {} of {}); more "
                 "calibration text or a larger gptq.damping helps",
                 pivot, n);
  }
  return std::unique_ptr<HessianFactor>(std::move(factor));
}

Result<PackedLinear> CudaQuantizer::quantize(const QuantizeWeightsArgs& args) {
  const WeightFormat& format = args.spec.format.weight;
  const auto* factor = static_cast<const CudaFactor*>(args.factor);
  ATOM_CHECK(format.kind != WeightKind::kFloat &&
                 std::ssize(args.weights) == args.rows * args.cols &&
                 (factor == nullptr || factor->size() == args.cols) &&
                 (args.importance.empty() || std::ssize(args.importance) == args.cols),
             "quantize: shapes");
  PackedLinear packed = make_quantized_linear(args.spec.format, args.rows, args.cols);
  const int64_t n = args.rows, k = args.cols, body = packed.body(), groups = packed.groups();
  const Outputs outputs(packed);
  const bool two_level = format.kind == WeightKind::kTwoLevel;
  WeightParams params = {
      .rows = static_cast<int>(n),
      .cols = static_cast<int>(k),
      .body = static_cast<int>(body),
      .group = static_cast<int>(format.group == 0 ? body : format.group),
      .groups = static_cast<int>(groups),
      .format = format,
      .search = args.spec.scale_rule == ScaleRule::kSearch,
      .clip = args.spec.clip,
      .divisor = weight_grid::absmax_divisor(format, factor != nullptr),
      .low = two_level ? 0.0f : static_cast<float>(smallest_code(format.bits, format.grid)),
      .high = two_level ? 15.0f : static_cast<float>(largest_code(format.bits, format.grid)),
  };
  float* weights = ATOM_TRY(reserve(weights_, n * k));
  params.columns = ATOM_TRY(reserve(columns_, n * k));
  params.errors = ATOM_TRY(reserve(errors_, kColumnBlock * n));
  params.codes = ATOM_TRY(reserve(codes_, body * n));
  float* vectors = ATOM_TRY(reserve(vectors_, k + 4 * n));
  uint8_t* bytes = ATOM_TRY(reserve(outputs_, outputs.bytes));
  upload(weights, args.weights, stream_);
  params.weights = weights;
  std::vector<float> ones;
  if (factor != nullptr) {
    params.upper = factor->upper.data();
    params.importance = factor->diagonal.data();
  } else {
    ones.assign(args.importance.empty() ? static_cast<size_t>(k) : 0, 1.0f);
    upload(vectors, args.importance.empty() ? std::span<const float>(ones) : args.importance,
           stream_);
    params.importance = vectors;
  }
  params.scales = vectors + k;
  params.zeros = params.scales + n;
  params.inverses = params.zeros + n;
  params.row_units = params.inverses + n;
  params.packed = bytes + outputs.codes;
  params.group_f16 = reinterpret_cast<uint16_t*>(bytes + outputs.scales);
  params.row_f16 = reinterpret_cast<uint16_t*>(bytes + outputs.row_f16);
  params.outlier_f16 = reinterpret_cast<uint16_t*>(bytes + outputs.outlier_f16);
  params.outlier_values = reinterpret_cast<uint16_t*>(bytes + outputs.outlier_values);
  params.group_scales = bytes + outputs.group_scales;
  params.group_zeros = reinterpret_cast<int8_t*>(bytes + outputs.group_zeros);
  params.outlier_codes = reinterpret_cast<int8_t*>(bytes + outputs.outlier_codes);
  launch_quantize_weights(params, stream_);
  download(packed.codes, params.packed, stream_);
  download(packed.scales, params.group_f16, stream_);
  download(packed.row_scales, params.row_f16, stream_);
  download(packed.outlier_scales, params.outlier_f16, stream_);
  download(packed.outlier_values, params.outlier_values, stream_);
  download(packed.group_scales, params.group_scales, stream_);
  download(packed.group_zeros, params.group_zeros, stream_);
  download(packed.outlier_codes, params.outlier_codes, stream_);
  ATOM_CUDA_CHECK(cudaStreamSynchronize(stream_));
  return packed;
}

}  // namespace atom::cuda
