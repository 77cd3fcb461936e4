// RMSNorm, gather and quantization of random rows.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/rows/row_kernels.h"

namespace atom::cuda::bench {

enum class RowFormat : uint8_t {
  kW4A8,        // INT8, a scale a token
  kW4A4,        // 4 bits in groups of 128
  kFp4,         // E2M1 in groups of 128
  kW4A4Search,  // 4 bits, asymmetric, in groups of 32 whose clip is searched for
};

// x [tokens, inputs] of floats; a random permutation.
class RowsProblem {
 public:
  static Result<RowsProblem> create(RowFormat format, const KernelSize& size, int64_t outliers);

  std::string_view name() const;
  int copies() const { return static_cast<int>(x_.size()); }
  const float* x(int copy) const { return x_[static_cast<size_t>(copy)].data(); }
  const uint16_t* perm16() const { return perm16_.data(); }
  const float* weight() const { return weight_.data(); }
  // codes: null for this problem's own.
  void launch(int copy, cudaStream_t stream, int8_t* codes = nullptr) const;

 private:
  RowFormat format_ = RowFormat::kW4A8;
  KernelSize size_;
  LinearFormat linear_;
  CodePlaces places_;
  std::vector<DeviceArray<float>> x_;
  std::vector<DeviceArray<int8_t>> codes_;
  DeviceArray<uint16_t> perm16_;
  DeviceArray<int32_t> perm_, sums_;
  DeviceArray<float> weight_, scales_, outlier_scales_;
};

}  // namespace atom::cuda::bench
