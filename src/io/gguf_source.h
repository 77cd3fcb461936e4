// A GGUF file as a ModelSource.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "io/gguf.h"
#include "io/model_source.h"

namespace atom {

class GgufSource final : public ModelSource {
 public:
  static Result<std::unique_ptr<ModelSource>> create(GgufFile file);

  const ModelConfig& config() const override { return config_; }
  const std::string& origin() const override { return file_.origin(); }
  std::string config_json() const override;
  Result<TextAssets> text_assets() const override;
  bool has(std::string_view name) const override;
  Result<std::vector<int64_t>> shape(std::string_view name) const override;
  Result<std::string> stored_type(std::string_view name) const override;
  Status read(std::string_view name, std::span<float> out) const override;

 private:
  explicit GgufSource(GgufFile file) : file_(std::move(file)) {}
  Status map_names();
  Status check_tensors() const;
  // Where a tensor stands: a tensor of the file, or some rows of one that stacks experts.
  struct Place {
    const GgufTensor* tensor = nullptr;
    std::vector<int64_t> shape;
    int64_t first_row = 0;
  };
  Result<const Place*> find(std::string_view name) const;
  // Whether the file keeps the rows of each head in another order than Hugging Face.
  bool is_permuted(std::string_view name) const;

  GgufFile file_;
  ModelConfig config_;
  bool interleaved_ = false;  // llama files put channels that rotate together side by side
  std::map<std::string, Place, std::less<>> tensors_;  // by Hugging Face name
};

}  // namespace atom
