// How one page of one KV head lies in GPU memory: 16 tokens' keys and values, one record. Head
// sizes and formats that the tensor core kernels serve have the order in which those read; others
// are plain.
//
// Tensor core order. Lanes are l = 4g + c (g = l / 4, c = l % 4). Both products use mma m16n8k16
// with the cache as the A operand (16 rows) and eight query columns as B:
//   scores    A = K   [tokens 16, channels 16 a step]    lane: tokens g and g + 8
//   output    A = V^T [channels 16 a tile, tokens 16]    lane: channels g and g + 8 of each tile
//
//   keys     [token 16][lane part c 4][DH/4 channels]   part c holds channels c*DH/4 ..; step s
//   uses
//            channels c*DH/4 + 4s + 2h + i as its element (half h, i) of the fragment
//   values   [piece][lane 32][up to 4 words]: words j = 4 piece + .. = 2p + t of channel tiles 2p,
//            2p+1 and token half t
//   INT4     word = two 16-bit halves i (key channels, or tokens 2c and 2c + 1) of four nibbles:
//              keys    nibble 2(s % 2) + h, word s / 2
//              values  nibble 2(tile % 2) + (channel % 16) / 8
//            so that `word & 0x000f000f` and `word & 0x00f000f0`, before and after a shift by 8,
//            are pairs of f16 subnormals code * 2^-24 and code * 2^-20: no conversion at all then
//            key scales [token 16]{f16 scale, f16 minimum}, then the values' likewise
//   INT8     the same with a byte in place of each nibble, in pieces of 16 bytes a lane: a word's
//            bytes are 2h + i of a step (keys), 2 hi + i of a tile and token half (values), so that
//            two byte permutations make f16 subnormals code * 2^-24 of it; scales as INT4's
//   F16      the same with halves, in pieces of 16 bytes a lane
//
// Plain order: keys [token 16][DH], values [token 16][DH] (nibbles: the even channel low), then the
// scales as above where there are any.
//
// A code never shares its byte with another token's, so that tokens are stored independently.
#pragma once

#include <cstdint>

#include "tensor/format_types.h"

namespace atom::cuda {

inline constexpr int kPageTokens16 = 16;  // tokens of a page (ops/batch.h's kPageTokens)

// Byte of one element in a page's record, and the bit of a nibble within it.
struct PagePlace {
  int byte;
  int shift;
};

// The places of one head size; the kernels know it at compile time, others do not.
class Int4Pages {
 public:
  constexpr explicit Int4Pages(int head_dim) : dim_(head_dim) {}
  constexpr int key_bytes() const { return 8 * dim_; }
  constexpr int scales() const { return 16 * dim_; }  // offset of the key scales
  constexpr int bytes() const { return scales() + 128; }
  constexpr int key_scale(int token) const { return scales() + token * 4; }
  constexpr int value_scale(int token) const { return scales() + 64 + token * 4; }

  constexpr PagePlace key(int token, int channel) const {
    const int c = channel / (dim_ / 4), in_part = channel % (dim_ / 4);
    const int s = in_part / 4, h = in_part / 2 % 2, i = in_part % 2;
    return place(token * (dim_ / 2) + c * (dim_ / 8) + s / 2 * 4, i, 2 * (s % 2) + h);
  }
  constexpr PagePlace value(int token, int channel) const {
    const int tile = channel / 16, g = channel % 8, hi = channel % 16 / 8;
    const int t = token / 8, c = token % 8 / 2, i = token % 2;
    const int word = 2 * (tile / 2) + t;
    return place(value_word(word, 4 * g + c), i, 2 * (tile % 2) + hi);
  }
  // Byte of a lane's word of the values.
  constexpr int value_word(int word, int lane) const {
    const int left = dim_ / 16 - word / 4 * 4;  // words from this piece on
    const int width = left < 4 ? left : 4;
    return key_bytes() + word / 4 * 512 + lane * width * 4 + word % 4 * 4;
  }

 private:
  static constexpr PagePlace place(int word_byte, int half, int nibble) {
    return {word_byte + 2 * half + nibble / 2, nibble % 2 * 4};
  }
  int dim_;
};

class Int8Pages {
 public:
  constexpr explicit Int8Pages(int head_dim) : dim_(head_dim) {}
  constexpr int key_bytes() const { return 16 * dim_; }
  constexpr int scales() const { return 32 * dim_; }
  constexpr int bytes() const { return scales() + 128; }
  constexpr int key_scale(int token) const { return scales() + token * 4; }
  constexpr int value_scale(int token) const { return scales() + 64 + token * 4; }

  // Keys: [piece of four steps][token][c][step % 4][h][i]; the last piece of 96 has two steps.
  constexpr int key(int token, int channel) const {
    const int c = channel / (dim_ / 4), in_part = channel % (dim_ / 4);
    return key_piece(in_part / 16, token, c) + in_part % 16;
  }
  // Byte of a lane's part of a piece.
  constexpr int key_piece(int piece, int token, int c) const {
    return piece * 1024 + (token * 4 + c) * piece_bytes(piece);
  }
  constexpr int piece_bytes(int piece) const {
    const int left = dim_ / 4 - piece * 16;
    return left < 16 ? left : 16;
  }
  // Values: [piece of two tiles][lane][tile % 2][t][hi][i].
  constexpr int value(int token, int channel) const {
    const int tile = channel / 16, g = channel % 8, hi = channel % 16 / 8;
    const int t = token / 8, c = token % 8 / 2, i = token % 2;
    return key_bytes() + tile / 2 * 512 + (4 * g + c) * 16 + tile % 2 * 8 + t * 4 + hi * 2 + i;
  }

 private:
  int dim_;
};

class HalfPages {
 public:
  constexpr explicit HalfPages(int head_dim) : dim_(head_dim) {}
  constexpr int key_bytes() const { return 32 * dim_; }
  constexpr int bytes() const { return 64 * dim_; }

  // Byte of the half. Keys: [piece of two steps][token][c][step % 2][h][i].
  constexpr int key(int token, int channel) const {
    const int c = channel / (dim_ / 4), in_part = channel % (dim_ / 4);
    return in_part / 8 * 1024 + token * 64 + c * 16 + in_part % 8 * 2;
  }
  // Values: [tile][lane][word: hi + 2t][i], the A fragment of one tile.
  constexpr int value(int token, int channel) const {
    const int tile = channel / 16, g = channel % 8, hi = channel % 16 / 8;
    const int t = token / 8, c = token % 8 / 2, i = token % 2;
    return key_bytes() + tile * 512 + (4 * g + c) * 16 + (hi + 2 * t) * 4 + i * 2;
  }

 private:
  int dim_;
};

// Head sizes of the tensor core order.
constexpr bool has_fragment_order(int head_dim) {
  return head_dim == 64 || head_dim == 96 || head_dim == 128 || head_dim == 256;
}

// Any page, its order known at run time.
struct PageLayout {
  KvKind kind = KvKind::kF32;
  int bits = 32;  // that an element takes: 4, 8, 16 or 32
  int head_dim = 0;
  bool fragments = false;

  static constexpr PageLayout of(const KvFormat& format, int head_dim) {
    PageLayout layout;
    layout.kind = format.kind;
    layout.head_dim = head_dim;
    layout.bits = format.kind == KvKind::kF32   ? 32
                  : format.kind == KvKind::kF16 ? 16
                                                : (format.bits == 8 ? 8 : 4);
    layout.fragments = has_fragment_order(head_dim) && layout.bits != 32;
    return layout;
  }

  constexpr int scales() const { return 2 * kPageTokens16 * head_dim * bits / 8; }
  constexpr int bytes() const { return scales() + (kind == KvKind::kInt ? 128 : 0); }
  constexpr int scale(bool value, int token) const {
    return scales() + (value ? 64 : 0) + token * 4;
  }
  constexpr PagePlace place(bool value, int token, int channel) const {
    if (fragments && bits == 4) {
      const Int4Pages pages(head_dim);
      return value ? pages.value(token, channel) : pages.key(token, channel);
    }
    if (fragments && bits == 8) {
      const Int8Pages pages(head_dim);
      return {value ? pages.value(token, channel) : pages.key(token, channel), 0};
    }
    if (fragments) {
      const HalfPages pages(head_dim);
      return {value ? pages.value(token, channel) : pages.key(token, channel), 0};
    }
    const int element = ((value ? kPageTokens16 : 0) + token) * head_dim + channel;
    return {element * bits / 8, bits == 4 ? element % 2 * 4 : 0};
  }
  // The channel whose nibble is the low one of byte `i` of a vector of DH/2 bytes; the high one's
  // is `pair_distance` further on.
  constexpr int low_channel(bool value, int i) const {
    if (!fragments) return 2 * i;
    return value ? i / 8 * 16 + i % 8 : i / 2 * 4 + i % 2;
  }
  constexpr int pair_distance(bool value) const { return !fragments ? 1 : value ? 8 : 2; }
};

}  // namespace atom::cuda
