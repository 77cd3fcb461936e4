// Any unquantized model on disk, a Hugging Face folder or a GGUF file, under one roof: Hugging Face
// names and layouts, values read as floats.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/model_config.h"
#include "io/model_tensors.h"

namespace atom {

// What a model file says about its text side, as plain data for room text.
struct TextAssets {
  std::string tokenizer_json;         // contents of tokenizer.json, or empty
  std::string tokenizer_config_json;  // contents of tokenizer_config.json, or empty
  std::string chat_template;          // Jinja source, or empty

  // GGUF: the arrays under tokenizer.ggml.*; `gguf_model` is empty for Hugging Face folders.
  std::string gguf_model;  // "gpt2", "llama"
  std::string gguf_pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> token_types;
  std::vector<std::string> merges;
  int32_t bos_id = -1, eos_id = -1, unk_id = -1, pad_id = -1;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

class ModelSource {
 public:
  virtual ~ModelSource() = default;
  virtual const ModelConfig& config() const = 0;
  virtual const std::string& origin() const = 0;  // the path, for messages
  // What a config.json for this model says: the source's own, or one made from its metadata.
  // parse_hf_config (io/hf_config.h) makes config() from it.
  virtual std::string config_json() const = 0;
  virtual Result<TextAssets> text_assets() const = 0;

  // Names are Hugging Face's: "model.layers.0.self_attn.q_proj.weight".
  virtual bool has(std::string_view name) const = 0;
  virtual Result<std::vector<int64_t>> shape(std::string_view name) const = 0;
  // How it is stored, e.g. "BF16", "Q4_K".
  virtual Result<std::string> stored_type(std::string_view name) const = 0;
  // Dequantized to float in Hugging Face's layout (q and k rows un-permuted where GGUF permutes
  // them). Fails unless out has exactly the tensor's element count. The pages read are given back
  // to the kernel, so that streaming through a model does not keep it resident.
  virtual Status read(std::string_view name, std::span<float> out) const = 0;
};

// Opens a folder with config.json and *.safetensors, or a .gguf file. Fails unless every tensor
// that the configuration calls for is there with the right shape, and none that it has no place
// for.
Result<std::unique_ptr<ModelSource>> open_model_source(const std::filesystem::path& path);
// A GGUF file in memory; bytes must outlive the source.
Result<std::unique_ptr<ModelSource>> open_gguf_source(std::span<const std::byte> bytes,
                                                      std::string origin);

}  // namespace atom
