// decode_attention_sm90a: one new token a sequence over the paged INT4 (or INT8, F16) cache.
//   q     [T, H, DH] f32    out  [T, H, DH] f32
//   cache records of 16 tokens of one KV head (page_format.h), one a page
// Work: a CTA takes one KV head of one sequence, or one of `splits` parts of it. Its four or eight
// warps take every fourth or eighth page; each feeds its own ring of records by bulk copies and
// runs alone to the end (softmax_state.cuh). Query heads of a KV head are the columns, so that
// grouped heads read the cache once. The prefix, in floats, is the last warp's. Warps, then splits,
// are merged in fixed order (decode_merge.cuh). Bound: HBM; latency for few sequences.   Requires:
// H / KH <= 8.
#include "backend/cuda/attention/decode_merge.cuh"
#include "backend/cuda/attention/decode_pages.cuh"
#include "backend/cuda/runtime/cluster_launch.cuh"

namespace atom::cuda::attention {
namespace {

template <class Reader, int kHeadDim, int kCtaWarps>
__global__ __launch_bounds__(
    32 * kCtaWarps,
    decode_ctas(kHeadDim,
                kCtaWarps)) void decode_attention_sm90a_kernel(const __grid_constant__ Params p) {
  uint8_t* memory = dynamic_shared();
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int group = p.group;
  const DecodeMemory at(Reader::kBytes, kHeadDim, group, kCtaWarps, p.stages, p.cluster);
  const DecodePart part(p);
  PageStream<Reader, kCtaWarps> stream(p, part, memory, ptx::shared_address(memory + at.barriers),
                                       warp, lane);
  const float* q = p.q + part.row(p, kHeadDim);
  const float scale_log2 = p.scale * kLog2E;
  const auto query = [&](int column) { return column < group ? q + column * kHeadDim : nullptr; };
  const Delivery<kCtaWarps, kHeadDim> delivery(p, part, memory, at.inbox);
  delivery.open();
  // The page of the new token is being written; those before it lie there since the last step.
  stream.begin(min(p.ahead, stream.pages_of(min(part.end, part.newest_page()) - part.first, warp)));
  if (!p.beside_chunks) {
    wait_for_previous();
  } else if (p.cache.prefix_tokens > 0) {
    start_beside_previous();  // the prefix reads queries through L1; all else passes it
  }
  typename Queries<Reader, kHeadDim, 1>::Part own_query[1];
  own_query[0].load(query(lane / 4), lane % 4, p.beside_chunks);
  let_next_start();
  stream.begin(stream.count());
  Queries<Reader, kHeadDim, 1> queries;
  queries.set(own_query, scale_log2, lane);
  State<Reader, kHeadDim, 1> state;
  state.clear();
  if (part.split == 0 && warp == kCtaWarps - 1) {
    attend_prefix(p, part, query, scale_log2, state, lane);
  }
  const int begin = part.begin, length = part.length();
  const Visible<1> visible = {.begin = {{begin, begin}}, .end = {{length, length}}};
  for (int i = 0; i < stream.count(); ++i) {
    const uint8_t* record = stream.take();
    const int token = stream.page(i) * 16;
    attend_page(record, token, length, token >= begin && token + 16 <= length, queries, visible,
                scale_log2, state, lane);
    stream.give();
  }

  delivery.wait();
  merge_warps<kCtaWarps>(state, reinterpret_cast<float*>(memory), group, warp, lane, delivery);
  // Whoever waits for this kernel waits for the chunks' as well.
  if (p.beside_chunks && is_last_block()) wait_for_previous();
  delivery.finish();
}

template <class Reader, int kHeadDim>
void start(const Params& p, cudaStream_t stream) {
  auto* kernel = decode_attention_sm90a_kernel<Reader, kHeadDim, kWarps>;
  if constexpr (has_wide_decode(kHeadDim, Reader::kBytes)) {
    if (p.warps == kMostWarps) kernel = decode_attention_sm90a_kernel<Reader, kHeadDim, kMostWarps>;
  }
  launch_clusters(kernel,
                  dim3(static_cast<unsigned>(p.splits), static_cast<unsigned>(p.cache.kv_heads),
                       static_cast<unsigned>(p.item_count)),
                  32 * p.warps, p.shared_bytes, p.cluster, p, stream);
}

template <int kHeadDim>
Launcher pick(const PageLayout& layout) {
  if (layout.bits == 4) return start<Int4Reader<kHeadDim>, kHeadDim>;
  if (layout.bits == 8) return start<Int8Reader<kHeadDim>, kHeadDim>;
  return start<HalfReader<kHeadDim>, kHeadDim>;
}

}  // namespace

Launcher find_decode(const PageLayout& layout) {
  if (!layout.fragments) return nullptr;
  if (layout.head_dim == 64) return pick<64>(layout);
  if (layout.head_dim == 96) return pick<96>(layout);
  if (layout.head_dim == 128) return pick<128>(layout);
  return layout.head_dim == 256 ? pick<256>(layout) : nullptr;
}

}  // namespace atom::cuda::attention
