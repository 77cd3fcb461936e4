// The tensor core half of attention over pages: query columns against one page's 16 tokens, and the
// running softmax. Decode and chunk kernels differ in how they share out pages and columns only.
//
//   S [16 tokens, 8 n columns] = K q    mma f16, codes as f16 subnormals, exact
//   s = (S * k_scale + k_min * sum(q)) * softmax scale        once a token and column
//   p = exp2(s - m) * v_scale       weights in f16; m bounds s + log2(v_scale), so p <= 2^8
//   O [DH, 8 n columns] += V^T p    and sum(exp2(s - m) * v_min) beside it, one number a column
//
// Scales and minima never touch an element of the cache: nibbles are masked out and multiplied as
// they are. The running maximum moves only when it is passed by 2^8, which spares its exchange
// between lanes. Lane (g, c) of a warp, l = 4g + c, holds columns 8n + 2c + {0, 1}: the scores of
// tokens g and g + 8, the outputs of channels g and g + 8 of every tile of 16.
#pragma once

#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/attention/page_reader.cuh"
#include "backend/cuda/ptx/mma.cuh"

namespace atom::cuda::attention {

inline constexpr float kLowest = -1e30f;
inline constexpr float kSlack = 8.0f;  // log2 of how far a weight may pass 1 before a rescale
inline constexpr float kLog2E = 1.44269504f;

// Subnormal results are zero, which spares the instructions that would keep them.
__device__ inline float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline float fast_log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Query columns as B fragments: lane (g, c) holds column 8n + g's channels of part c.
template <class Reader, int kHeadDim, int kTilesN>
struct Queries {
  uint32_t b[kTilesN][kHeadDim / 16][2];
  float sum[kTilesN][2];  // over the channels of columns 8n + 2c + {0, 1}, times the score's scale

  // What a lane reads of a tile's columns.
  struct Part {
    float4 x[kHeadDim / 16];

    // q: the DH floats of column g, or null. past_l1: where L1 may hold older ones.
    __device__ void load(const float* q, int c, bool past_l1 = false) {
#pragma unroll
      for (int s = 0; s < kHeadDim / 16; ++s) {
        x[s] = make_float4(0, 0, 0, 0);
        if (q == nullptr) continue;
        const auto* from = reinterpret_cast<const float4*>(q + c * (kHeadDim / 4) + 4 * s);
        x[s] = past_l1 ? __ldcg(from) : *from;
      }
    }
  };

  // row(column): its DH floats, or null.
  template <class Row>
  __device__ void load(const Row& row, float scale_log2, int lane) {
    Part parts[kTilesN];
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) parts[n].load(row(8 * n + lane / 4), lane % 4);
    set(parts, scale_log2, lane);
  }
  __device__ void set(const Part (&parts)[kTilesN], float scale_log2, int lane) {
    const int c = lane % 4;
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
      float total = 0;
#pragma unroll
      for (int s = 0; s < kHeadDim / 16; ++s) {
        const float4 x = parts[n].x[s];
        const __half2 pairs[2] = {__floats2half2_rn(x.x, x.y), __floats2half2_rn(x.z, x.w)};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const float2 pair = __half22float2(pairs[h]);
          total += pair.x + pair.y;
          const __half2 scaled =
              __floats2half2_rn(pair.x * Reader::query(h), pair.y * Reader::query(h));
          b[n][s][h] = *reinterpret_cast<const uint32_t*>(&scaled);
        }
      }
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      sum[n][0] = __shfl_sync(0xffffffffu, total, 8 * c) * scale_log2;
      sum[n][1] = __shfl_sync(0xffffffffu, total, 8 * c + 4) * scale_log2;
    }
  }
};

// Tokens [begin, end) of the sequence that a column sees.
template <int kTilesN>
struct Visible {
  int begin[kTilesN][2], end[kTilesN][2];
};

template <class Reader, int kHeadDim, int kTilesN>
struct State {
  static constexpr int kTiles = kHeadDim / 16;
  float o[kTilesN][kTiles][4];
  float m[kTilesN][2];
  float weight[kTilesN][2];   // this lane's tokens' part of the denominator
  float minimum[kTilesN][2];  // and of sum(weight * v_min)

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        m[n][i] = kLowest;
        weight[n][i] = minimum[n][i] = 0;
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) o[n][tile][i] = 0;
      }
    }
  }

  // s: scores (log2) of tokens g (0, 1) and g + 8 (2, 3); v: the tokens' {scale, minimum}.
  __device__ __forceinline__ void add(const float (&s)[kTilesN][4], const float2 (&v)[2],
                                      const Reader& reader) {
    float level[2] = {};
    if constexpr (Reader::kScaled) {
      level[0] = fast_log2(fmaxf(v[0].x, 0x1p-24f));
      level[1] = fast_log2(fmaxf(v[1].x, 0x1p-24f));
    }
    uint32_t b[kTilesN][2];
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
      const float top[2] = {fmaxf(s[n][0] + level[0], s[n][2] + level[1]),
                            fmaxf(s[n][1] + level[0], s[n][3] + level[1])};
      const bool passed = top[0] > m[n][0] + kSlack || top[1] > m[n][1] + kSlack;
      if (__any_sync(0xffffffffu, passed)) raise(n, top);
      float w[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float e = fast_exp2(s[n][i] - m[n][i % 2]);
        weight[n][i % 2] += e;
        w[i] = e;
        if constexpr (Reader::kScaled) {
          minimum[n][i % 2] = fmaf(e, v[i / 2].y, minimum[n][i % 2]);
          w[i] *= v[i / 2].x;
        }
      }
      const __half2 low = __floats2half2_rn(w[0], w[1]), high = __floats2half2_rn(w[2], w[3]);
      b[n][0] = ptx::transpose(*reinterpret_cast<const uint32_t*>(&low));
      b[n][1] = ptx::transpose(*reinterpret_cast<const uint32_t*>(&high));
    }
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      uint32_t a[4];
      reader.value_fragment(tile, a);
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
        ptx::mma_f16(o[n][tile], a[0], a[1], a[2], a[3], b[n][0], b[n][1]);
      }
    }
  }

  // A token in floats: k, v [DH]; seen[n][i]: whether the column sees it. row as in Queries.
  template <class Row>
  __device__ void add_token(const float* k, const float* v, const bool (&seen)[kTilesN][2],
                            const Row& row, float scale_log2, int lane) {
    const int g = lane / 4, c = lane % 4;
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
      float s[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float* q = row(8 * n + 2 * c + i);
        float dot = 0;
        for (int d = g; d < kHeadDim && q != nullptr; d += 8) dot = fmaf(q[d], k[d], dot);
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) {
          dot += __shfl_xor_sync(0xffffffffu, dot, lanes);
        }
        s[i] = seen[n][i] ? dot * scale_log2 : -INFINITY;
      }
      if (__any_sync(0xffffffffu, s[0] > m[n][0] + kSlack || s[1] > m[n][1] + kSlack)) raise(n, s);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const float e = exp2f(s[i] - m[n][i]);
        if (g == 0) weight[n][i] += e;
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          o[n][tile][i] = fmaf(e, v[tile * 16 + g] / Reader::output(0), o[n][tile][i]);
          o[n][tile][i + 2] = fmaf(e, v[tile * 16 + g + 8] / Reader::output(1), o[n][tile][i + 2]);
        }
      }
    }
  }

  // Makes weight and minimum those of all lanes' tokens.
  __device__ __forceinline__ void gather_weights() {
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) {
          weight[n][i] += __shfl_xor_sync(0xffffffffu, weight[n][i], lanes);
          minimum[n][i] += __shfl_xor_sync(0xffffffffu, minimum[n][i], lanes);
        }
      }
    }
  }
  // Channel 16 tile + 8 hi + g of column 8n + 2c + i, not yet divided by the weight.
  __device__ __forceinline__ float output(int n, int tile, int i, int hi) const {
    return fmaf(o[n][tile][i + 2 * hi], Reader::output(hi), minimum[n][i]);
  }

 private:
  __device__ __forceinline__ void raise(int n, const float (&top)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float high = top[i];
#pragma unroll
      for (int lanes = 4; lanes < 32; lanes *= 2) {
        high = fmaxf(high, __shfl_xor_sync(0xffffffffu, high, lanes));
      }
      high = fmaxf(high, m[n][i]);
      const float factor = fast_exp2(m[n][i] - high);
      m[n][i] = high;
      weight[n][i] *= factor;
      minimum[n][i] *= factor;
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        o[n][tile][i] *= factor;
        o[n][tile][i + 2] *= factor;
      }
    }
  }
};

// Adds one page, a record in shared memory whose first token is `first_token` of a sequence with
// `length` tokens. whole: all columns see all of its tokens.
template <class Reader, int kHeadDim, int kTilesN>
__device__ __forceinline__ void attend_page(const uint8_t* record, int first_token, int length,
                                            bool whole,
                                            const Queries<Reader, kHeadDim, kTilesN>& queries,
                                            const Visible<kTilesN>& visible, float scale_log2,
                                            State<Reader, kHeadDim, kTilesN>& state, int lane) {
  using Pages = typename Reader::Pages;
  Reader reader;
  reader.load_keys(record, lane);
  float2 k[2], v[2];
  if constexpr (Reader::kScaled) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      k[half] = scale_pair(record, Pages(kHeadDim).key_scale(lane / 4 + 8 * half));
      v[half] = scale_pair(record, Pages(kHeadDim).value_scale(lane / 4 + 8 * half));
    }
  }
  reader.load_values(record, lane, length - first_token);
  // Of a single tile, even and odd steps do not wait for each other.
  constexpr int kChains = kTilesN == 1 ? 2 : 1;
  float products[kChains][kTilesN][4] = {};
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    uint32_t a[4];
    reader.key_fragment(step, a);
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
      ptx::mma_f16(products[step % kChains][n], a[0], a[1], a[2], a[3], queries.b[n][step][0],
                   queries.b[n][step][1]);
    }
  }
  auto& s = products[0];
  if constexpr (kChains == 2) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[0][i] += products[1][0][i];
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float factor = (Reader::kScaled ? k[half].x : 1.0f) * (Reader::kScore * scale_log2);
#pragma unroll
    for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& x = s[n][2 * half + i];
        x *= factor;
        if constexpr (Reader::kScaled) x = fmaf(k[half].y, queries.sum[n][i], x);
      }
    }
  }
  if (!whole) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = first_token + lane / 4 + 8 * half;
#pragma unroll
      for (int n = 0; n < kTilesN; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (token < visible.begin[n][i] || token >= visible.end[n][i]) {
            s[n][2 * half + i] = -INFINITY;
          }
        }
      }
      // What a slot without token holds may be anything.
      if (token >= length) v[half] = make_float2(0, 0);
    }
  }
  state.add(s, v, reader);
}

// First visible token of a window that ends with `token`, and whether the prefix's p-th is in it.
__device__ inline int window_begin(int window, int prefix_tokens, int token) {
  return window == 0 ? -prefix_tokens : max(-prefix_tokens, token - window + 1);
}

}  // namespace atom::cuda::attention
