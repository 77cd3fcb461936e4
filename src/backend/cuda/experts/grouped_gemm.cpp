#include "backend/cuda/experts/grouped_gemm.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/cuda/experts/routing_view.h"
#include "backend/cuda/gemm/gemm_start.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

using gemm::Config, gemm::KernelEntry;

std::span<const KernelEntry> table(GemmFormat format, DType type) {
  const bool halves = type == DType::kF16;
  switch (format) {
    case GemmFormat::kW4A8:
      return halves ? w4a8::experts_f16() : w4a8::experts_f32();
    case GemmFormat::kW8A8:
      return halves ? w8a8::experts_f16() : w8a8::experts_f32();
    case GemmFormat::kW4A4:
      return halves ? w4a4::experts_f16() : w4a4::experts_f32();
    case GemmFormat::kW4A16:
      return halves ? w4a16::experts_f16() : w4a16::experts_f32();
    case GemmFormat::kFp4:
      return halves ? w4a4::fp4_experts_f16() : w4a4::fp4_experts_f32();
  }
  ATOM_CHECK(false, "unknown GEMM format");
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a plan does not depend on the routing for. tiles_t: of all experts.
SchedulePlan make_plan(const GemmArgs& args, const Config& c, bool split, int64_t tiles_t) {
  SchedulePlan plan;
  plan.tiles_w = static_cast<int>(ceil_div(args.rows, int64_t{64} * c.warpgroups * c.row_blocks));
  plan.tiles_t = static_cast<int>(tiles_t);
  plan.blocks = args.shape.body_blocks;
  plan.split = split;
  const int64_t tiles = tiles_t * plan.tiles_w, most = int64_t{device_info().sms} * c.ctas;
  if (c.cluster > 1) {
    plan.ctas = static_cast<int>(tiles * c.cluster);
    plan.whole_tiles = static_cast<int>(tiles);
  } else if (split) {
    plan.ctas = static_cast<int>(std::min(most, std::max<int64_t>(1, tiles * plan.blocks / 2)));
    plan.whole_tiles = static_cast<int>(std::max<int64_t>(0, tiles / plan.ctas - 1) * plan.ctas);
  } else {
    plan.ctas = static_cast<int>(std::min(most, tiles));
    plan.whole_tiles = static_cast<int>(tiles);
  }
  // An expert's activations stay in L2 while its weights pass by.
  plan.band = INT32_MAX / plan.tiles_w;
  return plan;
}

// Token tiles that no routing exceeds: each expert's tokens, what its first tile may begin too
// early with and what its last one may lack.
int64_t most_tiles(const GemmArgs& args, const ExpertGroups& experts, const Config& c) {
  const int64_t hit = std::min<int64_t>(experts.count, args.tokens);
  const int64_t slack = token_step(args.format) - 1 + c.tokens - 1;
  return std::max<int64_t>(1, (args.tokens + hit * slack) / c.tokens);
}

// Experts that get tokens, and the tokens of each, where every token chooses evenly.
struct Spread {
  double experts, tokens;
};
Spread even_spread(const GemmArgs& args, const ExpertGroups& experts) {
  const double all = experts.count, tokens = static_cast<double>(args.tokens);
  const auto choosers = static_cast<double>(experts.most_tokens);
  const double missed = std::pow(1.0 - tokens / choosers / all, choosers);
  const double hit = std::max(1.0, all * (1.0 - missed));
  return {.experts = hit, .tokens = tokens / hit};
}

}  // namespace

int grouped_gemm_kernel_count(GemmFormat format) {
  return static_cast<int>(table(format, DType::kF16).size());
}
const char* grouped_gemm_kernel_name(GemmFormat format, int kernel) {
  return table(format, DType::kF16)[static_cast<size_t>(kernel)].name;
}

GemmChoice choose_grouped_gemm(const GemmArgs& args, const ExpertGroups& experts) {
  const Spread spread = even_spread(args, experts);
  const double bytes = spread.experts * static_cast<double>(ceil_div(args.rows, 64)) *
                       args.shape.blocks() * static_cast<double>(args.shape.block_bytes());
  const auto kernels = table(args.format, args.y_type);
  GemmChoice best;
  double best_cycles = std::numeric_limits<double>::max();
  for (size_t k = 0; k < kernels.size(); ++k) {
    const Config& c = kernels[k].config;
    if (kernels[k].functions[gemm::group_index(args.shape)] == nullptr) continue;
    // Half of an expert's last tile stays empty on average; few tokens seldom need a second one.
    const double filled = (spread.tokens + token_step(args.format) / 2.0) / c.tokens;
    const double tiles = filled < 0.75 ? 1.0 : filled + 0.5;
    for (const bool split : {false, true}) {
      if (split && c.cluster > 1) continue;
      const SchedulePlan plan =
          make_plan(args, c, split, std::lround(std::max(1.0, tiles * spread.experts)));
      const double cycles =
          std::max(gemm::tile_cycles(c, plan, args.shape, split),
                   tiles * bytes / gemm::kMemoryBytesPerCycle * (tiles > 1.5 ? 0.5 : 1.0));
      if (cycles < best_cycles) {
        best_cycles = cycles;
        best = {.kernel = static_cast<int>(k), .split = split};
      }
    }
  }
  return best;
}

Status launch_grouped_gemm(const GemmArgs& args, const ExpertGroups& experts, GemmChoice choice,
                           cudaStream_t stream) {
  ATOM_CHECK(experts.count >= 1 && experts.count <= kMostExperts && !args.accumulate,
             "launch_grouped_gemm: arguments");
  if (args.tokens == 0) return {};
  const KernelEntry& entry = table(args.format, args.y_type)[static_cast<size_t>(choice.kernel)];
  const SchedulePlan plan =
      make_plan(args, entry.config, choice.split, most_tiles(args, experts, entry.config));
  return gemm::start(entry, args, experts, plan, stream);
}

}  // namespace atom::cuda
