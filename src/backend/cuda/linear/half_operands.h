// The activations of half_groups_sm90a.cu: bytes times their scales, as halves.
//
//   x      f16 in blocks of 128 columns, [K/128][half 2][capacity][64], zeros behind the last
//   column units  f32 [T], powers of two
//
//   A value is its half times its token's unit, which keeps the token's largest scale times 127
//   between 2^13 and 2^15: no value leaves F16's range, and those of groups whose scales are 2^-21
//   of the largest still are normal numbers. Rounds to f16 once.
//
//   Columns stand in the order in which wgmma's A operand wants them from a lane that holds 16 in a
//   row: column 32c + 16half + 4s + 2e + h of a block is k 16s + 8h + 2c + e of the half. The
//   16-byte pieces of a token's 128 bytes are swizzled: piece i stands at i ^ (token % 8).
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace atom::cuda::half_operands {

inline constexpr int kBlockCols = 128, kHalves = 2;  // of a block
inline constexpr int kRowBytes = 128;                // of a token in half a block
inline constexpr int kTokenStep = 8;                 // that capacities and tiles are multiples of

struct Params {
  const int8_t* codes = nullptr;  // [T, stride]
  int64_t stride = 0;             // a multiple of 16
  const float* scales = nullptr;  // [T, K/32]
  int tokens = 0, channels = 0;   // K, a multiple of 32
  uint16_t* x = nullptr;
  int capacity = 0;
  float* units = nullptr;
};
void launch(const Params& params, cudaStream_t stream);

constexpr int blocks(int channels) { return (channels + kBlockCols - 1) / kBlockCols; }
// Which half of x a token's part of half a block begins with.
constexpr int64_t place(int block, int half, int64_t token, int64_t capacity) {
  return ((int64_t{block} * kHalves + half) * capacity + token) * (kRowBytes / 2);
}
constexpr int64_t bytes(int channels, int64_t capacity) {
  return capacity * (int64_t{blocks(channels)} * kHalves * kRowBytes + int64_t{sizeof(float)});
}

}  // namespace atom::cuda::half_operands
