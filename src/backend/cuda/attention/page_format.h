// How one page of one KV head lies in GPU memory: 16 tokens' keys and values in the order in which
// the tensor cores read them, so that a warp loads operands without rearranging anything. A page is
// one record of kBytes, fetched by one bulk copy.
//
// Lanes are l = 4g + c (g = l / 4, c = l % 4). Both products use mma m16n8k16 with the cache as the
// A operand (16 rows) and up to eight query heads as the columns of B:
//   scores    A = K   [tokens 16, channels 16 a step]    lane: tokens g and g + 8
//   output    A = V^T [channels 16 a tile, tokens 16]    lane: channels g and g + 8 of each tile
//
//   keys     [token 16][lane part c 4][DH/4 channels]   part c holds channels c*DH/4 ..; step s
//   uses
//            channels c*DH/4 + 4s + 2h + i as its element (half h, i) of the fragment
//   values   [piece][lane 32][16 bytes]: words j = 2p + t of channel tiles 2p, 2p+1 and token half
//   t INT4     word = two 16-bit halves i (key channels, or tokens 2c and 2c + 1) of four nibbles:
//              keys    nibble 2(s % 2) + h, word s / 2
//              values  nibble 2(tile % 2) + (channel % 16) / 8
//            so that `word & 0x000f000f` and `word & 0x00f000f0`, before and after a shift by 8,
//            are pairs of f16 subnormals code * 2^-24 and code * 2^-20: no conversion at all then
//            key scales [token 16]{f16 scale, f16 minimum}, then the values' likewise
//   F16      the same with a half in place of each nibble, in pieces of 16 bytes a lane
#pragma once

#include <cstdint>

namespace atom::cuda {

inline constexpr int kPageTokens16 = 16;  // tokens of a page (ops/batch.h's kPageTokens)

// Byte and bit of one code or half in a page's record.
struct PagePlace {
  int byte;
  int shift;  // of a nibble within the byte
};

template <int kHeadDim>
struct Int4PageFormat {
  static constexpr int kKeyBytes = 16 * kHeadDim / 2;
  static constexpr int kScales = 2 * kKeyBytes;  // offset of the key scales
  static constexpr int kBytes = kScales + 128;

  static constexpr PagePlace key(int token, int channel) {
    const int c = channel / (kHeadDim / 4), in_part = channel % (kHeadDim / 4);
    const int s = in_part / 4, h = in_part / 2 % 2, i = in_part % 2;
    return place(token * (kHeadDim / 2) + c * (kHeadDim / 8) + s / 2 * 4, i, 2 * (s % 2) + h);
  }
  static constexpr PagePlace value(int token, int channel) {
    const int tile = channel / 16, g = channel % 8, hi = channel % 16 / 8;
    const int t = token / 8, c = token % 8 / 2, i = token % 2;
    const int word = 2 * (tile / 2) + t;
    return place(kKeyBytes + word / 4 * 512 + (4 * g + c) * 16 + word % 4 * 4, i,
                 2 * (tile % 2) + hi);
  }
  static constexpr int key_scale(int token) { return kScales + token * 4; }
  static constexpr int value_scale(int token) { return kScales + 64 + token * 4; }

 private:
  static constexpr PagePlace place(int word_byte, int half, int nibble) {
    return {word_byte + 2 * half + nibble / 2, nibble % 2 * 4};
  }
};

template <int kHeadDim>
struct HalfPageFormat {
  static constexpr int kKeyBytes = 16 * kHeadDim * 2;
  static constexpr int kBytes = 2 * kKeyBytes;

  // Byte of the half. Keys: [piece of two steps][token][c][step % 2][h][i].
  static constexpr int key(int token, int channel) {
    const int c = channel / (kHeadDim / 4), in_part = channel % (kHeadDim / 4);
    return in_part / 8 * 1024 + token * 64 + c * 16 + in_part % 8 * 2;
  }
  // Values: [tile][lane][word: hi + 2t][i], the A fragment of one tile.
  static constexpr int value(int token, int channel) {
    const int tile = channel / 16, g = channel % 8, hi = channel % 16 / 8;
    const int t = token / 8, c = token % 8 / 2, i = token % 2;
    return kKeyBytes + tile * 512 + (4 * g + c) * 16 + (hi + 2 * t) * 4 + i * 2;
  }
};

}  // namespace atom::cuda
