#include "backend/cpu/float_linear.h"

#include <algorithm>

#include "backend/cpu/aligned_buffer.h"
#include "base/blas.h"
#include "base/parallel.h"

namespace atom::cpu {
namespace {

constexpr int64_t kTileTokens = 512;
constexpr int64_t kTileRows = 384;
constexpr int64_t kFewTokens = 4;  // where a matrix product spends its time on copying operands
constexpr int64_t kFewTokensRows = 32;
constexpr int64_t kNarrowRows = 32;  // a router's
constexpr int64_t kNarrowTokens = 16;
constexpr int64_t kGramTile = 192;
constexpr int64_t kGramTokens = 1024;

// Copies rows [0, rows) x columns [0, cols) of `from` to their mirror places in `to`: to[j][i] =
// from[i][j]. On the diagonal only what stands below it.
void mirror(const float* from, int64_t rows, int64_t cols, bool diagonal, int64_t stride,
            float* to) {
  constexpr int64_t kTogether = 16;  // rows of `from`, a cache line of `to`
  for (int64_t first = 0; first < rows; first += kTogether) {
    const int64_t end = std::min(rows, first + kTogether);
    for (int64_t j = 0; j < (diagonal ? end : cols); ++j) {
      for (int64_t i = diagonal ? std::max(first, j + 1) : first; i < end; ++i) {
        to[j * stride + i] = from[i * stride + j];
      }
    }
  }
}

// Few rows, each token for itself: where a router sends a token does not depend on the batch.
void narrow_linear(const Kernels& kernels, const FloatProduct& p, const ExpandRows& expand) {
  parallel_for((p.tokens + kNarrowTokens - 1) / kNarrowTokens, [&](int64_t item) {
    struct Narrow;
    const float* w = expand(0, p.rows, thread_scratch<float, Narrow>(p.rows * p.channels));
    const int64_t end = std::min(p.tokens, (item + 1) * kNarrowTokens);
    for (int64_t t = item * kNarrowTokens; t < end; ++t) {
      kernels.float_rows({.x = p.x + t * p.x_stride,
                          .x_stride = p.x_stride,
                          .tokens = 1,
                          .w = w,
                          .rows = p.rows,
                          .channels = p.channels,
                          .y = p.y + t * p.y_stride,
                          .y_stride = p.y_stride,
                          .accumulate = p.accumulate});
    }
  });
}

}  // namespace

void float_linear(const Kernels& kernels, const FloatProduct& p, const ExpandRows& expand) {
  if (p.rows <= kNarrowRows) return narrow_linear(kernels, p, expand);
  const int64_t tile_rows = p.tokens <= kFewTokens ? kFewTokensRows : kTileRows;
  const int64_t row_tiles = (p.rows + tile_rows - 1) / tile_rows;
  const int64_t token_tiles = (p.tokens + kTileTokens - 1) / kTileTokens;
  parallel_for(row_tiles * token_tiles, [&](int64_t item) {
    const int64_t row = item / token_tiles * tile_rows;
    const int64_t token = item % token_tiles * kTileTokens;
    const int64_t rows = std::min(tile_rows, p.rows - row);
    const int64_t tokens = std::min(kTileTokens, p.tokens - token);
    struct Panel;
    const float* w = expand(row, rows, thread_scratch<float, Panel>(tile_rows * p.channels));
    if (p.tokens <= kFewTokens) {
      return kernels.float_rows({.x = p.x,
                                 .x_stride = p.x_stride,
                                 .tokens = p.tokens,
                                 .w = w,
                                 .rows = rows,
                                 .channels = p.channels,
                                 .y = p.y + row,
                                 .y_stride = p.y_stride,
                                 .accumulate = p.accumulate});
    }
    blas::gemm(false, true, tokens, rows, p.channels, 1.0f, p.x + token * p.x_stride, p.x_stride, w,
               p.channels, p.accumulate ? 1.0f : 0.0f, p.y + token * p.y_stride + row, p.y_stride);
  });
}

void accumulate_gram(const float* x, int64_t tokens, int64_t channels, float* h) {
  const int64_t tiles = (channels + kGramTile - 1) / kGramTile;
  // Item i counts the tiles of the lower triangle row by row.
  parallel_for(tiles * (tiles + 1) / 2, [&](int64_t item) {
    int64_t row_tile = 0;
    while ((row_tile + 1) * (row_tile + 2) / 2 <= item) ++row_tile;
    const int64_t row = row_tile * kGramTile;
    const int64_t col = (item - row_tile * (row_tile + 1) / 2) * kGramTile;
    const int64_t rows = std::min(kGramTile, channels - row);
    const int64_t cols = std::min(kGramTile, channels - col);
    float* tile = h + row * channels + col;
    for (int64_t t = 0; t < tokens; t += kGramTokens) {
      const int64_t count = std::min(kGramTokens, tokens - t);
      const float* left = x + t * channels + row;
      if (row == col) {
        blas::add_gram(rows, count, left, channels, tile, channels);
      } else {
        blas::gemm(true, false, rows, cols, count, 1.0f, left, channels, x + t * channels + col,
                   channels, 1.0f, tile, channels);
      }
    }
    mirror(tile, rows, cols, row == col, channels, h + col * channels + row);
  });
}

}  // namespace atom::cpu
