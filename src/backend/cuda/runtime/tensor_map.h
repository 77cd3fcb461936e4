// Descriptors of the copy engine's tensor copies.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "tensor/dtype.h"

namespace atom::cuda {

// A row-major matrix of F16 or F32, read and written in boxes of row_bytes (64 or 128) x box_rows
// rows under the swizzle of so many bytes. The matrix's rows are a multiple of 16 bytes.
CUtensorMap make_box_map(const void* base, DType type, int64_t rows, int64_t cols, int row_bytes,
                         int box_rows);
// The same of bytes, 128 in a box's row.
CUtensorMap make_byte_map(const void* base, int64_t rows, int64_t cols, int box_rows);

}  // namespace atom::cuda
