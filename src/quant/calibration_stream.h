// The calibration text on its way through the model: the residual stream of every window after the
// layers so far, run through one layer after another.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/progress.h"
#include "base/status.h"
#include "model/layer_runner.h"
#include "quant/calibration.h"

namespace atom {

class CalibrationStream {
 public:
  // windows: token windows of one length, which stay alive; kv: how keys and values are kept while
  // a layer runs; prefix_tokens: constant tokens in front of every window (set_prefix).
  static Result<std::unique_ptr<CalibrationStream>> create(
      Backend& backend, const ModelConfig& config, const LinearWeights& embedding,
      std::span<const std::vector<int32_t>> windows, const KvFormat& kv, int64_t prefix_tokens);

  // Keys and values of the prefix for the layer that runs next, as KvCache::set_prefix takes them.
  void set_prefix(std::span<const float> k, std::span<const float> v);

  // Called before each window runs.
  using WindowHook = std::function<void(int64_t window)>;

  // Runs all windows through the layer. keep: the stream moves on behind the layer; otherwise it
  // stays where it was. Polls for Ctrl-C; advances the progress bar by one for each window.
  Status run(const LayerWeights& layer, bool keep, const SiteHook& hook, Progress& progress,
             const WindowHook& on_window = {});

  // The rows of each expert in the inputs of gate_up and down of the window that runs, [E + 1];
  // inside a hook.
  std::vector<int32_t> expert_offsets() const {
    return backend_.read(runner_->routing(), tokens_).offsets;
  }

  int64_t windows() const { return static_cast<int64_t>(windows_.size()); }
  int64_t window_tokens() const { return tokens_; }

 private:
  CalibrationStream(Backend& backend, std::span<const std::vector<int32_t>> windows,
                    HiddenStates states)
      : backend_(backend), windows_(windows), states_(std::move(states)) {}

  Backend& backend_;
  std::span<const std::vector<int32_t>> windows_;
  HiddenStates states_;
  int64_t tokens_ = 0;  // a window
  std::vector<int32_t> pages_;
  Batch batch_;
  std::unique_ptr<LayerRunner> runner_;
  std::unique_ptr<KvCache> cache_;  // of one layer, used by one window after another
  std::unique_ptr<Tensor> x_;
};

}  // namespace atom
