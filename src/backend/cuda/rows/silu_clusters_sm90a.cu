// silu_quantize of few tokens: a cluster of CTAs a token, see silu_rows.cu.
// Work: each CTA takes a part of the row, a thread up to kChunks runs of 8 columns. Each warp sends
// its maxima to every CTA of the cluster, and the sum of its codes to the first one: two one-way
// trips between multiprocessors, and no barrier among the threads of a CTA. Bound: latency.
#include "backend/cuda/ptx/cluster.cuh"
#include "backend/cuda/rows/silu_runs.cuh"
#include "backend/cuda/runtime/cluster_launch.cuh"

namespace atom::cuda {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kChunks = 3;
constexpr int kMostCluster = 8;

struct ClusterParams {
  QuantizeParams rows;
  int cluster;
};

template <class In>
__global__ __launch_bounds__(kThreads) void silu_clusters_kernel(
    const __grid_constant__ ClusterParams cluster_params) {
  const QuantizeParams& p = cluster_params.rows;
  const int cluster = cluster_params.cluster, rank = ptx::cluster_rank();
  __shared__ alignas(16) float2 maxima[kMostCluster * kWarps];
  __shared__ int sums[kMostCluster * kWarps];
  __shared__ uint64_t barriers[2];  // of all maxima, of all sums
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const uint32_t maxima_here = ptx::shared_address(&barriers[0]);
  const uint32_t sums_here = ptx::shared_address(&barriers[1]);
  if (thread == 0) {
    ptx::barrier_init(maxima_here, 1);
    ptx::barrier_init(sums_here, 1);
    ptx::barrier_init_fence();
    ptx::barrier_expect(maxima_here, static_cast<uint32_t>(cluster * kWarps * 8));
    ptx::barrier_expect(sums_here, static_cast<uint32_t>(cluster * kWarps * 4));
  }
  __syncwarp();
  ptx::cluster_arrive();
  const int64_t token = static_cast<int64_t>(blockIdx.x) / cluster;
  const int runs = p.channels / kRun, share = (runs + cluster - 1) / cluster;
  const int first = rank * share + thread, end = min((rank + 1) * share, runs);
  const In* gate = static_cast<const In*>(p.x) + token * 2 * p.channels;
  wait_for_previous();
  let_next_start();

  RawElements<In, kRun> raw[kChunks][2];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = first + i * kThreads;
    if (run >= end) continue;
    raw[i][0].load(gate + run * kRun);
    raw[i][1].load(gate + p.channels + run * kRun);
  }
  float v[kChunks][kRun];
  float2 top = make_float2(0, 0);  // of the body and of the outliers
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = first + i * kThreads;
    if (run >= end) continue;
    add_magnitude(silu_run(raw[i][0], raw[i][1], v[i]), run, p, top);
  }
  top = make_float2(warp_max(top.x), warp_max(top.y));
  ptx::cluster_wait();  // all have set up their barriers
  const int slot = rank * kWarps + warp;
  if (lane < cluster) {
    ptx::send(ptx::address_in(ptx::shared_address(&maxima[slot]), lane), top,
              ptx::address_in(maxima_here, lane));
  }
  ptx::barrier_wait_cluster(maxima_here, 0);
  top = make_float2(0, 0);
  for (int i = lane; i < cluster * kWarps; i += 32) {
    top = make_float2(fmaxf(top.x, maxima[i].x), fmaxf(top.y, maxima[i].y));
  }
  const RowScales scales = row_scales(make_float2(warp_max(top.x), warp_max(top.y)), p);
  if (rank == 0 && thread == 0) store_scales(scales, token, p);
  int sum = 0;
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int run = first + i * kThreads;
    if (run < end) sum += store_run(v[i], scales, run, token, p);
  }
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (lane == 0) {
    ptx::send(ptx::address_in(ptx::shared_address(&sums[slot]), 0), __int_as_float(sum),
              ptx::address_in(sums_here, 0));
  }
  if (rank != 0 || warp != 0) return;
  ptx::barrier_wait_cluster(sums_here, 0);
  sum = 0;
  for (int i = lane; i < cluster * kWarps; i += 32) sum += sums[i];
  sum = __reduce_add_sync(0xffffffffu, sum);
  if (lane == 0) p.sums[token] = sum;
}

}  // namespace

bool launch_silu_clusters(const QuantizeParams& params, int sms, cudaStream_t stream) {
  if (!serves_silu_runs(params)) return false;
  // So many tokens keep all multiprocessors at work, a CTA each.
  if (4 * params.tokens > 3 * sms) return false;
  const int runs = params.channels / kRun;
  // As many CTAs as have a warp's worth to do and run side by side: three a multiprocessor share
  // out numbers of tokens evenly that are no divisor of theirs.
  int cluster = kMostCluster;
  while (cluster > 1 && (params.tokens * cluster > 3 * sms || cluster * 32 > runs)) cluster /= 2;
  if (cluster == 1 || runs > cluster * kThreads * kChunks) return false;
  const auto kernel = params.halves ? silu_clusters_kernel<__half> : silu_clusters_kernel<float>;
  launch_clusters(kernel, dim3(static_cast<unsigned>(params.tokens * cluster)), kThreads, 0,
                  cluster, ClusterParams{params, cluster}, stream);
  return true;
}

}  // namespace atom::cuda
