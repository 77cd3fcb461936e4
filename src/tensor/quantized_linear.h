// A linear whose codes are yet to be found, and what found ones stand for, row by row.
#pragma once

#include "tensor/packed_linear.h"

namespace atom {

// All arrays that the format calls for, zero; no bias. REQUIRES: a format that fits `cols` columns
// and is not kFloat.
PackedLinear make_quantized_linear(const LinearFormat& format, int64_t rows, int64_t cols);

// The real values of row n, [K] in the packed column order.
void dequantize_row(const PackedLinear& linear, int64_t n, std::span<double> out);

// The scales of a kGrouped body as F16, [N, Kb/G], none of other kinds. E4M3 times its unit is one
// exactly.
std::vector<uint16_t> f16_scales(const PackedLinear& linear);

}  // namespace atom
