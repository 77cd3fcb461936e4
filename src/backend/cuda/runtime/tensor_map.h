// Descriptors of the copy engine's tensor copies, the only ones whose multicast is fast.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace atom::cuda {

// A matrix of bytes, `rows` rows of 128, contiguous; a copy takes `box_rows` of them (at most 256)
// and lays them down as they are.
CUtensorMap make_row_map(const void* base, int64_t rows, int box_rows);

}  // namespace atom::cuda
