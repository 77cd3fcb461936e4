// A GEMM's operands on random data, in several copies that outlast L2.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "backend/cuda/bench/timing.h"
#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/kernel_bench.h"

namespace atom::cuda::bench {

class GemmProblem {
 public:
  // Fails for sizes that the format's groups and outliers do not fit, and when GPU memory is short.
  static Result<GemmProblem> create(GemmFormat format, const KernelSize& size, int64_t outliers);

  // With the operands of one copy; y is F16. The pointers are valid as long as this lives.
  GemmArgs args(int copy) const;
  int copies() const { return static_cast<int>(weights_.size()); }
  // The codes of a copy's activations, to be written by what runs before the GEMM.
  int8_t* codes(int copy) {
    return reinterpret_cast<int8_t*>(x_[static_cast<size_t>(copy)].data());
  }
  double ops() const;
  double bytes() const;  // weights and activations read, outputs written
  // By a kernel of the table; valid as long as this lives.
  Work work(GemmChoice choice) const;

 private:
  GemmArgs args_;
  int64_t inputs_ = 0;
  std::vector<DeviceArray<uint8_t>> weights_, x_, y_;
  DeviceArray<float> row_scales_, x_scales_;
  DeviceArray<int32_t> x_sums_;
  DeviceArray<uint8_t> workspace_;
};

// Times the work of every choice; the fastest, where it is faster than `chosen`. others: all that
// ran.
GemmChoice fastest(GemmChoice chosen, std::span<const GemmChoice> choices,
                   const std::function<std::string(GemmChoice)>& name,
                   const std::function<Work(GemmChoice)>& work,
                   std::vector<KernelBaseline>& others);

}  // namespace atom::cuda::bench
