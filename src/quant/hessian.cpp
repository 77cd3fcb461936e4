#include <cmath>

#include "base/blas.h"
#include "quant/weight_quantizer.h"

namespace atom {

// With J the reversal of indices and J (H + damp I) J = L L^T (L lower), the wanted factor is
// U = J L^-1 J: it is upper triangular, and U^T U = J L^-T L^-1 J = (H + damp I)^-1. So one
// Cholesky and one triangular inverse suffice, and the inverse of H itself is never formed.
Result<GptqFactor> factor_hessian(std::span<const float> hessian, int64_t size, double damping) {
  ATOM_CHECK(static_cast<int64_t>(hessian.size()) == size * size, "hessian is not [K, K]");
  const auto n = static_cast<size_t>(size);
  double trace = 0;
  for (size_t k = 0; k < n; ++k) trace += hessian[k * n + k];
  if (!std::isfinite(trace)) {
    return error(ErrorCode::kInvalidArgument, "calibration gave a Hessian that is not finite");
  }
  const double damp = damping * trace / static_cast<double>(size);
  GptqFactor factor;
  factor.size = size;
  factor.diagonal.resize(n);
  std::vector<double> reversed(n * n);
  for (size_t i = 0; i < n; ++i) {
    double* row = reversed.data() + (n - 1 - i) * n;
    for (size_t j = 0; j < n; ++j) row[n - 1 - j] = hessian[i * n + j];
    const double own = hessian[i * n + i];
    const double diagonal = (own == 0 ? 1.0 : own) + damp;
    row[n - 1 - i] = diagonal;
    factor.diagonal[i] = static_cast<float>(diagonal);
  }
  int64_t info = blas::cholesky(size, reversed.data());
  if (info == 0) info = blas::invert_lower(size, reversed.data());
  if (info != 0) {
    return error(ErrorCode::kInvalidArgument,
                 "calibration gave a Hessian that is not positive definite (pivot {} of {}); more "
                 "calibration text or a larger gptq.damping helps",
                 info, size);
  }
  factor.upper.assign(n * n, 0.0f);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      factor.upper[i * n + j] = static_cast<float>(reversed[(n - 1 - i) * n + (n - 1 - j)]);
    }
  }
  return factor;
}

}  // namespace atom
