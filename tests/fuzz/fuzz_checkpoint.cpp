// A checkpoint in memory: a 32-bit length, config.json of that length, then model.safetensors.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "io/checkpoint.h"

namespace {

void use(const atom::Checkpoint& checkpoint) {
  for (const atom::CheckpointLinear& linear : checkpoint.linears()) {
    const auto packed = checkpoint.linear(linear.name);
    if (!packed.ok()) continue;
    ATOM_CHECK(packed->bytes() == linear.bytes, "all bytes are read");
    std::vector<double> values(static_cast<size_t>(packed->rows * packed->cols));
    atom::dequantize(*packed, values);
  }
  for (const auto& tensor : atom::checkpoint_floats(checkpoint.meta())) {
    (void)checkpoint.floats(tensor.name);
  }
  for (const auto& tensor : atom::checkpoint_perms(checkpoint.meta().config)) {
    (void)checkpoint.perm(tensor.name);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  uint32_t config_size = 0;
  if (size < sizeof config_size) return 0;
  std::memcpy(&config_size, data, sizeof config_size);
  data += sizeof config_size;
  size -= sizeof config_size;
  if (config_size > size) return 0;
  const std::string_view config(reinterpret_cast<const char*>(data), config_size);
  const auto bytes = std::as_bytes(std::span(data + config_size, size - config_size));
  auto file = atom::SafetensorsFile::parse(bytes, "fuzz/model.safetensors");
  if (!file.ok()) return 0;
  std::vector<atom::SafetensorsFile> files;
  files.push_back(std::move(file).value());
  auto folder = atom::SafetensorsFolder::from_files(std::move(files));
  if (!folder.ok()) return 0;
  const auto checkpoint = atom::Checkpoint::from_parts(config, std::move(folder).value(), "fuzz");
  if (checkpoint.ok()) use(*checkpoint);
  return 0;
}
