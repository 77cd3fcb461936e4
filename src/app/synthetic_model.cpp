#include "app/synthetic_model.h"

#include <memory>
#include <utility>
#include <vector>

#include "app/random_linear.h"

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

// A site's linears: codes are made once on the host, and again where the format changes.
class Site {
 public:
  Site(InputSite site, int64_t rows, int64_t cols) : site_(site), rows_(rows), cols_(cols) {}

  // The packed linear of a layer, good until the next call.
  Result<const PackedLinear*> make(const SyntheticFormats& formats, int64_t layer, Random& random) {
    const LinearFormat format = ATOM_TRY(formats.linear(site_, layer, cols_));
    if (packed_.rows == 0 || packed_.format != format) {
      packed_ = ATOM_TRY(random_linear(format, rows_, cols_, random));
    }
    return &packed_;
  }
  Result<std::unique_ptr<LinearWeights>> load(Backend& backend, const SyntheticFormats& formats,
                                              int64_t layer, Random& random) {
    return backend.load_linear(*ATOM_TRY(make(formats, layer, random)));
  }

 private:
  InputSite site_;
  int64_t rows_, cols_;
  PackedLinear packed_;
};

}  // namespace

Result<ModelConfig> synthetic_config(std::string_view name, int64_t layers) {
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
  ModelConfig c;
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
  return c;
}

Result<DecoderWeights> make_synthetic_model(Backend& backend, std::string_view name,
                                            const SyntheticFormats& formats, int64_t layers) {
  DecoderWeights model;
  model.config = ATOM_TRY(synthetic_config(name, layers));
  const ModelConfig& c = model.config;
  ATOM_TRY(check_runnable(backend, c));
  model.kv = formats.kv;

  Random random(1);
  const auto ones = std::vector<float>(static_cast<size_t>(c.hidden), 1.0f);
  const int64_t q_rows = c.heads * c.head_dim, kv_rows = c.kv_heads * c.head_dim;
  Site qkv(InputSite::kQkv, q_rows + 2 * kv_rows, c.hidden), o(InputSite::kO, c.hidden, q_rows);
  Site gate(InputSite::kGateUp, c.ffn, c.hidden), up(InputSite::kGateUp, c.ffn, c.hidden);
  Site down(InputSite::kDown, c.hidden, c.ffn);
  std::vector<float> router(static_cast<size_t>(c.experts * c.hidden));
  for (float& weight : router) weight = static_cast<float>(random.below(2001) - 1000) * 1e-4f;
  for (int64_t i = 0; i < c.layers; ++i) {
    LayerWeights layer;
    layer.attention_norm = layer.mlp_norm = ones;
    if (model.kv.centered) layer.k_mean.assign(static_cast<size_t>(kv_rows), 0.0f);
    layer.qkv = ATOM_TRY(qkv.load(backend, formats, i, random));
    layer.o = ATOM_TRY(o.load(backend, formats, i, random));
    for (int64_t e = 0; e < c.mlps(); ++e) {
      const PackedLinear* gate_packed = ATOM_TRY(gate.make(formats, i, random));
      const PackedLinear* up_packed = ATOM_TRY(up.make(formats, i, random));
      layer.gate_up.push_back(ATOM_TRY(backend.load_gate_up(*gate_packed, *up_packed)));
      layer.down.push_back(ATOM_TRY(down.load(backend, formats, i, random)));
    }
    if (c.experts > 0) {
      layer.router = ATOM_TRY(backend.load_linear(make_float_linear(router, c.experts, c.hidden)));
    }
    model.layers.push_back(std::move(layer));
  }
  const PackedLinear head = ATOM_TRY(random_linear(formats.embedding, c.vocab, c.hidden, random));
  model.embed = ATOM_TRY(backend.load_linear(head));
  model.lm_head = ATOM_TRY(backend.load_linear(head));
  model.final_norm = ones;
  return model;
}

}  // namespace atom
