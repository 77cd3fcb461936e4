// The choice among the w4a8 kernels and their launch.
#include <algorithm>
#include <limits>

#include "backend/cuda/gemm/gemm.h"
#include "backend/cuda/gemm/w4a8_kernels.h"
#include "backend/cuda/runtime/device.h"
#include "backend/cuda/runtime/tensor_map.h"

namespace atom::cuda {
namespace {

using namespace w4a8;

// Bytes of flags in front of the workspace's partial sums.
constexpr int64_t kFlagBytes = 4096;

int ceil_div(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

SchedulePlan make_plan(const GemmArgs& args, const Config& c, bool split) {
  SchedulePlan plan;
  plan.tiles_w = ceil_div(args.rows, int64_t{128} * c.row_blocks);
  plan.tiles_t = ceil_div(args.tokens, c.tokens);
  plan.blocks = args.shape.body_blocks;
  const int tiles = plan.tiles_w * plan.tiles_t;
  const int most = device_info().sms * c.ctas;
  if (split) {
    // At least two blocks a CTA; whole tiles as long as they fill the chip.
    plan.ctas = static_cast<int>(
        std::min<int64_t>(most, std::max<int64_t>(1, int64_t{tiles} * plan.blocks / 2)));
    plan.whole_tiles = std::max(0, tiles / plan.ctas - 1) * plan.ctas;
  } else {
    plan.ctas = std::min(most, tiles);
    plan.whole_tiles = tiles;
  }
  // Activations of a band stay in L2 beside a wave's weights.
  const int64_t tile_bytes = int64_t{c.tokens} * args.shape.blocks() * kActBlockBytes;
  plan.band = static_cast<int>(
      std::clamp<int64_t>(int64_t{20} << 20, tile_bytes, tile_bytes * plan.tiles_t) / tile_bytes);
  return plan;
}

// Kernel number `kernel` of the table; the shapes are the same for every output type.
const KernelEntry& table(int kernel, DType type = DType::kF16) {
  const std::span<const KernelEntry> large = type == DType::kF16    ? large_f16()
                                             : type == DType::kBF16 ? large_bf16()
                                                                    : large_f32();
  const std::span<const KernelEntry> small = type == DType::kF16    ? small_f16()
                                             : type == DType::kBF16 ? small_bf16()
                                                                    : small_f32();
  const auto i = static_cast<size_t>(kernel);
  return i < large.size() ? large[i] : small[i - large.size()];
}

int group_index(const Shape& shape) { return shape.groups == 1 ? 0 : shape.groups == 2 ? 1 : 2; }

}  // namespace

int64_t gemm_workspace_bytes() {
  // One tile of 128 x 256 or 256 x 128 sums for every multiprocessor.
  return kFlagBytes + int64_t{device_info().sms} * 128 * 256 * 4;
}

int w4a8_kernel_count() { return static_cast<int>(large_f16().size() + small_f16().size()); }
const char* w4a8_kernel_name(int kernel) { return table(kernel).name; }

GemmChoice choose_w4a8(const GemmArgs& args) {
  constexpr double kCyclesPerUs = 1800, kMemoryBytesPerCycle = 2150;
  const int sms = device_info().sms;
  const double bytes = static_cast<double>(ceil_div(args.rows, kBlockRows)) * args.shape.blocks() *
                       static_cast<double>(args.shape.block_bytes());
  GemmChoice best;
  double best_cycles = std::numeric_limits<double>::max();
  for (int k = 0; k < w4a8_kernel_count(); ++k) {
    const KernelEntry& entry = table(k, args.y_type);
    if (entry.functions[group_index(args.shape)] == nullptr) continue;
    for (const bool split : {false, true}) {
      const Config& c = entry.config;
      const SchedulePlan plan = make_plan(args, c, split);
      const int tiles = plan.tiles_w * plan.tiles_t;
      // Two CTAs on a multiprocessor get in each other's way.
      const double crowd = c.ctas > 1 && plan.ctas > sms ? 1.8 : 1.0;
      double cycles = 0;
      if (split && plan.whole_tiles < tiles) {
        // The shares' blocks, one end, and the exchange of partial sums.
        cycles =
            static_cast<double>(tiles) * args.shape.blocks() / plan.ctas * c.block_cycles * crowd +
            (1.0 + static_cast<double>(plan.whole_tiles) / plan.ctas) * c.end_cycles +
            (c.ctas > 1 ? 7.5 : 3.5) * kCyclesPerUs + 128.0 * c.row_blocks * c.tokens / 12;
      } else {
        cycles = ceil_div(tiles, plan.ctas) *
                 (args.shape.blocks() * c.block_cycles * crowd + c.end_cycles);
      }
      cycles = std::max(
          cycles, plan.tiles_t * bytes / kMemoryBytesPerCycle * (plan.tiles_t > 1 ? 0.5 : 1.0));
      if (cycles < best_cycles) {
        best_cycles = cycles;
        best = {.kernel = k, .split = split};
      }
    }
  }
  return best;
}

Status launch_w4a8(const GemmArgs& args, GemmChoice choice, cudaStream_t stream) {
  ATOM_CHECK(args.capacity % 256 == 0 && args.tokens <= args.capacity, "activation capacity");
  if (args.tokens == 0) return {};
  const KernelEntry& entry = table(choice.kernel, args.y_type);
  const int group = group_index(args.shape);
  const bool known =
      args.y_type == DType::kF16 || args.y_type == DType::kBF16 || args.y_type == DType::kF32;
  if (!known || entry.functions[group] == nullptr) {
    return error(ErrorCode::kUnsupported, "w4a8: no kernel {} for output {} and {} groups a block",
                 entry.name, dtype_name(args.y_type), args.shape.groups);
  }
  const Config& c = entry.config;
  Params params{
      .weights = args.weights,
      .row_scales = args.row_scales,
      .x = args.x,
      .x_scales = args.x_scales,
      .x_outlier_scales = args.x_outlier_scales,
      .x_sums = args.x_sums,
      .out = {.y_map = {},
              .by_copy = false,
              .y = args.y,
              .bias = args.bias,
              .rows = static_cast<int>(args.rows),
              .tokens = static_cast<int>(args.tokens),
              .accumulate = args.accumulate},
      .capacity = static_cast<int>(args.capacity),
      .row_blocks = ceil_div(args.rows, kBlockRows),
      .shape = args.shape,
      .plan = make_plan(args, c, choice.split),
      .partials = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(args.workspace) + kFlagBytes),
      .flags = static_cast<uint32_t*>(args.workspace)};
  const int64_t element_bytes = dtype_bytes(args.y_type);
  if (args.rows * element_bytes % 16 == 0 && !args.accumulate) {
    params.out.by_copy = true;
    const int chunk = std::min(element_bytes == 2 ? 64 : 32, c.tokens);  // EpilogueTile::kChunk
    params.out.y_map = make_box_map(args.y, args.y_type, args.tokens, args.rows, chunk);
  }
  const int shared_bytes = entry.shared_bytes[group];
  const void* function = entry.functions[group];
  ATOM_CUDA_CHECK(
      cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(params.plan.ctas));
  config.blockDim = dim3(static_cast<unsigned>(threads(c.ctas)));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  void* arguments[] = {&params};
  ATOM_CUDA_CHECK(cudaLaunchKernelExC(&config, function, arguments));
  return {};
}

}  // namespace atom::cuda
