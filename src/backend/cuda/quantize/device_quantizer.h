// Quantizing in GPU memory: GPTQ's factors and the codes of weights.
#pragma once

#include "backend/cuda/runtime/device.h"
#include "ops/device_quantizer.h"

namespace atom::cuda {

class CudaQuantizer final : public DeviceQuantizer {
 public:
  explicit CudaQuantizer(cudaStream_t stream) : stream_(stream) {}

  KvFormat float_cache() const override { return {.kind = KvKind::kF16}; }
  void clear(Tensor& tensor) override;
  void read_columns(const Tensor& from, int64_t rows, int64_t first, int64_t count,
                    std::span<float> to) override;
  void read_diagonal(const Tensor& square, std::span<float> to) override;
  Result<std::unique_ptr<HessianFactor>> factor(const HessianArgs& args) override;
  Result<PackedLinear> quantize(const QuantizeWeightsArgs& args) override;

 private:
  // The first `count` elements of an array that lives on from call to call and only grows.
  template <class T>
  Result<T*> reserve(DeviceArray<T>& array, int64_t count);

  cudaStream_t stream_;
  DeviceArray<double> matrix_, inverses_, panel_;
  DeviceArray<float> weights_, columns_, errors_, vectors_;
  DeviceArray<int8_t> codes_;
  DeviceArray<uint8_t> outputs_;
};

}  // namespace atom::cuda
