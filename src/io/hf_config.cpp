#include "io/hf_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/printable.h"

namespace atom {
namespace {

constexpr const char* kExtension = "atom_model";

Result<ModelFamily> parse_family(const JsonView& view) {
  const std::string type = ATOM_TRY(view.get_string("model_type"));
  for (const ModelFamily family : {ModelFamily::kLlama, ModelFamily::kMistral, ModelFamily::kQwen2,
                                   ModelFamily::kQwen3, ModelFamily::kMixtral}) {
    if (type == family_name(family)) return family;
  }
  return error(ErrorCode::kUnsupported,
               "{}: model_type: '{}' is not supported (llama, mistral, qwen2, qwen3 and mixtral "
               "are)",
               view.place(), printable(type));
}

const char* class_name(ModelFamily family) {
  switch (family) {
    case ModelFamily::kLlama:
      return "LlamaForCausalLM";
    case ModelFamily::kMistral:
      return "MistralForCausalLM";
    case ModelFamily::kQwen2:
      return "Qwen2ForCausalLM";
    case ModelFamily::kQwen3:
      return "Qwen3ForCausalLM";
    case ModelFamily::kMixtral:
      return "MixtralForCausalLM";
  }
  return "?";
}

// Refuses what we know of and do not do.
Status check_supported(const JsonView& view, ModelFamily family) {
  if (view.has("architectures")) {
    const JsonView list = ATOM_TRY(view.at("architectures"));
    bool found = false;
    for (size_t i = 0; i < list.size(); ++i) {
      found |= ATOM_TRY(ATOM_TRY(list.at(i)).as_string()) == class_name(family);
    }
    if (!found) {
      return error(ErrorCode::kUnsupported, "{}: architectures: {} is not among them", view.place(),
                   class_name(family));
    }
  }
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (family == ModelFamily::kMixtral) break;
    const int64_t experts = ATOM_TRY(view.get_int(key, 0, kMaxConfigSize, 0));
    if (experts > 0) {
      return error(ErrorCode::kUnsupported,
                   "{}: {}: {}: mixtures of experts of family {} are not supported (mixtral's are)",
                   view.place(), key, experts, family_name(family));
    }
  }
  const std::string activation = ATOM_TRY(view.get_string("hidden_act", "silu"));
  if (activation != "silu") {
    return error(ErrorCode::kUnsupported, "{}: hidden_act: '{}' is not supported (silu is)",
                 view.place(), printable(activation));
  }
  return {};
}

Status parse_yarn(const JsonView& scaling, RopeConfig& rope) {
  rope.beta_fast = ATOM_TRY(scaling.get_number("beta_fast", 32.0));
  rope.beta_slow = ATOM_TRY(scaling.get_number("beta_slow", 1.0));
  rope.attention_factor = ATOM_TRY(scaling.get_number("attention_factor", 0.0));
  const double mscale = ATOM_TRY(scaling.get_number("mscale", 0.0));
  const double mscale_all = ATOM_TRY(scaling.get_number("mscale_all_dim", 0.0));
  if (rope.attention_factor == 0.0 && mscale != 0.0 && mscale_all != 0.0) {
    const double log_factor = 0.1 * std::log(std::max(rope.factor, 1.0));
    rope.attention_factor = (mscale * log_factor + 1.0) / (mscale_all * log_factor + 1.0);
  }
  if (scaling.has("truncate") && !ATOM_TRY(scaling.get_bool("truncate", true))) {
    return error(ErrorCode::kUnsupported, "{}: truncate: false is not supported", scaling.place());
  }
  return {};
}

// The context before scaling: a field of the model where there is one, else of the scaling, else
// the model's context.
Result<int64_t> original_context(const JsonView& view, const JsonView& scaling, int64_t context) {
  constexpr const char* kKey = "original_max_position_embeddings";
  return (view.has(kKey) ? view : scaling).get_int(kKey, 1, kMaxConfigSize, context);
}

Status parse_rope_scaling(const JsonView& scaling, RopeConfig& rope) {
  const char* type_key = scaling.has("rope_type") ? "rope_type" : "type";
  const std::string type = ATOM_TRY(scaling.get_string(type_key, "default"));
  if (type == "default") return {};
  rope.factor = ATOM_TRY(scaling.get_number("factor"));
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
    return {};
  }
  if (type == "llama3") {
    rope.scaling = RopeScaling::kLlama3;
    rope.low_freq_factor = ATOM_TRY(scaling.get_number("low_freq_factor"));
    rope.high_freq_factor = ATOM_TRY(scaling.get_number("high_freq_factor"));
    return {};
  }
  if (type == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    return parse_yarn(scaling, rope);
  }
  return error(ErrorCode::kUnsupported,
               "{}: {}: '{}' is not supported (default, linear, llama3 and yarn are)",
               scaling.place(), type_key, printable(type));
}

// `rope_theta` and `rope_scaling` of old, or transformers 5's `rope_parameters` that holds both.
Status parse_rope(const JsonView& view, ModelConfig& config) {
  RopeConfig& rope = config.rope;
  const double class_default = config.family == ModelFamily::kMixtral ? 1e6 : 10000.0;
  rope.theta = ATOM_TRY(view.get_number("rope_theta", class_default));
  double partial = ATOM_TRY(view.get_number("partial_rotary_factor", 1.0));
  const char* key = view.has("rope_scaling") ? "rope_scaling" : "rope_parameters";
  if (view.has(key)) {
    const JsonView scaling = ATOM_TRY(view.at(key));
    for (const std::string& name : scaling.keys()) {
      if (ATOM_TRY(scaling.at(name)).is_object()) {
        return error(ErrorCode::kUnsupported,
                     "{}: parameters for '{}' alone: rotations that differ between layers are not "
                     "supported",
                     scaling.place(), printable(name));
      }
    }
    rope.theta = ATOM_TRY(scaling.get_number("rope_theta", rope.theta));
    partial = ATOM_TRY(scaling.get_number("partial_rotary_factor", partial));
    ATOM_TRY(parse_rope_scaling(scaling, rope));
    if (rope.scaling == RopeScaling::kLlama3 || rope.scaling == RopeScaling::kYarn) {
      rope.original_context = ATOM_TRY(original_context(view, scaling, config.context));
    }
  }
  if (!(partial > 0.0 && partial <= 1.0)) {
    return error(ErrorCode::kInvalidArgument, "{}: partial_rotary_factor: {} is not within 0..1",
                 view.place(), partial);
  }
  rope.rotary_dim = static_cast<int64_t>(static_cast<double>(config.head_dim) * partial);
  return {};
}

// Which layers look back only so far: none or all, else we refuse.
Result<int64_t> parse_sliding_window(const JsonView& view, ModelFamily family, int64_t layers) {
  if (family == ModelFamily::kLlama) return 0;
  const bool absent = !view.is_object() || !view.json().contains("sliding_window");
  const int64_t class_default = family == ModelFamily::kMixtral ? 0 : 4096;
  const int64_t window =
      absent ? class_default : ATOM_TRY(view.get_int("sliding_window", 0, kMaxConfigSize, 0));
  if (family == ModelFamily::kMistral || family == ModelFamily::kMixtral) {
    if (view.has("layer_types")) {
      return error(ErrorCode::kUnsupported, "{}: layer_types is not supported for {}", view.place(),
                   family_name(family));
    }
    return window;
  }
  if (!ATOM_TRY(view.get_bool("use_sliding_window", false)) || window == 0) return 0;
  int64_t sliding = 0;
  if (view.has("layer_types")) {
    const JsonView types = ATOM_TRY(view.at("layer_types"));
    if (static_cast<int64_t>(types.size()) != layers) {
      return error(ErrorCode::kCorrupt, "{}: layer_types: {} entries for {} layers", view.place(),
                   types.size(), layers);
    }
    for (size_t i = 0; i < types.size(); ++i) {
      sliding += ATOM_TRY(ATOM_TRY(types.at(i)).as_string()) == "sliding_attention" ? 1 : 0;
    }
  } else {
    const int64_t full = ATOM_TRY(view.get_int("max_window_layers", 0, kMaxConfigSize, 28));
    sliding = std::max<int64_t>(0, layers - full);
  }
  if (sliding != 0 && sliding != layers) {
    return error(ErrorCode::kUnsupported,
                 "{}: sliding_window: {} of {} layers use it: mixtures are not supported",
                 view.place(), sliding, layers);
  }
  return sliding == 0 ? 0 : window;
}

// An id, a list of ids, or null.
Status add_eos_ids(const JsonView& view, ModelConfig& config) {
  if (!view.has("eos_token_id")) return {};
  const JsonView value = ATOM_TRY(view.at("eos_token_id"));
  const auto add = [&](const JsonView& item) -> Status {
    const auto id = static_cast<int32_t>(ATOM_TRY(item.as_int(0, kMaxConfigSize)));
    std::vector<int32_t>& ids = config.eos_ids;
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    return {};
  };
  if (!value.is_array()) return add(value);
  for (size_t i = 0; i < value.size(); ++i) ATOM_TRY(add(ATOM_TRY(value.at(i))));
  return {};
}

Status parse_sizes(const JsonView& view, ModelConfig& config) {
  const bool qwen = config.family == ModelFamily::kQwen2 || config.family == ModelFamily::kQwen3;
  config.layers = ATOM_TRY(view.get_int("num_hidden_layers", 1, kMaxConfigSize));
  config.hidden = ATOM_TRY(view.get_int("hidden_size", 1, kMaxConfigSize));
  config.ffn = ATOM_TRY(view.get_int("intermediate_size", 1, kMaxConfigSize));
  config.heads = ATOM_TRY(view.get_int("num_attention_heads", 1, kMaxConfigSize));
  const bool kv_absent = !view.json().contains("num_key_value_heads");
  const int64_t class_default = qwen ? 32 : 8;  // transformers' defaults where the field is absent
  const int64_t kv_fallback =
      config.family == ModelFamily::kLlama || !kv_absent ? config.heads : class_default;
  config.kv_heads = ATOM_TRY(view.get_int("num_key_value_heads", 1, kMaxConfigSize, kv_fallback));
  const bool wide_heads = config.family == ModelFamily::kQwen3 && !view.json().contains("head_dim");
  config.head_dim = ATOM_TRY(
      view.get_int("head_dim", 1, kMaxConfigSize, wide_heads ? 128 : config.hidden / config.heads));
  config.vocab = ATOM_TRY(view.get_int("vocab_size", 1, kMaxConfigSize));
  config.context = ATOM_TRY(view.get_int("max_position_embeddings", 1, kMaxConfigSize));
  const bool mixtral = config.family == ModelFamily::kMixtral;
  config.norm_eps = ATOM_TRY(view.get_number("rms_norm_eps", mixtral ? 1e-5 : 1e-6));
  if (mixtral) {
    config.experts = ATOM_TRY(view.get_int("num_local_experts", 1, kMaxConfigSize, 8));
    config.active_experts = ATOM_TRY(view.get_int("num_experts_per_tok", 1, kMaxConfigSize, 2));
  }
  return {};
}

Status parse_switches(const JsonView& view, ModelConfig& config) {
  config.tied_embeddings = ATOM_TRY(view.get_bool("tie_word_embeddings", false));
  const bool bias = ATOM_TRY(view.get_bool("attention_bias", false));
  switch (config.family) {
    case ModelFamily::kLlama:
      config.qkv_bias = config.o_bias = bias;
      config.mlp_bias = ATOM_TRY(view.get_bool("mlp_bias", false));
      break;
    case ModelFamily::kMistral:
    case ModelFamily::kMixtral:
      break;
    case ModelFamily::kQwen2:
      config.qkv_bias = true;
      break;
    case ModelFamily::kQwen3:
      config.qkv_bias = config.o_bias = bias;
      config.qk_norm = true;
      break;
  }
  return {};
}

Status parse_extension(const JsonView& view, ModelConfig& config) {
  if (!view.has(kExtension)) return {};
  const JsonView ours = ATOM_TRY(view.at(kExtension));
  ATOM_TRY(ours.expect_keys({"qkv_bias", "o_bias", "mlp_bias", "qk_norm", "rotary_dim",
                             "rope_freq_factors", "sliding_window"}));
  config.qkv_bias = ATOM_TRY(ours.get_bool("qkv_bias", config.qkv_bias));
  config.o_bias = ATOM_TRY(ours.get_bool("o_bias", config.o_bias));
  config.mlp_bias = ATOM_TRY(ours.get_bool("mlp_bias", config.mlp_bias));
  config.qk_norm = ATOM_TRY(ours.get_bool("qk_norm", config.qk_norm));
  config.rope.rotary_dim =
      ATOM_TRY(ours.get_int("rotary_dim", 1, kMaxConfigSize, config.rope.rotary_dim));
  config.sliding_window =
      ATOM_TRY(ours.get_int("sliding_window", 0, kMaxConfigSize, config.sliding_window));
  if (!ours.has("rope_freq_factors")) return {};
  const JsonView factors = ATOM_TRY(ours.at("rope_freq_factors"));
  for (size_t i = 0; i < factors.size(); ++i) {
    config.rope.freq_factors.push_back(
        static_cast<float>(ATOM_TRY(ATOM_TRY(factors.at(i)).as_number())));
  }
  return {};
}

Json rope_scaling_json(const RopeConfig& rope) {
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeScaling::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_freq_factor},
              {"high_freq_factor", rope.high_freq_factor},
              {"original_max_position_embeddings", rope.original_context}};
    case RopeScaling::kYarn: {
      Json yarn = {{"rope_type", "yarn"},
                   {"factor", rope.factor},
                   {"beta_fast", rope.beta_fast},
                   {"beta_slow", rope.beta_slow},
                   {"original_max_position_embeddings", rope.original_context}};
      if (rope.attention_factor != 0.0) yarn["attention_factor"] = rope.attention_factor;
      return yarn;
    }
  }
  return nullptr;
}

}  // namespace

Result<ModelConfig> parse_hf_config(const Json& document, const std::string& origin) {
  const JsonView view(document, origin);
  ModelConfig config;
  config.family = ATOM_TRY(parse_family(view));
  ATOM_TRY(check_supported(view, config.family));
  ATOM_TRY(parse_sizes(view, config));
  ATOM_TRY(parse_switches(view, config));
  ATOM_TRY(parse_rope(view, config));
  config.sliding_window = ATOM_TRY(parse_sliding_window(view, config.family, config.layers));
  config.bos_id =
      static_cast<int32_t>(ATOM_TRY(view.get_int("bos_token_id", 0, kMaxConfigSize, -1)));
  ATOM_TRY(add_eos_ids(view, config));
  ATOM_TRY(parse_extension(view, config));
  ATOM_TRY(validate(config, origin));
  return config;
}

Status add_generation_config(const Json& document, const std::string& origin, ModelConfig& config) {
  ATOM_TRY(add_eos_ids(JsonView(document, origin), config));
  return validate(config, origin);
}

Json hf_config_json(const ModelConfig& c) {
  Json json = {{"architectures", {class_name(c.family)}},
               {"model_type", family_name(c.family)},
               {"hidden_act", "silu"},
               {"num_hidden_layers", c.layers},
               {"hidden_size", c.hidden},
               {"intermediate_size", c.ffn},
               {"num_attention_heads", c.heads},
               {"num_key_value_heads", c.kv_heads},
               {"head_dim", c.head_dim},
               {"vocab_size", c.vocab},
               {"max_position_embeddings", c.context},
               {"rms_norm_eps", c.norm_eps},
               {"tie_word_embeddings", c.tied_embeddings},
               {"rope_theta", c.rope.theta},
               {"rope_scaling", rope_scaling_json(c.rope)},
               {"eos_token_id", c.eos_ids}};
  json["bos_token_id"] = c.bos_id >= 0 ? Json(c.bos_id) : Json(nullptr);
  if (c.family == ModelFamily::kLlama) {
    json["attention_bias"] = c.qkv_bias && c.o_bias;
    json["mlp_bias"] = c.mlp_bias;
  } else if (c.family == ModelFamily::kQwen3) {
    json["attention_bias"] = c.qkv_bias && c.o_bias;
  }
  if (c.family != ModelFamily::kLlama) {
    json["sliding_window"] = c.sliding_window > 0 ? Json(c.sliding_window) : Json(nullptr);
  }
  if (c.family == ModelFamily::kQwen2 || c.family == ModelFamily::kQwen3) {
    json["use_sliding_window"] = c.sliding_window > 0;
    json["max_window_layers"] = c.sliding_window > 0 ? 0 : c.layers;
  }
  if (c.family == ModelFamily::kMixtral) {
    json["num_local_experts"] = c.experts;
    json["num_experts_per_tok"] = c.active_experts;
  }
  const Result<ModelConfig> plain = parse_hf_config(json, "synthesised config");
  if (plain.ok() && *plain == c) return json;
  Json extension = {{"qkv_bias", c.qkv_bias},          {"o_bias", c.o_bias},
                    {"mlp_bias", c.mlp_bias},          {"qk_norm", c.qk_norm},
                    {"rotary_dim", c.rope.rotary_dim}, {"sliding_window", c.sliding_window}};
  if (!c.rope.freq_factors.empty()) extension["rope_freq_factors"] = c.rope.freq_factors;
  json[kExtension] = extension;
  return json;
}

}  // namespace atom
