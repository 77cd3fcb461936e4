// The Atom checkpoint: a quantized model as a folder in Hugging Face's shape. docs/checkpoint.md is
// normative.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/model_config.h"
#include "io/model_source.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "tensor/packed_linear.h"

namespace atom {

struct CheckpointMeta {
  ModelConfig config;
  std::string config_json;  // Hugging Face's config.json of the model, which says `config`
  KvFormat kv;
  std::vector<int32_t> prefix_tokens;  // stand, with exact K and V, in front of every sequence
  std::string recipe_json = "{}";      // the recipe it was made with: an object, kept as it is
};

// A linear that a checkpoint holds.
struct CheckpointLinear {
  std::string name;  // "model.layers.0.self_attn.q_proj", "model.embed_tokens", "lm_head"
  LinearFormat format;
  int64_t rows = 0, cols = 0;
  int64_t bytes = 0;  // of all its tensors
};

// The linears of a checkpoint in order: embeddings, layers, lm_head unless tied.
std::vector<LinearSpec> checkpoint_linears(const ModelConfig& config);
// The float tensors besides linears: norms, and what the KV format and the prefix call for.
std::vector<TensorSpec> checkpoint_floats(const CheckpointMeta& meta);
// The permutations, one an input site: the channel of the original order at each place. Layer i has
// "model.layers.i.self_attn.qkv_perm", "….self_attn.o_perm" and "….mlp.gate_up_perm"; down_proj
// has none, because the rows of gate and up are stored in its order.
std::vector<TensorSpec> checkpoint_perms(const ModelConfig& config);

class CheckpointWriter {
 public:
  // Writes into an existing, empty folder (StagedFolder's). Fails if meta contradicts itself.
  static Result<CheckpointWriter> create(const std::filesystem::path& folder, CheckpointMeta meta,
                                         int64_t shard_bytes = SafetensorsWriter::kShardBytes);

  // Tensors may come in any order; each name once, all of them before finish().
  Status add_linear(std::string_view name, const PackedLinear& linear);
  Status add_floats(std::string_view name, const std::vector<int64_t>& shape,
                    std::span<const float> values);
  Status add_perm(std::string_view name, std::span<const int32_t> perm);
  // tokenizer.json, tokenizer_config.json, chat_template.jinja, quantize_report.json, ...
  Status add_text_file(std::string_view name, std::string_view contents);
  // Checks that the model is complete, and writes config.json.
  Status finish();

 private:
  CheckpointWriter(std::filesystem::path folder, CheckpointMeta meta, SafetensorsWriter tensors)
      : folder_(std::move(folder)), meta_(std::move(meta)), tensors_(std::move(tensors)) {}
  Status add(const std::string& name, DType dtype, const std::vector<int64_t>& shape,
             std::span<const std::byte> bytes);

  std::filesystem::path folder_;
  CheckpointMeta meta_;
  SafetensorsWriter tensors_;
  std::map<std::string, LinearFormat, std::less<>> formats_;
  std::map<std::string, std::vector<int64_t>, std::less<>> written_;  // float tensors and perms
};

class Checkpoint {
 public:
  // Opens a folder and checks that its tensors are those that config.json calls for, with the right
  // types and shapes, and no others. Values are checked when they are read.
  static Result<Checkpoint> open(const std::filesystem::path& folder);
  // The same from parts in memory; files view bytes that must outlive the checkpoint.
  static Result<Checkpoint> from_parts(std::string_view config_json, SafetensorsFolder tensors,
                                       const std::string& origin);
  // Whether a path is a folder whose config.json says quant_method "atom".
  static bool is_checkpoint(const std::filesystem::path& path);

  const CheckpointMeta& meta() const { return meta_; }
  const std::string& origin() const { return origin_; }
  const std::vector<CheckpointLinear>& linears() const { return linears_; }
  int64_t total_bytes() const;  // of all tensors

  // Fails for names that checkpoint_linears() does not list, and for values out of range. The
  // memory of `room` is used again if that is a linear of the same format and shape.
  Result<PackedLinear> linear(std::string_view name, PackedLinear room = {}) const;
  // A tensor of checkpoint_floats(); fails if a value is not finite.
  Result<std::vector<float>> floats(std::string_view name) const;
  // A tensor of checkpoint_perms(); fails if it is no permutation.
  Result<std::vector<int32_t>> perm(std::string_view name) const;
  Result<TextAssets> text_assets() const;

 private:
  Checkpoint() = default;
  Status parse_config(std::string_view config_json);
  Status check_tensors();
  Result<SafetensorsFolder::Entry> find(std::string_view name, DType dtype,
                                        const std::vector<int64_t>& shape) const;
  const CheckpointLinear* find_linear(std::string_view name) const;

  std::string origin_;
  std::string config_origin_;
  CheckpointMeta meta_;
  SafetensorsFolder tensors_;
  std::map<std::string, LinearFormat, std::less<>> formats_;
  std::vector<CheckpointLinear> linears_;
};

}  // namespace atom
