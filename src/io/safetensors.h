// The safetensors container: a JSON header that names the tensors, then their data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"

namespace atom {

struct SafetensorsTensor {
  std::string dtype;  // as the file spells it: "BF16"
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // exactly the tensor's data
  int64_t elements() const;
};

// One file. Parsing checks the header's syntax, that no name stands there twice, that data ranges
// follow each other without gap or overlap and fill the file, and that they fit dtype and shape.
class SafetensorsFile {
 public:
  static Result<SafetensorsFile> open(const std::filesystem::path& path);
  // Parses bytes, which must outlive the result; origin stands in front of error messages.
  static Result<SafetensorsFile> parse(std::span<const std::byte> bytes, std::string origin);

  const std::string& origin() const { return origin_; }
  const std::map<std::string, SafetensorsTensor, std::less<>>& tensors() const { return tensors_; }
  // Gives a tensor's pages back to the kernel.
  void release(const SafetensorsTensor& tensor) const;

 private:
  SafetensorsFile() = default;

  std::string origin_;
  std::optional<MappedFile> file_;
  std::map<std::string, SafetensorsTensor, std::less<>> tensors_;
};

// The tensors of a folder: model.safetensors; or the files that model.safetensors.index.json lists,
// each of which must hold what the index says; or else all model-*.safetensors.
class SafetensorsFolder {
 public:
  struct Entry {
    const SafetensorsFile* file;
    const SafetensorsTensor* tensor;
  };

  static Result<SafetensorsFolder> open(const std::filesystem::path& folder);
  // Files that are already parsed; names must be unique among them.
  static Result<SafetensorsFolder> from_files(std::vector<SafetensorsFile> files);

  bool has(std::string_view name) const { return entries_.find(name) != entries_.end(); }
  // Fails with the folder and the name if there is no such tensor.
  Result<Entry> find(std::string_view name) const;
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

 private:
  std::string origin_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace atom
