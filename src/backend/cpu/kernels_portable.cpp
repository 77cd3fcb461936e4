// The kernels in plain C++: what runs where no vector path does, and the simplest to read.
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear_weights.h"
#include "ops/numerics.h"

namespace atom::cpu {
namespace {

void gather(const float* x, const int32_t* perm, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = x[perm == nullptr ? i : perm[i]];
}

void normalize(const float* x, const float* weight, float factor, const int32_t* perm, int64_t n,
               float* y) {
  for (int64_t i = 0; i < n; ++i) {
    const int64_t j = perm == nullptr ? i : perm[i];
    y[i] = (x[j] * factor) * weight[j];
  }
}

void silu_mul(const float* gate, const float* up, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = numerics::silu_mul(gate[i], up[i]);
}

float quantize_group(const float* x, int64_t n, const ActFormat& format, int8_t* codes) {
  return numerics::quantize_group({x, static_cast<size_t>(n)}, format, codes);
}

int32_t sum_codes(const int8_t* codes, int64_t n) {
  int32_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += codes[i];
  return sum;
}

// sums[r] = sum over `steps` byte steps of code * activation.
void dot_bytes(const uint8_t* codes, const int8_t* acts, int64_t steps, int32_t* sums) {
  for (int64_t j = 0; j < steps; ++j, codes += kStepBytes, acts += 4) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      for (int64_t i = 0; i < 4; ++i) sums[r] += codes[r * 4 + i] * acts[i];
    }
  }
}

void dot_nibbles(const uint8_t* codes, const int8_t* acts, int64_t steps, int32_t* sums) {
  for (int64_t j = 0; j < steps; ++j, codes += kStepBytes, acts += 8) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      for (int64_t i = 0; i < 4; ++i) {
        sums[r] += (codes[r * 4 + i] & 0xf) * acts[i] + (codes[r * 4 + i] >> 4) * acts[4 + i];
      }
    }
  }
}

void linear_panel(const LinearJob& job, int64_t panel, int64_t token) {
  const int8_t* acts = job.acts + token * job.act_stride;
  const int32_t* act_sums = job.act_sums + token * job.groups;
  const float* act_scales = job.act_scales + token * job.act_groups;
  const uint8_t* codes = job.codes + panel * job.panel_bytes;
  const int64_t group_bytes = job.panel_bytes / job.groups;
  float result[kPanelRows] = {};
  int32_t whole[kPanelRows] = {};  // two-level: the sum over all groups
  for (int64_t g = 0; g < job.groups; ++g) {
    int32_t sums[kPanelRows] = {};
    if (job.nibbles) {
      dot_nibbles(codes + g * group_bytes, acts + g * job.group, job.group / 8, sums);
    } else {
      dot_bytes(codes + g * group_bytes, acts + g * job.group, job.group / 4, sums);
    }
    const int64_t first = (panel * job.groups + g) * kPanelRows;
    const float act_scale = act_scales[job.act_groups == 1 ? 0 : g];
    for (int64_t r = 0; r < kPanelRows; ++r) {
      if (job.two_level) {
        whole[r] +=
            sums[r] * job.group_scales[first + r] + act_sums[g] * job.group_zeros[first + r];
      } else {
        result[r] += static_cast<float>(sums[r] - job.zero_point * act_sums[g]) *
                     (act_scale * f16_to_f32(job.scales[first + r]));
      }
    }
  }
  if (job.two_level) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      result[r] =
          static_cast<float>(whole[r]) * (act_scales[0] * job.row_scales[panel * kPanelRows + r]);
    }
  }
  if (job.outlier_codes != nullptr) {
    int32_t sums[kPanelRows] = {};
    dot_bytes(job.outlier_codes + panel * job.outlier_steps * kStepBytes,
              acts + job.act_outlier_offset, job.outlier_steps, sums);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      result[r] += static_cast<float>(sums[r] - 128 * job.act_outlier_sums[token]) *
                   (job.act_outlier_scales[token] * job.outlier_scales[panel * kPanelRows + r]);
    }
  }
  float* y = job.y + token * job.y_stride + panel * kPanelRows;
  const int64_t rows = std::min(kPanelRows, job.rows - panel * kPanelRows);
  for (int64_t r = 0; r < rows; ++r) {
    float value = result[r];
    if (job.bias != nullptr) value += job.bias[panel * kPanelRows + r];
    y[r] = job.accumulate ? y[r] + value : value;
  }
}

void linear(const LinearJob& job, int64_t panel, int64_t panel_end, int64_t token,
            int64_t token_end) {
  for (int64_t p = panel; p < panel_end; ++p) {
    for (int64_t t = token; t < token_end; ++t) linear_panel(job, p, t);
  }
}

}  // namespace

const Kernels kPortableKernels = {
    .name = "portable",
    .gather = gather,
    .normalize = normalize,
    .silu_mul = silu_mul,
    .quantize_group = quantize_group,
    .sum_codes = sum_codes,
    .linear = linear,
};

}  // namespace atom::cpu
