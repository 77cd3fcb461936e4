// What sm_100's tensor cores are told of their operands, as bits: PTX ISA, "Shared memory
// descriptor" and "Instruction descriptor" of the tcgen05 instructions.
#pragma once

#include <cstdint>

namespace atom::cuda::ptx {

enum class Swizzle : uint8_t { kNone = 0, k128Bytes = 2, k64Bytes = 4, k32Bytes = 6 };

// Rows in shared memory that lie along K, in groups of eight that are stride_bytes apart. With a
// swizzle a row has its width, and the pattern begins at multiples of eight rows; without one the
// groups are 8 rows x 16 bytes. Addresses are multiples of 16; what lies n bytes further along K,
// within the width, is described by the same bits plus n / 16.
constexpr uint64_t shared_matrix(uint32_t address, uint32_t stride_bytes, Swizzle swizzle) {
  constexpr uint64_t kVersion = 1;  // the constant 0b001 of bits 46..48
  return static_cast<uint64_t>((address & 0x3ffff) >> 4) | uint64_t{stride_bytes >> 4} << 32 |
         kVersion << 46 | static_cast<uint64_t>(swizzle) << 61;
}

// The product of kRows x kColumns of kind::mxf4nvf4: E2M1 on both sides along K, scales UE4M3 (0)
// from the first byte of a word on (identifiers 0), K = 64.
template <int kRows, int kColumns>
constexpr uint32_t nvfp4_product() {
  static_assert(kRows == 128 && kColumns % 8 == 0 && kColumns >= 8 && kColumns <= 256);
  constexpr uint32_t kE2M1 = 1;
  return kE2M1 << 7 | kE2M1 << 10 | uint32_t{kColumns / 8} << 17 | uint32_t{kRows / 128} << 27;
}

// The same of kind::i8: signed bytes on both sides along K, sums s32 without saturation, K = 32.
template <int kRows, int kColumns>
constexpr uint32_t s8_product() {
  static_assert(kRows == 128 && kColumns % 16 == 0 && kColumns >= 16 && kColumns <= 256);
  constexpr uint32_t kS32 = 2, kS8 = 1;
  return kS32 << 4 | kS8 << 7 | kS8 << 10 | uint32_t{kColumns / 8} << 17 |
         uint32_t{kRows / 16} << 24;
}

}  // namespace atom::cuda::ptx
