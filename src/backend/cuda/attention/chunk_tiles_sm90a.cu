// chunk_tiles_sm90a: several new tokens a sequence (prompts and their chunks) over the paged INT4
// (or INT8, F16) cache by warpgroup products; head sizes up to 128.
//   q, out, cache   as decode_sm90a.cu
// Work: a CTA takes 128 query columns of one KV head of one sequence, column r = (new token
// r / group, head r % group), 64 a math warpgroup, and walks through the tokens 64 at a time. A
// third warpgroup unpacks the pages for both:
//
//   pages --bulk copies--> ring of records, one a warp and stage
//         --unpacking----> K [token 64][channel] halves, V^T [channel][token 64] halves: codes as
//                          f16 subnormals (page_reader.cuh), in the 128-byte swizzle; token scales
//   S [64 columns, 64 tokens] = q K^T       wgmma, q in registers, channels in the records' order
//   P = exp2(S * k_scale + k_min * sum(q) - m) * v_scale    in registers, the next A operand
//   O [64 columns, DH] += P V               wgmma, while the next tile's S is multiplied
//
// Scales and minima meet scores and weights, never an element of the cache, as in
// softmax_state.cuh, whose lazy maximum this kernel shares. The last columns, which see most, come
// first. Bound: the softmax's instructions, beside the tensor cores.   Rounds: queries and weights
// to F16.
#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/attention/chunk_columns.cuh"
#include "backend/cuda/attention/page_unpacker.cuh"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/ptx/wgmma.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::attention {
namespace {

// A warpgroup's 64 columns; a thread has columns g and g + 8 of its warp's 16.
template <class Reader, int kHeadDim>
class Columns {
  using M = TileMemory<Reader, kHeadDim>;
  using Scores = ptx::WgmmaF16<kTileTokens>;
  using Output = ptx::WgmmaF16<kHeadDim>;
  static constexpr int kSteps = kHeadDim / 16;

 public:
  __device__ Columns(const Params& p, const ChunkTile& tile, const PageRange& pages,
                     uint8_t* memory)
      : p_(p), tile_(tile), pages_(pages), memory_(memory) {
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    column0_ = tile.column + thread / 128 * 64;
    c_ = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int column = column0_ + thread % 128 / 32 * 16 + lane / 4 + 8 * h;
      const int64_t row = tile.row(column);
      row_[h] = row < 0 ? -1 : row * kHeadDim;
      end_[h] = tile.token(column) + 1;
      begin_[h] = window_begin(p.window, p.cache.prefix_tokens, tile.token(column));
      m_[h] = kLowest;
      weight_[h] = minimum_[h] = 0;
    }
    load_queries();
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) o_[i] = 0;
    for (int t = 0; t < p.cache.prefix_tokens; ++t) add_prefix(t);
  }

  __device__ void run() {
    const int tiles = tile_count(pages_), first = pages_.first * 16;
    // These columns see nothing from own_end on, and all that lies between the inner bounds.
    const int own_end = tile_.token(column0_ + 63) + 1;
    const int inner_end = tile_.token(column0_) + 1;
    const int inner_begin =
        window_begin(p_.window, p_.cache.prefix_tokens, tile_.token(column0_ + 63));
    const int own = min(tiles, (own_end - first + kTileTokens - 1) / kTileTokens);
    // Tiles [inner_first, inner_last) are seen whole by all of these columns.
    const int inner_first = max(1, (inner_begin - first + kTileTokens - 1) / kTileTokens);
    const int inner_last = (inner_end - first) / kTileTokens;
    if (own > 0) {
      uint32_t weights[kTileTokens / 4];
      begin(first, weights);
      int t = 1;
      walk<true>(t, min(own, inner_first), first, weights);
      walk<false>(t, min(own, inner_last), first, weights);
      walk<true>(t, own, first, weights);
      ptx::keep(weights);
      ptx::wgmma_fence();
      multiply_values(values(own - 1), weights);
      ptx::wgmma_wait<0>();
      release((own - 1) % kTileStages);
    }
    for (int t = own; t < tiles; ++t) {  // the other columns'
      ptx::barrier_wait(ptx::shared_address(memory_ + M::kFull + 8 * (t % kTileStages)),
                        t / kTileStages % 2);
      release(t % kTileStages);
    }
    store();
  }

 private:
  __device__ void release(int stage) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      ptx::barrier_arrive(ptx::shared_address(memory_ + M::kEmpty + 8 * stage));
    }
  }
  __device__ void wait_full(int t) const {
    ptx::barrier_wait(ptx::shared_address(memory_ + M::kFull + 8 * (t % kTileStages)),
                      t / kTileStages % 2);
  }
  // The weights of tile 0.
  __device__ void begin(int token0, uint32_t (&weights)[kTileTokens / 4]) {
    wait_full(0);
    float s[kTileTokens / 2], factor[2];
    ptx::wgmma_fence();
    multiply_keys(keys(0), s);
    ptx::wgmma_wait<0>();
    soften<true>(s, 0, token0, weights, factor);
    rescale(factor);
  }
  // Tiles t to end - 1: a tile's scores are multiplied, then become weights while the values of the
  // tile before are multiplied.
  template <bool kEdge>
  __device__ void walk(int& t, int end, int first, uint32_t (&weights)[kTileTokens / 4]) {
    // A copy that the compiler cannot fold: it would compute the next weights right into the
    // registers that products under way still read, notice, and wait for every product instead.
    const auto zero = static_cast<uint32_t>(p_.window >> 31);
#pragma unroll 1
    for (; t < end; ++t) {
      wait_full(t);
      float s[kTileTokens / 2], factor[2];
      uint32_t next[kTileTokens / 4];
      ptx::keep(weights);
      ptx::wgmma_fence();
      multiply_keys(keys(t), s);
      multiply_values(values(t - 1), weights);
      ptx::wgmma_wait<1>();
      soften<kEdge>(s, t % kTileStages, first + t * kTileTokens, next, factor);
      ptx::wgmma_wait<0>();
      ptx::keep(weights);  // until here
      release((t - 1) % kTileStages);
      rescale(factor);
#pragma unroll
      for (int i = 0; i < kTileTokens / 4; ++i) weights[i] = next[i] + zero;
    }
  }

  // Channels in the records' order: step s, half h, lane part c are c*DH/4 + 4s + 2h + {0, 1}.
  __device__ void load_queries() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float total = 0;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
        float4 x = make_float4(0, 0, 0, 0);
        if (row_[h] >= 0) {
          x = *reinterpret_cast<const float4*>(p_.q + row_[h] + c_ * (kHeadDim / 4) + 4 * s);
        }
        const __half2 pairs[2] = {__floats2half2_rn(x.x, x.y), __floats2half2_rn(x.z, x.w)};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float2 pair = __half22float2(pairs[half]);
          total += pair.x + pair.y;
          const __half2 scaled =
              __floats2half2_rn(pair.x * Reader::query(half), pair.y * Reader::query(half));
          q_[s][2 * half + h] = *reinterpret_cast<const uint32_t*>(&scaled);
        }
      }
      sum_[h] = quad_sum(total) * (p_.scale * kLog2E);
    }
  }
  __device__ static float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
  }

  // A token in floats.
  __device__ void add_prefix(int t) {
    const int64_t at =
        (static_cast<int64_t>(t) * p_.cache.kv_heads + blockIdx.x) * int64_t{kHeadDim};
    const float* k = p_.cache.prefix_k + at;
    const float* v = p_.cache.prefix_v + at;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float dot = 0;
      for (int d = c_; d < kHeadDim && row_[h] >= 0; d += 4)
        dot = fmaf(p_.q[row_[h] + d], k[d], dot);
      dot = quad_sum(dot) * (p_.scale * kLog2E);
      const float s = t - p_.cache.prefix_tokens >= begin_[h] ? dot : -INFINITY;
      float factor[2] = {1.0f, 1.0f};
      factor[h] = raise(h, s);
      rescale(factor);
      const float e = exp2f(s - m_[h]);
      if (c_ == 0) weight_[h] += e;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& o = o_[4 * j + 2 * h + i];
          o = fmaf(e, v[8 * j + 2 * c_ + i] / Reader::output(j % 2), o);
        }
      }
    }
  }

  // Operands in shared memory.
  __device__ uint64_t keys(int t) const {
    return ptx::swizzled_descriptor(ptx::shared_address(memory_ + t % kTileStages * M::kStage));
  }
  __device__ uint64_t values(int t) const { return keys(t) + (M::kKeyTile >> 4); }
  __device__ void multiply_keys(uint64_t keys, float (&s)[kTileTokens / 2]) const {
    Scores::start(s, q_[0], keys);
#pragma unroll
    for (int step = 1; step < kSteps; ++step) {
      Scores::issue(
          s, q_[step],
          keys + static_cast<uint64_t>((step / 4 * kTileTokens * 128 >> 4) + 2 * (step % 4)), 1);
    }
    ptx::wgmma_commit();
  }
  __device__ void multiply_values(uint64_t values, const uint32_t (&weights)[kTileTokens / 4]) {
#pragma unroll
    for (int step = 0; step < kTileTokens / 16; ++step) {
      Output::issue(o_, &weights[4 * step], values + static_cast<uint64_t>(2 * step), 1);
    }
    ptx::wgmma_commit();
  }

  // Scores to weights, while the values of the tile before are multiplied: what its output has to
  // be multiplied with comes back in `factor`. s word 4j + 2h + i is column g + 8h, token 8j + 2c +
  // i of the tile.
  template <bool kEdge>
  __device__ void soften(float (&s)[kTileTokens / 2], int stage, int token0,
                         uint32_t (&weights)[kTileTokens / 4], float (&factor)[2]) {
    const auto* scales = reinterpret_cast<const TokenScales*>(memory_ + M::kScales) + stage;
    float top[2] = {kLowest, kLowest};
#pragma unroll
    for (int j = 0; j < kTileTokens / 8; ++j) {
      float4 k = make_float4(Reader::kScore * p_.scale * kLog2E, 0, 0, 0);
      float2 level = {};
      if constexpr (Reader::kScaled) {
        k = *reinterpret_cast<const float4*>(&scales->key[8 * j + 2 * c_]);
        level = *reinterpret_cast<const float2*>(&scales->level[8 * j + 2 * c_]);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = s[4 * j + 2 * h + i];
          if constexpr (Reader::kScaled) {
            x = fmaf(x, i == 0 ? k.x : k.z, (i == 0 ? k.y : k.w) * sum_[h]);
          } else {
            x *= k.x;
          }
          if constexpr (kEdge) {
            const int token = token0 + 8 * j + 2 * c_ + i;
            if (token < begin_[h] || token >= end_[h]) x = -INFINITY;
          }
          top[h] = fmaxf(top[h], x + (i == 0 ? level.x : level.y));
        }
      }
    }
    const bool passed = __any_sync(0xffffffffu, top[0] > m_[0] + kSlack || top[1] > m_[1] + kSlack);
#pragma unroll
    for (int h = 0; h < 2; ++h) factor[h] = passed ? raise(h, top[h]) : 1.0f;
#pragma unroll
    for (int j = 0; j < kTileTokens / 8; ++j) {
      float4 v = {};
      if constexpr (Reader::kScaled) {
        v = *reinterpret_cast<const float4*>(&scales->value[8 * j + 2 * c_]);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float w[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float e = exp2f(s[4 * j + 2 * h + i] - m_[h]);
          weight_[h] += e;
          w[i] = e;
          if constexpr (Reader::kScaled) {
            minimum_[h] = fmaf(e, i == 0 ? v.y : v.w, minimum_[h]);
            w[i] *= i == 0 ? v.x : v.z;
          }
        }
        const __half2 pair = __floats2half2_rn(w[0], w[1]);
        // A operand of step j / 2: tokens 2c + {0, 1} of its low or high eight.
        weights[j / 2 * 4 + j % 2 * 2 + h] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }

  // Raises the maximum of column h, seen by a quad of lanes; yields the factor that its sums take.
  __device__ float raise(int h, float top) {
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float high = fmaxf(top, m_[h]), factor = exp2f(m_[h] - high);
    m_[h] = high;
    weight_[h] *= factor;
    minimum_[h] *= factor;
    return factor;
  }
  __device__ void rescale(const float (&factor)[2]) {
    if (!__any_sync(0xffffffffu, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
    for (int i = 0; i < kHeadDim / 2; ++i) o_[i] *= factor[i / 2 % 2];
  }

  __device__ void store() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float inverse = 1.0f / quad_sum(weight_[h]), minimum = quad_sum(minimum_[h]);
      if (row_[h] < 0) continue;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        float2 out;
        out.x = fmaf(o_[4 * j + 2 * h], Reader::output(j % 2), minimum) * inverse;
        out.y = fmaf(o_[4 * j + 2 * h + 1], Reader::output(j % 2), minimum) * inverse;
        *reinterpret_cast<float2*>(p_.out + row_[h] + 8 * j + 2 * c_) = out;
      }
    }
  }

  const Params& p_;
  ChunkTile tile_;
  PageRange pages_;
  uint8_t* memory_;
  int column0_, c_;
  int64_t row_[2];  // of q and out; negative: no such column
  int begin_[2], end_[2];
  uint32_t q_[kSteps][4];
  float sum_[2];
  float o_[kHeadDim / 2];
  float m_[2], weight_[2], minimum_[2];
};

template <class Reader, int kHeadDim>
__global__ __launch_bounds__(kTileThreads,
                             1) void chunk_tiles_sm90a_kernel(const __grid_constant__ Params p) {
  using M = TileMemory<Reader, kHeadDim>;
  uint8_t* memory = dynamic_shared();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < kTileStages; ++s) {
      ptx::barrier_init(ptx::shared_address(memory + M::kFull + 8 * s), 128);
      ptx::barrier_init(ptx::shared_address(memory + M::kEmpty + 8 * s), kMathThreads / 32);
    }
    for (int i = 0; i < 4 * kRecordRing; ++i) {
      ptx::barrier_init(ptx::shared_address(memory + M::kArrived + 8 * i), 1);
    }
    ptx::barrier_init_fence();
  }
  __syncthreads();
  wait_for_previous();
  let_next_start();
  constexpr int kColumns = chunk_columns(kHeadDim);
  static_assert(kColumns == 64 * kMathGroups);
  const ChunkTile tile =
      find_tile(p, kColumns, static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.x));
  if (tile.sequence < 0) return;
  const PageRange pages = visible_pages(p, tile, kColumns);
  if (thread >= kMathThreads) {
    ptx::give_registers<72>();
    Unpacker<Reader, kHeadDim>(p, pages, memory).run();
  } else {
    ptx::take_registers<216>();
    Columns<Reader, kHeadDim>(p, tile, pages, memory).run();
  }
}

template <class Reader, int kHeadDim>
void start(const Params& p, int tiles, cudaStream_t stream) {
  launch_chained(chunk_tiles_sm90a_kernel<Reader, kHeadDim>,
                 dim3(static_cast<unsigned>(p.cache.kv_heads), static_cast<unsigned>(tiles)),
                 kTileThreads, TileMemory<Reader, kHeadDim>::kBytes, p, stream);
}

template <int kHeadDim>
ChunkLauncher pick(const PageLayout& layout) {
  if (layout.bits == 4) return start<Int4Reader<kHeadDim>, kHeadDim>;
  if (layout.bits == 8) return start<Int8Reader<kHeadDim>, kHeadDim>;
  return start<HalfReader<kHeadDim>, kHeadDim>;
}

}  // namespace

ChunkLauncher find_chunk(const PageLayout& layout) {
  if (!layout.fragments) return nullptr;
  if (layout.head_dim == 64) return pick<64>(layout);
  if (layout.head_dim == 96) return pick<96>(layout);
  if (layout.head_dim == 128) return pick<128>(layout);
  return find_chunk_of_large_heads(layout);
}

}  // namespace atom::cuda::attention
