// Quantized weights with float activations: many tokens, whose weights are expanded some rows at a
// time, against few, whose weights are decoded on the way (which the op suite compares with ref).
// With the kernels of every chip: Hopper has another one for 4-bit groups.
#include "backend/cuda/cuda_backend.h"
#include "base/random.h"
#include "cuda/device_test.h"
#include "tensor/packed_linear.h"

namespace atom::cuda {
namespace {

constexpr int64_t kCols = 4096, kFew = 32, kMany = 40;

PackedLinear random_nibbles(int64_t rows, uint64_t seed) {
  Random random(seed);
  PackedLinear p;
  p.format.weight = {.kind = WeightKind::kGrouped, .bits = 4, .group = 128};
  p.rows = rows;
  p.cols = kCols;
  for (int64_t i = 0; i < rows * kCols / 2; ++i) {
    p.codes.push_back(static_cast<uint8_t>(random.next() >> 56));
  }
  for (int64_t i = 0; i < rows * p.groups(); ++i) {
    p.scales.push_back(f32_to_f16(static_cast<float>(0.005 + 0.01 * random.uniform())));
  }
  for (int64_t i = 0; i < rows; ++i) p.bias.push_back(static_cast<float>(random.normal()));
  return p;
}

std::vector<float> first_rows(Backend& backend, const PackedLinear& packed,
                              std::span<const float> x, int64_t tokens, bool accumulate) {
  const auto weights = backend.load_linear(packed).value();
  const auto input = backend.make_tensor(kMany, kCols).value();
  const auto acts = backend.make_activations(packed.format, kCols, kMany).value();
  const auto y = backend.make_tensor(kMany, packed.rows).value();
  backend.write(*input, x);
  backend.write(*y, std::vector<float>(static_cast<size_t>(kMany * packed.rows), 3.0f));
  backend.quantize(*input, tokens, {}, *acts);
  backend.linear({.x = acts.get(),
                  .w = weights.get(),
                  .y = y.get(),
                  .tokens = tokens,
                  .accumulate = accumulate});
  std::vector<float> rows(static_cast<size_t>(kFew * packed.rows));
  backend.read(*y, kFew, rows);
  return rows;
}

// More rows than are expanded at a time, and fewer.
TEST(ExpandedLinear, ManyTokensAreAsFew) {
  const auto backend = make_cuda_backend({.portable = true}).value();
  Random random(5);
  std::vector<float> x(static_cast<size_t>(kMany * kCols));
  for (float& value : x) value = static_cast<float>(random.normal());
  for (const int64_t rows : {int64_t{4300}, int64_t{130}}) {
    const PackedLinear packed = random_nibbles(rows, static_cast<uint64_t>(rows));
    for (const bool accumulate : {false, true}) {
      const auto few = first_rows(*backend, packed, x, kFew, accumulate);
      const auto many = first_rows(*backend, packed, x, kMany, accumulate);
      EXPECT_LE(nmse(many, std::vector<double>(few.begin(), few.end())), 1e-11)
          << rows << " rows" << (accumulate ? ", accumulate" : "");
    }
  }
}

}  // namespace
}  // namespace atom::cuda
