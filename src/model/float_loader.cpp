#include "model/float_loader.h"

#include <cmath>
#include <memory>
#include <utility>

#include "base/interrupt.h"

namespace atom {
namespace {

Result<std::vector<float>> read_values(const ModelSource& source, const std::string& name,
                                       int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  ATOM_TRY(source.read(name, values));
  return values;
}

Status narrow(const std::vector<float>& values, DType storage, std::vector<uint16_t>& narrowed) {
  narrowed.resize(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    narrowed[i] = storage == DType::kBF16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i]);
    if (storage == DType::kF16 && std::isfinite(values[i]) && (narrowed[i] & 0x7fffu) == 0x7c00u) {
      return error(ErrorCode::kUnsupported, "[{}] = {} is beyond the range of F16", i, values[i]);
    }
  }
  return {};
}

}  // namespace

Result<PackedLinear> read_float_linear(const ModelSource& source, const LinearSpec& spec,
                                       DType storage) {
  PackedLinear linear;
  linear.format.weight.dtype = storage;
  linear.rows = spec.rows;
  linear.cols = spec.cols;
  const std::string weight = spec.name + ".weight";
  std::vector<float> values = ATOM_TRY(read_values(source, weight, spec.rows * spec.cols));
  if (storage == DType::kF32) {
    linear.values = std::move(values);
  } else {
    ATOM_TRY(narrow(values, storage, linear.values16)
                 .with_context(fmt::format("{}: tensor '{}'", source.origin(), weight)));
  }
  if (spec.bias) linear.bias = ATOM_TRY(read_values(source, spec.name + ".bias", spec.rows));
  return linear;
}

Result<PackedLayer> read_float_layer(const ModelSource& source, int64_t index, DType storage) {
  const ModelConfig& config = source.config();
  PackedLayer layer;
  layer.mlps.resize(static_cast<size_t>(config.mlps()));
  const std::vector<PackedLinear*> linears = layer.linears();
  const std::vector<LinearSpec> specs = layer_linears(config, index);
  ATOM_CHECK(specs.size() == linears.size(), "a name for every linear");
  for (size_t i = 0; i < specs.size(); ++i) {
    *linears[i] = ATOM_TRY(read_float_linear(source, specs[i], storage));
  }
  const auto floats = [&](std::string_view name, int64_t count) {
    return read_values(source, layer_tensor(index, name), count);
  };
  layer.attention_norm = ATOM_TRY(floats("input_layernorm.weight", config.hidden));
  layer.mlp_norm = ATOM_TRY(floats("post_attention_layernorm.weight", config.hidden));
  if (config.qk_norm) {
    layer.q_norm = ATOM_TRY(floats("self_attn.q_norm.weight", config.head_dim));
    layer.k_norm = ATOM_TRY(floats("self_attn.k_norm.weight", config.head_dim));
  }
  if (config.experts > 0) {
    layer.router = ATOM_TRY(floats(kRouterTensor, config.experts * config.hidden));
  }
  ATOM_TRY(validate(layer, config, 0, source.origin(), index));
  return layer;
}

Result<DecoderWeights> load_float_ends(Backend& backend, const ModelSource& source, DType storage,
                                       const KvFormat& kv) {
  const ModelConfig& config = source.config();
  ATOM_TRY(validate(kv, config.head_dim).with_context(source.origin()));
  ATOM_TRY(check_runnable(backend, config).with_context(source.origin()));
  DecoderWeights weights;
  weights.config = config;
  weights.kv = kv;
  weights.final_norm = ATOM_TRY(read_values(source, std::string(kLastNormTensor), config.hidden));
  const auto load = [&](std::string_view name) -> Result<std::unique_ptr<LinearWeights>> {
    const LinearSpec spec{std::string(name), config.vocab, config.hidden};
    return backend.load_linear(ATOM_TRY(read_float_linear(source, spec, storage)));
  };
  weights.embed = ATOM_TRY(load(kEmbedTensor));
  weights.lm_head = weights.embed;
  if (!config.tied_embeddings) weights.lm_head = ATOM_TRY(load(kHeadTensor));
  return weights;
}

Result<DecoderWeights> load_float_model(Backend& backend, const ModelSource& source, DType storage,
                                        const KvFormat& kv) {
  DecoderWeights weights = ATOM_TRY(load_float_ends(backend, source, storage, kv));
  for (int64_t i = 0; i < weights.config.layers; ++i) {
    ATOM_TRY(check_interrupted());
    PackedLayer layer = ATOM_TRY(read_float_layer(source, i, storage));
    weights.layers.push_back(ATOM_TRY(load_layer(backend, layer)));
  }
  return weights;
}

}  // namespace atom
