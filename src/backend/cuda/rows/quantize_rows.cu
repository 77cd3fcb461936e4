// quantize_rows: a row of floats becomes codes and scales, for every activation format.
//   x [T, K] (or [T, 2K] for SiLU) f32 -> codes s8, scales f32 a group, sums, floats kept as such
// Work: a CTA a token. The row is made in shared memory, in the order of the linear's columns; then
// each group is one team's: a warp's, or the whole CTA's where groups are few and long. The codes
// are those of ops/numerics.h: minima and maxima do not depend on the order, and a search's error
// is summed in the sixteen lanes that numerics::quantize_group has, half a warp a clip.
// Rounds: as ops/numerics.h (compiled without contraction).   Bound: issue slots.
#include "backend/cuda/rows/norm_sum.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kPlainThreads = 256;
constexpr int kFewRows = 128;  // so few leave multiprocessors idle
constexpr int kMostWarps = 32;
constexpr int kClips = 5;
constexpr int kLanes = numerics::kErrorLanes;
constexpr int kLongGroup = 512;  // from here on a group takes the whole CTA

static_assert(kNormWarps <= 8);  // of the smaller CTA
static_assert(std::size(numerics::kSearchClips) == kClips && kLanes == 16);

// Stores the codes of up to four columns, the first a multiple of four; fewer are outliers.
__device__ void store_codes(const QuantizeParams& p, int token, int64_t column, int count,
                            const int (&code)[4]) {
  int8_t* to = p.codes + p.places.byte(token, column);
  const bool in_body = column < p.places.outlier_offset;
  if (in_body && takes_nibbles(p.places.layout)) {
    uint32_t nibbles = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int nibble = p.places.grid == CodeGrid::kE2M1 ? e2m1_bits(code[e]) : code[e] & 15;
      nibbles |= static_cast<uint32_t>(nibble) << (4 * e);
    }
    *reinterpret_cast<uint16_t*>(to) = static_cast<uint16_t>(nibbles);
    return;
  }
  const bool operands = in_body && p.places.layout == LinearLayout::kW4A4;
  uint8_t byte[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    byte[e] = operands ? w4a4::operand_byte(code[e]) : static_cast<uint8_t>(code[e]);
  }
  if (count == 4) {
    *reinterpret_cast<uchar4*>(to) = make_uchar4(byte[0], byte[1], byte[2], byte[3]);
    return;
  }
  for (int e = 0; e < count; ++e) to[e] = static_cast<int8_t>(byte[e]);
}

// The scale of a token's group g of the body.
__device__ void store_scale(const QuantizeParams& p, int token, int g, float scale, float unit,
                            int rank, int threads) {
  if (has_e4m3_scales(p.places.layout)) {
    const uint8_t bits = e4m3_bits(scale / unit);
    for (int k = rank * nvfp4::kGroup; k < p.group; k += threads * nvfp4::kGroup) {
      p.codes[p.places.scale_byte(token, g * p.group + k)] = static_cast<int8_t>(bits);
    }
    if (g == 0 && rank == 0) p.scales[token] = unit;
    return;
  }
  const CodePlaces::ScalePlaces to = p.places.scale_places(token, g, p.group, p.body / p.group);
  for (int i = rank; i < to.count; i += threads) p.scales[to.first + i * to.step] = scale;
}

// What threads use together while they quantize.
struct Scratch {
  float squares[kNormWarps];
  float low[kMostWarps], high[kMostWarps];
  int sums[kMostWarps];
  float errors[kMostWarps][kClips];  // a warp's own; the whole CTA takes the first
};

template <class T, class Op>
__device__ T reduce_warp(T value, Op op) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    value = op(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  }
  return value;
}

// A warp.
struct WarpTeam {
  static constexpr int kSize = 32;
  Scratch& scratch;
  int rank, warp;
  __device__ void sync() const { __syncwarp(); }
  __device__ float* errors() const { return scratch.errors[warp]; }
  __device__ void reduce(float& low, float& high) const {
    low = reduce_warp(low, [](float a, float b) { return fminf(a, b); });
    high = reduce_warp(high, [](float a, float b) { return fmaxf(a, b); });
  }
};

// The CTA.
template <int kThreads>
struct BlockTeam {
  static constexpr int kSize = kThreads;
  Scratch& scratch;
  int rank, warp;
  __device__ void sync() const { __syncthreads(); }
  __device__ float* errors() const { return scratch.errors[0]; }
  __device__ void reduce(float& low, float& high) const {
    WarpTeam{scratch, rank % 32, warp}.reduce(low, high);
    if (rank % 32 == 0) {
      scratch.low[warp] = low;
      scratch.high[warp] = high;
    }
    __syncthreads();
    for (int w = 0; w < kThreads / 32; ++w) {
      low = fminf(low, scratch.low[w]);
      high = fmaxf(high, scratch.high[w]);
    }
    __syncthreads();
  }
};

// The clip of least squared error among p.clips; half a warp a clip.
template <class Team>
__device__ numerics::GroupScale search(const Team& team, const float* x, int count, float low,
                                       float high, float unit, const QuantizeParams& p) {
  constexpr int kHalves = Team::kSize / kLanes;
  constexpr int kRounds = (kClips + kHalves - 1) / kHalves;
  for (int round = 0; round < kRounds; ++round) {
    const int c = round * kHalves + team.rank / kLanes;
    float error = 0;
    if (c < kClips) {
      const numerics::GroupScale g = numerics::group_scale(low, high, p.format.bits, p.format.rule,
                                                           p.clips[c], p.format.grid, unit);
      for (int i = team.rank % kLanes; i < count; i += kLanes) {
        const float miss =
            std::fma(-static_cast<float>(numerics::round_code(x[i], g)), g.scale, x[i]);
        error = std::fma(miss, miss, error);
      }
    }
#pragma unroll
    for (int step = kLanes / 2; step > 0; step /= 2) {
      error += __shfl_down_sync(0xffffffffu, error, static_cast<unsigned>(step), kLanes);
    }
    if (c < kClips && team.rank % kLanes == 0) team.errors()[c] = error;
  }
  team.sync();
  int best = 0;
  for (int c = 1; c < kClips; ++c) {
    if (team.errors()[c] < team.errors()[best]) best = c;
  }
  const float clip = p.clips[best];
  team.sync();
  return numerics::group_scale(low, high, p.format.bits, p.format.rule, clip, p.format.grid, unit);
}

struct Quantized {
  float scale;
  int sum;  // of this thread's codes
};
// Quantizes x [count], a token's columns from `column` on.
template <class Team>
__device__ Quantized quantize_group(const Team& team, const float* x, int count,
                                    const ActFormat& format, bool searching, float unit,
                                    const QuantizeParams& p, int token, int64_t column,
                                    float* decoded) {
  float low = x[0], high = x[0];
  for (int i = team.rank; i < count; i += Team::kSize) {
    low = fminf(low, x[i]);
    high = fmaxf(high, x[i]);
  }
  team.reduce(low, high);
  numerics::GroupScale g =
      numerics::group_scale(low, high, format.bits, format.rule, format.clip, format.grid, unit);
  if (searching && g.scale != 0.0f) g = search(team, x, count, low, high, unit, p);
  int sum = 0;
  // Four columns a store where they are there: bodies and groups are multiples of four.
  for (int i = 4 * team.rank; i < count; i += 4 * Team::kSize) {
    int code[4] = {};
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (i + e < count && g.scale != 0.0f) code[e] = numerics::round_code(x[i + e], g);
      sum += code[e];
    }
    store_codes(p, token, column + i, min(count - i, 4), code);
    if (decoded != nullptr) {
      for (int e = 0; e < 4 && i + e < count; ++e) {
        decoded[i + e] = static_cast<float>(code[e]) * g.scale;
      }
    }
  }
  return {.scale = g.scale, .sum = sum};
}

// The row of a token as the linear's columns have it; ends with a barrier.
template <int kThreads>
__device__ void make_row(const QuantizeParams& p, int token, float* row, Scratch& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  if (p.source == RowSource::kSilu) {
    const int64_t gate = static_cast<int64_t>(token) * 2 * p.channels;
    // Several loads on their way at a time.
#pragma unroll 8
    for (int k = thread; k < p.channels; k += kThreads) {
      row[k] = numerics::silu_mul(element(p.x, p.halves, gate + k),
                                  element(p.x, p.halves, gate + p.channels + k));
    }
    __syncthreads();
    return;
  }
  const int64_t first = static_cast<int64_t>(token) * p.channels;
  const float* x = static_cast<const float*>(p.x) + (p.source == RowSource::kNorm ? first : 0);
  float factor = 1.0f;
  if (p.source == RowSource::kNorm) {
    if (thread / 32 < kNormWarps) {
      const float sum = norm_lanes_sum(x, p.channels, thread / 32, thread % 32);
      if (thread % 32 == 0) scratch.squares[thread / 32] = sum;
    }
    __syncthreads();
    float sums[kNormWarps];
    for (int w = 0; w < kNormWarps; ++w) sums[w] = scratch.squares[w];
    factor = norm_factor(sums, p.channels, p.eps);
  }
#pragma unroll 4
  for (int k = thread; k < p.channels; k += kThreads) {
    const int source = p.perm == nullptr ? k : p.perm[k];
    row[k] = p.source == RowSource::kNorm ? x[source] * factor * p.norm_weight[source]
                                          : element(p.x, p.halves, first + source);
  }
  __syncthreads();
}

// Whether groups are NVFP4's own, which a warp for each would leave half idle.
__device__ bool has_short_groups(const QuantizeParams& p) {
  return has_e4m3_scales(p.places.layout) && p.group == nvfp4::kGroup && !p.format.search;
}
// Four lanes a group of 16 columns, all groups of the CTA's warps at once.
template <int kThreads>
__device__ void quantize_short_groups(const QuantizeParams& p, int token, const float* row,
                                      float unit) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int first = 0; first < p.body; first += 4 * kThreads) {
    const int k = first + 4 * thread;
    const bool real = k < p.body;
    float4 v = {};
    if (real) v = *reinterpret_cast<const float4*>(row + k);
    float low = fminf(fminf(v.x, v.y), fminf(v.z, v.w));
    float high = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      low = fminf(low, __shfl_xor_sync(0xffffffffu, low, lanes));
      high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
    }
    if (!real) continue;
    const numerics::GroupScale g = numerics::group_scale(low, high, p.format.bits, p.format.rule,
                                                         p.format.clip, p.format.grid, unit);
    int code[4] = {};
    if (g.scale != 0.0f) {
      code[0] = numerics::round_code(v.x, g);
      code[1] = numerics::round_code(v.y, g);
      code[2] = numerics::round_code(v.z, g);
      code[3] = numerics::round_code(v.w, g);
    }
    store_codes(p, token, k, 4, code);
    if (thread % 4 == 0) store_scale(p, token, k / nvfp4::kGroup, g.scale, unit, 0, 1);
  }
}

template <int kThreads>
__global__ __launch_bounds__(kThreads) void quantize_rows_kernel(
    const __grid_constant__ QuantizeParams p) {
  constexpr int kWarps = kThreads / 32;
  wait_for_previous();
  let_next_start();
  __shared__ Scratch scratch;
  auto* row = reinterpret_cast<float*>(dynamic_shared());
  const int token = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32;
  make_row<kThreads>(p, token, row, scratch);
  float* values =
      p.values == nullptr ? nullptr : p.values + static_cast<int64_t>(token) * p.value_count;
  if (values != nullptr && !p.decoded_values) {
    const int first = p.channels - p.value_count;
    for (int k = thread; k < p.value_count; k += kThreads) values[k] = row[first + k];
  }
  if (p.halves_out != nullptr) {
    auto* to = reinterpret_cast<__half*>(p.halves_out);
    for (int k = thread; k < p.channels; k += kThreads) {
      to[p.places.half(token, k)] = saturated_half(row[k]);
    }
  }
  if (!p.format.quantized) return;
  float* decoded = p.decoded_values ? values : nullptr;
  const auto at = [](float* array, int k) { return array == nullptr ? nullptr : array + k; };

  const int groups = p.body / p.group;
  int sum = 0;
  float unit = 0.0f;
  if (p.format.scales == GroupScales::kE4M3) {
    float low = 0.0f, high = 0.0f;
    for (int k = thread; k < p.body; k += kThreads) {
      low = fminf(low, row[k]);
      high = fmaxf(high, row[k]);
    }
    BlockTeam<kThreads>{scratch, thread, warp}.reduce(low, high);
    unit = numerics::scale_unit(fmaxf(high, -low));
  }
  const auto quantize_body = [&](const auto& team, int g) {
    const int column = g * p.group;
    const Quantized q = quantize_group(team, row + column, p.group, p.format, p.format.search, unit,
                                       p, token, column, at(decoded, column));
    store_scale(p, token, g, q.scale, unit, team.rank, team.kSize);
    sum += q.sum;
  };
  if (has_short_groups(p)) {
    quantize_short_groups<kThreads>(p, token, row, unit);
  } else if (p.group >= kLongGroup) {
    for (int g = 0; g < groups; ++g) quantize_body(BlockTeam<kThreads>{scratch, thread, warp}, g);
  } else {
    for (int g = warp; g < groups; g += kWarps) {
      quantize_body(WarpTeam{scratch, thread % 32, warp}, g);
    }
  }
  if (p.outlier_kind == OutlierKind::kInt8 && warp == 0) {
    const ActFormat outliers = {.quantized = true, .bits = 8, .group = 0};
    const Quantized q =
        quantize_group(WarpTeam{scratch, thread, warp}, row + p.body, p.channels - p.body, outliers,
                       false, 0.0f, p, token, p.places.outlier_offset, at(decoded, p.body));
    if (thread == 0) p.outlier_scales[token] = q.scale;
  } else if (p.outlier_kind == OutlierKind::kFloat && decoded != nullptr) {
    for (int k = p.body + thread; k < p.channels; k += kThreads) decoded[k] = row[k];
  }
  if (p.sums == nullptr) return;
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (thread % 32 == 0) scratch.sums[warp] = sum;
  __syncthreads();
  if (thread == 0) {
    sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += scratch.sums[w];
    p.sums[token] = sum;
  }
}

__global__ __launch_bounds__(kPlainThreads) void dequantize_rows_kernel(
    const __grid_constant__ DequantizeParams p) {
  const int64_t token = blockIdx.x;
  const float* values = p.values == nullptr ? nullptr : p.values + token * p.value_count;
  float* y = p.y + token * p.channels;
  for (int k = static_cast<int>(threadIdx.x); k < p.channels; k += kPlainThreads) {
    if (p.halves != nullptr) {
      y[k] = element(p.halves, true, p.places.half(token, k));
      continue;
    }
    const bool in_body = k < p.body;
    if (p.codes == nullptr || (!in_body && p.outlier_kind == OutlierKind::kFloat)) {
      y[k] = values[k - (p.channels - p.value_count)];
      continue;
    }
    const int64_t column = in_body ? k : p.places.outlier_offset + k - p.body;
    const float scale = in_body
                            ? p.places.scale(p.codes, p.scales, token, k, p.group, p.body / p.group)
                            : p.outlier_scales[token];
    y[k] = static_cast<float>(p.places.code(p.codes, token, column)) * scale;
  }
}

}  // namespace

void launch_quantize_rows(const QuantizeParams& params, cudaStream_t stream) {
  if (params.tokens == 0 || launch_int8_rows(params, stream) || launch_half_rows(params, stream) ||
      launch_byte_rows(params, stream)) {
    return;
  }
  if (serves_group_rows(params)) return launch_group_rows(params, stream);
  const dim3 grid(static_cast<unsigned>(params.tokens));
  const int64_t row_bytes = int64_t{params.channels} * 4;
  // A few long rows: more threads for each.
  if (params.channels >= 2048 && params.tokens <= kFewRows) {
    launch_chained(quantize_rows_kernel<1024>, grid, 1024, row_bytes, params, stream);
  } else {
    launch_chained(quantize_rows_kernel<256>, grid, 256, row_bytes, params, stream);
  }
}

void launch_dequantize_rows(const DequantizeParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return;
  launch(dequantize_rows_kernel, dim3(static_cast<unsigned>(params.tokens)), kPlainThreads, 0,
         params, stream);
}

}  // namespace atom::cuda
