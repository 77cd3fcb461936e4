// Sixteen lanes, whatever the machine: one 512-bit register, two 256-bit ones, or an array. The
// kernels (*.inl) are written once in these terms and compiled for each instruction set by the
// kernels_*.cpp files. Everything has internal linkage, so that code compiled for one instruction
// set cannot reach a machine without it by way of the linker.
//
//   Floats, Ints     16 lanes of float and int32_t
//   Codes            64 unsigned bytes, four for each lane
//   NibbleSum        16 running sums of dot products of codes 0..24 with signed bytes
//   ByteSum          the same for codes 0..255; exact, like the other
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

#if defined(__clang__)
#define ATOM_PRAGMA_UNROLL _Pragma("unroll")
#else
#define ATOM_PRAGMA_UNROLL _Pragma("GCC unroll 16")
#endif
#define ATOM_ALWAYS_INLINE inline __attribute__((always_inline))
#define ATOM_LAMBDA_INLINE __attribute__((always_inline))

namespace atom::cpu {
namespace {

// Asks for the cache line at p, which need not exist.
ATOM_ALWAYS_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

}  // namespace
}  // namespace atom::cpu

#if defined(__AVX512VNNI__)
#include "backend/cpu/simd_avx512.h"
#elif defined(__AVX2__)
#include "backend/cpu/simd_avx2.h"
#else
#include "backend/cpu/simd_portable.h"
#endif
