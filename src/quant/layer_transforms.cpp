#include "quant/layer_transforms.h"

#include <cstddef>

#include "quant/transforms.h"

namespace atom {

void balance_layer(PackedLayer& layer, LayerStatistics& statistics, double strength) {
  const auto multiply = [&](std::span<PackedLinear* const> linears, std::span<const float> energy) {
    const std::vector<const PackedLinear*> readers(linears.begin(), linears.end());
    std::vector<float> factors = balance_factors(energy, readers, strength);
    for (PackedLinear* linear : linears) multiply_columns(*linear, factors);
    return factors;
  };
  const auto divide = [](std::span<float> norm, std::span<const float> factors) {
    for (size_t k = 0; k < norm.size(); ++k) norm[k] /= factors[k];
  };
  PackedLinear* const qkv[] = {&layer.q, &layer.k, &layer.v};
  std::vector<float> factors = multiply(qkv, statistics.qkv.energy);
  statistics.qkv.divide(factors);
  divide(layer.attention_norm, factors);

  std::vector<PackedLinear*> gate_up;
  for (PackedMlp& mlp : layer.mlps) gate_up.insert(gate_up.end(), {&mlp.gate, &mlp.up});
  factors = multiply(gate_up, statistics.gate_up_energy());
  for (MlpStatistics& mlp : statistics.mlps) mlp.gate_up.divide(factors);
  divide(layer.mlp_norm, factors);
  for (size_t i = 0; i < layer.router.size(); ++i) {
    layer.router[i] *= factors[i % factors.size()];
  }
  for (size_t e = 0; e < layer.mlps.size(); ++e) {
    PackedLinear* const down[] = {&layer.mlps[e].down};
    factors = multiply(down, statistics.mlps[e].down.energy);
    statistics.mlps[e].down.divide(factors);
    divide_rows(layer.mlps[e].up, factors);
  }
}

void reorder_layer(PackedLayer& layer, LayerStatistics& statistics) {
  layer.qkv_perm = order_by_salience(statistics.qkv.energy);
  layer.o_perm = order_by_salience(statistics.o.energy);
  layer.gate_up_perm = order_by_salience(statistics.gate_up_energy());
  statistics.qkv.permute(layer.qkv_perm);
  statistics.o.permute(layer.o_perm);
  for (PackedLinear* linear : {&layer.q, &layer.k, &layer.v}) {
    permute_columns(*linear, layer.qkv_perm);
  }
  permute_columns(layer.o, layer.o_perm);
  for (size_t e = 0; e < layer.mlps.size(); ++e) {
    PackedMlp& mlp = layer.mlps[e];
    MlpStatistics& of_mlp = statistics.mlps[e];
    const std::vector<int32_t> down = order_by_salience(of_mlp.down.energy);
    of_mlp.gate_up.permute(layer.gate_up_perm);
    of_mlp.down.permute(down);
    for (PackedLinear* linear : {&mlp.gate, &mlp.up}) {
      permute_columns(*linear, layer.gate_up_perm);
      permute_rows(*linear, down);  // so that down_proj's input comes out in its order
    }
    permute_columns(mlp.down, down);
  }
}

}  // namespace atom
