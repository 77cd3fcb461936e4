#include "backend/cuda/attention/decode.h"

#include <algorithm>
#include <limits>

#include "backend/cuda/attention/decode_kernels.h"
#include "backend/cuda/attention/page_format.h"
#include "backend/cuda/runtime/device.h"

namespace atom::cuda {
namespace {

constexpr int kMostSplits = 128;  // whose factors a CTA keeps in shared memory

// Parts that each sequence is cut into, so that all multiprocessors have equal work.
int choose_splits(int items, int pages) {
  const int sms = device_info().sms;
  int best = 1;
  double best_cost = std::numeric_limits<double>::max();
  for (int splits = 1; splits <= std::min(kMostSplits, std::max(1, pages / 8)); ++splits) {
    // Pages of the busiest multiprocessor; below two CTAs it cannot keep enough bytes in flight.
    const int ctas = (items * splits + sms - 1) / sms;
    const int share = (pages + splits - 1) / splits;
    const double cost = std::max(ctas, 2) * share + 24.0 * ctas + 1.5 * splits;
    if (cost < best_cost) {
      best_cost = cost;
      best = splits;
    }
  }
  return best;
}

int64_t counter_bytes(int64_t items) { return (items * 4 + 255) / 256 * 256; }

}  // namespace

int page_record_bytes(CachePages format, int head_dim) {
  const bool int4 = format == CachePages::kInt4;
  return int4 ? 16 * head_dim + 128 : 64 * head_dim;
}

int64_t decode_workspace_bytes(int sequences, int heads, int head_dim) {
  // Splits multiply CTAs up to about eight a multiprocessor.
  const int64_t items = int64_t{sequences} * heads;
  const int64_t most = std::max<int64_t>(2 * items, items + 16 * device_info().sms);
  return counter_bytes(items) + most * 8 * (head_dim + 2) * 4;
}

Status launch_decode_attention(const DecodeArgs& args, cudaStream_t stream) {
  if (args.sequences == 0) return {};
  const decode::Launcher launch = decode::find_launcher(
      args.format == CachePages::kInt4, args.head_dim, args.out_type == DType::kF32);
  if (launch == nullptr || args.heads % args.kv_heads != 0 ||
      args.heads / args.kv_heads > decode::kGroup ||
      (args.out_type != DType::kF32 && args.out_type != DType::kF16)) {
    return error(ErrorCode::kUnsupported,
                 "decode attention: no kernel for {} heads over {} of {} channels, output {}",
                 args.heads, args.kv_heads, args.head_dim, dtype_name(args.out_type));
  }
  const int items = args.sequences * args.kv_heads;
  auto* workspace = static_cast<uint8_t*>(args.workspace);
  const int splits = args.splits > 0 ? std::min(args.splits, kMostSplits)
                                     : choose_splits(items, (args.longest + 15) / 16);
  // As many as the workspace holds partial results for.
  const int64_t room =
      (decode_workspace_bytes(args.sequences, args.heads, args.head_dim) - counter_bytes(items)) /
      (int64_t{args.sequences} * args.heads * (args.head_dim + 2) * 4);
  const decode::Params params{
      .q = args.q,
      .out = args.out,
      .cache = args.cache,
      .page_stride = args.page_stride,
      .pages = args.pages,
      .lengths = args.lengths,
      .max_pages = args.max_pages,
      .heads = args.heads,
      .kv_heads = args.kv_heads,
      .scale_log2 = args.scale * 1.44269504f,
      .splits = static_cast<int>(std::min<int64_t>(splits, room)),
      .partials = reinterpret_cast<float*>(workspace + counter_bytes(items)),
      .counters = reinterpret_cast<uint32_t*>(workspace)};
  launch(params, args.sequences, stream);
  ATOM_CUDA_CHECK(cudaGetLastError());
  return {};
}

}  // namespace atom::cuda
