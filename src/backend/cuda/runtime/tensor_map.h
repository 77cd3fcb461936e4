// Descriptors of the copy engine's tensor copies.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace atom::cuda {

// A row-major matrix of F16 or F32, read and written in boxes of 128 bytes x box_rows
// rows under the 128-byte swizzle. Rows are a multiple of 16 bytes.
CUtensorMap make_box_map(const void* base, DType type, int64_t rows, int64_t cols, int box_rows);
// The same of bytes.
CUtensorMap make_byte_map(const void* base, int64_t rows, int64_t cols, int box_rows);

}  // namespace atom::cuda
