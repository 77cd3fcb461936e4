// Sequences brought through rope_append_kv and paged_attention on one backend.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "ops/ops_fixture.h"

namespace atom {

struct AttentionCase {
  std::vector<SequenceSpec> sequences = {{}};
  KvFormat format = {};
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t head_dim = 64;
  int64_t rotary_dim = 0;  // 0: the whole head
  int64_t prefix_tokens = 0;
  int64_t window = 0;
  bool head_norms = false;
  float gain = 1.0f;  // of the projections: larger ones make the softmax peaked
  Precision precision = Precision::kFull;  // of qkv

  int64_t rotary() const { return rotary_dim == 0 ? head_dim : rotary_dim; }
  int64_t qkv_cols() const { return (heads + 2 * kv_heads) * head_dim; }
  std::string name() const;
};

// Every KV format that validate allows for a head dimension.
std::vector<KvFormat> kv_formats(int64_t head_dim);

// All that a case feeds its ops.
struct AttentionData {
  explicit AttentionData(const AttentionCase& c);

  TestBatch past, now;
  Matrix past_qkv, qkv;
  std::vector<float> cos_sin, q_norm, k_norm, k_mean;
  std::vector<float> prefix_k, prefix_v;  // of layer 1
};

struct AttentionResult {
  Matrix q, out;
};

// A cache of two layers, the second in use, whose every page a finished sequence has left garbage
// in; the case's past tokens are appended in one batch, its new ones in another.
class AttentionRun {
 public:
  AttentionRun(Backend& backend, const AttentionCase& c, const AttentionData& data);

  // rope_append_kv of qkv [T, (H + 2 KH) * DH], leaving q on the backend.
  std::unique_ptr<Tensor> append(const TestBatch& batch, const Matrix& qkv);
  Matrix attend(const TestBatch& batch, const Tensor& q);
  AttentionResult run();
  KvCache& cache() { return *cache_; }

 private:
  Backend& backend_;
  const AttentionCase& case_;
  const AttentionData& data_;
  std::unique_ptr<KvCache> cache_;
};

}  // namespace atom
