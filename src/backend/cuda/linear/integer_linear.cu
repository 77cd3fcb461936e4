// integer_linear: y = dequant(x8 * w^T), s8 tensor cores, for every integer format.
//   x    [T, Kpad] s8 (codes of 3 to 8 bits), scales a token a group, outliers with their own scale
//   w    the checkpoint's arrays: nibbles or bytes, expanded to s8 on the way to shared memory
//   y    [T, N] f32 or f16
// Work: a CTA takes 64 rows x kTokens tokens, a warp 16 rows. K is walked in steps of 32 columns,
// four a stage; a step never crosses a group, so that short groups are padded with zeros:
//
//   step      | group 0 ..    | group 1 ..    | ... | outliers .. |
//   sums      s32, cleared at a group's first step, scaled and added to y at its last
//
// Rounds: one product of scales and one fma a group.   Bound: latency of a stage; the formats that
// matter for speed have kernels of their own.
#include <type_traits>

#include "backend/cuda/linear/linear_groups.cuh"
#include "backend/cuda/linear/linear_kernels.h"
#include "backend/cuda/linear/weight_access.cuh"
#include "backend/cuda/ptx/mma.cuh"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64;
constexpr int kStep = 32;                    // columns of one tensor core product
constexpr int kSteps = 4;                    // of a stage
constexpr int kPitch = kSteps * kStep + 16;  // bytes of a row in shared memory: no bank twice

enum class Codes { kNibbles, kBytes, kTwoLevel };

// Where a step's columns are.
struct Step {
  bool outliers;
  int group;          // of the body
  int column, count;  // first column within the body or the outliers, real columns
  bool first, last;   // of its group
};

struct Walk {
  int steps_in_group, body_steps, steps;
  int group, body, outliers;

  __device__ explicit Walk(const WeightView& w, bool two_level)
      : group(two_level ? w.body : w.group),
        body(w.body),
        outliers(w.format.outlier_kind == OutlierKind::kInt8 ? static_cast<int>(w.format.outliers)
                                                             : 0) {
    steps_in_group = (group + kStep - 1) / kStep;
    body_steps = body / group * steps_in_group;
    steps = body_steps + (outliers + kStep - 1) / kStep;
  }
  __device__ Step step(int s) const {
    if (s >= body_steps) {
      const int column = (s - body_steps) * kStep;
      return {.outliers = true,
              .group = 0,
              .column = column,
              .count = min(kStep, outliers - column),
              .first = s == body_steps,
              .last = s == steps - 1};
    }
    const int g = s / steps_in_group, in_group = s % steps_in_group;
    return {.outliers = false,
            .group = g,
            .column = g * group + in_group * kStep,
            .count = min(kStep, group - in_group * kStep),
            .first = in_group == 0,
            .last = in_group == steps_in_group - 1};
  }
};

// Four nibbles (low first) as four bytes.
__device__ inline uint32_t spread(uint32_t h) {
  return (h & 0xfu) | (h & 0xf0u) << 4 | (h & 0xf00u) << 8 | (h & 0xf000u) << 12;
}
// Bytes 0..15 as signed four-bit codes.
__device__ inline uint32_t sign_nibbles(uint32_t v) {
  return (((v ^ 0x08080808u) | 0x80808080u) - 0x08080808u) ^ 0x80808080u;
}

// Words of a step's codes of one row: 4 of nibbles, 8 of bytes; zero beyond `count` columns.
struct RawStep {
  alignas(16) uint32_t words[8];

  // from: the first column's byte, aligned to 2 (nibbles) or 4 bytes.
  __device__ void load(const uint8_t* from, int count, bool bytes) {
    const int wanted = bytes ? 8 : 4;
    const bool whole = count == kStep && reinterpret_cast<uintptr_t>(from) % 16 == 0;
    if (whole) {
      *reinterpret_cast<uint4*>(words) = __ldg(reinterpret_cast<const uint4*>(from));
      if (bytes)
        *reinterpret_cast<uint4*>(words + 4) = __ldg(reinterpret_cast<const uint4*>(from) + 1);
      return;
    }
    for (int i = 0; i < wanted; ++i) {
      uint32_t word = 0;
      if (bytes) {
        if (4 * i < count) word = *reinterpret_cast<const uint32_t*>(from + 4 * i);
      } else {
        // Counts are multiples of four: two bytes at a time.
        if (8 * i < count) word = *reinterpret_cast<const uint16_t*>(from + 4 * i);
        if (8 * i + 4 < count) {
          word |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(from + 4 * i + 2)) << 16;
        }
      }
      words[i] = word;
    }
  }
};

template <Codes kCodes, int kTokens>
__device__ void multiply(const IntegerLinearParams& p) {
  constexpr int kTiles = kTokens / 8;
  constexpr bool kTwoLevel = kCodes == Codes::kTwoLevel;
  __shared__ __align__(16) uint8_t w_tile[kRows * kPitch];
  __shared__ __align__(16) uint8_t x_tile[kTokens * kPitch];
  __shared__ float w_scales[kSteps][kRows], x_scales[kSteps][kTokens];
  const WeightView& w = p.w;
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int row0 = static_cast<int>(blockIdx.x) * kRows;
  const int token0 = static_cast<int>(blockIdx.y) * kTokens;
  const Walk walk(w, kTwoLevel);
  const int weight_groups = w.body / w.group;

  // Each thread brings two steps of one row.
  const int my_row = thread / 2, n = row0 + my_row, my_step = thread % 2 * 2;
  RawStep raw[2];
  const auto fetch = [&](int stage) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int s = stage * kSteps + my_step + i;
#pragma unroll
      for (uint32_t& word : raw[i].words) word = 0;
      if (n >= w.rows || s >= walk.steps) continue;
      const Step step = walk.step(s);
      if (step.outliers) {
        raw[i].load(reinterpret_cast<const uint8_t*>(w.outlier_codes) +
                        static_cast<int64_t>(n) * w.outlier_stride + step.column,
                    step.count, true);
      } else if (kCodes == Codes::kBytes) {
        raw[i].load(w.codes + static_cast<int64_t>(n) * w.body + step.column, step.count, true);
      } else {
        raw[i].load(w.codes + static_cast<int64_t>(n) * (w.body / 2) + step.column / 2, step.count,
                    false);
      }
    }
  };
  const auto expand = [&](int stage) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int s = stage * kSteps + my_step + i;
      auto* to = reinterpret_cast<uint32_t*>(w_tile + my_row * kPitch + (my_step + i) * kStep);
      const bool real = n < w.rows && s < walk.steps;
      const Step step = walk.step(real ? s : 0);
      if (my_row < kRows) {
        float scale = 0;
        if (real && step.outliers) scale = kTwoLevel ? 1.0f : w.outlier_scales[n];
        if (real && !step.outliers) {
          scale = kTwoLevel
                      ? 1.0f
                      : half_bits(w.scales[static_cast<int64_t>(n) * weight_groups + step.group]);
        }
        w_scales[my_step + i][my_row] = scale;
      }
      if (!real || step.outliers || kCodes == Codes::kBytes) {
#pragma unroll
        for (int j = 0; j < 8; ++j) to[j] = raw[i].words[j];
        continue;
      }
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        uint32_t word = spread(raw[i].words[j / 2] >> (16 * (j % 2)));
        if constexpr (kTwoLevel) {
          // Columns beyond the body meet activations of zero, whatever they expand to.
          const int column = min(step.column + 4 * j, w.body - 4);
          const int64_t g = static_cast<int64_t>(n) * weight_groups + column / w.group;
          const uint32_t zero = static_cast<uint32_t>(w.group_zeros[g] + 128) * 0x01010101u;
          word = (word * w.group_scales[g] + zero) ^ 0x80808080u;
        } else {
          word = sign_nibbles(word);
        }
        to[j] = word;
      }
    }
  };
  const auto bring_x = [&](int stage) {
    for (int i = thread; i < kTokens * kSteps * 8; i += kThreads) {
      const int token = i / (kSteps * 8), at = i % (kSteps * 8), s = stage * kSteps + at / 8;
      uint32_t word = 0;
      if (token0 + token < p.tokens && s < walk.steps) {
        const Step step = walk.step(s);
        const int in_step = at % 8 * 4;
        if (in_step < step.count) {
          word = *reinterpret_cast<const uint32_t*>(
              p.x + static_cast<int64_t>(token0 + token) * p.x_stride +
              (step.outliers ? p.outlier_offset : 0) + step.column + in_step);
        }
      }
      *reinterpret_cast<uint32_t*>(x_tile + token * kPitch + at * 4) = word;
    }
    for (int i = thread; i < kTokens * kSteps; i += kThreads) {
      const int token = i / kSteps, s = stage * kSteps + i % kSteps;
      float scale = 0;
      if (token0 + token < p.tokens && s < walk.steps) {
        const Step step = walk.step(s);
        const int64_t t = token0 + token;
        scale = step.outliers ? p.x_outlier_scales[t]
                              : p.x_scales[t * p.x_groups + (p.x_groups == 1 ? 0 : step.group)];
      }
      x_scales[i % kSteps][token] = scale;
    }
  };

  const int g = lane / 4, c = lane % 4;
  int32_t sums[kTiles][4] = {};
  float total[kTiles][4] = {};
  fetch(0);
  for (int stage = 0; stage * kSteps < walk.steps; ++stage) {
    expand(stage);
    bring_x(stage);
    __syncthreads();
    if ((stage + 1) * kSteps < walk.steps) fetch(stage + 1);
#pragma unroll
    for (int i = 0; i < kSteps; ++i) {
      const int s = stage * kSteps + i;
      if (s >= walk.steps) break;
      const Step step = walk.step(s);
      if (step.first) {
#pragma unroll
        for (auto& tile : sums) tile[0] = tile[1] = tile[2] = tile[3] = 0;
      }
      const uint8_t* from = w_tile + (warp * 16 + g) * kPitch + i * kStep + 4 * c;
      const uint32_t a[4] = {*reinterpret_cast<const uint32_t*>(from),
                             *reinterpret_cast<const uint32_t*>(from + 8 * kPitch),
                             *reinterpret_cast<const uint32_t*>(from + 16),
                             *reinterpret_cast<const uint32_t*>(from + 8 * kPitch + 16)};
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        const uint8_t* b = x_tile + (tile * 8 + g) * kPitch + i * kStep + 4 * c;
        ptx::mma_s8<false>(sums[tile], a, *reinterpret_cast<const uint32_t*>(b),
                           *reinterpret_cast<const uint32_t*>(b + 16));
      }
      if (!step.last) continue;
      const float low = w_scales[i][warp * 16 + g], high = w_scales[i][warp * 16 + g + 8];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const float scale = (e < 2 ? low : high) * x_scales[i][tile * 8 + 2 * c + e % 2];
          total[tile][e] = fmaf(static_cast<float>(sums[tile][e]), scale, total[tile][e]);
        }
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = row0 + warp * 16 + g + (e < 2 ? 0 : 8);
      const int token = token0 + tile * 8 + 2 * c + e % 2;
      if (row >= w.rows || token >= p.tokens) continue;
      float y = total[tile][e];
      if constexpr (kTwoLevel) y *= w.row_scales[row];
      if (w.bias != nullptr) y += w.bias[row];
      store_element(p.y, p.halves, static_cast<int64_t>(token) * w.rows + row, y, p.accumulate);
    }
  }
}

template <Codes kCodes, int kTokens>
__global__ __launch_bounds__(kThreads) void integer_linear_kernel(
    const __grid_constant__ IntegerLinearParams p) {
  wait_for_previous();
  let_next_start();
  multiply<kCodes, kTokens>(p);
}

template <Codes kCodes, int kTokens>
__global__ __launch_bounds__(kThreads) void grouped_integer_linear_kernel(
    const __grid_constant__ Grouped<IntegerLinearParams> g) {
  wait_for_previous();
  let_next_start();
  const GroupRows rows(g.groups);
  if (static_cast<int>(blockIdx.y) * kTokens >= rows.count) return;
  IntegerLinearParams p = g.params;
  p.w = g.groups.w[rows.group];
  p.x += rows.first * p.x_stride;
  p.x_scales += rows.first * p.x_groups;
  p.x_outlier_scales += rows.first;
  p.y = element_address(p.y, p.halves, rows.first * p.w.rows);
  p.tokens = rows.count;
  multiply<kCodes, kTokens>(p);
}

template <Codes kCodes>
void start(const IntegerLinearParams& p, const LinearGroups& groups, cudaStream_t stream) {
  const auto start_tiles = [&]<int kTokens>(std::integral_constant<int, kTokens>) {
    const dim3 grid(blocks_for(p.w.rows, kRows), blocks_for(p.tokens, kTokens),
                    static_cast<unsigned>(groups.count));
    if (groups.w == nullptr) {
      launch_chained(integer_linear_kernel<kCodes, kTokens>, grid, kThreads, 0, p, stream);
    } else {
      launch_chained(grouped_integer_linear_kernel<kCodes, kTokens>, grid, kThreads, 0,
                     Grouped<IntegerLinearParams>{p, groups}, stream);
    }
  };
  if (p.tokens <= 8) return start_tiles(std::integral_constant<int, 8>());
  start_tiles(std::integral_constant<int, 64>());
}

}  // namespace

void launch_grouped_integer_linear(const IntegerLinearParams& params, const LinearGroups& groups,
                                   cudaStream_t stream) {
  if (params.tokens == 0) return;
  if (params.w.format.kind == WeightKind::kTwoLevel) {
    return start<Codes::kTwoLevel>(params, groups, stream);
  }
  if (params.w.format.bits == 8) return start<Codes::kBytes>(params, groups, stream);
  start<Codes::kNibbles>(params, groups, stream);
}

void launch_integer_linear(const IntegerLinearParams& params, cudaStream_t stream) {
  launch_grouped_integer_linear(params, {.count = 1}, stream);
}

}  // namespace atom::cuda
