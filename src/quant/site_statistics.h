// What the calibration text teaches about the inputs of a layer's linears.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "model/layer_runner.h"
#include "ops/backend.h"
#include "ops/device_quantizer.h"

namespace atom {

inline size_t index_of(InputSite site) { return static_cast<size_t>(site); }

// X^T X of one site's input X [all calibration tokens, K]: on the host, or in the memory of the
// backend's DeviceQuantizer, where it stays as it was and changes of the input are noted beside it.
struct SiteStatistics {
  std::vector<float> energy;   // [K] its diagonal
  std::vector<float> hessian;  // [K, K] all of it, or empty

  const Tensor* gram = nullptr;  // [K, K] on the device, until the collector begins anew; or null
  std::vector<int32_t> order;    // of gram, see HessianArgs
  std::vector<float> divisors;

  // The same of the input in a new order: channel i is perm[i] of before.
  void permute(std::span<const int32_t> perm);
  // The same of the input with channel k divided by factors[k].
  void divide(std::span<const float> factors);
};

// Of one feed-forward network: of the tokens that went through it.
struct MlpStatistics {
  int64_t rows = 0;
  SiteStatistics gate_up, down;
};

struct LayerStatistics {
  SiteStatistics qkv, o;
  std::vector<MlpStatistics> mlps;  // one, or one an expert

  SiteStatistics& of(InputSite site, size_t mlp);
  // Over all experts. They share gate_up's input and so the order and balance of its channels.
  std::vector<float> gate_up_energy() const;
  SiteStatistics gate_up() const;
};

// Adds up X^T X, or its diagonal alone, of every site while windows run; in a mixture of experts of
// every expert.
class StatisticsCollector {
 public:
  // tokens: the most that run at once. full: Hessians, not only their diagonals; those of a dense
  // model stay with the backend's DeviceQuantizer, where it has one.
  StatisticsCollector(Backend& backend, const ModelConfig& config, int64_t tokens, bool full);

  // Starts from zero; takes the memory the first time.
  Status begin();
  // As a SiteHook. offsets: [E + 1] the rows of each expert (HostRouting), or empty: all are one's.
  void add(InputSite site, const Activations& input, int64_t rows,
           std::span<const int32_t> offsets);
  // Sums of experts leave the backend's memory as they are handed over: a mixture has many.
  LayerStatistics finish();

 private:
  // X^T X of one input.
  struct Sum {
    int64_t rows = 0;
    std::unique_ptr<Tensor> gram;  // [K, K] where full
    std::vector<double> energy;    // [K] where not
  };
  struct Site {
    int64_t width = 0;               // K
    int64_t rows = 0;                // of an input at most
    std::unique_ptr<Tensor> values;  // [rows, K]
    std::unique_ptr<Tensor> part;    // [T, K] the rows of one expert
    std::vector<Sum> sums;           // one, or one an expert
  };
  void add_gram(Site& site, Sum& sum, int64_t first, int64_t rows);
  SiteStatistics finish(const Site& site, Sum& sum) const;

  Backend& backend_;
  DeviceQuantizer* device_;  // that keeps the Hessians, or null
  int64_t tokens_;
  bool full_;
  std::array<Site, kInputSites> sites_;
  std::vector<float> host_;
  std::vector<int32_t> rows_;
};

}  // namespace atom
