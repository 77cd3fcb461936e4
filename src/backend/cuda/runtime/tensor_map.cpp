#include "backend/cuda/runtime/tensor_map.h"

#include <cudaTypedefs.h>

#include "backend/cuda/runtime/device.h"

namespace atom::cuda {

namespace {

CUtensorMap encode_map(const void* base, CUtensorMapDataType type, int64_t element_bytes,
                       int64_t rows, int64_t cols, int row_bytes, int box_rows) {
  ATOM_CHECK(row_bytes == 64 || row_bytes == 128, "boxes of other rows");
  // Through the runtime, so that nothing links against the driver's library.
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    ATOM_CUDA_CHECK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000,
                                                     cudaEnableDefault, &found));
    ATOM_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(function);
  }();
  CUtensorMap map;
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(cols), static_cast<cuuint64_t>(rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(cols * element_bytes)};
  const cuuint32_t box[2] = {static_cast<cuuint32_t>(row_bytes / element_bytes),
                             static_cast<cuuint32_t>(box_rows)};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(&map, type, 2, const_cast<void*>(base), sizes, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             row_bytes == 64 ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  ATOM_CHECK(result == CUDA_SUCCESS, "cuTensorMapEncodeTiled refused");
  return map;
}

}  // namespace

CUtensorMap make_box_map(const void* base, DType type, int64_t rows, int64_t cols, int row_bytes,
                         int box_rows) {
  // What additions make of the bits; stores copy them.
  const CUtensorMapDataType map_type =
      type == DType::kF16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  return encode_map(base, map_type, dtype_bytes(type), rows, cols, row_bytes, box_rows);
}

CUtensorMap make_byte_map(const void* base, int64_t rows, int64_t cols, int box_rows) {
  return encode_map(base, CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, rows, cols, 128, box_rows);
}

}  // namespace atom::cuda
