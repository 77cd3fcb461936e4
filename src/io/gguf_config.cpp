#include "io/gguf_config.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/printable.h"
#include "io/model_tensors.h"

namespace atom {
namespace {

struct NamePair {
  std::string_view gguf, hugging_face;
};
constexpr NamePair kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr NamePair kLayerNames[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},       {"ffn_gate_inp", "block_sparse_moe.gate"}};
// Of an expert: "ffn_gate_exps" has those of all, older files have "ffn_gate.0", "ffn_gate.1", ...
constexpr NamePair kExpertNames[] = {{"ffn_gate", "w1"}, {"ffn_up", "w3"}, {"ffn_down", "w2"}};

Result<ModelFamily> parse_family(const GgufFile& file) {
  const std::string name = ATOM_TRY(file.get_string("general.architecture"));
  if (name == "llama") return ModelFamily::kLlama;
  if (name == "qwen2") return ModelFamily::kQwen2;
  if (name == "qwen3") return ModelFamily::kQwen3;
  return error(ErrorCode::kUnsupported,
               "{}: metadata 'general.architecture': '{}' is not supported (llama, qwen2 and qwen3 "
               "are)",
               file.origin(), printable(name));
}

Status parse_rope_scaling(const GgufFile& file, const std::string& prefix, RopeConfig& rope) {
  const std::string scaling = prefix + "rope.scaling.";
  const std::string old_factor_key = prefix + "rope.scale_linear";
  const bool old_spelling = !file.has(scaling + "factor") && file.has(old_factor_key);
  rope.factor = ATOM_TRY(file.get_number(old_spelling ? old_factor_key : scaling + "factor", 1.0));
  const std::string type = ATOM_TRY(file.get_string(scaling + "type", "linear"));
  if (type == "none" || (type == "linear" && (rope.factor == 1.0 || rope.factor == 0.0))) {
    rope.factor = 1.0;
    return {};
  }
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    return {};
  }
  if (type != "yarn") {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}type': '{}' is not supported (none, linear and yarn are)",
                 file.origin(), scaling, printable(type));
  }
  rope.scaling = RopeScaling::kYarn;
  rope.original_context =
      ATOM_TRY(file.get_int(scaling + "original_context_length", 1, kMaxConfigSize));
  rope.beta_fast = ATOM_TRY(file.get_number(scaling + "yarn_beta_fast", 32.0));
  rope.beta_slow = ATOM_TRY(file.get_number(scaling + "yarn_beta_slow", 1.0));
  // "yarn_attn_factor" is Hugging Face's attention_factor; "attn_factor" multiplies the usual one.
  rope.attention_factor = ATOM_TRY(file.get_number(scaling + "yarn_attn_factor", 0.0));
  const double extra = ATOM_TRY(file.get_number(scaling + "attn_factor", 1.0));
  if (extra != 1.0 && rope.attention_factor == 0.0) {
    rope.attention_factor = extra * (0.1 * std::log(rope.factor) + 1.0);
  }
  const double ext_factor = ATOM_TRY(file.get_number(scaling + "yarn_ext_factor", 1.0));
  if (ext_factor != 1.0 && ext_factor >= 0.0) {  // negative: not set
    return error(ErrorCode::kUnsupported, "{}: metadata '{}yarn_ext_factor': {} is not supported",
                 file.origin(), scaling, ext_factor);
  }
  const double log_multiplier = ATOM_TRY(file.get_number(scaling + "yarn_log_multiplier", 0.0));
  if (log_multiplier != 0.0) {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}yarn_log_multiplier': {} is not supported", file.origin(),
                 scaling, log_multiplier);
  }
  return {};
}

Status parse_rope(const GgufFile& file, const std::string& prefix, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  rope.theta = ATOM_TRY(file.get_number(prefix + "rope.freq_base", 10000.0));
  rope.rotary_dim =
      ATOM_TRY(file.get_int(prefix + "rope.dimension_count", 2, kMaxConfigSize, config.head_dim));
  if (prefix == "llama." && rope.rotary_dim != config.head_dim) {
    // The permutation of q and k rows in llama files is defined for whole heads only.
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}rope.dimension_count': {} of a head's {} channels: partial "
                 "rotation is not supported for llama files",
                 file.origin(), prefix, rope.rotary_dim, config.head_dim);
  }
  ATOM_TRY(parse_rope_scaling(file, prefix, rope));
  const auto factors = file.tensors().find(kGgufRopeFactors);
  if (factors == file.tensors().end()) return {};
  const GgufTensor& tensor = factors->second;
  if (tensor.shape.size() != 1 || tensor.shape[0] != rope.rotary_dim / 2) {
    return error(ErrorCode::kCorrupt, "{}: tensor '{}': expected {} values", file.origin(),
                 kGgufRopeFactors, rope.rotary_dim / 2);
  }
  rope.freq_factors.resize(static_cast<size_t>(tensor.shape[0]));
  GgufFile::decode_rows(tensor, 0, 1, rope.freq_factors.data());
  return {};
}

Status parse_attention(const GgufFile& file, const std::string& prefix, ModelConfig& config) {
  const std::string attention = prefix + "attention.";
  config.heads = ATOM_TRY(file.get_int(attention + "head_count", 1, kMaxConfigSize));
  config.kv_heads =
      ATOM_TRY(file.get_int(attention + "head_count_kv", 1, kMaxConfigSize, config.heads));
  config.head_dim = ATOM_TRY(
      file.get_int(attention + "key_length", 1, kMaxConfigSize, config.hidden / config.heads));
  const int64_t value_length =
      ATOM_TRY(file.get_int(attention + "value_length", 1, kMaxConfigSize, config.head_dim));
  if (value_length != config.head_dim) {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}value_length': {} differs from the key length {}", file.origin(),
                 attention, value_length, config.head_dim);
  }
  config.norm_eps = ATOM_TRY(file.get_number(attention + "layer_norm_rms_epsilon"));
  config.sliding_window =
      ATOM_TRY(file.get_int(attention + "sliding_window", 0, kMaxConfigSize, 0));
  // A llama with a window is what Hugging Face calls mistral.
  if (config.sliding_window > 0 && config.family == ModelFamily::kLlama) {
    config.family = ModelFamily::kMistral;
  }
  if (file.has(attention + "sliding_window_pattern")) {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}sliding_window_pattern': layers with different windows are not "
                 "supported",
                 file.origin(), attention);
  }
  const auto has_tensor = [&](const char* name) {
    return file.tensors().find(std::string_view(name)) != file.tensors().end();
  };
  config.qkv_bias = has_tensor("blk.0.attn_q.bias");
  config.o_bias = has_tensor("blk.0.attn_output.bias");
  config.mlp_bias = has_tensor("blk.0.ffn_down.bias");
  config.qk_norm = has_tensor("blk.0.attn_q_norm.weight");
  return {};
}

// A llama with experts is what Hugging Face calls mixtral: a softmax over all experts' scores, of
// which the largest are used and made to sum to one. Other ways to mix are refused.
Status parse_experts(const GgufFile& file, const std::string& prefix, ModelConfig& config) {
  config.experts = ATOM_TRY(file.get_int(prefix + "expert_count", 0, kMaxConfigSize, 0));
  if (config.experts == 0) return {};
  if (config.family != ModelFamily::kLlama) {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata '{}expert_count': {}: mixtures of experts are supported for llama "
                 "files only",
                 file.origin(), prefix, config.experts);
  }
  config.family = ModelFamily::kMixtral;
  config.active_experts = ATOM_TRY(file.get_int(prefix + "expert_used_count", 1, kMaxConfigSize));
  struct Switch {
    const char* key;
    double usual;
  };
  constexpr Switch kSwitches[] = {{"expert_shared_count", 0},
                                  {"leading_dense_block_count", 0},
                                  {"expert_group_count", 0},
                                  {"expert_gating_func", 1},  // softmax
                                  {"expert_weights_scale", 1}};
  for (const auto& [key, usual] : kSwitches) {
    const double value = ATOM_TRY(file.get_number(prefix + key, usual));
    if (value == usual || value == 0) continue;  // 0: not set
    return error(ErrorCode::kUnsupported, "{}: metadata '{}{}': {} is not supported", file.origin(),
                 prefix, key, value);
  }
  const int64_t ffn =
      ATOM_TRY(file.get_int(prefix + "expert_feed_forward_length", 0, kMaxConfigSize, config.ffn));
  if (ffn > 0) config.ffn = ffn;
  return {};
}

Result<int32_t> token_id(const GgufFile& file, std::string_view key) {
  constexpr int64_t kNone = UINT32_MAX;  // how older files say that there is no such token
  const int64_t id = ATOM_TRY(file.get_int(key, -1, kNone, -1));
  if (id > INT32_MAX && id != kNone) {
    return error(ErrorCode::kCorrupt, "{}: metadata '{}': {} is not a token id", file.origin(), key,
                 id);
  }
  return id == kNone ? -1 : static_cast<int32_t>(id);
}

// The number that text begins with, taken off it.
std::optional<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (code != std::errc()) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

Result<std::optional<bool>> optional_bool(const GgufFile& file, std::string_view key) {
  if (!file.has(key)) return std::optional<bool>();
  return std::optional<bool>(ATOM_TRY(file.get_bool(key)));
}

}  // namespace

Result<ModelConfig> gguf_model_config(const GgufFile& file) {
  ModelConfig config;
  config.family = ATOM_TRY(parse_family(file));
  const std::string prefix = ATOM_TRY(file.get_string("general.architecture")) + ".";
  const int64_t parts = ATOM_TRY(file.get_int("split.count", 0, kMaxConfigSize, 1));
  if (parts > 1) {
    return error(ErrorCode::kUnsupported,
                 "{}: metadata 'split.count': {}: models split over several GGUF files are not "
                 "supported; merge them first",
                 file.origin(), parts);
  }
  config.layers = ATOM_TRY(file.get_int(prefix + "block_count", 1, kMaxConfigSize));
  config.hidden = ATOM_TRY(file.get_int(prefix + "embedding_length", 1, kMaxConfigSize));
  config.ffn = ATOM_TRY(file.get_int(prefix + "feed_forward_length", 1, kMaxConfigSize));
  config.context = ATOM_TRY(file.get_int(prefix + "context_length", 1, kMaxConfigSize));
  ATOM_TRY(parse_experts(file, prefix, config));
  ATOM_TRY(parse_attention(file, prefix, config));
  ATOM_TRY(parse_rope(file, prefix, config));
  const auto embeddings = file.tensors().find(std::string_view("token_embd.weight"));
  if (embeddings == file.tensors().end()) {
    return error(ErrorCode::kNotFound, "{}: tensor 'token_embd.weight' is missing", file.origin());
  }
  config.vocab = embeddings->second.shape[0];
  const int64_t vocab =
      ATOM_TRY(file.get_int(prefix + "vocab_size", 1, kMaxConfigSize, config.vocab));
  if (vocab != config.vocab) {
    return error(ErrorCode::kCorrupt,
                 "{}: metadata '{}vocab_size': {}, but 'token_embd.weight' has {} rows",
                 file.origin(), prefix, vocab, config.vocab);
  }
  config.tied_embeddings =
      file.tensors().find(std::string_view("output.weight")) == file.tensors().end();
  config.bos_id = ATOM_TRY(token_id(file, "tokenizer.ggml.bos_token_id"));
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
    const int32_t id = ATOM_TRY(token_id(file, key));
    const bool known =
        std::find(config.eos_ids.begin(), config.eos_ids.end(), id) != config.eos_ids.end();
    if (id >= 0 && !known) config.eos_ids.push_back(id);
  }
  ATOM_TRY(validate(config, file.origin()));
  return config;
}

Result<TextAssets> gguf_text_assets(const GgufFile& file) {
  const std::string prefix = "tokenizer.ggml.";
  TextAssets assets;
  assets.gguf_model = ATOM_TRY(file.get_string(prefix + "model"));
  assets.gguf_pre = ATOM_TRY(file.get_string(prefix + "pre", ""));
  assets.tokens = ATOM_TRY(file.get_strings(prefix + "tokens"));
  if (file.has(prefix + "scores")) assets.scores = ATOM_TRY(file.get_floats(prefix + "scores"));
  if (file.has(prefix + "token_type")) {
    assets.token_types = ATOM_TRY(file.get_ints(prefix + "token_type"));
  }
  if (file.has(prefix + "merges")) assets.merges = ATOM_TRY(file.get_strings(prefix + "merges"));
  for (const auto& [name, size] : {std::pair{"scores", assets.scores.size()},
                                   std::pair{"token_type", assets.token_types.size()}}) {
    if (size == 0 || size == assets.tokens.size()) continue;
    return error(ErrorCode::kCorrupt, "{}: metadata '{}{}': {} values for {} tokens", file.origin(),
                 prefix, name, size, assets.tokens.size());
  }
  assets.bos_id = ATOM_TRY(token_id(file, prefix + "bos_token_id"));
  assets.eos_id = ATOM_TRY(token_id(file, prefix + "eos_token_id"));
  assets.unk_id = ATOM_TRY(token_id(file, prefix + "unknown_token_id"));
  assets.pad_id = ATOM_TRY(token_id(file, prefix + "padding_token_id"));
  assets.add_bos = ATOM_TRY(optional_bool(file, prefix + "add_bos_token"));
  assets.add_eos = ATOM_TRY(optional_bool(file, prefix + "add_eos_token"));
  assets.add_space_prefix = ATOM_TRY(optional_bool(file, prefix + "add_space_prefix"));
  assets.chat_template = ATOM_TRY(file.get_string("tokenizer.chat_template", ""));
  return assets;
}

std::vector<std::string> hugging_face_names(std::string_view name, int64_t experts) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view suffix = name.substr(dot);  // ".weight" or ".bias"
  std::string_view stem = name.substr(0, dot);
  if (suffix != ".weight" && suffix != ".bias") return {};
  constexpr std::string_view kLayerPrefix = "blk.";
  if (!stem.starts_with(kLayerPrefix)) {
    for (const NamePair& pair : kModelNames) {
      if (pair.gguf == stem) return {fmt::format("{}{}", pair.hugging_face, suffix)};
    }
    return {};
  }
  stem.remove_prefix(kLayerPrefix.size());
  const std::optional<int64_t> layer = take_number(stem);
  if (!layer || !stem.starts_with('.')) return {};
  stem.remove_prefix(1);
  for (const NamePair& pair : kLayerNames) {
    if (pair.gguf == stem) {
      return {layer_tensor(*layer, fmt::format("{}{}", pair.hugging_face, suffix))};
    }
  }
  const auto expert_name = [&](int64_t expert, std::string_view linear) {
    return layer_tensor(*layer,
                        fmt::format("block_sparse_moe.experts.{}.{}{}", expert, linear, suffix));
  };
  for (const NamePair& pair : kExpertNames) {
    if (!stem.starts_with(pair.gguf)) continue;
    std::string_view rest = stem.substr(pair.gguf.size());
    std::vector<std::string> names;
    if (rest == "_exps") {
      for (int64_t e = 0; e < experts; ++e) names.push_back(expert_name(e, pair.hugging_face));
    } else if (rest.starts_with('.')) {
      rest.remove_prefix(1);
      const std::optional<int64_t> expert = take_number(rest);
      if (expert && rest.empty()) names.push_back(expert_name(*expert, pair.hugging_face));
    }
    return names;
  }
  return {};
}

}  // namespace atom
