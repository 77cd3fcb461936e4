#include "io/model_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "io/gguf_bytes.h"
#include "io/hf_config.h"
#include "io/test_files.h"

namespace atom {
namespace {

using testing::as_bytes;
using testing::data_path;
using testing::exact_copy;
using testing::GgufBytes;
using testing::read_data;
using testing::TempFolder;

std::vector<float> read_all(const ModelSource& source, const std::string& name) {
  int64_t elements = 1;
  for (const int64_t size : source.shape(name).value()) elements *= size;
  std::vector<float> values(static_cast<size_t>(elements), NAN);
  EXPECT_TRUE(source.read(name, values).ok());
  return values;
}

class BothForms : public ::testing::TestWithParam<const char*> {};

TEST_P(BothForms, HoldTheSameWeights) {
  const std::string family = GetParam();
  const auto folder = open_model_source(data_path(family)).value();
  const auto file = open_model_source(data_path(family + ".gguf")).value();
  for (const TensorSpec& tensor : model_tensors(folder->config())) {
    EXPECT_EQ(folder->shape(tensor.name).value(), tensor.shape);
    EXPECT_EQ(file->shape(tensor.name).value(), tensor.shape);
    EXPECT_EQ(folder->stored_type(tensor.name).value(), "BF16");
    EXPECT_EQ(read_all(*folder, tensor.name), read_all(*file, tensor.name)) << tensor.name;
  }
  EXPECT_EQ(file->stored_type(layer_tensor(0, "self_attn.v_proj.weight")).value(), "BF16");
  EXPECT_EQ(file->stored_type(layer_tensor(0, "self_attn.q_proj.weight")).value(), "F32");
}

TEST_P(BothForms, SayTheSameConfiguration) {
  const std::string family = GetParam();
  ModelConfig folder = open_model_source(data_path(family)).value()->config();
  ModelConfig file = open_model_source(data_path(family + ".gguf")).value()->config();
  EXPECT_EQ(family_name(folder.family), family);
  if (family == "llama") {  // the folder has the rule, the file the frequencies it leads to
    EXPECT_EQ(folder.rope.scaling, RopeScaling::kLlama3);
    EXPECT_EQ(file.rope.freq_factors.size(), 2u);
    folder.rope = file.rope = RopeConfig{};
  }
  EXPECT_EQ(folder, file);
  EXPECT_EQ(folder.eos_ids, (std::vector<int32_t>{2, 3}));
}

TEST_P(BothForms, ConfigJsonSaysTheConfiguration) {
  for (const char* form : {"", ".gguf"}) {
    const auto source = open_model_source(data_path(std::string(GetParam()) + form)).value();
    const Json json = parse_json(source->config_json(), "config.json").value();
    EXPECT_EQ(parse_hf_config(json, "config.json").value(), source->config());
  }
}

INSTANTIATE_TEST_SUITE_P(ModelSource, BothForms,
                         ::testing::Values("llama", "mistral", "qwen2", "qwen3", "mixtral"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ModelSource, ConfigurationsOfTheFamilies) {
  const ModelConfig llama = open_model_source(data_path("llama")).value()->config();
  EXPECT_EQ(llama.layers, 2);
  EXPECT_EQ(llama.hidden, 16);
  EXPECT_EQ(llama.ffn, 24);
  EXPECT_EQ(llama.heads, 4);
  EXPECT_EQ(llama.kv_heads, 2);
  EXPECT_EQ(llama.head_dim, 4);
  EXPECT_EQ(llama.vocab, 32);
  EXPECT_EQ(llama.context, 64);
  EXPECT_EQ(llama.norm_eps, 1e-5);
  EXPECT_EQ(llama.rope.theta, 5e5);
  EXPECT_EQ(llama.rope.factor, 8.0);
  EXPECT_EQ(llama.rope.original_context, 32);
  EXPECT_EQ(llama.sliding_window, 0);
  EXPECT_EQ(open_model_source(data_path("mistral.gguf")).value()->config().sliding_window, 16);
  const ModelConfig qwen2 = open_model_source(data_path("qwen2.gguf")).value()->config();
  EXPECT_TRUE(qwen2.tied_embeddings && qwen2.qkv_bias && !qwen2.o_bias && !qwen2.qk_norm);
  EXPECT_EQ(qwen2.rope.scaling, RopeScaling::kYarn);
  const ModelConfig qwen3 = open_model_source(data_path("qwen3.gguf")).value()->config();
  EXPECT_TRUE(!qwen3.tied_embeddings && !qwen3.qkv_bias && qwen3.qk_norm);
  EXPECT_EQ(qwen3.head_dim, 8);
  const ModelConfig mixtral = open_model_source(data_path("mixtral.gguf")).value()->config();
  EXPECT_EQ(mixtral.experts, 3);
  EXPECT_EQ(mixtral.active_experts, 2);
}

TEST(ModelSource, TextAssets) {
  const TextAssets folder = open_model_source(data_path("llama")).value()->text_assets().value();
  EXPECT_EQ(folder.tokenizer_json, "{}\n");
  EXPECT_EQ(folder.chat_template, "{{ x }}");  // the one named default
  const TextAssets file = open_model_source(data_path("llama.gguf")).value()->text_assets().value();
  EXPECT_EQ(file.gguf_model, "gpt2");
  EXPECT_EQ(file.gguf_pre, "smollm");
  EXPECT_EQ(file.tokens.size(), 32u);
  EXPECT_EQ(file.tokens[31], "t31");
  EXPECT_EQ(file.token_types.size(), 32u);
  EXPECT_EQ(file.merges, (std::vector<std::string>{"a b", "c d"}));
  EXPECT_EQ(file.bos_id, 1);
  EXPECT_EQ(file.eos_id, 2);
  EXPECT_EQ(file.unk_id, -1);
  EXPECT_EQ(file.add_bos, std::optional<bool>(false));
  EXPECT_EQ(file.add_eos, std::nullopt);
  EXPECT_EQ(file.chat_template, "{{ x }}");
}

TEST(ModelSource, WrongRequestsAreErrors) {
  const auto source = open_model_source(data_path("llama.gguf")).value();
  std::vector<float> few(3);
  EXPECT_EQ(source->read("model.norm.weight", few).message(),
            source->origin() + ": tensor 'model.norm.weight': 16 values, not 3");
  EXPECT_EQ(source->read("none", few).message(), source->origin() + ": tensor 'none' is missing");
  EXPECT_FALSE(source->has("none"));
  EXPECT_EQ(open_model_source("/nowhere/x.gguf").status().message(),
            "/nowhere/x.gguf: cannot open: No such file or directory");
}

TEST(ModelSource, EveryTruncationOfAModelIsAnError) {
  const std::string whole = read_data("llama.gguf");
  for (size_t size = 0; size < whole.size(); size += size < 4096 ? 1 : 101) {
    const std::vector<std::byte> part = exact_copy(as_bytes(whole).first(size));
    EXPECT_FALSE(open_gguf_source(part, "f").ok()) << size;
  }
}

// The bytes of a file with every occurrence of one string replaced by another of its length.
std::string altered_error(const std::string& from, const std::string& to,
                          const std::string& file = "llama.gguf") {
  std::string text = read_data(file);
  EXPECT_EQ(from.size(), to.size());
  EXPECT_NE(text.find(from), std::string::npos);
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + 1)) {
    text.replace(at, from.size(), to);
  }
  return open_gguf_source(as_bytes(text), "f").status().message();
}

TEST(ModelSource, GgufThatIsNoModelOfOursIsRefused) {
  EXPECT_EQ(altered_error("general.architecture", "general.architektur_"),
            "f: metadata 'general.architecture' is missing");
  EXPECT_EQ(altered_error("llama.block_count", "llama.block_kount"),
            "f: metadata 'llama.block_count' is missing");
  EXPECT_EQ(altered_error("blk.1.attn_q.weight", "blk.1.attn_Q.weight"),
            "f: tensor 'blk.1.attn_Q.weight': not known in a llama model");
  EXPECT_EQ(altered_error("blk.1.attn_q.weight", "blk.2.attn_q.weight"),
            "f: tensor 'model.layers.1.self_attn.q_proj.weight' is missing");
  EXPECT_EQ(altered_error("token_embd.weight", "token_embX.weight"),
            "f: tensor 'token_embd.weight' is missing");
  const auto minimal = [](const std::string& architecture, const std::string& key) {
    GgufBytes bytes;
    bytes.header(0, 2).text_value("general.architecture", architecture).uint32(key, 8);
    return open_gguf_source(as_bytes(bytes.text()), "f").status().message();
  };
  EXPECT_EQ(minimal("llama", "split.count"),
            "f: metadata 'split.count': 8: models split over several GGUF files are not supported; "
            "merge them first");
  EXPECT_EQ(minimal("gemma", "x"),
            "f: metadata 'general.architecture': 'gemma' is not supported (llama, qwen2 and qwen3 "
            "are)");
}

TEST(ModelSource, GgufExpertsThatDoNotFitAreRefused) {
  const auto altered = [](const std::string& from, const std::string& to) {
    return altered_error(from, to, "mixtral.gguf");
  };
  EXPECT_EQ(altered("llama.expert_used_count", "llama.expert_used_kount"),
            "f: metadata 'llama.expert_used_count' is missing");
  // A number stands behind its key and a type of four bytes.
  const std::string type("\4\0\0\0", 4);
  const auto with_number = [&](const std::string& key, char from, char to) {
    return altered(key + type + from, key + type + to);
  };
  EXPECT_EQ(with_number("llama.expert_used_count", 2, 0),
            "f: metadata 'llama.expert_used_count': 0 is not within 1..2147483647");
  EXPECT_EQ(with_number("llama.expert_used_count", 2, 4),
            "f: experts a token: 4 is not within 1..3");
  EXPECT_EQ(with_number("llama.expert_count", 3, 4),
            "f: tensor 'blk.0.ffn_down_exps.weight': shape [3, 16, 24] is not that of 4 experts");
  EXPECT_EQ(with_number("llama.expert_count", 3, 0),
            "f: tensor 'blk.0.ffn_down_exps.weight': not known in a llama model");
  EXPECT_EQ(altered("blk.1.ffn_up.2.weight", "blk.1.ffn_up.1.weight"),
            "f: tensor 'blk.1.ffn_up.1.weight' stands there twice");
  EXPECT_EQ(altered("blk.1.ffn_up.2.weight", "blk.1.ffn_up.3.weight"),
            "f: tensor 'model.layers.1.block_sparse_moe.experts.2.w3.weight' is missing");
  EXPECT_EQ(altered("blk.1.ffn_up.2.weight", "blk.1.ffn_up.x.weight"),
            "f: tensor 'blk.1.ffn_up.x.weight': not known in a mixtral model");
}

TEST(ModelSource, FoldersThatDoNotFitTheirConfigAreRefused) {
  const TempFolder folder;
  const std::string origin = folder.path().string();
  const auto open_error = [&] { return open_model_source(folder.path()).status().message(); };
  EXPECT_EQ(open_error(), origin + "/config.json: cannot open: No such file or directory");
  const auto with = [&](const std::string& key, const Json& value) {
    Json config = parse_json(read_data("llama/config.json"), "c").value();
    config[key] = value;
    folder.write("config.json", config.dump());
    return open_error();
  };
  EXPECT_EQ(with("vocab_size", 32),
            origin + ": no model.safetensors, model.safetensors.index.json or model-*.safetensors");
  folder.write("model.safetensors", read_data("llama/model.safetensors"));
  EXPECT_EQ(with("vocab_size", 32), "");
  EXPECT_EQ(with("vocab_size", 33),
            origin + ": tensor 'model.embed_tokens.weight': shape [32, 16], expected [33, 16]");
  EXPECT_EQ(with("attention_bias", true),
            origin + ": tensor 'model.layers.0.self_attn.q_proj.bias' is missing");
  EXPECT_EQ(with("num_hidden_layers", 1),
            origin +
                ": tensor 'model.layers.1.input_layernorm.weight' has no place in this llama "
                "model (1 layers)");
  EXPECT_EQ(with("tie_word_embeddings", true), "");  // the second copy is left out
  EXPECT_EQ(with("quantization_config", Json{{"quant_method", "gptq"}}),
            origin +
                "/config.json: quantization_config: the model is quantized already; its "
                "unquantized original is needed here");
  std::string integers = read_data("llama/model.safetensors");
  for (size_t at; (at = integers.find("\"BF16\"")) != std::string::npos;) {
    integers.replace(at, 6, "\"I16\" ");
  }
  folder.write("model.safetensors", integers);
  EXPECT_EQ(with("vocab_size", 32),
            origin +
                "/model.safetensors: tensor 'model.embed_tokens.weight': dtype I16 is not "
                "supported for weights (F64, F32, F16 and BF16 are)");
}

}  // namespace
}  // namespace atom
