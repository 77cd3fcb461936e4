#include "io/widen.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "tensor/dtype.h"

namespace atom {
namespace {

TEST(Widen, HalvesOfEveryBitPattern) {
  std::vector<uint16_t> halves(1 << 16);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  std::vector<float> f16(halves.size()), bf16(halves.size());
  const auto* bytes = reinterpret_cast<const uint8_t*>(halves.data());
  widen_f16(bytes, 1 << 16, f16.data());
  widen_bf16(bytes, 1 << 16, bf16.data());
  for (size_t i = 0; i < halves.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(f16[i]), std::bit_cast<uint32_t>(f16_to_f32(halves[i]))) << i;
    EXPECT_EQ(std::bit_cast<uint32_t>(bf16[i]), static_cast<uint32_t>(i) << 16);
  }
}

TEST(Widen, KnowsItsTypes) {
  EXPECT_EQ(find_widen("F32"), widen_f32);
  EXPECT_EQ(find_widen("F64"), widen_f64);
  EXPECT_EQ(find_widen("F8_E4M3"), nullptr);
  EXPECT_EQ(find_widen("I32"), nullptr);
}

}  // namespace
}  // namespace atom
