// What the CUDA backend keeps of tensors, activations, weights and the cache.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/linear/weight_view.h"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/device.h"
#include "backend/cuda/runtime/staging.h"
#include "ops/backend.h"
#include "tensor/joined_rows.h"

namespace atom::cuda {

// A number that no other object of this process has or had: addresses are used again.
uint64_t next_serial();

class CudaTensor final : public Tensor {
 public:
  static Result<std::unique_ptr<CudaTensor>> create(int64_t rows, int64_t cols,
                                                    Precision precision);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  DType dtype() const override { return halves() ? DType::kF16 : DType::kF32; }

  bool halves() const { return precision_ == Precision::kHalf; }
  // Elements, whatever they are.
  void* raw() { return data_.data(); }
  const void* raw() const { return data_.data(); }
  // REQUIRES: !halves().
  float* data() {
    ATOM_CHECK(!halves(), "an operator that takes floats was given a tensor of halves");
    return static_cast<float*>(raw());
  }
  const float* data() const { return const_cast<CudaTensor*>(this)->data(); }
  uint64_t serial() const { return serial_; }

  // Backend::write and read. Wait for the stream.
  void from_host(std::span<const float> values, cudaStream_t stream);
  void to_host(int64_t rows, std::span<float> values, cudaStream_t stream) const;

 private:
  CudaTensor(int64_t rows, int64_t cols, Precision precision)
      : rows_(rows), cols_(cols), precision_(precision) {}
  int64_t rows_, cols_;
  Precision precision_;
  DeviceArray<uint8_t> data_;  // [rows, cols]
  uint64_t serial_ = next_serial();
};

class CudaActivations final : public Activations {
 public:
  static Result<std::unique_ptr<CudaActivations>> create(const LinearFormat& format,
                                                         int64_t channels, int64_t max_tokens,
                                                         ChipKernels chip);

  const LinearFormat& format() const override { return format_; }
  int64_t max_tokens() const override { return max_tokens_; }
  int64_t channels() const override { return channels_; }
  HostActivations to_host(int64_t tokens) const;

  int64_t body = 0, group = 0, groups = 0;  // of the activations' scales
  int64_t value_count = 0;                  // channels kept as floats, the last ones
  bool decoded_values = false;              // values are what codes stand for (float weights)
  bool in_halves = false;                   // see halves
  CodePlaces places;
  DeviceArray<int8_t> codes;          // zero where no channel is
  DeviceArray<float> scales;          // as places has them
  DeviceArray<float> outlier_scales;  // [T], zero without INT8 outliers
  DeviceArray<int32_t> sums;          // [T], INT8 blocks only
  DeviceArray<float> values;          // [T, value_count]
  DeviceArray<uint16_t> halves;       // f16 in place of all of these, as places has them

 private:
  CudaActivations(const LinearFormat& format, int64_t channels, int64_t max_tokens)
      : format_(format), channels_(channels), max_tokens_(max_tokens) {}
  LinearFormat format_;
  int64_t channels_, max_tokens_;
};

class CudaLinear final : public LinearWeights {
 public:
  // Fails for shapes whose integer sums could leave int32, and when memory is short.
  static Result<std::unique_ptr<CudaLinear>> create(const JoinedRows& rows, ChipKernels chip,
                                                    Staging& staging);
  // Backend::load_gate_up.
  static Result<std::unique_ptr<CudaLinear>> create_gate_up(const PackedLinear& gate,
                                                            const PackedLinear& up,
                                                            ChipKernels chip, Staging& staging);

  const LinearFormat& format() const override { return format_; }
  int64_t rows() const override { return view_.rows; }
  int64_t cols() const override { return view_.cols; }
  int64_t bytes() const override { return bytes_; }
  bool gated() const override { return view_.gated; }
  const WeightView& view() const { return view_; }
  uint64_t serial() const { return serial_; }
  // The GEMM's blocks, to be watched: they go with the linear. Null where it has none.
  std::weak_ptr<const std::span<const uint8_t>> blocks() const { return blocks_; }

 private:
  explicit CudaLinear(const LinearFormat& format) : format_(format) {}
  // GPU memory of so many bytes, which the linear keeps.
  Result<uint8_t*> allocate(int64_t bytes);
  // Copies an array to the GPU and lets `to` point there; an empty one leaves it null.
  template <class T, class Source>
  Status place(std::span<const Source> host, const T*& to, Staging& staging);
  Status place_outlier_codes(const PackedLinear& packed, Staging& staging);
  Status place_blocks(const JoinedRows& rows, Staging& staging);
  Status place_floats(const PackedLinear& packed, Staging& staging);
  Status place_rows(const PackedLinear& packed, ChipKernels chip, Staging& staging);

  LinearFormat format_;
  WeightView view_;
  int64_t bytes_ = 0;
  std::vector<DeviceArray<uint8_t>> arrays_;
  std::shared_ptr<const std::span<const uint8_t>> blocks_;  // view_.codes, of a GEMM
  uint64_t serial_ = next_serial();
};

class CudaKvCache final : public KvCache {
 public:
  static Result<std::unique_ptr<CudaKvCache>> create(const KvCacheShape& shape);

  const KvCacheShape& shape() const override { return shape_; }
  void set_prefix(int64_t layer, std::span<const float> k, std::span<const float> v) override;
  attention::CacheView view(int64_t layer) const;
  uint64_t serial() const { return serial_; }

 private:
  explicit CudaKvCache(const KvCacheShape& shape) : shape_(shape) {}
  KvCacheShape shape_;
  PageLayout layout_;
  DeviceArray<uint8_t> records_;  // [layers, pages, KH] records
  DeviceArray<float> prefix_;     // [layers, 2, prefix tokens, KH, DH]
  uint64_t serial_ = next_serial();
};

// What the backend was handed is of its own making.
inline CudaTensor& cast(Tensor& tensor) { return static_cast<CudaTensor&>(tensor); }
inline const CudaTensor& cast(const Tensor& tensor) {
  return static_cast<const CudaTensor&>(tensor);
}
inline CudaActivations& cast(Activations& acts) { return static_cast<CudaActivations&>(acts); }
inline const CudaActivations& cast(const Activations& acts) {
  return static_cast<const CudaActivations&>(acts);
}
inline const CudaLinear& cast(const LinearWeights& w) { return static_cast<const CudaLinear&>(w); }

}  // namespace atom::cuda
