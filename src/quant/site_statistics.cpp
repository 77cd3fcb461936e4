#include "quant/site_statistics.h"

#include <algorithm>

#include "base/parallel.h"
#include "quant/transforms.h"

namespace atom {
namespace {

// energy[k] += the squares of channel k of x [T, K].
void add_energy(std::span<const float> x, std::span<double> energy) {
  constexpr size_t kTogether = 64;  // channels of an item
  const size_t k = energy.size();
  parallel_for(static_cast<int64_t>((k + kTogether - 1) / kTogether), [&](int64_t item) {
    const size_t first = static_cast<size_t>(item) * kTogether;
    const size_t end = std::min(k, first + kTogether);
    for (size_t row = 0; row < x.size(); row += k) {
      for (size_t i = first; i < end; ++i) {
        energy[i] += static_cast<double>(x[row + i]) * static_cast<double>(x[row + i]);
      }
    }
  });
}

}  // namespace

void SiteStatistics::permute(std::span<const int32_t> perm) {
  const std::vector<float> before = energy;
  for (size_t i = 0; i < perm.size(); ++i) energy[i] = before[static_cast<size_t>(perm[i])];
  if (!hessian.empty()) hessian = permute_square(hessian, perm);
}

void SiteStatistics::divide(std::span<const float> factors) {
  const size_t k = factors.size();
  for (size_t i = 0; i < k; ++i) energy[i] /= factors[i] * factors[i];
  for (size_t i = 0; i < hessian.size(); ++i) hessian[i] /= factors[i / k] * factors[i % k];
}

StatisticsCollector::StatisticsCollector(Backend& backend, const ModelConfig& config,
                                         int64_t tokens, bool full)
    : backend_(backend),
      tokens_(tokens),
      full_(full),
      widths_{config.hidden, config.heads * config.head_dim, config.hidden, config.ffn} {}

Status StatisticsCollector::begin() {
  for (size_t s = 0; s < kInputSites; ++s) {
    const int64_t k = widths_[s];
    if (values_[s] == nullptr) {
      values_[s] = ATOM_TRY(backend_.make_tensor(tokens_, k));
      if (full_) gram_[s] = ATOM_TRY(backend_.make_tensor(k, k));
    }
    if (full_) {
      backend_.write(*gram_[s], std::vector<float>(static_cast<size_t>(k * k), 0.0f));
    } else {
      energy_[s].assign(static_cast<size_t>(k), 0.0);
    }
  }
  return {};
}

void StatisticsCollector::add(InputSite site, const Activations& input, int64_t tokens) {
  const size_t s = index_of(site);
  backend_.dequantize(input, tokens, *values_[s]);
  if (full_) {
    backend_.accumulate_gram(*values_[s], tokens, *gram_[s]);
    return;
  }
  host_.resize(static_cast<size_t>(tokens * widths_[s]));
  backend_.read(*values_[s], tokens, host_);
  add_energy(host_, energy_[s]);
}

LayerStatistics StatisticsCollector::finish() {
  LayerStatistics statistics;
  for (size_t s = 0; s < kInputSites; ++s) {
    const auto k = static_cast<size_t>(widths_[s]);
    SiteStatistics& site = statistics[s];
    site.energy.resize(k);
    if (!full_) {
      for (size_t i = 0; i < k; ++i) site.energy[i] = static_cast<float>(energy_[s][i]);
      continue;
    }
    site.hessian.resize(k * k);
    backend_.read(*gram_[s], widths_[s], site.hessian);
    for (size_t i = 0; i < k; ++i) site.energy[i] = site.hessian[i * k + i];
  }
  return statistics;
}

}  // namespace atom
