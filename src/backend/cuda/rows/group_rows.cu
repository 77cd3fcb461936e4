// group_rows: rows become 4-bit codes, integers or E2M1, with a scale a group, the inputs of w4a4
// linears.
//   x [T, K] f32, or f16 where it is only copied -> sign and magnitude in the GEMM's swizzled
//   blocks, f32 scales [block groups][capacity] (w4a4_layout.h), INT8 outliers with a scale a token
// Work: items of a warp, which share nothing: of each token some blocks of 128 columns, and its
// outliers.
//   without search  a block a warp, four columns a lane; minima and maxima by shuffles in the group
//   with search     four blocks a warp, sixteen groups of 32 and two lanes for each, which keep 16
//                   columns: eight each of the sixteen lanes of numerics::quantize_group's errors
// Items of halves that are only copied are dealt out over the chip. Norms, and gathers of the row,
// need all of it: a CTA a token, whose row lies in shared memory; squares in the 2048 lanes of
// numerics::rms_factor. Rounds: as ops/numerics.h (compiled without contraction).
// Bound: issue slots (about 12 instructions an element, with search 45).
#include "backend/cuda/rows/codes.cuh"
#include "backend/cuda/rows/norm_sum.cuh"
#include "backend/cuda/rows/row_kernels.h"
#include "backend/cuda/runtime/elements.cuh"
#include "backend/cuda/runtime/launch.cuh"
#include "ops/numerics.h"

namespace atom::cuda {
namespace {

constexpr int kFlatThreads = 256;
constexpr int kNormThreads = 32 * kNormWarps;  // that read the row, eight of its lanes each
constexpr int kSearchGroup = 32;
constexpr int kSearchBlocks = 4;  // of an item
constexpr int kClips = 5;
constexpr int kFewTokens = 128;  // which leave multiprocessors idle: more warps for each

// A group's columns wait for its two lanes, which read sixteen bytes each at a time: so far apart,
// eight groups' meet no bank of shared memory twice.
constexpr int kStagedGroup = kSearchGroup + 4;
constexpr int kStagedFloats = 16 * kStagedGroup;  // of a warp

constexpr int kMostGatheredChannels = 40960;  // of a row in shared memory, beside what is staged

static_assert(std::size(numerics::kSearchClips) == kClips && numerics::kErrorLanes == 16);

// Columns k .. k + 3 of a row in shared memory, gathered and, with a weight, normalised.
struct GatheredRow {
  const float* row;
  const int32_t* perm;
  const float* weight;  // in gathered order, or null
  float factor;

  __device__ float4 four(int k) const {
    const int4 from = perm == nullptr ? make_int4(k, k + 1, k + 2, k + 3)
                                      : *reinterpret_cast<const int4*>(perm + k);
    float4 v = make_float4(row[from.x], row[from.y], row[from.z], row[from.w]);
    if (weight == nullptr) return v;
    const float4 w = *reinterpret_cast<const float4*>(weight + k);
    return make_float4(v.x * factor * w.x, v.y * factor * w.y, v.z * factor * w.z,
                       v.w * factor * w.w);
  }
};

// The same of a row of halves as it is.
struct PlainRow {
  const __half* row;

  __device__ float4 four(int k) const {
    const auto words = *reinterpret_cast<const uint2*>(row + k);
    const float2 low = __half22float2(*reinterpret_cast<const __half2*>(&words.x));
    const float2 high = __half22float2(*reinterpret_cast<const __half2*>(&words.y));
    return make_float4(low.x, low.y, high.x, high.y);
  }
};

// A group's scale with its bounds as floats.
template <CodeGrid kGrid>
struct Scale {
  float scale, inverse, low, high;

  __device__ explicit Scale(const numerics::GroupScale& g)
      : scale(g.scale),
        inverse(g.inverse),
        low(static_cast<float>(g.low)),
        high(static_cast<float>(g.high)) {}
  // The code as a float that holds it in its low bits.
  __device__ float rounded(float v) const {
    const float place = fminf(fmaxf(v * inverse, low), high);
    return (kGrid == CodeGrid::kE2M1 ? numerics::nearest_e2m1(place) : place) + kRounder;
  }
  // Four codes in the bytes of a word, in two's complement.
  __device__ uint32_t codes(float4 v) const {
    const auto bits = [this](float x) { return __float_as_uint(rounded(x)); };
    return __byte_perm(__byte_perm(bits(v.x), bits(v.y), 0x0040),
                       __byte_perm(bits(v.z), bits(v.w), 0x0040), 0x5410);
  }
};

// Two's complement to sign and magnitude (w4a4::operand_byte), four bytes of at most +-15.
__device__ uint32_t operand_bytes(uint32_t codes) {
  const uint32_t signs = codes & 0x80808080u, ones = signs >> 7;
  const uint32_t negative = (signs - ones) | signs;  // 0xff where a sign is
  return ((codes ^ negative) + ones) | signs;
}

// Where columns k .. of block `block` of a token go; k: a multiple of four.
__device__ int8_t* codes_at(const QuantizeParams& p, int token, int block, int k) {
  return p.codes +
         (static_cast<int64_t>(block) * p.places.capacity + token) * w4a8::kActBlockBytes +
         ((k / 16) ^ (token % 8)) * 16 + k % 16;
}
__device__ void store_scale(const QuantizeParams& p, int token, int g, float scale) {
  p.scales[g * p.places.capacity + w4a4::scale_slot(token)] = scale;
}

// A block of 128 columns.
template <int kGroup, CodeGrid kGrid, class Row>
__device__ void quantize_block(const QuantizeParams& p, const Row& row, int token, int block,
                               int lane) {
  constexpr int kLanes = kGroup / 4;  // of a group
  const int k = block * w4a8::kBlockCols + 4 * lane;
  const bool real = k < p.body;  // a whole group's lanes are, or none
  const float4 v = real ? row.four(k) : float4{};
  float low = fminf(fminf(v.x, v.y), fminf(v.z, v.w));
  float high = fmaxf(fmaxf(v.x, v.y), fmaxf(v.z, v.w));
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    low = fminf(low, __shfl_xor_sync(0xffffffffu, low, lanes));
    high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
  }
  const Scale<kGrid> scale(
      numerics::group_scale(low, high, p.format.bits, p.format.rule, p.format.clip, kGrid));
  *reinterpret_cast<uint32_t*>(codes_at(p, token, block, 4 * lane)) = operand_bytes(scale.codes(v));
  if (lane % kLanes == 0) store_scale(p, token, k / kGroup, scale.scale);
}

// The clip of least squared error, the first of equals, among p.clips. Of the group's columns v has
// those whose errors belong to lanes 8 h .. 8 h + 7 of numerics::quantize_group, in two runs; h is
// the half of the warp, and the group's other lane stands in the other half.
__device__ numerics::GroupScale search(const QuantizeParams& p, const float (&v)[2][8], float low,
                                       float high) {
  numerics::GroupScale best = {};
  float best_error = 0;
  for (int c = 0; c < kClips; ++c) {
    const numerics::GroupScale g =
        numerics::group_scale(low, high, p.format.bits, p.format.rule, p.clips[c]);
    const Scale<CodeGrid::kInt> scale(g);
    float errors[8] = {};
#pragma unroll
    for (int run = 0; run < 2; ++run) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float code = scale.rounded(v[run][i]) - kRounder;
        const float miss = std::fma(-code, g.scale, v[run][i]);
        errors[i] = std::fma(miss, miss, errors[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) errors[i] += __shfl_xor_sync(0xffffffffu, errors[i], 16);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) {
#pragma unroll
      for (int i = 0; i < step; ++i) errors[i] += errors[i + step];
    }
    if (c == 0 || errors[0] < best_error) {
      best_error = errors[0];
      best = g;
    }
  }
  return best;
}

// Four blocks of groups of 32. staging: this warp's own.
template <class Row>
__device__ void quantize_searching(const QuantizeParams& p, const Row& row, int token,
                                   int first_block, int lane, float* staging) {
#pragma unroll
  for (int b = 0; b < kSearchBlocks; ++b) {
    const int k = (first_block + b) * w4a8::kBlockCols + 4 * lane;
    const float4 v = k < p.body ? row.four(k) : float4{};
    *reinterpret_cast<float4*>(staging + (4 * b + lane / 8) * kStagedGroup + lane % 8 * 4) = v;
  }
  __syncwarp();
  const int group = lane % 16, h = lane / 16;
  float v[2][8];
#pragma unroll
  for (int run = 0; run < 2; ++run) {
#pragma unroll
    for (int i = 0; i < 8; i += 4) {
      const float4 four =
          *reinterpret_cast<const float4*>(staging + group * kStagedGroup + 16 * run + 8 * h + i);
      v[run][i] = four.x;
      v[run][i + 1] = four.y;
      v[run][i + 2] = four.z;
      v[run][i + 3] = four.w;
    }
  }
  __syncwarp();  // the next item may be staged
  float low = v[0][0], high = v[0][0];
#pragma unroll
  for (int run = 0; run < 2; ++run) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      low = fminf(low, v[run][i]);
      high = fmaxf(high, v[run][i]);
    }
  }
  low = fminf(low, __shfl_xor_sync(0xffffffffu, low, 16));
  high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, 16));
  const Scale<CodeGrid::kInt> scale(search(p, v, low, high));
  const int block = first_block + group / 4;
  if (block >= p.places.shape.body_blocks) return;
#pragma unroll
  for (int run = 0; run < 2; ++run) {
    const uint2 words = make_uint2(
        operand_bytes(scale.codes(make_float4(v[run][0], v[run][1], v[run][2], v[run][3]))),
        operand_bytes(scale.codes(make_float4(v[run][4], v[run][5], v[run][6], v[run][7]))));
    *reinterpret_cast<uint2*>(
        codes_at(p, token, block, group % 4 * kSearchGroup + 16 * run + 8 * h)) = words;
  }
  if (h == 0) store_scale(p, token, block * 4 + group % 4, scale.scale);
}

// INT8 under one scale; the columns are made twice, which is less than keeping any number of them.
template <class Row>
__device__ void quantize_outliers(const QuantizeParams& p, const Row& row, int token, int lane) {
  float most = 0;
  for (int k = p.body + 4 * lane; k < p.channels; k += 128) {
    const float4 v = row.four(k);
    most = fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
  }
  most = warp_max(most);
  const Scale<CodeGrid::kInt> scale(
      numerics::group_scale(-most, most, 8, ActRule::kSymmetric, 1.0f));
  for (int k = p.body + 4 * lane; k < p.channels; k += 128) {
    const int column = k - p.body, block = p.places.shape.body_blocks + column / w4a8::kBlockCols;
    *reinterpret_cast<uint32_t*>(codes_at(p, token, block, column % w4a8::kBlockCols)) =
        scale.codes(row.four(k));
  }
  if (lane == 0) p.outlier_scales[token] = scale.scale;
}

constexpr int blocks_of_item(bool searching) { return searching ? kSearchBlocks : 1; }
__host__ __device__ inline int items_of_token(const QuantizeParams& p) {
  const int each = blocks_of_item(p.format.search);
  return (p.places.shape.body_blocks + each - 1) / each +
         (p.outlier_kind == OutlierKind::kInt8 ? 1 : 0);
}

// Outliers first, whose columns take two turns. kGroup 0: groups of 32 with search.
template <int kGroup, CodeGrid kGrid, class Row>
__device__ void quantize_item(const QuantizeParams& p, const Row& row, int token, int item,
                              int lane, float* staging) {
  if (p.outlier_kind == OutlierKind::kInt8 && --item < 0) {
    return quantize_outliers(p, row, token, lane);
  }
  if constexpr (kGroup == 0) {
    quantize_searching(p, row, token, item * kSearchBlocks, lane, staging);
  } else {
    quantize_block<kGroup, kGrid>(p, row, token, item, lane);
  }
}

constexpr int staged_floats(int group, int threads) {
  return group == 0 ? threads / 32 * kStagedFloats : 4;
}

template <int kGroup, CodeGrid kGrid, int kThreads>
__global__ __launch_bounds__(kThreads) void group_rows_kernel(
    const __grid_constant__ QuantizeParams p) {
  __shared__ float squares[kNormWarps];
  __shared__ __align__(16) float staging[staged_floats(kGroup, kThreads)];
  wait_for_previous();
  let_next_start();
  auto* row = reinterpret_cast<float*>(dynamic_shared());
  const int token = static_cast<int>(blockIdx.x);
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const auto* x = static_cast<const float4*>(p.x) + static_cast<int64_t>(token) * p.channels / 4;
  if (thread < kNormThreads) {
    // Eight columns a thread, which are eight lanes of numerics::rms_factor.
    float l[8] = {};
#pragma unroll 2
    for (int k = 8 * thread; k < p.channels; k += numerics::kNormLanes) {
      const float4 a = x[k / 4], b = x[k / 4 + 1];
      *reinterpret_cast<float4*>(row + k) = a;
      *reinterpret_cast<float4*>(row + k + 4) = b;
      const float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int e = 0; e < 8; ++e) l[e] += v[e] * v[e];
    }
    const float sum = sum_of_lanes(l);
    if (lane == 0) squares[warp] = sum;
  }
  __syncthreads();
  GatheredRow gathered = {.row = row, .perm = p.perm, .weight = nullptr, .factor = 1.0f};
  if (p.source == RowSource::kNorm) {
    float sums[kNormWarps];
#pragma unroll
    for (int w = 0; w < kNormWarps; ++w) sums[w] = squares[w];
    gathered.factor = norm_factor(sums, p.channels, p.eps);
    gathered.weight = p.norm_weight;
  }
  const int items = items_of_token(p);
  for (int item = warp; item < items; item += kThreads / 32) {
    quantize_item<kGroup, kGrid>(p, gathered, token, item, lane,
                                 staging + (kGroup == 0 ? warp * kStagedFloats : 0));
  }
}

template <int kGroup, CodeGrid kGrid>
__global__ __launch_bounds__(kFlatThreads) void group_flat_kernel(
    const __grid_constant__ QuantizeParams p) {
  __shared__ __align__(16) float staging[staged_floats(kGroup, kFlatThreads)];
  wait_for_previous();
  let_next_start();
  const int items = items_of_token(p), warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (kFlatThreads / 32) + warp;
  const auto token = static_cast<int>(item / items);
  if (token >= p.tokens) return;
  const PlainRow row = {static_cast<const __half*>(p.x) + static_cast<int64_t>(token) * p.channels};
  quantize_item<kGroup, kGrid>(p, row, token, static_cast<int>(item % items),
                               static_cast<int>(threadIdx.x) % 32,
                               staging + (kGroup == 0 ? warp * kStagedFloats : 0));
}

template <int kGroup, CodeGrid kGrid>
void start(const QuantizeParams& p, cudaStream_t stream) {
  const dim3 tokens(static_cast<unsigned>(p.tokens));
  const int64_t row_bytes = int64_t{p.channels} * 4;
  if (!p.halves) {
    if (p.tokens > kFewTokens) {
      launch_chained(group_rows_kernel<kGroup, kGrid, 256>, tokens, 256, row_bytes, p, stream);
    } else if constexpr (kGroup == 0) {  // more warps would need more shared memory than a chip has
      launch_chained(group_rows_kernel<kGroup, kGrid, 512>, tokens, 512, row_bytes, p, stream);
    } else {
      launch_chained(group_rows_kernel<kGroup, kGrid, 1024>, tokens, 1024, row_bytes, p, stream);
    }
    return;
  }
  const dim3 grid(blocks_for(int64_t{p.tokens} * items_of_token(p), kFlatThreads / 32));
  launch_chained(group_flat_kernel<kGroup, kGrid>, grid, kFlatThreads, 0, p, stream);
}

}  // namespace

bool serves_group_rows(const QuantizeParams& p) {
  const int width = w4a8::kBlockCols / p.places.shape.groups;
  const bool searches = p.format.grid == CodeGrid::kInt && p.group == kSearchGroup;
  const bool flat = p.source == RowSource::kCopy && p.halves && p.perm == nullptr;
  return p.places.layout == LinearLayout::kW4A4 && p.format.scales == GroupScales::kFloat &&
         p.group == width && p.channels % 8 == 0 && (!p.format.search || searches) &&
         p.value_count == 0 &&
         (flat ||
          (p.source != RowSource::kSilu && !p.halves && p.channels <= kMostGatheredChannels));
}

void launch_group_rows(const QuantizeParams& p, cudaStream_t stream) {
  if (p.format.search) return start<0, CodeGrid::kInt>(p, stream);
  const auto start_with = [&]<CodeGrid kGrid>() {
    if (p.group == 32) return start<32, kGrid>(p, stream);
    if (p.group == 64) return start<64, kGrid>(p, stream);
    start<128, kGrid>(p, stream);
  };
  if (p.format.grid == CodeGrid::kE2M1) return start_with.operator()<CodeGrid::kE2M1>();
  start_with.operator()<CodeGrid::kInt>();
}

}  // namespace atom::cuda
