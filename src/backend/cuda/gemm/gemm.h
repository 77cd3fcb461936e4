// The GEMMs of quantized linears: choice and launch, callable from plain C++.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <span>

#include "backend/cuda/gemm/gemm_args.h"
#include "base/status.h"

namespace atom::cuda {

// One way to run a GEMM: the kernel's number in the table and how far K is split.
struct GemmChoice {
  int kernel = 0;
  bool split = false;  // stream-K over the tiles that do not fill the chip; not for "k" kernels
};

// Scratch that any launch may need.
int64_t gemm_workspace_bytes();
// Its part that launches leave in any state, for what else needs scratch on their stream.
std::span<uint8_t> gemm_scratch(void* workspace);

// Kernels in the format's table, and a short name of each ("128x256": channels x tokens of a tile).
int gemm_kernel_count(GemmFormat format);
const char* gemm_kernel_name(GemmFormat format, int kernel);
// Whether a kernel's clusters share tiles already, so that it cannot be split ("k" in its name).
bool gemm_shares_tiles(GemmFormat format, int kernel);
// The fastest choice by the cost model.
GemmChoice choose_gemm(const GemmArgs& args);
// Error: kUnsupported where the kernel cannot run the problem.
Status launch_gemm(const GemmArgs& args, GemmChoice choice, cudaStream_t stream);

}  // namespace atom::cuda
