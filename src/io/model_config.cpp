#include "io/model_config.h"

#include <cmath>

namespace atom {
namespace {

class Checker {
 public:
  explicit Checker(const std::string& origin) : origin_(origin) {}

  void range(const char* field, int64_t value, int64_t min, int64_t max) {
    if (value >= min && value <= max) return;
    fail(field, fmt::format("{} is not within {}..{}", value, min, max));
  }
  void range(const char* field, double value, double min, double max) {
    if (value >= min && value <= max) return;  // false for NaN
    fail(field, fmt::format("{} is not within {}..{}", value, min, max));
  }
  void require(bool condition, const char* field, const std::string& message) {
    if (!condition) fail(field, message);
  }
  bool ok() const { return status_.ok(); }
  Status status() const { return status_; }

 private:
  void fail(const char* field, const std::string& message) {
    if (!status_.ok()) return;  // the first finding is the one to report
    status_ = error(ErrorCode::kInvalidArgument, "{}: {}: {}", origin_, field, message);
  }
  const std::string& origin_;
  Status status_;
};

void check_rope(const RopeConfig& rope, int64_t head_dim, Checker& check) {
  check.range("rope theta", rope.theta, 1.0, 1e15);
  check.range("rotary channels", rope.rotary_dim, 2, head_dim);
  check.require(rope.rotary_dim % 2 == 0, "rotary channels",
                fmt::format("{} is odd", rope.rotary_dim));
  if (rope.scaling != RopeScaling::kNone) check.range("rope factor", rope.factor, 1.0, 1e6);
  if (rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn) {
    check.range("rope original context", rope.original_context, 1, int64_t{1} << 31);
  }
  if (rope.scaling == RopeScaling::kLlama3) {
    check.range("rope low_freq_factor", rope.low_freq_factor, 1e-6, 1e6);
    check.range("rope high_freq_factor", rope.high_freq_factor, 1e-6, 1e6);
    check.require(rope.low_freq_factor < rope.high_freq_factor, "rope high_freq_factor",
                  fmt::format("{} is not above low_freq_factor {}", rope.high_freq_factor,
                              rope.low_freq_factor));
  }
  if (rope.scaling == RopeScaling::kYarn) {
    check.range("rope beta_fast", rope.beta_fast, 1e-6, 1e6);
    check.range("rope beta_slow", rope.beta_slow, 1e-6, 1e6);
    check.range("rope attention_factor", rope.attention_factor, 0.0, 1e6);
  }
  if (rope.freq_factors.empty()) return;
  const auto wanted = static_cast<size_t>(rope.rotary_dim / 2);
  check.require(rope.freq_factors.size() == wanted, "rope frequency factors",
                fmt::format("{} values, expected {}", rope.freq_factors.size(), wanted));
  for (const float factor : rope.freq_factors) {
    check.range("rope frequency factor", static_cast<double>(factor), 1e-6, 1e9);
  }
}

void check_experts(const ModelConfig& config, Checker& check) {
  if (config.family != ModelFamily::kMixtral) {
    check.require(
        config.experts == 0, "experts",
        fmt::format("{} in a model of family {}", config.experts, family_name(config.family)));
    return;
  }
  check.range("experts", config.experts, 1, 256);
  check.range("experts a token", config.active_experts, 1, config.experts);
  // Bounds the list of a model's tensors, whatever its config.json says.
  check.range("experts in all layers", config.layers * config.experts, 1, 65536);
  check.require(!config.mlp_bias, "experts", "biases of experts are not supported");
}

}  // namespace

const char* family_name(ModelFamily family) {
  switch (family) {
    case ModelFamily::kLlama:
      return "llama";
    case ModelFamily::kMistral:
      return "mistral";
    case ModelFamily::kQwen2:
      return "qwen2";
    case ModelFamily::kQwen3:
      return "qwen3";
    case ModelFamily::kMixtral:
      return "mixtral";
  }
  return "?";
}

Status validate(const ModelConfig& config, const std::string& origin) {
  Checker check(origin);
  check.range("layers", config.layers, 1, 4096);
  check.range("hidden size", config.hidden, 1, int64_t{1} << 20);
  check.range("feed-forward size", config.ffn, 1, int64_t{1} << 22);
  check.range("attention heads", config.heads, 1, 4096);
  check.range("key/value heads", config.kv_heads, 1, 4096);
  check.range("head dimension", config.head_dim, 2, 4096);
  check.range("vocabulary size", config.vocab, 1, int64_t{1} << 24);
  check.range("context", config.context, 1, int64_t{1} << 31);
  check.range("sliding window", config.sliding_window, 0, int64_t{1} << 31);
  check.range("norm epsilon", config.norm_eps, 0.0, 1.0);
  if (!check.ok()) return check.status();
  check.require(
      config.heads % config.kv_heads == 0, "attention heads",
      fmt::format("{} is not a multiple of {} key/value heads", config.heads, config.kv_heads));
  check.require(config.head_dim % 2 == 0, "head dimension",
                fmt::format("{} is odd", config.head_dim));
  check_experts(config, check);
  check_rope(config.rope, config.head_dim, check);
  check.range("bos token", int64_t{config.bos_id}, -1, config.vocab - 1);
  for (const int32_t id : config.eos_ids) {
    check.range("eos token", int64_t{id}, 0, config.vocab - 1);
  }
  return check.status();
}

}  // namespace atom
