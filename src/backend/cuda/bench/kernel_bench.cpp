#include "backend/cuda/kernel_bench.h"

#include <algorithm>

#include "backend/cuda/bench/bench.h"
#include "backend/cuda/vendor/cublaslt.h"

namespace atom {
namespace cuda::bench {

KernelFigure Run::figure(const char* group, std::string problem, std::string kernel,
                         const Timing& timing, double ops, double bytes, double peak) const {
  KernelFigure figure;
  figure.group = group;
  figure.problem = std::move(problem);
  figure.kernel = std::move(kernel);
  figure.us = timing.median;
  figure.us_p10 = timing.p10;
  figure.us_p90 = timing.p90;
  figure.tops = ops * 1e-6 / timing.median;
  figure.gbps = bytes * 1e-3 / timing.median;
  figure.roof = std::max(figure.tops / (peak * machine.int8_tops), figure.gbps / machine.copy_gbps);
  return figure;
}

std::vector<KernelSize> paper_sizes() {
  std::vector<KernelSize> sizes;
  for (int64_t tokens = 16; tokens <= 4096; tokens *= 2) {
    sizes.push_back({.rows = 4096, .inputs = 4096, .tokens = tokens});
  }
  return sizes;
}

}  // namespace cuda::bench

Result<KernelBenchMachine> measure_cuda_machine() {
  ATOM_TRY(cuda::check_device());
  const cuda::DeviceInfo& device = cuda::device_info();
  if (!device.hopper()) {
    return error(ErrorCode::kUnsupported,
                 "bench kernels: measures the kernels of sm_90a; {} is sm_{}{}", device.name,
                 device.major, device.minor);
  }
  // Of a multiprocessor and cycle, dense.
  constexpr double kOpsPerCycle = 8192;
  KernelBenchMachine machine;
  machine.device = device.name;
  ATOM_CUDA_CHECK(cudaDriverGetVersion(&machine.driver));
  int clock_khz = 0;
  ATOM_CUDA_CHECK(cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0));
  machine.clock_mhz = clock_khz * 1e-3;
  machine.int8_tops = kOpsPerCycle * device.sms * clock_khz * 1e-9;
  machine.copy_gbps = ATOM_TRY(cuda::bench::copy_gbps());
  machine.vendor_found = cuda::find_cublaslt() != nullptr;
  return machine;
}

Status bench_cuda_kernels(const KernelBenchMachine& machine, const KernelBenchOptions& options,
                          const std::function<Status(const KernelFigure&)>& each) {
  KernelBenchOptions filled = options;
  if (filled.sizes.empty()) filled.sizes = cuda::bench::paper_sizes();
  const cuda::bench::Run run = {.machine = machine, .options = filled, .each = each};
  switch (options.group) {
    case KernelGroup::kW4A8:
      return bench_gemm(cuda::GemmFormat::kW4A8, run);
    case KernelGroup::kW4A4:
      return bench_gemm(cuda::GemmFormat::kW4A4, run);
    case KernelGroup::kFp4:
      return bench_gemm(cuda::GemmFormat::kFp4, run);
    case KernelGroup::kW8A8:
      return bench_gemm(cuda::GemmFormat::kW8A8, run);
    case KernelGroup::kW4A16:
      return bench_gemm(cuda::GemmFormat::kW4A16, run);
    case KernelGroup::kExperts:
      return bench_experts(run);
    case KernelGroup::kAttention:
      return bench_attention(run);
    case KernelGroup::kRows:
      return bench_rows(run);
    case KernelGroup::kReorder:
      return bench_reorder(run);
    case KernelGroup::kSampling:
      return bench_sampling(run);
  }
  return {};
}

}  // namespace atom
