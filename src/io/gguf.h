// The GGUF container, versions 2 and 3: typed metadata and a table of tensors, then their data.
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
#include "io/ggml_types.h"

namespace atom {

enum class GgufType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

// A metadata value as it stands in the file.
struct GgufValue {
  GgufType type = GgufType::kUint8;
  GgufType element = GgufType::kUint8;  // of an array
  uint64_t count = 0;                   // elements of an array
  std::span<const std::byte> bytes;     // the number, the string's characters, or the elements
};

struct GgufTensor {
  const GgmlType* type = nullptr;
  std::vector<int64_t> shape;        // slowest first, as Hugging Face counts: [rows, columns]
  std::span<const std::byte> bytes;  // exactly the tensor's data
};

// A parsed file. Parsing checks all sizes, offsets and counts against the file, so that whatever
// an accessor returns is safe to read.
class GgufFile {
 public:
  static Result<GgufFile> open(const std::filesystem::path& path);
  // Parses bytes, which must outlive the result; origin stands in front of error messages.
  static Result<GgufFile> parse(std::span<const std::byte> bytes, std::string origin);

  const std::string& origin() const { return origin_; }
  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // Metadata as a type. A missing key is an error, or yields the fallback where there is one.
  // Integers of every width are accepted for get_int, floats and integers for get_number.
  bool has(std::string_view key) const { return metadata_.find(key) != metadata_.end(); }
  Result<int64_t> get_int(std::string_view key, int64_t min, int64_t max) const;
  Result<int64_t> get_int(std::string_view key, int64_t min, int64_t max, int64_t fallback) const;
  Result<double> get_number(std::string_view key) const;  // finite
  Result<double> get_number(std::string_view key, double fallback) const;
  Result<bool> get_bool(std::string_view key) const;
  Result<std::string> get_string(std::string_view key) const;
  Result<std::string> get_string(std::string_view key, std::string_view fallback) const;
  Result<std::vector<std::string>> get_strings(std::string_view key) const;
  Result<std::vector<float>> get_floats(std::string_view key) const;
  Result<std::vector<int32_t>> get_ints(std::string_view key) const;

  // Decodes rows [first, first + count) of a tensor seen as [elements / columns, columns].
  static void decode_rows(const GgufTensor& tensor, int64_t first, int64_t count, float* out);
  // Gives a tensor's pages back to the kernel.
  void release(const GgufTensor& tensor) const;

 private:
  GgufFile() = default;
  Result<const GgufValue*> find(std::string_view key) const;
  Result<const GgufValue*> find_array(std::string_view key, GgufType element) const;
  Status type_error(std::string_view key, const char* wanted, const GgufValue& value) const;
  friend class GgufParser;

  std::string origin_;
  std::optional<MappedFile> file_;
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace atom
