#include "quant/site_statistics.h"

#include <algorithm>
#include <numeric>

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

void add_to(std::vector<float>& sum, const std::vector<float>& values) {
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += values[i];
}

}  // namespace

void SiteStatistics::permute(std::span<const int32_t> perm) {
  const std::vector<float> before = energy;
  for (size_t i = 0; i < perm.size(); ++i) energy[i] = before[static_cast<size_t>(perm[i])];
  if (!hessian.empty()) hessian = permute_square(hessian, perm);
  if (gram == nullptr) return;
  const std::vector<int32_t> old = order;
  order.assign(perm.begin(), perm.end());
  for (int32_t& channel : order) {
    if (!old.empty()) channel = old[static_cast<size_t>(channel)];
  }
}

void SiteStatistics::divide(std::span<const float> factors) {
  const size_t k = factors.size();
  for (size_t i = 0; i < k; ++i) energy[i] /= factors[i] * factors[i];
  parallel_for(hessian.empty() ? 0 : static_cast<int64_t>(k), [&](int64_t row) {
    const auto i = static_cast<size_t>(row);
    for (size_t j = 0; j < k; ++j) hessian[i * k + j] /= factors[i] * factors[j];
  });
  if (gram == nullptr) return;
  if (divisors.empty()) divisors.assign(k, 1.0f);
  for (size_t i = 0; i < k; ++i) {
    divisors[order.empty() ? i : static_cast<size_t>(order[i])] *= factors[i];
  }
}

SiteStatistics& LayerStatistics::of(InputSite site, size_t mlp) {
  switch (site) {
    case InputSite::kQkv:
      return qkv;
    case InputSite::kO:
      return o;
    case InputSite::kGateUp:
      return mlps[mlp].gate_up;
    case InputSite::kDown:
      break;
  }
  return mlps[mlp].down;
}

std::vector<float> LayerStatistics::gate_up_energy() const {
  std::vector<float> energy = mlps[0].gate_up.energy;
  for (size_t e = 1; e < mlps.size(); ++e) add_to(energy, mlps[e].gate_up.energy);
  return energy;
}

SiteStatistics LayerStatistics::gate_up() const {
  SiteStatistics all = mlps[0].gate_up;
  for (size_t e = 1; e < mlps.size(); ++e) {
    add_to(all.energy, mlps[e].gate_up.energy);
    add_to(all.hessian, mlps[e].gate_up.hessian);
  }
  return all;
}

StatisticsCollector::StatisticsCollector(Backend& backend, const ModelConfig& config,
                                         int64_t tokens, bool full)
    : backend_(backend),
      device_(config.experts == 0 ? backend.device_quantizer() : nullptr),
      tokens_(tokens),
      full_(full) {
  const int64_t routed = config.experts > 0 ? tokens * config.active_experts : tokens;
  const auto set = [&](InputSite site, int64_t width, int64_t rows, int64_t sums) {
    Site& of_site = sites_[index_of(site)];
    of_site.width = width;
    of_site.rows = rows;
    of_site.sums.resize(static_cast<size_t>(sums));
  };
  set(InputSite::kQkv, config.hidden, tokens, 1);
  set(InputSite::kO, config.heads * config.head_dim, tokens, 1);
  set(InputSite::kGateUp, config.hidden, routed, config.mlps());
  set(InputSite::kDown, config.ffn, routed, config.mlps());
}

Status StatisticsCollector::begin() {
  for (Site& site : sites_) {
    const int64_t k = site.width;
    if (site.values == nullptr) site.values = ATOM_TRY(backend_.make_tensor(site.rows, k));
    if (full_ && site.part == nullptr && site.sums.size() > 1) {
      site.part = ATOM_TRY(backend_.make_tensor(tokens_, k));
    }
    for (Sum& sum : site.sums) {
      sum.rows = 0;
      if (!full_) {
        sum.energy.assign(static_cast<size_t>(k), 0.0);
        continue;
      }
      if (sum.gram == nullptr) sum.gram = ATOM_TRY(backend_.make_tensor(k, k));
      if (device_ != nullptr) {
        device_->clear(*sum.gram);
      } else {
        backend_.write(*sum.gram, std::vector<float>(static_cast<size_t>(k * k), 0.0f));
      }
    }
  }
  return {};
}

void StatisticsCollector::add_gram(Site& site, Sum& sum, int64_t first, int64_t rows) {
  if (site.part == nullptr) return backend_.accumulate_gram(*site.values, rows, *sum.gram);
  rows_.resize(static_cast<size_t>(rows));
  std::iota(rows_.begin(), rows_.end(), static_cast<int32_t>(first));
  backend_.gather_rows(*site.values, rows_, *site.part);
  backend_.accumulate_gram(*site.part, rows, *sum.gram);
}

void StatisticsCollector::add(InputSite site, const Activations& input, int64_t rows,
                              std::span<const int32_t> offsets) {
  Site& of_site = sites_[index_of(site)];
  const auto k = static_cast<size_t>(of_site.width);
  ATOM_CHECK(offsets.empty() ? of_site.sums.size() == 1 : of_site.sums.size() + 1 == offsets.size(),
             "rows of other experts");
  backend_.dequantize(input, rows, *of_site.values);
  if (!full_) {
    host_.resize(static_cast<size_t>(rows) * k);
    backend_.read(*of_site.values, rows, host_);
  }
  for (size_t e = 0; e < of_site.sums.size(); ++e) {
    Sum& sum = of_site.sums[e];
    const int64_t first = offsets.empty() ? 0 : offsets[e];
    const int64_t count = (offsets.empty() ? rows : offsets[e + 1]) - first;
    if (count == 0) continue;
    sum.rows += count;
    if (full_) {
      add_gram(of_site, sum, first, count);
    } else {
      add_energy(
          std::span(host_).subspan(static_cast<size_t>(first) * k, static_cast<size_t>(count) * k),
          sum.energy);
    }
  }
}

SiteStatistics StatisticsCollector::finish(const Site& site, Sum& sum) const {
  const auto k = static_cast<size_t>(site.width);
  SiteStatistics statistics;
  statistics.energy.resize(k);
  if (!full_) {
    for (size_t i = 0; i < k; ++i) statistics.energy[i] = static_cast<float>(sum.energy[i]);
    return statistics;
  }
  if (device_ != nullptr) {
    statistics.gram = sum.gram.get();
    device_->read_diagonal(*sum.gram, statistics.energy);
    return statistics;
  }
  statistics.hessian.resize(k * k);
  backend_.read(*sum.gram, site.width, statistics.hessian);
  if (site.sums.size() > 1) sum.gram.reset();
  for (size_t i = 0; i < k; ++i) statistics.energy[i] = statistics.hessian[i * k + i];
  return statistics;
}

LayerStatistics StatisticsCollector::finish() {
  const auto site = [&](InputSite which) -> Site& { return sites_[index_of(which)]; };
  Site& gate_up = site(InputSite::kGateUp);
  Site& down = site(InputSite::kDown);
  LayerStatistics statistics;
  statistics.qkv = finish(site(InputSite::kQkv), site(InputSite::kQkv).sums[0]);
  statistics.o = finish(site(InputSite::kO), site(InputSite::kO).sums[0]);
  for (size_t e = 0; e < down.sums.size(); ++e) {
    statistics.mlps.push_back({.rows = down.sums[e].rows,
                               .gate_up = finish(gate_up, gate_up.sums[e]),
                               .down = finish(down, down.sums[e])});
  }
  return statistics;
}

}  // namespace atom
