// What a backend with memory of its own does for the quantizer there: Gram matrices that never
// leave it, GPTQ's factor of them, and the codes of weights. Without one the quantizer works on the
// host (quant/weight_quantizer.h), by the same formulas (docs/quantization.md, section 3).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/status.h"
#include "ops/backend.h"
#include "tensor/formats.h"
#include "tensor/packed_linear.h"

namespace atom {

// How a body group's scale (and zero) is chosen from the weights of a row.
enum class ScaleRule : uint8_t {
  kAbsmax,  // absmax * clip / qmax; under GPTQ absmax * clip / (qmax + 1/2), as the paper's code
            // does
  kSearch,  // the candidate with the least squared error, weighted by the Hessian's diagonal:
            // kGrouped tries both signs of scale (the largest weight may land on -2^(bits-1)),
            // kTwoLevel tries several ranges and zeros
};

struct WeightQuantSpec {
  LinearFormat format;
  ScaleRule scale_rule = ScaleRule::kAbsmax;
  float clip = 1.0f;  // of kAbsmax
};

// H = X^T X of a site's input: channel i of the factor is channel order[i] of the Gram matrix,
// which was made before channel k was divided by divisors[k].
struct HessianArgs {
  const Tensor* gram = nullptr;          // [K, K], its lower triangle
  std::span<const int32_t> order = {};   // [K], or empty for the identity
  std::span<const float> divisors = {};  // [K], or empty for ones
  double damping = 0;                    // damping * mean(diag H) is added to the diagonal
};

// What GPTQ needs of H, in the memory of the DeviceQuantizer that made it.
class HessianFactor {
 public:
  virtual ~HessianFactor() = default;
  virtual int64_t size() const = 0;  // K
};

struct QuantizeWeightsArgs {
  std::span<const float> weights;  // [N, K], columns in the site's order, outliers last
  int64_t rows = 0, cols = 0;      // N, K
  WeightQuantSpec spec;
  const HessianFactor* factor = nullptr;   // null: round to nearest
  std::span<const float> importance = {};  // [K] of a scale search without a factor; empty: ones
};

class DeviceQuantizer {
 public:
  virtual ~DeviceQuantizer() = default;
  // The cache of floats over which this backend's attention is fast.
  virtual KvFormat float_cache() const = 0;
  // Every element becomes 0.
  virtual void clear(Tensor& tensor) = 0;
  // Columns [first, first + count) of the leading rows: to [rows, count].
  virtual void read_columns(const Tensor& from, int64_t rows, int64_t first, int64_t count,
                            std::span<float> to) = 0;
  virtual void read_diagonal(const Tensor& square, std::span<float> to) = 0;
  // As factor_hessian (quant/weight_quantizer.h): fails (kInvalidArgument) where H is not finite or
  // not positive definite; also where memory is short.
  virtual Result<std::unique_ptr<HessianFactor>> factor(const HessianArgs& args) = 0;
  // As quantize_weights: the same codes for the same factor, but for sums over columns that a block
  // of columns left behind, which are added in another order. REQUIRES: a format that is not
  // kFloat. Fails where memory is short.
  virtual Result<PackedLinear> quantize(const QuantizeWeightsArgs& args) = 0;
};

}  // namespace atom
