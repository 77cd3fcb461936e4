// The inner loops that exist once for each instruction set, behind a table of functions. Arguments
// are plain structures of pointers: translation units compiled for one instruction set must not
// instantiate inline functions that the linker could hand to the others.
#pragma once

#include <cstdint>

#include "tensor/formats.h"

namespace atom::cpu {

inline constexpr int64_t kPanelRows = 16;  // see linear_weights.h
inline constexpr int64_t kStepBytes = 64;

// How a linear's body codes are kept: see linear_weights.h.
enum class CodeStorage : uint8_t {
  kNone,    // float weights
  kByte,    // code + zero point
  kNibble,  // two of them a byte
  kE2M1,    // two codes' bits a byte, CodeGrid::kE2M1
};
inline constexpr int kE2M1ZeroPoint = kMostE2M1;

// One activation group.
struct QuantizeJob {
  const float* x = nullptr;
  int64_t n = 0;
  const ActFormat* format = nullptr;
  float unit = 0.0f;        // of E4M3 scales, else 0
  int64_t sum_group = 0;    // divides n
  int8_t* codes = nullptr;  // [n]
  int32_t* sums = nullptr;  // [n / sum_group] sums of the codes
};

// One call of the integer linear: see linear_weights.h and objects.h for the layouts.
struct LinearJob {
  // weights
  const uint8_t* codes = nullptr;
  int64_t panel_bytes = 0;
  CodeStorage storage = CodeStorage::kByte;
  bool two_level = false;
  int32_t zero_point = 0;
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

struct FloatRowsJob {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t tokens = 0;
  const float* w = nullptr;  // [rows, channels]
  int64_t rows = 0;
  int64_t channels = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
  bool accumulate = false;
};

// What happens to one head's vector before it is used or stored, in this order.
struct HeadJob {
  float* x = nullptr;  // [dim], in place
  int64_t dim = 0;
  const float* norm_weight = nullptr;  // or null: x[i] = (x[i] * norm_factor) * norm_weight[i]
  float norm_factor = 0.0f;
  const float* cos = nullptr;  // [half] or null: no RoPE
  const float* sin = nullptr;
  int64_t half = 0;              // pairs (i, i + half) rotate
  const float* mean = nullptr;   // [dim] taken off, or null
  float hadamard_factor = 0.0f;  // 1 / sqrt(dim), or 0: no Hadamard transform
};

// Some queries of one KV head against a run of its keys: see attention.h and kv_cache.h.
struct AttendJob {
  const float* q = nullptr;  // head 0 of this KV head, first token
  int64_t q_stride = 0;      // floats between tokens
  int64_t tokens = 0;
  int64_t repeat = 0;  // query heads a KV head; row = token * repeat + head
  int64_t dim = 0;
  float scale = 0.0f;
  int64_t query_key = 0;  // the key of the first token itself
  int64_t window = 0;     // keys a query sees back, itself included; 0: all
  int64_t key = 0, key_end = 0;
  // keys [0, prefix) stand here, [prefix, KH, DH]; the others in blocks
  int64_t prefix = 0;
  const float* prefix_k = nullptr;
  const float* prefix_v = nullptr;
  int64_t prefix_stride = 0;
  const uint8_t* const* blocks = nullptr;  // of pages 0 ..; those outside [key, key_end) unset
  KvKind kind = KvKind::kF32;
  bool nibbles = false;
  int64_t padded_dim = 0;  // a multiple of 16
  int64_t plane_bytes = 0;
  int64_t scales_offset = 0;
  // Null unless K stands before RoPE: angles of the prefix, [prefix][rotary_dim / 2][2], and of the
  // pages' keys, [page][rotary_dim / 2][2][16].
  const float* prefix_angles = nullptr;
  const float* page_angles = nullptr;
  int64_t rotary_dim = 0;
  // Result of each row: the largest score, the sum of exp(score - largest), and that sum weighted
  // with V, [rows, padded_dim].
  float* maxima = nullptr;
  float* totals = nullptr;
  float* sums = nullptr;
  float* scratch = nullptr;  // attend_scratch(rows, padded_dim) floats, aligned to a cache line
};
inline constexpr int64_t kBlockKeys = 64;  // keys that attend() works on at a time
constexpr int64_t attend_scratch(int64_t rows, int64_t padded_dim) {
  return 2 * kBlockKeys * padded_dim + rows * (kBlockKeys + padded_dim + 1);
}

// A scale of quantized K or V as numbers; the F16 patterns are what is stored.
struct KvRange {
  uint16_t scale_bits, min_bits;
  float base, inverse, top;
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
  // Largest magnitude of n >= 1 values.
  float (*absmax)(const float* x, int64_t n);
  // Codes and sums of one activation group; the scale as result.
  float (*quantize_group)(const QuantizeJob& job);
  // The integer linear for panels [panel, panel_end) and tokens [token, token_end). scratch:
  // linear_scratch_bytes(job) for each of those panels, aligned to a cache line.
  void (*linear)(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
                 int64_t token_end, uint8_t* scratch);
  int64_t (*linear_scratch_bytes)(const LinearJob& job);  // null: none needed
  // n F16 or BF16 bit patterns as floats.
  void (*expand_f16)(const uint16_t* from, int64_t n, float* to);
  void (*expand_bf16)(const uint16_t* from, int64_t n, float* to);
  // y[t * y_stride + r] (+)= x_t . w_r for a few tokens and rows of `channels` floats.
  void (*float_rows)(const FloatRowsJob& job);
  void (*prepare_head)(const HeadJob& job);
  // Codes of one K or V vector of n channels.
  KvRange (*quantize_kv)(const float* x, int64_t n, int bits, uint8_t* codes);
  void (*attend)(const AttendJob& job);
};

extern const Kernels kPortableKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;     // AVX2, FMA, F16C
extern const Kernels kAvxVnniKernels;  // and AVX-VNNI
extern const Kernels kAvx512Kernels;   // AVX-512 F, BW, VL, DQ, VNNI
extern const Kernels kAmxKernels;      // and AMX-INT8
#endif

// Services of the baseline build to the kernels.

// Scale, reciprocal and code range of an activation group (ops/numerics.h), as plain numbers.
struct CodeRange {
  float scale, inverse, low, high;
  CodeGrid grid;
};
CodeRange activation_range(float min, float max, const ActFormat& format, float clip_factor,
                           float unit);
KvRange kv_range(float min, float max, int bits);

}  // namespace atom::cpu
