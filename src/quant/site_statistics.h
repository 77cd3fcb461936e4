// What the calibration text teaches about the four inputs of a layer's linears.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/layer_runner.h"
#include "ops/backend.h"

namespace atom {

inline size_t index_of(InputSite site) { return static_cast<size_t>(site); }

// X^T X of one site's input X [all calibration tokens, K].
struct SiteStatistics {
  std::vector<float> energy;   // [K] its diagonal
  std::vector<float> hessian;  // [K, K] all of it, or empty

  // The same of the input in a new order: channel i is perm[i] of before.
  void permute(std::span<const int32_t> perm);
  // The same of the input with channel k divided by factors[k].
  void divide(std::span<const float> factors);
};
using LayerStatistics = std::array<SiteStatistics, kInputSites>;

// Adds up X^T X, or its diagonal alone, of every site while windows run.
class StatisticsCollector {
 public:
  // tokens: the most that one call of add() brings. full: Hessians, not only their diagonals.
  StatisticsCollector(Backend& backend, const ModelConfig& config, int64_t tokens, bool full);

  // Starts from zero; takes the memory the first time.
  Status begin();
  // As a SiteHook.
  void add(InputSite site, const Activations& input, int64_t tokens);
  LayerStatistics finish();

 private:
  Backend& backend_;
  int64_t tokens_;
  bool full_;
  std::array<int64_t, kInputSites> widths_;
  std::array<std::unique_ptr<Tensor>, kInputSites> values_;  // [T, K]
  std::array<std::unique_ptr<Tensor>, kInputSites> gram_;    // [K, K]
  std::array<std::vector<double>, kInputSites> energy_;
  std::vector<float> host_;
};

}  // namespace atom
