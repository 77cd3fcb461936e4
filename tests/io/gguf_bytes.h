#pragma once

#include <cstdint>
#include <string>

namespace atom::testing {

// Builds GGUF bytes, right or wrong ones.
class GgufBytes {
 public:
  template <class T>
  GgufBytes& put(T value) {
    text_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  GgufBytes& string(const std::string& value) {
    put<uint64_t>(value.size());
    text_ += value;
    return *this;
  }
  GgufBytes& header(uint64_t tensors, uint64_t metadata, uint32_t version = 3) {
    text_ += "GGUF";
    return put(version).put(tensors).put(metadata);
  }
  GgufBytes& uint32(const std::string& key, uint32_t value) {
    return string(key).put(uint32_t{4}).put(value);
  }
  GgufBytes& text_value(const std::string& key, const std::string& value) {
    return string(key).put(uint32_t{8}).string(value);
  }
  // A one-dimensional tensor.
  GgufBytes& tensor(const std::string& name, uint64_t size, uint32_t type, uint64_t offset) {
    return string(name).put(uint32_t{1}).put(size).put(type).put(offset);
  }
  GgufBytes& pad(size_t to) {
    text_.resize(to);
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

}  // namespace atom::testing
