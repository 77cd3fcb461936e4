#include "backend/cuda/attention/decode_division.h"

#include <algorithm>
#include <limits>

#include "backend/cuda/attention/attention_kernels.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda::attention {
namespace {

constexpr int64_t kLeastPages = 8;  // of a part

int64_t quotient_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a division takes above what every one does, in the time of a multiprocessor with one CTA of
// eight warps for a page: 78 ns with INT4 and heads of 128 on an H200. Fitted to 1 to 12 sequences
// of 1024 to 131072 tokens, with 1 to 32 KV heads.
double cost(const Division& d, int64_t pairs, int64_t pages, int group) {
  const auto sms = static_cast<double>(device_info().sms);
  const int64_t ctas = quotient_up(pairs * d.splits, device_info().sms);  // on a multiprocessor
  const int64_t resident = 16 / d.warps;
  const int64_t warps = std::min(ctas, resident) * d.warps;
  // Few warps are bound by latency, many by memory.
  const double page = warps <= 4 ? 1.7 : warps <= 8 ? 1.0 : warps <= 12 ? 0.95 : 0.8;
  const double pages_time =
      std::max(page * static_cast<double>(ctas * quotient_up(pages, d.splits)),
               0.87 * static_cast<double>(pairs * pages) / sms);
  const double later = 24.0 * static_cast<double>(std::max<int64_t>(0, ctas - resident));
  if (d.splits == 1) return pages_time + later;
  const double full = warps == 16 ? 16.0 : 0.0;  // no room for the kernel behind
  const double merge =
      d.cluster ? 4.0 + group : 30.0 + group * (2.0 + 0.15 * static_cast<double>(d.splits));
  return pages_time + later + full + merge;
}

}  // namespace

// More CTAs than this need no splitting.
int64_t most_partials() { return 16 * int64_t{device_info().sms}; }

int64_t most_splits(int64_t pairs) {
  return std::min<int64_t>(kMostSplits, std::max<int64_t>(1, most_partials() / pairs));
}

bool clusters_fit(int64_t pairs, int64_t splits, int warps) {
  const int64_t sms = device_info().sms;
  if (splits == 1 || splits > kMostCluster || pairs * splits > sms) return false;
  if (warps < kMostWarps || splits == 2) return true;
  // Of wide CTAs a multiprocessor gets one, and not every one finds neighbours for a cluster: on an
  // H200 39, 30, 22, 17, 15 and 15 clusters of three to eight run at once.
  return pairs * splits * 100 <= sms * (splits <= 4 || splits == 8 ? 90 : 75);
}

Division choose_division(int64_t pairs, int64_t pages, int group, bool wide) {
  const int64_t sms = device_info().sms;
  const int64_t most = std::min(std::max<int64_t>(1, pages / kLeastPages), most_splits(pairs));
  Division best;
  double best_cost = std::numeric_limits<double>::max();
  const auto consider = [&](int warps, int64_t splits) {
    const Division d = {
        .warps = warps, .splits = splits, .cluster = clusters_fit(pairs, splits, warps)};
    const double own = cost(d, pairs, pages, group);
    if (own < best_cost) {
      best_cost = own;
      best = d;
    }
  };
  for (int64_t splits = 1; splits <= most; ++splits) {
    const bool few = wide && pairs * splits <= 2 * sms;
    consider(few ? kMostWarps : kWarps, splits);
  }
  return best;
}

}  // namespace atom::cuda::attention
