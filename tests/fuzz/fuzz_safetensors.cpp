// The bytes of a safetensors file.
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = atom::SafetensorsFile::parse(std::as_bytes(std::span(data, size)), "fuzz");
  if (!file.ok()) {
    ATOM_CHECK(file.status().message().find('\n') == std::string::npos, "errors are one line");
    return 0;
  }
  size_t total = 0;
  volatile uint8_t sink = 0;
  for (const auto& [name, tensor] : file->tensors()) {
    ATOM_CHECK(tensor.elements() >= 0, "element counts do not overflow");
    for (const std::byte byte : tensor.bytes) sink = std::to_integer<uint8_t>(byte);
    total += tensor.bytes.size();
  }
  ATOM_CHECK(total < size, "tensors do not overlap");
  (void)sink;
  return 0;
}
