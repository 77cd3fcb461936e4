#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "io/checkpoint.h"
#include "io/format_json.h"
#include "io/hf_config.h"
#include "io/packed_parts.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

template <class T>
std::span<const std::byte> bytes_of(const T& array) {
  return std::as_bytes(std::span(array.data(), array.size()));
}

// A model that lacks something, or has too much, is the quantizer's mistake, not the user's.
Status incomplete(std::string_view name, const char* what) {
  return error(ErrorCode::kInternal, "checkpoint: '{}' {}", name, what);
}

Status expect_written(const std::map<std::string, std::vector<int64_t>, std::less<>>& written,
                      const std::vector<TensorSpec>& wanted) {
  for (const TensorSpec& tensor : wanted) {
    const auto it = written.find(tensor.name);
    if (it == written.end()) return incomplete(tensor.name, "was not written");
    if (it->second != tensor.shape) return incomplete(tensor.name, "has the wrong shape");
  }
  return {};
}

}  // namespace

Result<CheckpointWriter> CheckpointWriter::create(const fs::path& folder, CheckpointMeta meta,
                                                  int64_t shard_bytes) {
  const Json config = ATOM_TRY(parse_json(meta.config_json, "checkpoint config"));
  const ModelConfig parsed = ATOM_TRY(parse_hf_config(config, "checkpoint config"));
  if (!(parsed == meta.config)) return incomplete("config_json", "does not say the configuration");
  ATOM_TRY(validate(meta.kv, meta.config.head_dim));
  const Json recipe = ATOM_TRY(parse_json(meta.recipe_json, "checkpoint recipe"));
  if (!recipe.is_object()) return incomplete("recipe", "is not an object");
  SafetensorsWriter tensors = ATOM_TRY(SafetensorsWriter::create(folder, shard_bytes));
  return CheckpointWriter(folder, std::move(meta), std::move(tensors));
}

Status CheckpointWriter::add(const std::string& name, DType dtype,
                             const std::vector<int64_t>& shape, std::span<const std::byte> bytes) {
  if (!written_.emplace(name, shape).second) return incomplete(name, "was written twice");
  return tensors_.add(name, dtype, shape, bytes);
}

Status CheckpointWriter::add_linear(std::string_view name, const PackedLinear& linear) {
  ATOM_TRY(validate(linear).with_context(std::string(name)));
  if (!formats_.emplace(name, linear.format).second) return incomplete(name, "was written twice");
  ATOM_TRY(for_each_part(linear, [&](const char* suffix, DType dtype,
                                     const std::vector<int64_t>& shape, const auto& array) {
    return add(fmt::format("{}.{}", name, suffix), dtype, shape, bytes_of(array));
  }));
  if (linear.bias.empty()) return {};
  return add(fmt::format("{}.bias", name), DType::kF32, {linear.rows}, bytes_of(linear.bias));
}

Status CheckpointWriter::add_floats(std::string_view name, const std::vector<int64_t>& shape,
                                    std::span<const float> values) {
  return add(std::string(name), DType::kF32, shape, bytes_of(values));
}

Status CheckpointWriter::add_perm(std::string_view name, std::span<const int32_t> perm) {
  return add(std::string(name), DType::kI32, {static_cast<int64_t>(perm.size())}, bytes_of(perm));
}

Status CheckpointWriter::add_text_file(std::string_view name, std::string_view contents) {
  ATOM_CHECK(fs::path(name).filename() == name && name != "config.json", "a plain, free file name");
  return write_file_atomically(folder_ / name, contents);
}

Status CheckpointWriter::finish() {
  ATOM_TRY(expect_written(written_, checkpoint_floats(meta_)));
  ATOM_TRY(expect_written(written_, checkpoint_perms(meta_.config)));
  size_t expected = checkpoint_floats(meta_).size() + checkpoint_perms(meta_.config).size();
  Json formats = Json::object();
  for (const LinearSpec& linear : checkpoint_linears(meta_.config)) {
    const auto it = formats_.find(linear.name);
    if (it == formats_.end()) return incomplete(linear.name, "was not written");
    PackedLinear shape_only;
    shape_only.format = it->second;
    shape_only.rows = linear.rows;
    shape_only.cols = linear.cols;
    ATOM_TRY(validate(shape_only.format, linear.cols).with_context(linear.name));
    ATOM_TRY(for_each_part(
        shape_only, [&](const char* suffix, DType, const std::vector<int64_t>& shape, auto&) {
          ++expected;
          return expect_written(written_, {{fmt::format("{}.{}", linear.name, suffix), shape}});
        }));
    const bool has_bias = written_.find(linear.name + ".bias") != written_.end();
    if (linear.bias && !has_bias) return incomplete(linear.name, "lacks its bias");
    expected += has_bias ? 1 : 0;
    formats[linear.name] = to_json(it->second);
  }
  if (written_.size() != expected) return incomplete("model", "has tensors of no use");
  ATOM_TRY(tensors_.finish());
  Json config = ATOM_TRY(parse_json(meta_.config_json, "checkpoint config"));
  config["quantization_config"] = {
      {"quant_method", "atom"},
      {"version", 1},
      {"recipe", ATOM_TRY(parse_json(meta_.recipe_json, "checkpoint recipe"))},
      {"formats", formats},
      {"kv", to_json(meta_.kv)},
      {"prefix_tokens", meta_.prefix_tokens}};
  return write_file_atomically(folder_ / "config.json", config.dump(2) + "\n");
}

}  // namespace atom
