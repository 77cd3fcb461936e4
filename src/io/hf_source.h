// A Hugging Face folder as a ModelSource.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "io/model_source.h"
#include "io/safetensors.h"

namespace atom {

class HfSource final : public ModelSource {
 public:
  static Result<std::unique_ptr<ModelSource>> create(const std::filesystem::path& folder);

  const ModelConfig& config() const override { return config_; }
  const std::string& origin() const override { return origin_; }
  std::string config_json() const override { return config_json_; }
  Result<TextAssets> text_assets() const override;
  bool has(std::string_view name) const override { return tensors_.has(name); }
  Result<std::vector<int64_t>> shape(std::string_view name) const override;
  Result<std::string> stored_type(std::string_view name) const override;
  Status read(std::string_view name, std::span<float> out) const override;

 private:
  HfSource() = default;

  std::string origin_;
  ModelConfig config_;
  std::string config_json_;
  SafetensorsFolder tensors_;
};

}  // namespace atom
