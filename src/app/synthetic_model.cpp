#include "app/synthetic_model.h"

#include <utility>
#include <vector>

#include "base/random.h"

namespace atom {
namespace {

struct Shape {
  std::string_view name;
  int64_t layers, hidden, ffn, heads, kv_heads, vocab;
  int64_t experts = 0, active_experts = 0;
};
constexpr Shape kShapes[] = {{"llama-2-7b", 32, 4096, 11008, 32, 32, 32000},
                             {"llama-2-70b", 80, 8192, 28672, 64, 8, 32000},
                             {"mixtral-8x7b", 32, 4096, 14336, 32, 8, 32000, 8, 2}};

constexpr int64_t kOutliers = 128;

void fill_random(std::vector<uint8_t>& bytes, int64_t size, Random& random) {
  bytes.resize(static_cast<size_t>(size));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random.next() >> 56);
}

// Weights of about the size that keeps the residual finite over all layers.
PackedLinear random_two_level(int64_t rows, int64_t cols, Random& random) {
  PackedLinear p;
  p.format.weight = {.kind = WeightKind::kTwoLevel,
                     .bits = 4,
                     .group = 128,
                     .outliers = kOutliers,
                     .outlier_kind = OutlierKind::kInt8};
  p.format.act = {.quantized = true, .bits = 8, .group = 0};
  p.rows = rows;
  p.cols = cols;
  fill_random(p.codes, rows * p.body() / 2, random);
  for (int64_t i = 0; i < rows * p.groups(); ++i) {
    const int64_t scale = 8 + random.below(9);
    p.group_scales.push_back(static_cast<uint8_t>(scale));
    p.group_zeros.push_back(static_cast<int8_t>(-(15 * scale + 1) / 2));
  }
  p.row_scales.assign(static_cast<size_t>(rows), f32_to_f16(2e-4f));
  for (int64_t i = 0; i < rows * kOutliers; ++i) {
    p.outlier_codes.push_back(static_cast<int8_t>(random.below(255) - 127));
  }
  return p;
}

PackedLinear random_bytes_linear(int64_t rows, int64_t cols, Random& random) {
  PackedLinear p;
  p.format.weight = {.kind = WeightKind::kGrouped, .bits = 8, .group = 32};
  p.format.act = {.quantized = true, .bits = 8, .group = 32};
  p.rows = rows;
  p.cols = cols;
  fill_random(p.codes, rows * cols, random);
  p.scales.assign(static_cast<size_t>(rows * p.groups()), f32_to_f16(1e-3f));
  return p;
}

}  // namespace

Result<DecoderWeights> make_synthetic_model(Backend& backend, std::string_view name,
                                            int64_t layers) {
  const Shape* shape = nullptr;
  for (const Shape& known : kShapes) {
    if (known.name == name) shape = &known;
  }
  if (shape == nullptr) {
    return error(ErrorCode::kInvalidArgument,
                 "shape '{}': not one of llama-2-7b, llama-2-70b, mixtral-8x7b", name);
  }
  if (layers < 0 || layers > shape->layers) {
    return error(ErrorCode::kInvalidArgument, "shape '{}': {} layers are not within 1..{}", name,
                 layers, shape->layers);
  }
  DecoderWeights model;
  ModelConfig& c = model.config;
  c.layers = layers > 0 ? layers : shape->layers;
  c.hidden = shape->hidden;
  c.ffn = shape->ffn;
  c.heads = shape->heads;
  c.kv_heads = shape->kv_heads;
  c.head_dim = c.hidden / c.heads;
  c.vocab = shape->vocab;
  c.experts = shape->experts;
  c.active_experts = shape->active_experts;
  if (c.experts > 0) c.family = ModelFamily::kMixtral;
  c.context = 4096;
  c.rope.rotary_dim = c.head_dim;
  ATOM_TRY(check_runnable(backend, c));
  model.kv = {.kind = KvKind::kInt, .bits = 4, .centered = true, .hadamard = true};

  Random random(1);
  const auto ones = std::vector<float>(static_cast<size_t>(c.hidden), 1.0f);
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  // One layer's codes on the host, loaded once a layer and expert.
  const PackedLinear qkv = random_two_level(q_rows + 2 * kv_rows, c.hidden, random);
  const PackedLinear o = random_two_level(c.hidden, q_rows, random);
  const PackedLinear gate_up = random_two_level(2 * c.ffn, c.hidden, random);
  const PackedLinear down = random_two_level(c.hidden, c.ffn, random);
  std::vector<float> router(static_cast<size_t>(c.experts * c.hidden));
  for (float& weight : router) weight = static_cast<float>(random.below(2001) - 1000) * 1e-4f;
  for (int64_t i = 0; i < c.layers; ++i) {
    LayerWeights layer;
    layer.attention_norm = layer.mlp_norm = ones;
    layer.k_mean.assign(static_cast<size_t>(kv_rows), 0.0f);
    layer.qkv = ATOM_TRY(backend.load_linear(qkv));
    layer.o = ATOM_TRY(backend.load_linear(o));
    for (int64_t e = 0; e < c.mlps(); ++e) {
      layer.gate_up.push_back(ATOM_TRY(backend.load_linear(gate_up)));
      layer.down.push_back(ATOM_TRY(backend.load_linear(down)));
    }
    if (c.experts > 0) {
      layer.router = ATOM_TRY(backend.load_linear(make_float_linear(router, c.experts, c.hidden)));
    }
    model.layers.push_back(std::move(layer));
  }
  const PackedLinear head = random_bytes_linear(c.vocab, c.hidden, random);
  model.embed = ATOM_TRY(backend.load_linear(head));
  model.lm_head = ATOM_TRY(backend.load_linear(head));
  model.final_norm = ones;
  return model;
}

}  // namespace atom
