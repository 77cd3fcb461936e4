// Files for the tests of room io.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"

namespace atom::testing {

inline std::filesystem::path data_path(const std::string& name) {
  return std::filesystem::path(ATOM_TEST_DATA) / "io" / name;
}

inline std::string read_data(const std::string& name) {
  return read_text_file(data_path(name), 1 << 24).value();
}

inline std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// The bytes in an allocation of exactly their size, so that the sanitizers see any step beyond it.
inline std::vector<std::byte> exact_copy(std::span<const std::byte> bytes) {
  std::vector<std::byte> copy;
  copy.reserve(bytes.size());
  copy.assign(bytes.begin(), bytes.end());
  return copy;
}

// A folder that exists as long as this object.
class TempFolder {
 public:
  TempFolder() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("atom_io_test_" + std::to_string(::getpid()) + "_" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder() { std::filesystem::remove_all(path_); }

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& contents) const {
    std::ofstream(path_ / name, std::ios::binary) << contents;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace atom::testing
