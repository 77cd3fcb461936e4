#include <bit>

#include "backend/cuda/vendor/matmul.h"
#include "base/random.h"
#include "cuda/device_test.h"

namespace atom::cuda {
namespace {

struct MatmulCase {
  MatmulType type;
  DType c_type;
  int64_t m, n, k;
  bool a_transposed = false, b_transposed = false, adds = false, bias = false;
};

// Whole numbers from -7 to 7 are exact in every type, and so are their sums.
std::vector<float> whole_numbers(int64_t count, uint64_t seed) {
  Random random(seed);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(random.below(15) - 7));
  return values;
}

DeviceArray<uint8_t> stored(const std::vector<float>& values, MatmulType type) {
  std::vector<uint8_t> bytes;
  for (const float value : values) {
    const auto code = static_cast<int8_t>(value);
    const uint16_t half = f32_to_f16(value);
    const void* from = type == MatmulType::kI8    ? static_cast<const void*>(&code)
                       : type == MatmulType::kF16 ? static_cast<const void*>(&half)
                                                  : &value;
    const size_t size = type == MatmulType::kI8 ? 1 : type == MatmulType::kF16 ? 2 : 4;
    bytes.insert(bytes.end(), static_cast<const uint8_t*>(from),
                 static_cast<const uint8_t*>(from) + size);
  }
  return to_device(bytes);
}

void expect_exact(Matmul& matmul, const MatmulCase& c) {
  SCOPED_TRACE(testing::Message() << "type " << static_cast<int>(c.type) << " " << c.m << " x "
                                  << c.n << " x " << c.k << (c.a_transposed ? " a^T" : "")
                                  << (c.b_transposed ? " b^T" : ""));
  const std::vector<float> a = whole_numbers(c.m * c.k, 1), b = whole_numbers(c.n * c.k, 2);
  const std::vector<float> before = whole_numbers(c.m * c.n, 3), bias = whole_numbers(c.n, 4);
  const auto d_a = stored(a, c.type), d_b = stored(b, c.type);
  const auto d_bias = stored(bias, c.c_type == DType::kF16 ? MatmulType::kF16 : MatmulType::kF32);
  // kI32 has no float bits: it is written and read as integers below.
  PoisonedOutput y(c.m * c.n, c.c_type == DType::kI32 ? DType::kF32 : c.c_type);
  if (c.adds) y.set(before);
  const bool started = matmul.run({.type = c.type,
                                   .m = c.m,
                                   .n = c.n,
                                   .k = c.k,
                                   .a = {d_a.data(), c.a_transposed ? c.m : c.k, c.a_transposed},
                                   .b = {d_b.data(), c.b_transposed ? c.n : c.k, c.b_transposed},
                                   .c = y.data(),
                                   .c_stride = c.n,
                                   .c_type = c.c_type,
                                   .beta = c.adds ? 1.0f : 0.0f,
                                   .bias = c.bias ? d_bias.data() : nullptr},
                                  nullptr);
  ASSERT_TRUE(started);
  ATOM_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<float> got = y.values();
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      double want = (c.adds ? before[static_cast<size_t>(i * c.n + j)] : 0.0) +
                    (c.bias ? bias[static_cast<size_t>(j)] : 0.0);
      for (int64_t k = 0; k < c.k; ++k) {
        want += static_cast<double>(
                    a[static_cast<size_t>(c.a_transposed ? k * c.m + i : i * c.k + k)]) *
                b[static_cast<size_t>(c.b_transposed ? k * c.n + j : j * c.k + k)];
      }
      float value = got[static_cast<size_t>(i * c.n + j)];
      if (c.c_type == DType::kI32) value = static_cast<float>(std::bit_cast<int32_t>(value));
      ASSERT_EQ(value, want) << "row " << i << ", column " << j;
    }
  }
}

TEST(Matmul, ExactOnWholeNumbers) {
  if (find_cublaslt() == nullptr) GTEST_SKIP() << "no cuBLASLt here";
  Matmul matmul;
  const MatmulType f32 = MatmulType::kF32, f16 = MatmulType::kF16, i8 = MatmulType::kI8;
  for (const MatmulCase& c : {
           MatmulCase{f32, DType::kF32, 1, 33, 7},
           MatmulCase{f32, DType::kF32, 17, 129, 100, false, false, true},
           MatmulCase{f32, DType::kF32, 64, 64, 300, true, true},
           MatmulCase{f32, DType::kF32, 9, 40, 31, false, true, true},
           MatmulCase{f32, DType::kF32, 9, 40, 31, false, false, false, true},
           MatmulCase{f16, DType::kF32, 1, 33, 7},
           MatmulCase{f16, DType::kF32, 129, 256, 96, false, false, true},
           MatmulCase{f16, DType::kF16, 3, 96, 16},
           MatmulCase{f16, DType::kF16, 5, 200, 64, false, false, false, true},
           MatmulCase{f16, DType::kF32, 5, 200, 64, false, false, false, true},
           MatmulCase{f16, DType::kF32, 48, 80, 64, true, true},
           MatmulCase{i8, DType::kI32, 16, 64, 128},
           MatmulCase{i8, DType::kI32, 256, 192, 512},
       }) {
    expect_exact(matmul, c);
    expect_exact(matmul, c);  // by the plan that was made
  }
}

// Products without whole numbers: floats are multiplied as floats, not as TF32.
TEST(Matmul, FloatsKeepTheirBits) {
  if (find_cublaslt() == nullptr) GTEST_SKIP() << "no cuBLASLt here";
  Random random(5);
  constexpr int64_t kSize = 128;
  std::vector<float> a, b;
  for (int64_t i = 0; i < kSize * kSize; ++i) {
    a.push_back(static_cast<float>(random.normal()));
    b.push_back(static_cast<float>(random.normal()));
  }
  const auto d_a = to_device(a), d_b = to_device(b);
  PoisonedOutput y(kSize * kSize, DType::kF32);
  Matmul matmul;
  ASSERT_TRUE(matmul.run({.m = kSize,
                          .n = kSize,
                          .k = kSize,
                          .a = {d_a.data(), kSize},
                          .b = {d_b.data(), kSize},
                          .c = y.data(),
                          .c_stride = kSize},
                         nullptr));
  ATOM_CUDA_CHECK(cudaDeviceSynchronize());
  const std::vector<float> got = y.values();
  double error = 0, power = 0;
  for (size_t i = 0; i < kSize; ++i) {
    for (size_t j = 0; j < kSize; ++j) {
      double want = 0;
      for (size_t k = 0; k < kSize; ++k) {
        want += static_cast<double>(a[i * kSize + k]) * b[j * kSize + k];
      }
      error += (got[i * kSize + j] - want) * (got[i * kSize + j] - want);
      power += want * want;
    }
  }
  EXPECT_LT(error / power, 1e-12);  // TF32: 1e-7
}

}  // namespace
}  // namespace atom::cuda
