#include "io/hf_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace atom {
namespace {

Json base(const char* type) {
  return {{"model_type", type},       {"hidden_size", 64},
          {"intermediate_size", 128}, {"num_hidden_layers", 2},
          {"num_attention_heads", 4}, {"num_key_value_heads", 2},
          {"vocab_size", 100},        {"max_position_embeddings", 512}};
}

ModelConfig parse(const Json& json) { return parse_hf_config(json, "c").value(); }

Json with(const char* type, const Json& fields) {
  Json json = base(type);
  json.update(fields);
  return json;
}

std::string error_of(const char* type, const Json& fields) {
  return parse_hf_config(with(type, fields), "c").status().message();
}

TEST(HfConfig, DefaultsAreThoseOfTransformers) {
  const ModelConfig llama = parse(base("llama"));
  EXPECT_EQ(llama.norm_eps, 1e-6);
  EXPECT_EQ(llama.head_dim, 16);
  EXPECT_EQ(llama.rope.theta, 10000.0);
  EXPECT_EQ(llama.rope.rotary_dim, 16);
  EXPECT_FALSE(llama.tied_embeddings);
  EXPECT_TRUE(llama.eos_ids.empty());
  EXPECT_EQ(parse(base("mistral")).sliding_window, 4096);
  EXPECT_EQ(parse(with("mistral", {{"sliding_window", nullptr}})).sliding_window, 0);
  EXPECT_EQ(parse(base("qwen3")).head_dim, 128);
  EXPECT_TRUE(parse(base("qwen2")).qkv_bias);
  EXPECT_FALSE(parse(base("qwen2")).o_bias);
  Json no_groups = base("llama");
  no_groups.erase("num_key_value_heads");
  EXPECT_EQ(parse(no_groups).kv_heads, 4);
}

TEST(HfConfig, RopeInBothSpellings) {
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 128}};
  Json parameters = llama3;
  parameters["rope_theta"] = 5e5;
  const ModelConfig old_way = parse(with("llama", {{"rope_theta", 5e5}, {"rope_scaling", llama3}}));
  EXPECT_EQ(old_way, parse(with("llama", {{"rope_parameters", parameters}})));
  EXPECT_EQ(old_way.rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(old_way.rope.theta, 5e5);
  EXPECT_EQ(old_way.rope.original_context, 128);

  const ModelConfig linear =
      parse(with("llama", {{"rope_scaling", {{"type", "linear"}, {"factor", 2}}}}));
  EXPECT_EQ(linear.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear.rope.factor, 2.0);
  EXPECT_EQ(parse(with("llama", {{"rope_parameters",
                                  {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}}))
                .rope.rotary_dim,
            8);
}

TEST(HfConfig, Yarn) {
  Json yarn = {{"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 128}};
  RopeConfig rope = parse(with("qwen2", {{"rope_scaling", yarn}})).rope;
  EXPECT_EQ(rope.scaling, RopeScaling::kYarn);
  EXPECT_EQ(rope.beta_fast, 32.0);
  EXPECT_EQ(rope.beta_slow, 1.0);
  EXPECT_EQ(rope.attention_factor, 0.0);
  yarn["mscale"] = 0.707;
  yarn["mscale_all_dim"] = 1.0;
  rope = parse(with("qwen2", {{"rope_scaling", yarn}})).rope;
  EXPECT_DOUBLE_EQ(rope.attention_factor,
                   (0.0707 * std::log(4.0) + 1.0) / (0.1 * std::log(4.0) + 1.0));
  yarn["attention_factor"] = 1.25;
  EXPECT_EQ(parse(with("qwen2", {{"rope_scaling", yarn}})).rope.attention_factor, 1.25);
  yarn.erase("original_max_position_embeddings");
  EXPECT_EQ(parse(with("qwen2", {{"rope_scaling", yarn}})).rope.original_context, 512);
  yarn["truncate"] = false;
  EXPECT_EQ(error_of("qwen2", {{"rope_scaling", yarn}}),
            "c: rope_scaling: truncate: false is not supported");
}

TEST(HfConfig, SlidingWindows) {
  EXPECT_EQ(parse(with("qwen2", {{"sliding_window", 8}})).sliding_window, 0);
  const Json used = {{"sliding_window", 8}, {"use_sliding_window", true}};
  Json all = used, none = used, some = used, listed = used;
  all["max_window_layers"] = 0;
  some["max_window_layers"] = 1;
  listed["layer_types"] = {"sliding_attention", "full_attention"};
  EXPECT_EQ(parse(with("qwen3", all)).sliding_window, 8);
  EXPECT_EQ(parse(with("qwen3", none)).sliding_window, 0);
  EXPECT_EQ(error_of("qwen3", some),
            "c: sliding_window: 1 of 2 layers use it: mixtures are not supported");
  EXPECT_EQ(error_of("qwen3", listed),
            "c: sliding_window: 1 of 2 layers use it: mixtures are not supported");
}

TEST(HfConfig, Experts) {
  const ModelConfig mixtral = parse(base("mixtral"));
  EXPECT_EQ(mixtral.experts, 8);
  EXPECT_EQ(mixtral.active_experts, 2);
  EXPECT_EQ(mixtral.sliding_window, 0);
  EXPECT_EQ(mixtral.norm_eps, 1e-5);
  EXPECT_EQ(mixtral.rope.theta, 1e6);
  EXPECT_EQ(parse(with("mixtral", {{"sliding_window", 64}})).sliding_window, 64);
  EXPECT_EQ(parse(base("llama")).experts, 0);
  EXPECT_EQ(error_of("mixtral", {{"num_local_experts", 0}}),
            "c: num_local_experts: 0 is not within 1..2147483647");
  EXPECT_EQ(error_of("mixtral", {{"num_local_experts", 1000000000}}),
            "c: experts: 1000000000 is not within 1..256");
  EXPECT_EQ(error_of("mixtral", {{"num_local_experts", "8"}}),
            "c: num_local_experts: expected an integer, found \"8\"");
  EXPECT_EQ(error_of("mixtral", {{"num_experts_per_tok", 9}}),
            "c: experts a token: 9 is not within 1..8");
  EXPECT_EQ(error_of("mixtral", {{"num_experts_per_tok", -1}}),
            "c: num_experts_per_tok: -1 is not within 1..2147483647");
  EXPECT_EQ(error_of("mixtral", {{"num_hidden_layers", 4096}, {"num_local_experts", 256}}),
            "c: experts in all layers: 1048576 is not within 1..65536");
  EXPECT_EQ(error_of("mixtral", {{"atom_model", {{"mlp_bias", true}}}}),
            "c: experts: biases of experts are not supported");
}

TEST(HfConfig, EndTokensComeFromBothFiles) {
  ModelConfig config = parse(with("llama", {{"eos_token_id", {7, 8}}}));
  EXPECT_EQ(config.eos_ids, (std::vector<int32_t>{7, 8}));
  ASSERT_TRUE(add_generation_config({{"eos_token_id", 9}}, "g", config).ok());
  ASSERT_TRUE(add_generation_config({{"eos_token_id", {8, 9}}}, "g", config).ok());
  EXPECT_EQ(config.eos_ids, (std::vector<int32_t>{7, 8, 9}));
  EXPECT_EQ(add_generation_config({{"eos_token_id", 100}}, "g", config).message(),
            "g: eos token: 100 is not within 0..99");
}

TEST(HfConfig, WhatWeDoNotDoIsRefusedByName) {
  EXPECT_EQ(
      error_of("gemma", Json::object()),
      "c: model_type: 'gemma' is not supported (llama, mistral, qwen2, qwen3 and mixtral are)");
  EXPECT_EQ(error_of("llama", {{"num_local_experts", 8}}),
            "c: num_local_experts: 8: mixtures of experts of family llama are not supported "
            "(mixtral's are)");
  EXPECT_EQ(error_of("llama", {{"architectures", {"LlamaForSequenceClassification"}}}),
            "c: architectures: LlamaForCausalLM is not among them");
  EXPECT_EQ(error_of("llama", {{"hidden_act", "gelu"}}),
            "c: hidden_act: 'gelu' is not supported (silu is)");
  EXPECT_EQ(error_of("llama", {{"rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}}}),
            "c: rope_scaling: type: 'dynamic' is not supported (default, linear, llama3 and yarn "
            "are)");
  EXPECT_EQ(error_of("qwen3", {{"rope_parameters", {{"full_attention", {{"rope_theta", 1e4}}}}}}),
            "c: rope_parameters: parameters for 'full_attention' alone: rotations that differ "
            "between layers are not supported");
}

TEST(HfConfig, ImpossibleValuesAreRefusedByName) {
  EXPECT_EQ(error_of("llama", {{"hidden_size", 0}}),
            "c: hidden_size: 0 is not within 1..2147483647");
  EXPECT_EQ(error_of("llama", {{"hidden_size", "64"}}),
            "c: hidden_size: expected an integer, found \"64\"");
  EXPECT_EQ(error_of("llama", {{"num_key_value_heads", 3}}),
            "c: attention heads: 4 is not a multiple of 3 key/value heads");
  EXPECT_EQ(error_of("llama", {{"head_dim", 15}}), "c: head dimension: 15 is odd");
  EXPECT_EQ(error_of("llama", {{"num_hidden_layers", 2000000000}}),
            "c: layers: 2000000000 is not within 1..4096");
  EXPECT_EQ(error_of("llama", {{"rms_norm_eps", -1}}), "c: norm epsilon: -1 is not within 0..1");
  EXPECT_EQ(error_of("llama", {{"rope_theta", 0}}),
            "c: rope theta: 0 is not within 1..1000000000000000");
  EXPECT_EQ(error_of("llama", {{"partial_rotary_factor", 1e9}}),
            "c: partial_rotary_factor: 1000000000 is not within 0..1");
  EXPECT_EQ(error_of("llama", {{"bos_token_id", 100}}), "c: bos token: 100 is not within -1..99");
  EXPECT_EQ(parse_hf_config(Json::array(), "c").status().message(),
            "c: expected an object, found []");
}

TEST(HfConfig, WhatWeWriteReadsBackEqual) {
  ModelConfig config = parse(base("llama"));
  const auto round_trip = [&] { return parse(hf_config_json(config)) == config; };
  EXPECT_TRUE(round_trip());
  EXPECT_FALSE(hf_config_json(config).contains("atom_model"));
  config.eos_ids = {3, 4};
  config.bos_id = 1;
  config.rope.theta = 123456.789;
  config.o_bias = config.qkv_bias = true;
  EXPECT_TRUE(round_trip());
  EXPECT_FALSE(hf_config_json(config).contains("atom_model"));
  config.o_bias = false;  // a llama of Hugging Face cannot have one without the other
  config.rope.freq_factors = {1.0f, 1.1f, 2.3f, 3.7f, 4.0f, 5.0f, 6.0f, 1.0f / 3};
  EXPECT_TRUE(round_trip());
  config = parse(with(
      "qwen3", {{"use_sliding_window", true}, {"sliding_window", 7}, {"max_window_layers", 0}}));
  EXPECT_EQ(config.sliding_window, 7);
  EXPECT_TRUE(round_trip());
  config.family = ModelFamily::kMistral;
  EXPECT_TRUE(round_trip());
  config.rope.scaling = RopeScaling::kYarn;
  config.rope.factor = 2.5;
  config.rope.original_context = 77;
  config.rope.attention_factor = 1.5;
  EXPECT_TRUE(round_trip());
  config = parse(with("mixtral", {{"num_local_experts", 5}, {"num_experts_per_tok", 3}}));
  EXPECT_TRUE(round_trip());
  EXPECT_FALSE(hf_config_json(config).contains("atom_model"));
}

}  // namespace
}  // namespace atom
