// chunk_tiles_sm90a: several new tokens a sequence (prompts and their chunks) over the paged INT4
// (or INT8, F16) cache by warpgroup products; head sizes up to 128.
//   q, out, cache   as decode_sm90a.cu
// Work: a CTA takes 128 query columns of one KV head of one sequence, column r = (new token
// r / group, head r % group), 64 a math warpgroup, walks through the tokens 64 at a time, and takes
// other columns when it is done: there is a CTA a multiprocessor at most. A third warpgroup brings
// queries, and pages, which it unpacks for both:
//
//   pages --bulk copies--> ring of records of each warp
//         --unpacking----> K [token 64][channel], V^T [channel][token 64] (page_unpacker.cuh)
//   S [64 columns, 64 tokens] = q K^T       wgmma, q times the softmax's scale in registers
//   P = exp2(S * k_scale + k_min * sum(q) - m)    in registers, the next A operand
//   O [64 columns, DH] += P V               wgmma, while the next tile's S is multiplied
//
// Keys stay codes, whose scales and minima meet the scores, as in softmax_state.cuh; values are
// scaled where they are unpacked, since in the weights it would cost the softmax two instructions
// an element. The lazy maximum is that file's. The last columns, which see most, come first.
// Bound: the softmax's instructions, beside the tensor cores.
// Rounds: queries, values and weights to F16.
#include <algorithm>

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
  __device__ Columns(const Params& p, const ChunkTile& tile, const PageRange& pages, int turn,
                     int base, uint8_t* memory)
      : p_(p), tile_(tile), pages_(pages), base_(base), memory_(memory) {
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
      weight_[h] = 0;
    }
    load_queries(turn);
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
    const int inner_first = (inner_begin - first + kTileTokens - 1) / kTileTokens;
    const int inner_last = (inner_end - first) / kTileTokens;
    if (own > 0) {
      uint32_t weights[kTileTokens / 4];
      begin(first, weights);
#pragma unroll 1
      for (int t = 1; t < own; ++t) {
        next(t, first + t * kTileTokens, t < inner_first || t >= inner_last, weights);
      }
      ptx::keep(weights);
      ptx::wgmma_fence();
      multiply_values(values(own - 1), weights);
      ptx::wgmma_wait<0>();
      release(own - 1);
    }
    for (int t = own; t < tiles; ++t) {  // the other columns'
      wait_full(t);
      release(t);
    }
    store();
  }

 private:
  __device__ int stage(int t) const { return (base_ + t) % kTileStages; }
  __device__ void release(int t) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      ptx::barrier_arrive(ptx::shared_address(memory_ + M::kEmpty + 8 * stage(t)));
    }
  }
  __device__ void wait_full(int t) const {
    ptx::barrier_wait(ptx::shared_address(memory_ + M::kFull + 8 * stage(t)),
                      (base_ + t) / kTileStages % 2);
  }
  // The weights of tile 0.
  __device__ void begin(int token0, uint32_t (&weights)[kTileTokens / 4]) {
    wait_full(0);
    float s[kTileTokens / 2], factor[2];
    ptx::wgmma_fence();
    multiply_keys(keys(0), s);
    ptx::wgmma_wait<0>();
    soften(s, stage(0), token0, true, factor);
    rescale(factor);
    pack(s, weights);
  }
  // Tile t: its scores are multiplied, then become weights while the values of the tile before are
  // multiplied. edge: whether some of these columns do not see all of it.
  __device__ void next(int t, int token0, bool edge, uint32_t (&weights)[kTileTokens / 4]) {
    wait_full(t);
    float s[kTileTokens / 2], factor[2];
    ptx::keep(weights);
    ptx::wgmma_fence();
    multiply_keys(keys(t), s);
    multiply_values(values(t - 1), weights);
    ptx::wgmma_wait<1>();
    soften(s, stage(t), token0, edge, factor);
    ptx::wgmma_wait<0>();
    ptx::keep(weights);  // until here
#pragma unroll
    for (float& w : s) ptx::keep(w);  // and these not before
    release(t - 1);
    rescale(factor);
    pack(s, weights);
  }

  // Channels in the order of the unpacked keys: lane c of a quad has pair c of each piece. The
  // first turn's queries come straight from where they are.
  __device__ void load_queries(int turn) {
    if (turn > 0) {
      ptx::barrier_wait(ptx::shared_address(memory_ + M::kQueriesFull), (turn - 1) % 2);
    }
    const float scale = p_.scale * kLog2E, unit = Reader::query(c_ % 2);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* query = p_.q + row_[h];
      if (turn > 0) {
        const auto column = static_cast<int>(threadIdx.x) / 32 * 16 +
                            static_cast<int>(threadIdx.x) % 32 / 4 + 8 * h;
        query = reinterpret_cast<const float*>(memory_ + M::kQueries + column * M::kQueryStride);
      }
      float total = 0;
#pragma unroll
      for (int s = 0; s < kSteps; ++s) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float2 x = make_float2(0, 0);
          if (row_[h] >= 0) {
            x = *reinterpret_cast<const float2*>(query + step_channel<kHeadDim>(s, half) + 2 * c_);
          }
          const float2 pair = __half22float2(__floats2half2_rn(x.x * scale, x.y * scale));
          total += pair.x + pair.y;
          const __half2 scaled = __floats2half2_rn(pair.x * unit, pair.y * unit);
          q_[s][2 * half + h] = *reinterpret_cast<const uint32_t*>(&scaled);
        }
      }
      sum_[h] = quad_sum(total);
    }
    if (turn > 0) {
      __syncwarp();
      if (threadIdx.x % 32 == 0) {
        ptx::barrier_arrive(ptx::shared_address(memory_ + M::kQueriesEmpty));
      }
    }
  }
  __device__ static float quad_sum(float v) {
    v += __shfl_xor_sync(0xffffffffu, v, 1);
    return v + __shfl_xor_sync(0xffffffffu, v, 2);
  }

  // A token in floats.
  __device__ void add_prefix(int t) {
    const int64_t at =
        (static_cast<int64_t>(t) * p_.cache.kv_heads + tile_.kv_head) * int64_t{kHeadDim};
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
      const float e = fast_exp2(s - m_[h]);
      if (c_ == 0) weight_[h] += e;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& o = o_[4 * j + 2 * h + i];
          o = fmaf(e, v[8 * j + 2 * c_ + i], o);
        }
      }
    }
  }

  // Operands in shared memory. Addresses are the low half of a descriptor, and never carry.
  __device__ uint64_t keys(int t) const {
    return ptx::swizzled_descriptor(ptx::shared_address(memory_ + stage(t) * M::kStage));
  }
  __device__ uint64_t values(int t) const { return ahead(keys(t), M::kKeyTile); }
  __device__ static uint64_t ahead(uint64_t descriptor, int bytes) {
    return descriptor >> 32 << 32 |
           (static_cast<uint32_t>(descriptor) + static_cast<uint32_t>(bytes >> 4));
  }
  __device__ void multiply_keys(uint64_t keys, float (&s)[kTileTokens / 2]) const {
    Scores::start(s, q_[0], keys);
#pragma unroll
    for (int step = 1; step < kSteps; ++step) {
      Scores::issue(s, q_[step], ahead(keys, step / 4 * kTileTokens * 128 + 32 * (step % 4)), 1);
    }
    ptx::wgmma_commit();
  }
  __device__ void multiply_values(uint64_t values, const uint32_t (&weights)[kTileTokens / 4]) {
#pragma unroll
    for (int step = 0; step < kTileTokens / 16; ++step) {
      Output::issue(o_, &weights[4 * step], ahead(values, 32 * step), 1);
    }
    ptx::wgmma_commit();
  }

  // Scores to weights, in place, while the values of the tile before are multiplied: what its
  // output has to be multiplied with comes back in `factor`. s word 4j + 2h + i is column g + 8h,
  // place 8j + 2c + i of the tile. edge: whether some of these columns do not see all of it.
  __device__ void soften(float (&s)[kTileTokens / 2], int stage, int token0, bool edge,
                         float (&factor)[2]) {
    // Weights are 2 to the power of s: scores over what was subtracted from all before.
    const float base[2] = {subtracted(0), subtracted(1)};
    const auto* scales = reinterpret_cast<const KeyScales*>(memory_ + M::kScales) + stage;
#pragma unroll
    for (int j = 0; j < kTileTokens / 8; ++j) {
      float4 k = {};
      if constexpr (Reader::kScaled) {
        k = *reinterpret_cast<const float4*>(&scales->of[8 * j + 2 * c_]);
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& x = s[4 * j + 2 * h + i];
          if constexpr (Reader::kScaled) {
            x = fmaf(x, i == 0 ? k.x : k.z, fmaf(i == 0 ? k.y : k.w, sum_[h], -base[h]));
          } else {
            x -= base[h];
          }
        }
      }
    }
    if (edge) {
#pragma unroll
      for (int w = 0; w < kTileTokens / 2; ++w) {
        const int j = w / 4, h = w / 2 % 2;
        const int token = token0 + 16 * (j % 4) + 4 * (j / 4) + w % 2 + quad_token(c_);
        if (token < begin_[h] || token >= end_[h]) s[w] = -INFINITY;
      }
    }
    float top[2] = {kLowest, kLowest};
#pragma unroll
    for (int w = 0; w < kTileTokens / 2; ++w) top[w / 2 % 2] = fmaxf(top[w / 2 % 2], s[w]);
    factor[0] = factor[1] = 1.0f;
    if (__any_sync(0xffffffffu, top[0] > slack(0) || top[1] > slack(1))) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        factor[h] = raise(h, top[h] + base[h]);
        const float less = base[h] - subtracted(h);
#pragma unroll
        for (int w = 2 * h; w < kTileTokens / 2; w += w % 2 == 0 ? 1 : 3) s[w] += less;
      }
    }
#pragma unroll
    for (int w = 0; w < kTileTokens / 2; ++w) {
      s[w] = fast_exp2(s[w]);
      weight_[w / 2 % 2] += s[w];
    }
  }
  // A column that has seen nothing has no maximum yet.
  __device__ float subtracted(int h) const { return m_[h] == kLowest ? 0.0f : m_[h]; }
  __device__ float slack(int h) const { return m_[h] == kLowest ? kLowest : kSlack; }
  // The A operand of step j / 2: places 2c + {0, 1} of its low or high eight.
  __device__ static void pack(const float (&s)[kTileTokens / 2],
                              uint32_t (&weights)[kTileTokens / 4]) {
#pragma unroll
    for (int j = 0; j < kTileTokens / 8; ++j) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const __half2 pair = __floats2half2_rn(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]);
        weights[j / 2 * 4 + j % 2 * 2 + h] = *reinterpret_cast<const uint32_t*>(&pair);
      }
    }
  }

  // Raises the maximum of column h, seen by a quad of lanes; yields the factor that its sums take.
  __device__ float raise(int h, float top) {
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float high = fmaxf(top, m_[h]), factor = fast_exp2(m_[h] - high);
    m_[h] = high;
    weight_[h] *= factor;
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
      const float inverse = 1.0f / quad_sum(weight_[h]);
      if (row_[h] < 0) continue;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        const float2 out =
            make_float2(o_[4 * j + 2 * h] * inverse, o_[4 * j + 2 * h + 1] * inverse);
        *reinterpret_cast<float2*>(p_.out + row_[h] + 8 * j + 2 * c_) = out;
      }
    }
  }

  const Params& p_;
  ChunkTile tile_;
  PageRange pages_;
  int base_;  // tiles of tokens in this CTA's earlier turns
  uint8_t* memory_;
  int column0_, c_;
  int64_t row_[2];  // of q and out; negative: no such column
  int begin_[2], end_[2];
  uint32_t q_[kSteps][4];
  float o_[kHeadDim / 2];
  float sum_[2];  // over a query's channels, times the softmax's scale
  float m_[2], weight_[2];
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
    for (int i = 0; i < 4 * M::kRing; ++i) {
      ptx::barrier_init(ptx::shared_address(memory + M::kArrived + 8 * i), 1);
    }
    ptx::barrier_init(ptx::shared_address(memory + M::kQueriesFull), 128);
    ptx::barrier_init(ptx::shared_address(memory + M::kQueriesEmpty), kMathThreads / 32);
    ptx::barrier_init_fence();
  }
  __syncthreads();
  constexpr int kColumns = chunk_columns(kHeadDim);
  static_assert(kColumns == 64 * kMathGroups);
  if (thread >= kMathThreads) {
    ptx::give_registers<88>();
    Unpacker<Reader, kHeadDim>(p, memory).run();
    return;
  }
  ptx::take_registers<208>();
  ChunkTile tile = find_turn(p, kColumns, 0);
  wait_for_previous();
  let_next_start();
  int base = 0;
  for (int turn = 0; tile.count > 0; tile = find_turn(p, kColumns, ++turn)) {
    const PageRange pages = visible_pages(p, tile, kColumns);
    Columns<Reader, kHeadDim>(p, tile, pages, turn, base, memory).run();
    base += tile_count(pages);
  }
}

template <class Reader, int kHeadDim>
void start(const Params& p, int tiles, cudaStream_t stream) {
  const int ctas = std::min(p.cache.kv_heads * tiles, p.most_ctas);
  launch_chained(chunk_tiles_sm90a_kernel<Reader, kHeadDim>, dim3(static_cast<unsigned>(ctas)),
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
