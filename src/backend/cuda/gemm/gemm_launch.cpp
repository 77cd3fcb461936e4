// The choice among the GEMM kernels and their launch.
#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <string_view>

#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/gemm_start.h"
#include "backend/cuda/gemm/pack_weights.h"
#include "backend/cuda/runtime/chained_attribute.h"
#include "backend/cuda/runtime/device.h"
#include "backend/cuda/runtime/tensor_map.h"

namespace atom::cuda {
namespace {

using gemm::Config, gemm::KernelEntry, w4a8::kBlockRows, w4a8::Shape;

// What a CTA asks into L2 of the next GEMM's weights: some 3 MB of them in all, which HBM brings in
// less than a microsecond. The best of what was tried; more tokens are bound by more than weights.
constexpr int64_t kBytesAhead = 24 << 10, kLine = 128;
constexpr int64_t kMostTokensAhead = 32;

// Bytes of flags in front of the workspace's partial sums.
constexpr int64_t kFlagBytes = 4096;

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

SchedulePlan make_plan(const GemmArgs& args, const Config& c, bool split) {
  SchedulePlan plan;
  plan.tiles_w = ceil_div(args.rows, int64_t{64} * c.warpgroups * c.row_blocks * c.share);
  plan.tiles_t = ceil_div(args.tokens, c.tokens);
  plan.blocks = args.shape.body_blocks;
  const int tiles = plan.tiles_w * plan.tiles_t;
  const int most = device_info().sms * c.ctas / c.share;
  if (c.cluster > 1) {
    plan.ctas = tiles * c.cluster;
    plan.whole_tiles = tiles;
  } else if (split) {
    // At least two blocks a CTA; whole tiles as long as they fill the chip.
    plan.ctas = static_cast<int>(
        std::min<int64_t>(most, std::max<int64_t>(1, int64_t{tiles} * plan.blocks / 2)));
    plan.whole_tiles = std::max(0, tiles / plan.ctas - 1) * plan.ctas;
  } else {
    plan.ctas = std::min(most, tiles);
    plan.whole_tiles = tiles;
  }
  // Activations of a band stay in L2 beside a wave's weights.
  const int64_t tile_bytes = int64_t{c.tokens} * args.shape.blocks() * act_bytes(args.format);
  plan.band = static_cast<int>(
      std::clamp<int64_t>(int64_t{20} << 20, tile_bytes, tile_bytes * plan.tiles_t) / tile_bytes);
  return plan;
}

// The kernels of a format for one output type, in up to three parts.
struct Table {
  std::array<std::span<const KernelEntry>, 3> parts;

  const KernelEntry& operator[](int kernel) const {
    auto i = static_cast<size_t>(kernel);
    size_t part = 0;
    while (i >= parts[part].size()) i -= parts[part++].size();
    return parts[part][i];
  }
  int size() const { return static_cast<int>(parts[0].size() + parts[1].size() + parts[2].size()); }
};
// The shapes are the same for every output type.
Table table(GemmFormat format, DType type) {
  const bool half = type == DType::kF16;
  switch (format) {
    case GemmFormat::kW4A8:
      if (half) return {{w4a8::large_f16(), w4a8::medium_f16(), w4a8::few_f16()}};
      return {{w4a8::large_f32(), w4a8::medium_f32(), w4a8::few_f32()}};
    case GemmFormat::kW8A8:
      return {{half ? w8a8::tiles_f16() : w8a8::tiles_f32()}};
    case GemmFormat::kW4A4:
      return {{half ? w4a4::tiles_f16() : w4a4::tiles_f32()}};
    case GemmFormat::kW4A16:
      if (half) return {{w4a16::large_f16(), w4a16::small_f16()}};
      return {{w4a16::large_f32(), w4a16::small_f32()}};
    case GemmFormat::kFp4:
      return {{half ? w4a4::fp4_tiles_f16() : w4a4::fp4_tiles_f32()}};
  }
  ATOM_CHECK(false, "unknown GEMM format");
}

}  // namespace

int64_t gemm_workspace_bytes() {
  // One tile of at most 192 x 192 sums for every multiprocessor.
  return kFlagBytes + int64_t{device_info().sms} * 192 * 192 * 4;
}

std::span<uint8_t> gemm_scratch(void* workspace) {
  return {static_cast<uint8_t*>(workspace) + kFlagBytes,
          static_cast<size_t>(gemm_workspace_bytes() - kFlagBytes)};
}

int gemm_kernel_count(GemmFormat format) { return table(format, DType::kF16).size(); }
const char* gemm_kernel_name(GemmFormat format, int kernel) {
  return table(format, DType::kF16)[kernel].name;
}
bool gemm_shares_tiles(GemmFormat format, int kernel) {
  return table(format, DType::kF16)[kernel].config.cluster > 1;
}

namespace gemm {

double tile_cycles(const Config& c, const SchedulePlan& plan, const Shape& shape, bool split) {
  const int sms = device_info().sms / c.share, tiles = plan.tiles_w * plan.tiles_t;
  // CTAs on one multiprocessor get in each other's way.
  const int together = std::min(c.ctas, ceil_div(plan.ctas, sms));
  const double crowd = together > 1 ? 0.9 * together : 1.0;
  if (c.cluster > 1) {
    // Not every multiprocessor finds neighbours for a cluster of more than two.
    const int sms_reached = c.cluster > 2 && c.ctas == 1 ? sms * 9 / 10 : sms;
    const int slots = sms_reached * c.ctas / c.cluster * c.cluster;
    return ceil_div(plan.ctas, slots) *
           (ceil_div(plan.blocks, c.cluster) * c.block_cycles * crowd + c.end_cycles);
  }
  if (split && plan.whole_tiles < tiles) {
    // The shares' blocks, one end, and the exchange of partial sums, piece after piece.
    const double pieces =
        std::max(1.0, static_cast<double>(plan.ctas) / (tiles - plan.whole_tiles));
    return static_cast<double>(tiles) * shape.blocks() / plan.ctas * c.block_cycles * crowd +
           (1.0 + static_cast<double>(plan.whole_tiles) / plan.ctas) * c.end_cycles +
           (c.ctas > 1 ? 7.5 : 6.5) * kCyclesPerUs +
           64.0 * c.warpgroups * c.row_blocks * c.tokens / 2 * pieces;
  }
  return ceil_div(tiles, plan.ctas) * (shape.blocks() * c.block_cycles * crowd + c.end_cycles);
}

}  // namespace gemm

GemmChoice choose_gemm(const GemmArgs& args) {
  const double bytes = static_cast<double>(ceil_div(args.rows, kBlockRows)) * args.shape.blocks() *
                       static_cast<double>(args.shape.block_bytes());
  GemmChoice best;
  double best_cycles = std::numeric_limits<double>::max();
  const Table kernels = table(args.format, args.y_type);
  for (int k = 0; k < kernels.size(); ++k) {
    const KernelEntry& entry = kernels[k];
    if (entry.functions[gemm::group_index(args.shape)] == nullptr) continue;
    for (const bool split : {false, true}) {
      const Config& c = entry.config;
      if (split && c.cluster > 1) continue;
      const SchedulePlan plan = make_plan(args, c, split);
      const double cycles = std::max(
          gemm::tile_cycles(c, plan, args.shape, split),
          plan.tiles_t * bytes / gemm::kMemoryBytesPerCycle * (plan.tiles_t > 1 ? 0.5 : 1.0));
      if (cycles < best_cycles) {
        best_cycles = cycles;
        best = {.kernel = k, .split = split};
      }
    }
  }
  return best;
}

namespace {

// The shared memory that keeps a launch of `ctas` CTAs spread evenly: a multiprocessor has room for
// its part of them and no more. Where they nearly fill the chip they would otherwise crowd on the
// multiprocessors that the kernel before leaves free, two where others have none. 0 where there is
// no need, and for clusters of more than two, which need the room to find places side by side.
int spread_bytes(const Config& c, int ctas) {
  constexpr int kMultiprocessorBytes = 228 << 10, kReserved = 1 << 10;  // the latter for each CTA
  const int sms = device_info().sms, each = ceil_div(ctas, sms);
  if (c.cluster > 2 || 10 * ctas <= 9 * each * sms) return 0;
  return kMultiprocessorBytes / (each + 1) - kReserved + 16;
}

Status no_kernel(const GemmArgs& args, std::string_view name) {
  return error(ErrorCode::kUnsupported, "GEMM: no kernel {} for output {} and {} groups a block",
               name, dtype_name(args.y_type), args.shape.groups);
}

}  // namespace

Status launch_gemm(const GemmArgs& args, GemmChoice choice, cudaStream_t stream) {
  if (args.tokens == 0) return {};
  const Table kernels = table(args.format, args.y_type);
  if (choice.kernel >= kernels.size()) return no_kernel(args, std::to_string(choice.kernel));
  const KernelEntry& entry = kernels[choice.kernel];
  return gemm::start(entry, args, {}, make_plan(args, entry.config, choice.split), stream);
}

Status gemm::start(const KernelEntry& entry, const GemmArgs& args, const ExpertGroups& experts,
                   const SchedulePlan& plan, cudaStream_t stream) {
  ATOM_CHECK(args.capacity % 256 == 0 && args.tokens <= args.capacity, "activation capacity");
  const int group = group_index(args.shape);
  const bool known = args.y_type == DType::kF16 || (args.y_type == DType::kF32 && !args.gated);
  if (!known || entry.functions[group] == nullptr) return no_kernel(args, entry.name);
  const Config& c = entry.config;
  const int64_t channels = args.gated ? args.rows / 2 : args.rows;  // of y
  ATOM_CHECK(!args.gated || (args.rows % (2 * kGateRun) == 0 && !args.accumulate),
             "a GEMM that gates");
  gemm::Params params{.weights = args.weights,
                      .row_scales = args.row_scales,
                      .x = args.x,
                      .x_scales = args.x_scales,
                      .x_outlier_scales = args.x_outlier_scales,
                      .x_sums = args.x_sums,
                      .out = {.y_map = {},
                              .by_copy = false,
                              .y = args.y,
                              .bias = args.bias,
                              .rows = static_cast<int>(channels),
                              .tokens = static_cast<int>(args.tokens),
                              .accumulate = args.accumulate,
                              .gated = args.gated},
                      .capacity = static_cast<int>(args.capacity),
                      .row_blocks = ceil_div(args.rows, kBlockRows),
                      .next = args.next.data(),
                      .next_step = 0,
                      .next_bytes = 0,
                      .shape = args.shape,
                      .plan = plan,
                      .experts = experts,
                      .partials = static_cast<uint8_t*>(args.workspace) + kFlagBytes,
                      .flags = static_cast<uint32_t*>(args.workspace)};
  if (args.tokens <= kMostTokensAhead) {
    const int64_t share = std::ssize(args.next) / (int64_t{plan.ctas} * c.share);
    params.next_step = share / kLine * kLine;
    params.next_bytes = static_cast<int>(std::min(kBytesAhead, params.next_step));
  }
  const int64_t element_bytes = dtype_bytes(args.y_type);
  if (channels * element_bytes % 16 == 0) {
    params.out.by_copy = true;
    const int slices = std::min(c.cluster, c.tokens / 8);  // Tile::slices
    const auto element = static_cast<int>(element_bytes);
    params.out.y_map =
        make_box_map(args.y, args.y_type, args.tokens, channels, box_row_bytes(args.gated),
                     output_chunk(c.tokens / slices, element));  // of EpilogueTile
  }
  const int shared_bytes =
      std::max(entry.shared_bytes[group], spread_bytes(c, params.plan.ctas * c.share));
  const void* function = entry.functions[group];
  ATOM_CUDA_CHECK(
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  if (c.tokens <= 32) prefer_shared_memory(function);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.plan.ctas * c.share));
  config.blockDim = dim3(static_cast<unsigned>(gemm::threads(c)));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  cudaLaunchAttribute attributes[2] = {chained_attribute(), {}};
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim = {static_cast<unsigned>(c.cluster * c.share), 1, 1};
  config.attrs = attributes;
  config.numAttrs = c.cluster * c.share > 1 ? 2 : 1;
  void* arguments[] = {&params};
  ATOM_CUDA_CHECK(cudaLaunchKernelExC(&config, function, arguments));
  return {};
}

}  // namespace atom::cuda
