// Products of float matrices on the ordinary cores, in float with sums in the order of k: for the
// formats whose results must not be rounded to halves.
#pragma once

namespace atom::cuda {

inline constexpr int kTile = 64;          // rows and columns of a CTA's tile
inline constexpr int kTileDepth = 16;     // of k at a time
inline constexpr int kTileThreads = 256;  // 16 x 16, each 4 x 4 of the tile

// Which elements of an operand neighbour in memory.
enum class Along { kDepth, kRows };

// sums[i][j] = sum over k of a(row 4 ty + i, k) * b(row 4 tx + j, k), ty = thread / 16, tx =
// thread % 16; a and b give the elements of the tile's rows, 0 outside of the matrix.
template <Along kAlong = Along::kDepth, class A, class B>
__device__ void tile_product(float (&sums)[4][4], int64_t depth, const A& a, const B& b) {
  __shared__ float a_tile[kTileDepth][kTile + 4], b_tile[kTileDepth][kTile + 4];
  const int thread = static_cast<int>(threadIdx.x);
  const int ty = thread / 16, tx = thread % 16;
  for (int64_t k0 = 0; k0 < depth; k0 += kTileDepth) {
#pragma unroll
    for (int i = thread; i < kTile * kTileDepth; i += kTileThreads) {
      constexpr bool kDepth = kAlong == Along::kDepth;
      const int row = kDepth ? i / kTileDepth : i % kTile, k = kDepth ? i % kTileDepth : i / kTile;
      const bool inside = k0 + k < depth;
      a_tile[k][row] = inside ? a(row, k0 + k) : 0.0f;
      b_tile[k][row] = inside ? b(row, k0 + k) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kTileDepth; ++k) {
      const float4 x = *reinterpret_cast<const float4*>(&a_tile[k][4 * ty]);
      const float4 y = *reinterpret_cast<const float4*>(&b_tile[k][4 * tx]);
      const float xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(xs[i], ys[j], sums[i][j]);
      }
    }
    __syncthreads();
  }
}

}  // namespace atom::cuda
