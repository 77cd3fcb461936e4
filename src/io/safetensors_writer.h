// Writes the tensors of a model as safetensors files, one tensor in memory at a time.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/dtype.h"

namespace atom {

// Tensors are collected in a scratch file and, when a shard is full, copied into their final order:
// the safetensors library's, by element type, the wider first, then by name. So every tensor is
// aligned to its element size, and the bytes depend on the tensors alone, not on the order in which
// they came.
class SafetensorsWriter {
 public:
  static constexpr int64_t kShardBytes = int64_t{4} << 30;

  // Files will be model.safetensors, or model-0000i-of-0000n.safetensors with
  // model.safetensors.index.json, in an existing folder. A tensor never spans shards.
  static Result<SafetensorsWriter> create(const std::filesystem::path& folder,
                                          int64_t shard_bytes = kShardBytes);

  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();  // removes what is left if finish() did not succeed

  // Adds a tensor; names must be unique. Write errors (a full disk) are reported here or by
  // finish(). REQUIRES: bytes.size() is that of the shape.
  Status add(std::string_view name, DType dtype, const std::vector<int64_t>& shape,
             std::span<const std::byte> bytes);
  // Completes the files. Nothing can be added afterwards.
  Status finish();

 private:
  struct Entry {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    int64_t scratch_offset, size;
  };
  struct FileCloser {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  using File = std::unique_ptr<std::FILE, FileCloser>;

  SafetensorsWriter() = default;
  Status close_shard();
  Status copy_entries(std::FILE* out, const std::filesystem::path& path);
  std::filesystem::path scratch_path() const { return folder_ / "tensors.scratch"; }
  std::filesystem::path unnamed_shard(size_t index) const;
  Status write_index(const std::vector<std::string>& names) const;

  std::filesystem::path folder_;
  int64_t shard_bytes_ = kShardBytes;
  File scratch_;
  int64_t scratch_bytes_ = 0;
  std::vector<Entry> entries_;                    // of the shard under way
  std::vector<std::vector<std::string>> shards_;  // names of the tensors in closed shards
  int64_t total_bytes_ = 0;
  bool finished_ = false;
};

}  // namespace atom
