#include "backend/cuda/attention/operators.h"

#include <algorithm>
#include <cmath>

#include "backend/cuda/objects.h"

namespace atom::cuda {

RopeAppendParams rope_append_params(const RopeAppendArgs& args, const DeviceBatch& batch,
                                    HostArrays& arrays) {
  auto& cache = static_cast<CudaKvCache&>(*args.cache);
  const KvCacheShape& shape = cache.shape();
  const int64_t tokens = args.batch->size();
  ATOM_CHECK(args.layer >= 0 && args.layer < shape.layers, "no such layer");
  ATOM_CHECK(args.qkv->rows() >= tokens && args.q->rows() >= tokens &&
                 args.qkv->cols() == (args.heads + 2 * shape.kv_heads) * shape.head_dim &&
                 args.q->cols() == args.heads * shape.head_dim,
             "rope_append_kv: shapes");
  ATOM_CHECK(static_cast<int64_t>(args.k_mean.size()) ==
                 (shape.format.centered ? shape.kv_heads * shape.head_dim : 0),
             "rope_append_kv: a mean goes with centered caches, and they with a mean");
  for (const int32_t position : args.batch->positions) {
    ATOM_CHECK(position >= 0 &&
                   (position + 1) * args.rotary_dim <= static_cast<int64_t>(args.cos_sin.size()),
               "position past the end of the RoPE table");
  }
  return {.qkv = cast(*args.qkv).raw(),
          .halves = cast(*args.qkv).halves(),
          .q = cast(*args.q).data(),
          .cache = cache.view(args.layer),
          .positions = batch.positions(),
          .slots = batch.slots(),
          .tiles = batch.tiles(),
          .cos_sin = must(arrays.floats(args.cos_sin)),
          .q_norm = must(arrays.floats(args.q_norm)),
          .k_norm = must(arrays.floats(args.k_norm)),
          .k_mean = must(arrays.floats(args.k_mean)),
          .norm_eps = args.norm_eps,
          .tokens = static_cast<int>(tokens),
          .heads = static_cast<int>(args.heads),
          .rotary_dim = static_cast<int>(args.rotary_dim),
          .tile_count = static_cast<int>(batch.tile_count()),
          .bits = shape.format.bits,
          .hadamard = shape.format.hadamard
                          ? static_cast<float>(1.0 / std::sqrt(static_cast<double>(shape.head_dim)))
                          : 0.0f};
}

attention::Params attention_params(const AttentionArgs& args, const DeviceBatch& batch) {
  const auto& cache = static_cast<const CudaKvCache&>(*args.cache);
  const KvCacheShape& shape = cache.shape();
  const int64_t tokens = args.batch->size();
  ATOM_CHECK(args.layer >= 0 && args.layer < shape.layers, "no such layer");
  ATOM_CHECK(args.q->rows() >= tokens && args.out->rows() >= tokens &&
                 args.q->cols() == args.heads * shape.head_dim &&
                 args.out->cols() == args.q->cols() && args.heads % shape.kv_heads == 0 &&
                 args.window >= 0,
             "paged_attention: shapes");
  return {.q = cast(*args.q).data(),
          .out = cast(*args.out).data(),
          .sequences = batch.sequences(),
          .cache = cache.view(args.layer),
          .heads = static_cast<int>(args.heads),
          .scale = args.scale,
          .window = static_cast<int>(std::min<int64_t>(args.window, INT32_MAX / 2))};
}

AttentionWork attention_work(const DeviceBatch& batch, bool exact) {
  return {.decode = batch.decode(),
          .decode_items = batch.decode_items(),
          .longest_decode = batch.longest_decode(),
          .chunk_list = batch.chunk_list(),
          .chunks = batch.chunks(),
          .token_sequences = batch.token_sequences(),
          .tokens = batch.tokens(),
          .exact = exact};
}

}  // namespace atom::cuda
