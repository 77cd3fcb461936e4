// Files: memory-mapped reading, and writing that never leaves a half-written result behind.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"

namespace atom {

// A whole file mapped read-only. Movable; the bytes stay where they are until destruction.
class MappedFile {
 public:
  static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  const std::filesystem::path& path() const { return path_; }

  // Tells the kernel that these bytes will not be read again soon, so that streaming through a
  // model does not count as resident memory.
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  std::filesystem::path path_;
};

// Reads a whole text file of at most max_bytes. Fails with the path in the message.
Result<std::string> read_text_file(const std::filesystem::path& path, size_t max_bytes);

// Writes bytes to path by way of a temporary file beside it and a rename.
Status write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// A folder that comes into being whole or not at all: files are written under staging(), and
// commit() renames the folder to its final name. Without commit() the destructor removes the
// staging folder; Ctrl-C is a flag that long work polls (base/interrupt.h), so it runs then too.
class StagedFolder {
 public:
  // Fails if target exists and is not an empty folder, or if its parent cannot be written to.
  static Result<StagedFolder> create(const std::filesystem::path& target);

  StagedFolder(StagedFolder&& other) noexcept;
  StagedFolder& operator=(StagedFolder&&) = delete;
  ~StagedFolder();

  const std::filesystem::path& staging() const { return staging_; }
  Status commit();

 private:
  StagedFolder() = default;
  std::filesystem::path target_;
  std::filesystem::path staging_;  // empty once committed or moved from
};

}  // namespace atom
