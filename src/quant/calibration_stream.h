// The calibration text on its way through the model: the residual stream of every window after the
// layers so far, run through one layer after another. They stay in the memory of a backend that has
// its own and a DeviceQuantizer, as far as there is room.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
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

  // Columns [first, first + count) of what the window that runs projected (LayerRunner::qkv),
  // [T, count]; inside a hook of the sites behind qkv.
  std::vector<float> projected(int64_t first, int64_t count) const;

  int64_t windows() const { return static_cast<int64_t>(windows_.size()); }
  int64_t window_tokens() const { return tokens_; }

 private:
  CalibrationStream(Backend& backend, std::span<const std::vector<int32_t>> windows)
      : backend_(backend), windows_(windows) {}

  // The states of all windows in the backend's memory; empty where it has no room for them.
  static std::vector<std::unique_ptr<Tensor>> make_resident(Backend& backend, int64_t windows,
                                                            int64_t tokens, int64_t hidden);

  Backend& backend_;
  std::span<const std::vector<int32_t>> windows_;
  std::vector<std::unique_ptr<Tensor>> resident_;  // [windows] of [T, D]
  std::optional<HiddenStates> states_;             // without these
  int64_t tokens_ = 0;                             // a window
  std::vector<int32_t> pages_;
  std::vector<int32_t> rows_;  // 0, 1, 2 ... T - 1
  Batch batch_;
  std::unique_ptr<LayerRunner> runner_;
  std::unique_ptr<KvCache> cache_;  // of one layer, used by one window after another
  std::unique_ptr<Tensor> x_;
};

}  // namespace atom
