// In place of src/backend/cuda/ptx/mma.cuh: the warp-wide products, each lane's operands as the PTX
// ISA has them ("Matrix Fragments for mma"). Those of E2M1 are sm_120's instruction.
#pragma once

#include <cstring>

#include "cuda_runtime.h"
#include "emulator/small_floats.h"

namespace atom::cuda::ptx {

using emulator::e2m1, emulator::ue4m3;

// Lane 4g + c holds, of A, rows g (even registers) and g + 8 (odd), of B column g, and of D rows g
// (first two) and g + 8, columns 2c and 2c + 1. A register has kBits wide values of consecutive k,
// the lane's c-th run of them; later registers, of A every second, are half of all k further.
template <int kRegisters>
struct Fragments {
  uint32_t a[2 * kRegisters], b[kRegisters], a_scales, b_scales;
};
template <int kBits, int kRegisters>
class Product {
  static constexpr int kRun = 32 / kBits, kHalf = 4 * kRun;
  static constexpr uint32_t kMask = (uint32_t{1} << kBits) - 1;

 public:
  static constexpr int kDepth = kHalf * kRegisters;

  explicit Product(const Fragments<kRegisters>& mine)
      : all_(emulator::exchange(mine)), lane_(static_cast<int>(threadIdx.x % 32)) {}

  // Of the running lane's element e of D.
  int row(int e) const { return lane_ / 4 + e / 2 * 8; }
  int column(int e) const { return 2 * (lane_ % 4) + e % 2; }
  uint32_t a(int row, int k) const {
    return value(lane_of(row % 8, k).a[row / 8 + k / kHalf * 2], k);
  }
  uint32_t b(int k, int column) const { return value(lane_of(column, k).b[k / kHalf], k); }
  const Fragments<kRegisters>& lane(int i) const { return all_[i]; }

 private:
  const Fragments<kRegisters>& lane_of(int g, int k) const {
    return lane(4 * g + k % kHalf / kRun);
  }
  static uint32_t value(uint32_t word, int k) { return word >> (k % kRun * kBits) & kMask; }

  const Fragments<kRegisters>* all_;
  int lane_;
};

// d[e] += the products, each of decode_a(bits) and decode_b(bits).
template <class P, class Sum, class A, class B>
void multiply(const P& p, Sum* d, const A& decode_a, const B& decode_b) {
  for (int e = 0; e < 4; ++e) {
    for (int k = 0; k < P::kDepth; ++k) {
      d[e] += decode_a(p.a(p.row(e), k)) * decode_b(p.b(k, p.column(e)));
    }
  }
}
inline int s8(uint32_t bits) { return static_cast<int8_t>(bits); }
inline int s4(uint32_t bits) { return static_cast<int>(bits ^ 8) - 8; }

inline Fragments<2> fragments(const uint32_t* a, uint32_t b0, uint32_t b1) {
  return {.a = {a[0], a[1], a[2], a[3]}, .b = {b0, b1}, .a_scales = 0, .b_scales = 0};
}

template <bool kUnsignedA>
void mma_s8(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  const Product<8, 2> p(fragments(a, b0, b1));
  multiply(
      p, d, [](uint32_t v) { return kUnsignedA ? static_cast<int>(v) : s8(v); }, s8);
}
inline void mma_s4(int32_t* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  multiply(Product<4, 2>(fragments(a, b0, b1)), d, s4, s4);
}
inline void mma_e2m1(float (&d)[4], const uint32_t* a, uint32_t b0, uint32_t b1) {
  multiply(Product<4, 2>(fragments(a, b0, b1)), d, e2m1, e2m1);
}

inline void load_matrix(uint32_t address, uint32_t (&m)[4]) {
  const uint32_t* rows = emulator::exchange(address);
  const uint32_t lane = threadIdx.x % 32;
  for (uint32_t i = 0; i < 4; ++i) {
    std::memcpy(&m[i], emulator::shared_memory() + rows[8 * i + lane / 4] + lane % 4 * 4, 4);
  }
}

}  // namespace atom::cuda::ptx
