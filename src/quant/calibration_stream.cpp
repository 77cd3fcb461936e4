#include "quant/calibration_stream.h"

#include <algorithm>
#include <numeric>

#include "base/interrupt.h"
#include "ops/device_quantizer.h"

namespace atom {

Result<std::unique_ptr<CalibrationStream>> CalibrationStream::create(
    Backend& backend, const ModelConfig& config, const LinearWeights& embedding,
    std::span<const std::vector<int32_t>> windows, const KvFormat& kv, int64_t prefix_tokens) {
  ATOM_CHECK(!windows.empty() && !windows[0].empty(), "a stream needs text");
  const auto tokens = static_cast<int64_t>(windows[0].size());
  const auto count = static_cast<int64_t>(windows.size());
  std::unique_ptr<CalibrationStream> stream(new CalibrationStream(backend, windows));
  stream->tokens_ = tokens;
  stream->runner_ = ATOM_TRY(LayerRunner::create(backend, config, tokens, prefix_tokens + tokens));
  stream->x_ = ATOM_TRY(backend.make_tensor(tokens, config.hidden));
  const int64_t pages = (tokens + kPageTokens - 1) / kPageTokens;
  stream->cache_ = ATOM_TRY(backend.make_kv_cache({.layers = 1,
                                                   .kv_heads = config.kv_heads,
                                                   .head_dim = config.head_dim,
                                                   .pages = pages,
                                                   .format = kv,
                                                   .prefix_tokens = prefix_tokens}));
  stream->pages_.resize(static_cast<size_t>(pages));
  std::iota(stream->pages_.begin(), stream->pages_.end(), 0);
  stream->rows_.resize(static_cast<size_t>(tokens));
  std::iota(stream->rows_.begin(), stream->rows_.end(), 0);
  if (backend.device_quantizer() != nullptr) {
    stream->resident_ = make_resident(backend, count, tokens, config.hidden);
  }
  if (stream->resident_.empty()) {
    stream->states_.emplace(ATOM_TRY(HiddenStates::create(count, tokens * config.hidden)));
  }
  Batch& batch = stream->batch_;
  batch.tokens.resize(static_cast<size_t>(tokens));
  batch.positions.resize(static_cast<size_t>(tokens));
  std::iota(batch.positions.begin(), batch.positions.end(), static_cast<int32_t>(prefix_tokens));
  batch.sequences.push_back({.token_count = tokens, .pages = stream->pages_});
  for (int64_t i = 0; i < count; ++i) {
    const std::vector<int32_t>& window = windows[static_cast<size_t>(i)];
    ATOM_CHECK(static_cast<int64_t>(window.size()) == tokens, "windows of different lengths");
    const EmbedArgs rows = {.table = &embedding, .ids = window};
    if (!stream->states_) {
      backend.embed(rows, *stream->resident_[static_cast<size_t>(i)]);
      continue;
    }
    backend.embed(rows, *stream->x_);
    backend.read(*stream->x_, tokens, stream->states_->window(i));
    stream->states_->release(i);
  }
  return stream;
}

std::vector<std::unique_ptr<Tensor>> CalibrationStream::make_resident(Backend& backend,
                                                                      int64_t windows,
                                                                      int64_t tokens,
                                                                      int64_t hidden) {
  std::vector<std::unique_ptr<Tensor>> states;
  // The layers, Hessians and factors need room too.
  const int64_t bytes = windows * tokens * hidden * int64_t{sizeof(float)};
  const int64_t free = backend.memory().free_bytes;
  if (free > 0 && bytes > free / 2) return states;
  for (int64_t i = 0; i < windows; ++i) {
    Result<std::unique_ptr<Tensor>> tensor = backend.make_tensor(tokens, hidden);
    if (!tensor.ok()) return {};
    states.push_back(std::move(tensor).value());
  }
  return states;
}

std::vector<float> CalibrationStream::projected(int64_t first, int64_t count) const {
  const Tensor& qkv = runner_->qkv();
  std::vector<float> columns(static_cast<size_t>(tokens_ * count));
  if (DeviceQuantizer* device = backend_.device_quantizer(); device != nullptr) {
    device->read_columns(qkv, tokens_, first, count, columns);
    return columns;
  }
  std::vector<float> all(static_cast<size_t>(tokens_ * qkv.cols()));
  backend_.read(qkv, tokens_, all);
  for (int64_t t = 0; t < tokens_; ++t) {
    std::copy_n(all.data() + t * qkv.cols() + first, count, columns.data() + t * count);
  }
  return columns;
}

void CalibrationStream::set_prefix(std::span<const float> k, std::span<const float> v) {
  cache_->set_prefix(0, k, v);
}

Status CalibrationStream::run(const LayerWeights& layer, bool keep, const SiteHook& hook,
                              Progress& progress, const WindowHook& on_window) {
  ATOM_TRY(runner_->prepare(layer));
  for (int64_t i = 0; i < windows(); ++i) {
    ATOM_TRY(check_interrupted());
    if (on_window) on_window(i);
    Tensor& x = keep && !states_ ? *resident_[static_cast<size_t>(i)] : *x_;
    if (states_) {
      backend_.write(x, states_->window(i));
    } else if (!keep) {
      backend_.gather_rows(*resident_[static_cast<size_t>(i)], rows_, x);
    }
    batch_.tokens = windows_[static_cast<size_t>(i)];
    runner_->attention(layer, 0, batch_, *cache_, x, hook);
    runner_->mlp(layer, tokens_, x, hook, keep);
    if (states_) {
      if (keep) backend_.read(x, tokens_, states_->window(i));
      states_->release(i);
    }
    progress.advance();
  }
  return {};
}

}  // namespace atom
