// Measures this backend's kernels, with what users could run instead measured in the same process.
// No CUDA header is needed to include this.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"

namespace atom {

enum class KernelGroup : uint8_t {
  kW4A8,       // GEMM, two-level weights and INT8 activations
  kW4A4,       // GEMM, Atom's 4-bit groups
  kFp4,        // GEMM, the same groups of E2M1
  kW8A8,       // GEMM, INT8 with a scale a row and a token
  kW4A16,      // GEMM, 4-bit groups and halves
  kExperts,    // w4a8 GEMMs of a mixture: each token goes to two of eight experts
  kAttention,  // of new tokens over an INT4 cache
  kRows,       // norm, gather and quantize
  kReorder,    // all of these fused, against a gather and two GEMMs of their own
  kSampling,   // a token from each row of logits
};

// N x K weights, M tokens.
struct KernelSize {
  int64_t rows = 0, inputs = 0, tokens = 0;
};

struct KernelBenchOptions {
  KernelGroup group = KernelGroup::kW4A8;
  std::vector<KernelSize> sizes;  // of GEMMs; of rows their inputs and tokens; empty: the paper's
  int samples = 30;               // replays that a median is taken of
  bool tune = false;              // GEMMs: run every kernel of the table and take the fastest
};

// Something else that gives the same result.
struct KernelBaseline {
  std::string name;
  double us = 0;
};

struct KernelFigure {
  std::string group, problem;
  std::string kernel;  // which one ran
  double us = 0, us_p10 = 0, us_p90 = 0;
  double tops = 0;  // useful operations, products and sums counted apart; 0 where bytes are all
  double gbps = 0;  // bytes that must be moved
  double roof = 0;  // the time that the chip's peak or its copy rate allow at best, over ours
  std::vector<KernelBaseline> baselines;
  std::vector<KernelBaseline> others;  // with tune: all kernels of the table
};

struct KernelBenchMachine {
  std::string device;
  int driver = 0;             // CUDA version that the driver speaks, 13000 for 13.0
  double clock_mhz = 0;       // highest of the multiprocessors
  double copy_gbps = 0;       // measured, bytes read plus written
  double int8_tops = 0;       // dense peak at that clock, INT8 and FP8
  bool vendor_found = false;  // cuBLASLt
};

// Fails (kUnsupported) where cuda_backend would, and on other chips than Hopper.
Result<KernelBenchMachine> measure_cuda_machine();
// Calls `each` for every figure as it is measured; an error of its ends the run. Fails on sizes
// that no kernel serves and when GPU memory is short. REQUIRES: measure_cuda_machine was ok.
Status bench_cuda_kernels(const KernelBenchMachine& machine, const KernelBenchOptions& options,
                          const std::function<Status(const KernelFigure&)>& each);

}  // namespace atom
