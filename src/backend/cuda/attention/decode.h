// Attention of one new token a sequence over the paged cache.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "base/status.h"
#include "tensor/dtype.h"

namespace atom::cuda {

enum class CachePages : uint8_t { kInt4, kF16 };  // page_format.h

// out[b, h] = softmax(scale * q[b, h] . K) V over the first lengths[b] tokens of sequence b. All
// pointers are GPU memory.
struct DecodeArgs {
  int sequences = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;  // H, KH, DH
  CachePages format = CachePages::kInt4;
  const void* q = nullptr;  // [B, H, DH] f16
  void* out = nullptr;      // [B, H, DH] of out_type: f16 or f32
  DType out_type = DType::kF16;
  const uint8_t* cache = nullptr;    // one layer: record of (page, kv head) at
                                     // page * page_stride + kv_head * record bytes
  int64_t page_stride = 0;           // bytes
  const int32_t* pages = nullptr;    // [B, max_pages] page indices
  const int32_t* lengths = nullptr;  // [B] tokens, at least 1
  int max_pages = 0;
  float scale = 0.0f;
  int splits = 0;   // parts of a sequence, at most 128; 0: chosen
  int longest = 0;  // tokens of the longest sequence, which sets the split; may be an
                    // upper bound
  void* workspace =
      nullptr;  // decode_workspace_bytes(), zeroed once; shared by one stream's launches
};

// Scratch for up to `sequences` sequences.
int64_t decode_workspace_bytes(int sequences, int heads, int head_dim);
// Bytes of one page of one KV head.
int page_record_bytes(CachePages format, int head_dim);

// Error: kUnsupported for a head_dim without kernel or more than 8 query heads a KV head.
Status launch_decode_attention(const DecodeArgs& args, cudaStream_t stream);

}  // namespace atom::cuda
