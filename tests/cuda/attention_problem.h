// Attention over a paged cache: what a GPU test makes up on the host, and its runs.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "backend/cuda/attention/attention.h"
#include "cuda/device_test.h"

namespace atom::cuda {

inline constexpr KvFormat kInt4 = {.kind = KvKind::kInt, .bits = 4};
inline constexpr KvFormat kInt8 = {.kind = KvKind::kInt, .bits = 8};
inline constexpr KvFormat kF16 = {.kind = KvKind::kF16};

struct AttentionProblem {
  PageLayout layout;
  int heads = 0, kv_heads = 0, window = 0;
  std::vector<float> q = {};        // [T, H, DH]
  std::vector<uint8_t> cache = {};  // [pages][page_stride()]
  // [B] of each sequence: where its pages begin in the table, tokens before the new ones, new
  // tokens, and the first one's row.
  std::vector<int32_t> table = {}, offsets = {}, past = {}, counts = {}, rows = {};

  // A gap lies between pages, so that their stride is not the records' size.
  int64_t page_stride() const { return int64_t{layout.bytes()} * kv_heads + 256; }
};

// A problem in GPU memory.
class DeviceAttention {
 public:
  explicit DeviceAttention(const AttentionProblem& problem)
      : q_(to_device(problem.q)),
        cache_(to_device(problem.cache)),
        table_(to_device(problem.table)),
        offsets_(to_device(problem.offsets)),
        past_(to_device(problem.past)),
        counts_(to_device(problem.counts)),
        rows_(to_device(problem.rows)),
        workspace_(DeviceArray<uint8_t>::allocate(attention_workspace_bytes()).value()),
        params_{.q = q_.data(),
                .sequences = {.pages = table_.data(),
                              .page_offset = offsets_.data(),
                              .past = past_.data(),
                              .count = counts_.data(),
                              .row = rows_.data()},
                .cache = {.records = cache_.data(),
                          .page_stride = problem.page_stride(),
                          .record_bytes = problem.layout.bytes(),
                          .layout = problem.layout,
                          .kv_heads = problem.kv_heads},
                .heads = problem.heads,
                .scale = 1.0f / std::sqrt(static_cast<float>(problem.layout.head_dim)),
                .window = problem.window} {
    workspace_.fill_bytes(0);
  }

  // [T, H, DH]
  std::vector<float> run(const AttentionWork& work) {
    PoisonedOutput out(q_.size(), DType::kF32);
    params_.out = static_cast<float*>(out.data());
    launch_attention(params_, work, workspace_.data(), nullptr);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out.values();
  }

 private:
  DeviceArray<float> q_;
  DeviceArray<uint8_t> cache_;
  DeviceArray<int32_t> table_, offsets_, past_, counts_, rows_;
  DeviceArray<uint8_t> workspace_;
  attention::Params params_;
};

}  // namespace atom::cuda
