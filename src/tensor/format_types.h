// How a linear's weights and activations, and the KV cache, are stored and computed.
// docs/quantization.md states every formula. Plain types, for device code as well; formats.h has
// the functions.
//
// The K input channels of a quantized linear stand in the order of its input site's permutation:
// a body of K - Ko channels in groups of G, then Ko outlier channels.
//
//     k:   0 ........ G ........ 2G ....            K-Ko ....... K
//          |  group 0 |  group 1 |  ...  | group n-1 | outliers |
//          |  4-bit codes, a scale a group            | INT8     |
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace atom {

enum class WeightKind : uint8_t {
  kFloat,     // values as they are, in `dtype`
  kGrouped,   // w = code * scale, one F16 scale a row a group (Atom)
  kTwoLevel,  // w = (code * group_scale + group_zero) * row_scale; the bracket is an int8 code, so
              // that the integer sum runs over the whole K (QServe's progressive quantization)
};

// What the bits of a body code stand for.
enum class CodeGrid : uint8_t {
  kInt,   // consecutive integers
  kE2M1,  // FP4: a sign, two bits of exponent, one of mantissa. Codes are twice its numbers, and so
          // integers too: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives
};

// What a group's scale may be.
enum class GroupScales : uint8_t {
  kFloat,  // any: F16 of weights, F32 of activations
  kE4M3,   // NVFP4: a positive E4M3 number times a unit, a power of two for each row of weights and
           // each token; codes are E2M1
};

enum class OutlierKind : uint8_t {
  kNone,   // no outlier channels
  kFloat,  // F16 weights, float activations (the paper's ablation)
  kInt8,   // INT8 codes: weights one scale a row, activations one scale a token
};

struct WeightFormat {
  WeightKind kind = WeightKind::kFloat;
  DType dtype = DType::kF32;  // of kFloat: kF32, kF16 or kBF16
  int bits = 4;               // of a body code: 3, 4 or 8 (kGrouped); 4 (kTwoLevel)
  int64_t group = 128;        // body channels that share a scale; 0: the whole body of a row
  int64_t outliers = 0;       // Ko
  OutlierKind outlier_kind = OutlierKind::kNone;
  CodeGrid grid = CodeGrid::kInt;            // of body codes; kE2M1: kGrouped with 4 bits
  GroupScales scales = GroupScales::kFloat;  // kE4M3: with kE2M1

  bool operator==(const WeightFormat&) const = default;
};

// How an activation group's scale is chosen.
enum class ActRule : uint8_t {
  kSymmetric,   // absmax * clip / qmax
  kSigned,      // as kSymmetric, but the largest magnitude lands on -2^(bits-1)
  kAsymmetric,  // (max - min) * clip / (2^bits - 1), integer zero point; the stored code is q -
                // zero
};

struct ActFormat {
  bool quantized = false;  // false: float values, all fields below unused
  int bits = 4;            // 3, 4 or 8
  int64_t group = 128;     // body channels that share a scale; 0: the whole body of a token
  ActRule rule = ActRule::kSymmetric;
  float clip = 1.0f;
  bool search = false;             // try several clips a group and keep the least squared error
  CodeGrid grid = CodeGrid::kInt;  // of body codes; kE2M1: 4 bits, kSymmetric
  GroupScales scales = GroupScales::kFloat;  // kE4M3: with kE2M1

  bool operator==(const ActFormat&) const = default;
};

// Float weights may take quantized activations, cut as `group` and `outliers` say: that is how the
// quantizer sees the inputs of a layer whose weights it has yet to quantize.
struct LinearFormat {
  WeightFormat weight = {};
  ActFormat act = {};

  bool operator==(const LinearFormat&) const = default;
};

enum class KvKind : uint8_t { kF32, kF16, kInt };

struct KvFormat {
  KvKind kind = KvKind::kF32;
  int bits = 4;  // of kInt: 3, 4 or 8; asymmetric, F16 scale and F16 minimum a head a token
  bool pre_rope = false;  // K is stored before RoPE (the paper's layout; CPU and ref only)
  bool centered = false;  // K is stored minus a constant mean a channel, which the softmax ignores
  bool hadamard = false;  // K and Q are rotated by a Hadamard matrix over the head

  bool operator==(const KvFormat&) const = default;
};

// Number of body channels of a linear with `in` input channels.
inline int64_t body_channels(const WeightFormat& format, int64_t in) {
  return in - format.outliers;
}
// Number of groups the body is cut into (1 when group is 0).
inline int64_t group_count(int64_t body, int64_t group) { return group == 0 ? 1 : body / group; }

// Largest symmetric code: 7 for 4 bits. The smallest is -qmax - 1.
constexpr int qmax(int bits) { return (1 << (bits - 1)) - 1; }
// Largest code of kE2M1, twice its largest number. The smallest is its negative.
inline constexpr int kMostE2M1 = 12;
// The range of body codes.
constexpr int largest_code(int bits, CodeGrid grid) {
  return grid == CodeGrid::kE2M1 ? kMostE2M1 : qmax(bits);
}
// 8-bit codes stay within +-127 so that a product of two fits kernels that negate them.
constexpr int smallest_code(int bits, CodeGrid grid) {
  const int largest = largest_code(bits, grid);
  return bits == 8 || grid == CodeGrid::kE2M1 ? -largest : -largest - 1;
}

}  // namespace atom
