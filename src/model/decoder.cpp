#include "model/decoder.h"

#include <utility>

namespace atom {
namespace {

// Beyond this the table of cosines alone would take gigabytes.
constexpr int64_t kMaxPositions = int64_t{1} << 22;

// Whether a linear's input needs no more than halves: it is rounded to codes, or the weights
// themselves are halves.
bool takes_halves(const LinearFormat& format) {
  return format.act.quantized ||
         (format.weight.kind == WeightKind::kFloat && format.weight.dtype == DType::kF16);
}

// What the operators of a layer hand to each other may be halves where all linears take them.
Precision scratch_precision(const DecoderWeights& weights) {
  for (const LayerWeights& layer : weights.layers) {
    // The experts of a layer have one format.
    for (const LinearWeights* linear :
         {layer.qkv.get(), layer.o.get(), layer.gate_up[0].get(), layer.down[0].get()}) {
      if (!takes_halves(linear->format())) return Precision::kFull;
    }
  }
  return Precision::kHalf;
}

}  // namespace

Decoder::Decoder(Backend& backend, std::shared_ptr<const DecoderWeights> weights,
                 const DecoderLimits& limits)
    : backend_(backend), weights_(std::move(weights)), limits_(limits) {}

Result<std::unique_ptr<Decoder>> Decoder::create(Backend& backend,
                                                 std::shared_ptr<const DecoderWeights> weights,
                                                 const DecoderLimits& limits) {
  const ModelConfig& config = weights->config;
  ATOM_CHECK(static_cast<int64_t>(weights->layers.size()) == config.layers, "layers are missing");
  ATOM_CHECK(limits.max_tokens > 0 && limits.max_logit_rows > 0, "limits must be positive");
  std::unique_ptr<Decoder> decoder(new Decoder(backend, std::move(weights), limits));
  DecoderLimits& own = decoder->limits_;
  if (own.positions == 0) own.positions = config.context + decoder->weights_->prefix_tokens;
  if (own.positions < 1 || own.positions > kMaxPositions) {
    return error(ErrorCode::kInvalidArgument, "a context of {} tokens is not within 1..{}",
                 own.positions, kMaxPositions);
  }
  decoder->layers_ = ATOM_TRY(LayerRunner::create(backend, config, own.max_tokens, own.positions,
                                                  scratch_precision(*decoder->weights_)));
  for (const LayerWeights& layer : decoder->weights_->layers) {
    ATOM_TRY(decoder->layers_->prepare(layer));
  }
  decoder->x_ = ATOM_TRY(backend.make_tensor(own.max_tokens, config.hidden));
  decoder->last_ = ATOM_TRY(backend.make_tensor(own.max_logit_rows, config.hidden));
  decoder->head_input_ = ATOM_TRY(backend.make_activations(decoder->weights_->lm_head->format(),
                                                           config.hidden, own.max_logit_rows));
  return decoder;
}

Result<std::unique_ptr<KvCache>> Decoder::make_cache(int64_t pages) const {
  const ModelConfig& c = config();
  std::unique_ptr<KvCache> cache =
      ATOM_TRY(backend_.make_kv_cache({.layers = c.layers,
                                       .kv_heads = c.kv_heads,
                                       .head_dim = c.head_dim,
                                       .pages = pages,
                                       .format = weights_->kv,
                                       .prefix_tokens = weights_->prefix_tokens}));
  if (weights_->prefix_tokens == 0) return cache;
  for (int64_t i = 0; i < c.layers; ++i) {
    const LayerWeights& layer = weights_->layers[static_cast<size_t>(i)];
    cache->set_prefix(i, layer.prefix_k, layer.prefix_v);
  }
  return cache;
}

Status Decoder::forward(const Batch& batch, KvCache& cache, Tensor& logits,
                        const StepReading& reading) {
  ATOM_TRY(check(batch, cache, reading.chosen));
  run_tokens_ = batch.size();
  const auto rows = static_cast<int64_t>(batch.logit_rows.size());
  backend_.run_step(
      {.batch = &batch, .cache = &cache, .state = x_.get(), .logits = &logits, .reading = reading},
      [&] {
        run_layers(batch, cache, reading.chosen);
        compute_logits(batch.logit_rows, logits);
        if (reading.to != nullptr && reading.whole_rows < rows) {
          backend_.choose_tokens(logits, rows, batch.draws, *reading.chosen);
        }
      });
  return {};
}

Status Decoder::run(const Batch& batch, KvCache& cache) {
  ATOM_TRY(check(batch, cache, nullptr));
  run_tokens_ = batch.size();
  backend_.run_step({.batch = &batch, .cache = &cache, .state = x_.get(), .logits = nullptr},
                    [&] { run_layers(batch, cache, nullptr); });
  return {};
}

void Decoder::run_layers(const Batch& batch, KvCache& cache, const TokenIds* earlier) {
  backend_.embed({.table = weights_->embed.get(), .ids = batch.tokens, .earlier = earlier}, *x_);
  for (size_t i = 0; i < weights_->layers.size(); ++i) {
    const LayerWeights& layer = weights_->layers[i];
    layers_->attention(layer, static_cast<int64_t>(i), batch, cache, *x_);
    layers_->mlp(layer, batch.size(), *x_);
  }
}

void Decoder::compute_logits(std::span<const int32_t> rows, Tensor& logits) {
  if (rows.empty()) return;
  const auto count = static_cast<int64_t>(rows.size());
  ATOM_CHECK(count <= limits_.max_logit_rows, "more logits than the decoder was made for");
  for (const int32_t row : rows) ATOM_CHECK(row >= 0 && row < run_tokens_, "row was not run");
  backend_.gather_rows(*x_, rows, *last_);
  backend_.rmsnorm_quantize({.x = last_.get(),
                             .weight = weights_->final_norm,
                             .eps = static_cast<float>(config().norm_eps),
                             .tokens = count},
                            {}, *head_input_);
  backend_.linear(
      {.x = head_input_.get(), .w = weights_->lm_head.get(), .y = &logits, .tokens = count});
}

Status Decoder::check(const Batch& batch, const KvCache& cache, const TokenIds* earlier) const {
  ATOM_CHECK(batch.size() > 0 && batch.size() <= limits_.max_tokens, "batch does not fit");
  ATOM_CHECK(batch.positions.size() == batch.tokens.size(), "a position a token");
  ATOM_CHECK(cache.shape().layers == config().layers, "the cache is another model's");
  const int64_t least = earlier == nullptr ? 0 : -earlier->size();
  for (size_t t = 0; t < batch.tokens.size(); ++t) {
    if (batch.tokens[t] < least || batch.tokens[t] >= config().vocab) {
      return error(ErrorCode::kInvalidArgument, "token id {} is beyond the vocabulary of {}",
                   batch.tokens[t], config().vocab);
    }
    if (batch.positions[t] < 0 || batch.positions[t] >= limits_.positions) {
      return error(ErrorCode::kInvalidArgument, "position {} is beyond the context of {}",
                   batch.positions[t], limits_.positions);
    }
  }
  int64_t covered = 0;
  for (const SequenceSlice& slice : batch.sequences) {
    ATOM_CHECK(slice.first_token == covered && slice.token_count > 0, "slices leave a gap");
    covered += slice.token_count;
    const auto pages = static_cast<int64_t>(slice.pages.size());
    ATOM_CHECK(slice.past >= 0 && slice.past + slice.token_count <= pages * kPageTokens,
               "a sequence's pages do not cover its tokens");
    for (const int32_t page : slice.pages) {
      ATOM_CHECK(page >= 0 && page < cache.shape().pages, "no such page");
    }
  }
  ATOM_CHECK(covered == batch.size(), "slices do not cover the batch");
  return {};
}

}  // namespace atom
