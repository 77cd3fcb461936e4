#include "quant/quantizer.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <future>
#include <memory>
#include <optional>

#include "base/interrupt.h"
#include "base/log.h"
#include "base/parallel.h"
#include "model/float_loader.h"
#include "model/rope.h"
#include "ops/device_quantizer.h"
#include "quant/calibration_stream.h"
#include "quant/key_value_probe.h"
#include "quant/layer_transforms.h"
#include "quant/site_statistics.h"
#include "quant/transforms.h"
#include "tensor/quantized_linear.h"

namespace atom {
namespace {

constexpr int64_t kMeanWindows = 8;  // of calibration text behind the mean of the keys
// An expert that fewer calibration tokens went through says little about its inputs.
constexpr int64_t kFewestExpertRows = 128;

double weighted_error(std::span<const float> weights, const PackedLinear& packed,
                      std::span<const float> energy) {
  constexpr int64_t kTogether = 32;  // rows of an item
  struct Sums {
    double miss = 0, whole = 0;
  };
  const auto k = static_cast<size_t>(packed.cols);
  std::vector<Sums> items(static_cast<size_t>((packed.rows + kTogether - 1) / kTogether));
  parallel_for(std::ssize(items), [&](int64_t item) {
    Sums sums;
    std::vector<double> values(k);
    const int64_t end = std::min(packed.rows, (item + 1) * kTogether);
    for (int64_t n = item * kTogether; n < end; ++n) {
      dequantize_row(packed, n, values);
      const float* row = weights.data() + n * packed.cols;
      for (size_t i = 0; i < k; ++i) {
        const double weight = energy.empty() ? 1.0 : energy[i];
        const double difference = row[i] - values[i];
        sums.miss += weight * difference * difference;
        sums.whole += weight * static_cast<double>(row[i]) * static_cast<double>(row[i]);
      }
    }
    items[static_cast<size_t>(item)] = sums;
  });
  Sums total;
  for (const Sums& sums : items) {
    total.miss += sums.miss;
    total.whole += sums.whole;
  }
  return total.whole == 0 ? 0 : total.miss / total.whole;
}

using Clock = std::chrono::steady_clock;

// Adds the seconds of its life to a sum.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds) {}
  Timer(const Timer&) = delete;
  ~Timer() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  double& seconds_;
  const Clock::time_point start_ = Clock::now();
};

class ModelQuantizer {
 public:
  ModelQuantizer(const ModelSource& source, Backend& backend, const Recipe& recipe,
                 QuantizedModelSink& sink)
      : source_(source),
        backend_(backend),
        recipe_(recipe),
        config_(source.config()),
        sink_(sink),
        device_(backend.device_quantizer()),
        quantized_inputs_(recipe.inputs == HessianInputs::kQuantized && wants_hessians()) {}

  Result<QuantizeReport> run(std::span<const int32_t> tokens, bool show_progress) {
    ATOM_TRY(quantize_all(tokens, show_progress));
    return std::move(report_);
  }

 private:
  Status quantize_all(std::span<const int32_t> tokens, bool show_progress) {
    const Timer timer(report_.seconds.total);
    ATOM_TRY(check_formats());
    report_.prefix_tokens = ATOM_TRY(prefix_tokens_for(recipe_, config_));
    if (recipe_.needs_calibration()) {
      windows_ = ATOM_TRY(cut_windows(tokens, recipe_.windows, recipe_.context, recipe_.seed,
                                      recipe_.window_offsets));
      for (const auto& window : windows_) {
        report_.calibration_tokens += static_cast<int64_t>(window.size());
      }
    }
    ATOM_TRY(quantize_ends());
    const int64_t passes = (float_stream_ ? float_stream_->windows() : 0) +
                           (quantized_stream_ ? 2 * quantized_stream_->windows() : 0) + 1;
    Progress progress("quantizing", config_.layers * passes, show_progress);
    for (int64_t i = 0; i < config_.layers; ++i) {
      progress.note(fmt::format("layer {} of {}", i + 1, config_.layers));
      ATOM_TRY(quantize_layer(i, progress).with_context(source_.origin()));
      progress.advance();
    }
    return {};
  }

  bool wants_hessians() const { return recipe_.gptq || recipe_.scale_rule == ScaleRule::kSearch; }

  Status check_formats() {
    ATOM_TRY(validate(recipe_.kv, config_.head_dim).with_context(recipe_.name));
    const std::array<int64_t, kInputSites> widths = {
        config_.hidden, config_.heads * config_.head_dim, config_.hidden, config_.ffn};
    for (int64_t i = 0; i < config_.layers; ++i) {
      for (size_t s = 0; s < kInputSites; ++s) {
        ATOM_TRY(recipe_.format_for(static_cast<InputSite>(s), i, widths[s]));
      }
    }
    return {};
  }

  Status quantize_ends() {
    const bool tied = config_.tied_embeddings;
    const PackedLinear embedding = ATOM_TRY(quantize_table(kEmbedTensor));
    std::optional<PackedLinear> head;
    if (!tied) head = ATOM_TRY(quantize_table(kHeadTensor));
    std::vector<float> norm(static_cast<size_t>(config_.hidden));
    ATOM_TRY(source_.read(kLastNormTensor, norm));
    ATOM_TRY(sink_.add_ends(embedding, head ? &*head : nullptr, norm));
    if (windows_.empty()) return {};

    const std::unique_ptr<LinearWeights> table = ATOM_TRY(backend_.load_linear(embedding));
    const auto prefix = static_cast<int64_t>(report_.prefix_tokens.size());
    const std::span<const std::vector<int32_t>> all(windows_);
    const bool float_hessians = wants_hessians() && !quantized_inputs_;
    const size_t float_windows =
        float_hessians ? all.size()
                       : std::min(all.size(), static_cast<size_t>(recipe_.reorder_windows));
    const KvFormat floats = device_ == nullptr ? KvFormat{} : device_->float_cache();
    float_stream_ = ATOM_TRY(CalibrationStream::create(backend_, config_, *table,
                                                       all.first(float_windows), floats, prefix));
    if (quantized_inputs_) {
      quantized_stream_ =
          ATOM_TRY(CalibrationStream::create(backend_, config_, *table, all, recipe_.kv, prefix));
    }
    if (prefix > 0) {
      prefix_window_ = {report_.prefix_tokens};
      prefix_stream_ = ATOM_TRY(
          CalibrationStream::create(backend_, config_, *table, prefix_window_, KvFormat{}, 0));
    }
    const int64_t tokens = float_stream_->window_tokens();
    float_statistics_.emplace(backend_, config_, tokens, float_hessians);
    if (quantized_inputs_) quantized_statistics_.emplace(backend_, config_, tokens, true);
    cos_sin_ = make_cos_sin(config_.rope, prefix + tokens);
    return {};
  }

  Result<PackedLinear> quantize_table(std::string_view name) {
    const LinearSpec spec{std::string(name), config_.vocab, config_.hidden, false};
    const PackedLinear table = ATOM_TRY(read_float_linear(source_, spec, DType::kF32));
    WeightQuantSpec how;
    how.format = recipe_.embedding;
    // Rows narrower than, or not cut evenly by, the recipe's group get one scale each.
    if (how.format.weight.group != 0 && config_.hidden % how.format.weight.group != 0) {
      how.format.weight.group = how.format.act.group = 0;
    }
    ATOM_TRY(validate(how.format, config_.hidden).with_context(recipe_.name + ": embedding"));
    return codes_of(table, how, {}, {});
  }

  // A layer's float weights. While a device works on them the host reads the next ones.
  Result<PackedLayer> read_layer(int64_t index) {
    const Timer timer(report_.seconds.read);
    const auto read = [this](int64_t i) { return read_float_layer(source_, i, DType::kF32); };
    Result<PackedLayer> layer = next_layer_.valid() ? next_layer_.get() : read(index);
    if (device_ != nullptr && layer.ok() && index + 1 < config_.layers) {
      next_layer_ = std::async(std::launch::async, read, index + 1);
    }
    return layer;
  }

  Status quantize_layer(int64_t index, Progress& progress) {
    PackedLayer layer = ATOM_TRY(read_layer(index));
    QuantizeTimes& seconds = report_.seconds;
    if (recipe_.kv.hadamard) {
      const Timer timer(seconds.transform);
      fold_value_hadamard(layer, config_);
    }
    LayerStatistics statistics;
    statistics.mlps.resize(layer.mlps.size());
    if (float_stream_) {
      const Timer timer(seconds.calibrate);
      statistics = ATOM_TRY(float_pass(layer, progress));
    }
    {
      const Timer timer(seconds.transform);
      if (recipe_.balance > 0) balance_layer(layer, statistics, recipe_.balance);
      if (recipe_.reorder) reorder_layer(layer, statistics);
    }
    if (quantized_stream_) {
      const Timer timer(seconds.calibrate);
      statistics = ATOM_TRY(quantized_pass(index, layer, progress));
    }
    if (float_stream_ && config_.experts > 0) replace_poor_statistics(index, statistics);
    PackedLayer quantized = ATOM_TRY(quantize_linears(index, layer, statistics));
    {
      const Timer timer(seconds.write);
      ATOM_TRY(sink_.add_layer(index, quantized));
    }
    if (quantized_stream_) {
      const Timer timer(seconds.calibrate);
      const LayerWeights weights = ATOM_TRY(load_layer(backend_, quantized));
      ATOM_TRY(quantized_stream_->run(weights, true, {}, progress));
    }
    return {};
  }

  // Runs the float stream; fills the layer's k_mean and prefix.
  Result<LayerStatistics> float_pass(PackedLayer& layer, Progress& progress) {
    const LayerWeights weights = ATOM_TRY(load_layer(backend_, layer));
    if (prefix_stream_) ATOM_TRY(learn_prefix(layer, weights));
    ATOM_TRY(float_statistics_->begin());
    std::vector<double> mean(
        recipe_.kv.centered ? static_cast<size_t>(config_.kv_heads * config_.head_dim) : 0, 0.0);
    int64_t window = 0, keys = 0;
    const auto angles = std::span(cos_sin_).subspan(report_.prefix_tokens.size() *
                                                    static_cast<size_t>(config_.rope.rotary_dim));
    const SiteHook hook = [&](InputSite site, Activations& input, int64_t tokens) {
      add_statistics(*float_statistics_, *float_stream_, site, input, tokens);
      if (site != InputSite::kO || mean.empty() || window >= kMeanWindows) return;
      std::vector<float> k = projected_keys(*float_stream_);
      finish_keys(k, layer, config_, angles, true);
      add_keys(k, mean);
      keys += tokens;
    };
    ATOM_TRY(
        float_stream_->run(weights, true, hook, progress, [&](int64_t index) { window = index; }));
    for (const double sum : mean) {
      layer.k_mean.push_back(static_cast<float>(sum / static_cast<double>(keys)));
    }
    // The prefix's entries were learned as the float model has them; the cache of the quantized
    // model holds them minus the mean and rotated.
    to_cache_form(layer.prefix_k, config_, recipe_.kv, layer.k_mean);
    return float_statistics_->finish();
  }

  void add_statistics(StatisticsCollector& statistics, const CalibrationStream& stream,
                      InputSite site, const Activations& input, int64_t rows) const {
    const bool routed =
        config_.experts > 0 && (site == InputSite::kGateUp || site == InputSite::kDown);
    statistics.add(site, input, rows, routed ? stream.expert_offsets() : std::vector<int32_t>());
  }

  std::vector<float> projected_keys(const CalibrationStream& stream) const {
    return stream.projected(config_.heads * config_.head_dim, config_.kv_heads * config_.head_dim);
  }

  Status learn_prefix(PackedLayer& layer, const LayerWeights& weights) {
    std::vector<float> keys;
    const SiteHook hook = [&](InputSite site, Activations&, int64_t) {
      if (site != InputSite::kO) return;
      keys = projected_keys(*prefix_stream_);
      if (recipe_.kv.pre_rope) {
        layer.prefix_k = keys;
        finish_keys(layer.prefix_k, layer, config_, cos_sin_, false);
      }
      finish_keys(keys, layer, config_, cos_sin_, true);
      layer.prefix_v =
          prefix_stream_->projected((config_.heads + config_.kv_heads) * config_.head_dim,
                                    config_.kv_heads * config_.head_dim);
    };
    Progress silent("", 1, false);
    ATOM_TRY(prefix_stream_->run(weights, true, hook, silent));
    float_stream_->set_prefix(keys, layer.prefix_v);
    if (!recipe_.kv.pre_rope) layer.prefix_k = std::move(keys);
    return {};
  }

  // Experts that the text hardly reached: gate and up are fitted to what the others were given, and
  // down, whose input no other expert has, is rounded to nearest.
  void replace_poor_statistics(int64_t index, LayerStatistics& statistics) const {
    std::string poor;
    std::optional<SiteStatistics> shared;
    for (size_t e = 0; e < statistics.mlps.size(); ++e) {
      MlpStatistics& mlp = statistics.mlps[e];
      if (mlp.rows >= kFewestExpertRows) continue;
      if (!shared) shared = statistics.gate_up();
      poor += fmt::format("{}{} ({})", poor.empty() ? "" : ", ", e, mlp.rows);
      mlp.gate_up = *shared;
      mlp.down = {};
    }
    if (poor.empty()) return;
    log_warning(
        "layer {}: experts that fewer than {} calibration tokens went through: {}; their gate and "
        "up use the statistics of all experts, their down is rounded to nearest",
        index, kFewestExpertRows, poor);
  }

  // Float weights, inputs quantized as the recipe says: what the Hessians of GPTQ are made of.
  Result<LayerStatistics> quantized_pass(int64_t index, const PackedLayer& layer,
                                         Progress& progress) {
    PackedLayer mixed = layer;
    for (const auto& [site, mlp, linear] : linears_of(mixed)) {
      const LinearFormat target = ATOM_TRY(recipe_.format_for(site, index, linear->cols));
      linear->format.act = target.act;
      linear->format.weight.group = target.weight.group;
      linear->format.weight.outliers = target.weight.outliers;
      linear->format.weight.outlier_kind = target.weight.outlier_kind;
    }
    const LayerWeights weights = ATOM_TRY(load_layer(backend_, mixed));
    if (prefix_stream_) quantized_stream_->set_prefix(layer.prefix_k, layer.prefix_v);
    ATOM_TRY(quantized_statistics_->begin());
    const SiteHook hook = [&](InputSite site, Activations& input, int64_t tokens) {
      add_statistics(*quantized_statistics_, *quantized_stream_, site, input, tokens);
    };
    ATOM_TRY(quantized_stream_->run(weights, false, hook, progress));
    return quantized_statistics_->finish();
  }

  // Hessians are given back as they are used.
  Result<PackedLayer> quantize_linears(int64_t index, PackedLayer& layer,
                                       LayerStatistics& statistics) {
    PackedLayer quantized;
    static_cast<LayerVectors&>(quantized) = layer;
    quantized.router = layer.router;
    quantized.mlps.resize(layer.mlps.size());
    const std::vector<LinearSpec> names = layer_linears(config_, index);
    const std::vector<SiteLinear> from = linears_of(layer), to = linears_of(quantized);
    Factor factor;
    for (size_t i = 0; i < from.size(); ++i) {
      const auto [site, mlp, linear] = from[i];
      SiteStatistics& site_statistics = statistics.of(site, mlp);
      WeightQuantSpec how;
      how.format = ATOM_TRY(recipe_.format_for(site, index, linear->cols));
      how.scale_rule = recipe_.scale_rule;
      how.clip = recipe_.clip;
      if (i == 0 || site != from[i - 1].site || mlp != from[i - 1].mlp) {
        factor = Factor();
        if (recipe_.gptq) factor = ATOM_TRY(factor_of(site_statistics));
        if (factor.host) std::vector<float>().swap(site_statistics.hessian);
      }
      PackedLinear packed = ATOM_TRY(codes_of(*linear, how, factor, site_statistics.energy));
      packed.bias = linear->bias;
      ATOM_TRY(validate(packed).with_context(names[i].name));
      const Timer timer(report_.seconds.report);
      report_.linears.push_back(
          {.name = names[i].name,
           .format = describe(how.format),
           .bits = effective_bits(how.format.weight, linear->cols),
           .weights = linear->rows * linear->cols,
           .error = weighted_error(linear->values, packed, site_statistics.energy)});
      *to[i].linear = std::move(packed);
      ATOM_TRY(check_interrupted());  // of a large model one linear takes seconds on the CPU
    }
    return quantized;
  }

  // Of a site's Hessian, where there is one: on the host or on the device.
  struct Factor {
    std::optional<GptqFactor> host;
    std::unique_ptr<HessianFactor> device;
  };
  Result<Factor> factor_of(const SiteStatistics& statistics) {
    const Timer timer(report_.seconds.factor);
    Factor factor;
    if (statistics.gram != nullptr) {
      factor.device = ATOM_TRY(device_->factor({.gram = statistics.gram,
                                                .order = statistics.order,
                                                .divisors = statistics.divisors,
                                                .damping = recipe_.damping}));
    } else if (!statistics.hessian.empty()) {
      const auto channels = static_cast<int64_t>(statistics.energy.size());
      factor.host = ATOM_TRY(factor_hessian(statistics.hessian, channels, recipe_.damping));
    }
    return factor;
  }

  Result<PackedLinear> codes_of(const PackedLinear& linear, const WeightQuantSpec& how,
                                const Factor& factor, std::span<const float> importance) {
    const Timer timer(report_.seconds.codes);
    if (device_ != nullptr && !factor.host && how.format.weight.kind != WeightKind::kFloat) {
      return device_->quantize({.weights = linear.values,
                                .rows = linear.rows,
                                .cols = linear.cols,
                                .spec = how,
                                .factor = factor.device.get(),
                                .importance = importance});
    }
    return quantize_weights(linear.values, linear.rows, linear.cols, how,
                            factor.host ? &*factor.host : nullptr, importance);
  }

  struct SiteLinear {
    InputSite site;
    size_t mlp;
    PackedLinear* linear;
  };
  // In the order of layer_linears().
  static std::vector<SiteLinear> linears_of(PackedLayer& layer) {
    std::vector<SiteLinear> linears = {{InputSite::kQkv, 0, &layer.q},
                                       {InputSite::kQkv, 0, &layer.k},
                                       {InputSite::kQkv, 0, &layer.v},
                                       {InputSite::kO, 0, &layer.o}};
    for (size_t e = 0; e < layer.mlps.size(); ++e) {
      linears.push_back({InputSite::kGateUp, e, &layer.mlps[e].gate});
      linears.push_back({InputSite::kGateUp, e, &layer.mlps[e].up});
      linears.push_back({InputSite::kDown, e, &layer.mlps[e].down});
    }
    return linears;
  }

  const ModelSource& source_;
  Backend& backend_;
  const Recipe& recipe_;
  const ModelConfig& config_;
  QuantizedModelSink& sink_;
  DeviceQuantizer* const device_;  // null: codes are found on the host
  const bool quantized_inputs_;
  QuantizeReport report_;
  std::vector<std::vector<int32_t>> windows_, prefix_window_;
  std::unique_ptr<CalibrationStream> float_stream_, quantized_stream_, prefix_stream_;
  std::optional<StatisticsCollector> float_statistics_, quantized_statistics_;
  std::vector<float> cos_sin_;
  std::future<Result<PackedLayer>> next_layer_;  // being read
};

}  // namespace

double QuantizeReport::effective_bits() const {
  double bits = 0, weights = 0;
  for (const LinearReport& linear : linears) {
    bits += linear.bits * static_cast<double>(linear.weights);
    weights += static_cast<double>(linear.weights);
  }
  return weights == 0 ? 0 : bits / weights;
}

Result<std::vector<int32_t>> prefix_tokens_for(const Recipe& recipe, const ModelConfig& config) {
  std::vector<int32_t> tokens = recipe.prefix_tokens;
  if (tokens.empty() && recipe.bos_prefix) {
    if (config.bos_id < 0) {
      return error(ErrorCode::kInvalidArgument,
                   "{}: prefix is 'bos', but the model names no BOS token; give token ids",
                   recipe.name);
    }
    tokens.push_back(config.bos_id);
  }
  for (const int32_t token : tokens) {
    if (token < 0 || token >= config.vocab) {
      return error(ErrorCode::kInvalidArgument,
                   "{}: prefix token {} is not in the vocabulary of {}", recipe.name, token,
                   config.vocab);
    }
  }
  return tokens;
}

Result<QuantizeReport> quantize_model(const ModelSource& source, Backend& backend,
                                      const Recipe& recipe, std::span<const int32_t> tokens,
                                      QuantizedModelSink& sink, bool show_progress) {
  return ModelQuantizer(source, backend, recipe, sink).run(tokens, show_progress);
}

}  // namespace atom
