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
constexpr int64_t kGramTile = 384;
constexpr int64_t kGramTokens = 1024;

}  // namespace

void float_linear(const Kernels& kernels, const FloatProduct& p, const ExpandRows& expand) {
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
      blas::gemm(true, false, rows, cols, std::min(kGramTokens, tokens - t), 1.0f,
                 x + t * channels + row, channels, x + t * channels + col, channels, 1.0f, tile,
                 channels);
    }
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t end = row == col ? i : cols;
      for (int64_t j = 0; j < end; ++j) h[(col + j) * channels + row + i] = tile[i * channels + j];
    }
  });
}

}  // namespace atom::cpu
