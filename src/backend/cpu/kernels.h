// The inner loops that exist once for each instruction set, behind a table of functions. Arguments
// are plain structures of pointers: translation units compiled for one instruction set must not
// instantiate inline functions that the linker could hand to the others.
#pragma once

#include <cstdint>

#include "tensor/formats.h"

namespace atom::cpu {

// One call of the integer linear: see LinearWeights and Activations for the layouts.
struct LinearJob {
  // weights
  const uint8_t* codes = nullptr;
  int64_t panel_bytes = 0;
  bool nibbles = false;
  bool two_level = false;
  int32_t zero_point = 0;
  int64_t body = 0;
  int64_t group = 0;
  int64_t groups = 0;
  const uint16_t* scales = nullptr;
  const uint8_t* group_scales = nullptr;
  const int8_t* group_zeros = nullptr;
  const float* row_scales = nullptr;
  const uint8_t* outlier_codes = nullptr;  // null: no INT8 outliers
  int64_t outlier_steps = 0;
  const float* outlier_scales = nullptr;
  const float* bias = nullptr;  // or null
  int64_t rows = 0;
  // activations
  const int8_t* acts = nullptr;
  int64_t act_stride = 0;
  int64_t act_outlier_offset = 0;
  const float* act_scales = nullptr;  // [T, act_groups]
  int64_t act_groups = 0;             // groups or 1
  const int32_t* act_sums = nullptr;  // [T, groups]
  const float* act_outlier_scales = nullptr;
  const int32_t* act_outlier_sums = nullptr;
  // result
  float* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};

struct Kernels {
  const char* name;

  // y[i] = x[perm[i]] (perm null: identity).
  void (*gather)(const float* x, const int32_t* perm, int64_t n, float* y);
  // y[i] = (x[j] * factor) * weight[j], j = perm[i].
  void (*normalize)(const float* x, const float* weight, float factor, const int32_t* perm,
                    int64_t n, float* y);
  // y[i] = silu(gate[i]) * up[i].
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* y);
  // One activation group: codes, and the scale as result.
  float (*quantize_group)(const float* x, int64_t n, const ActFormat& format, int8_t* codes);
  // Sum of n codes.
  int32_t (*sum_codes)(const int8_t* codes, int64_t n);
  // The integer linear for panels [panel, panel_end) and tokens [token, token_end).
  void (*linear)(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
                 int64_t token_end);
};

extern const Kernels kPortableKernels;

}  // namespace atom::cpu
