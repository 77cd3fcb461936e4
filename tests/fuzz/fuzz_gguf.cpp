// GGUF bytes, first as a container, then as a model whose every tensor is read.
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/parallel.h"
#include "io/gguf.h"
#include "io/model_source.h"

namespace {

void use_container(const atom::GgufFile& file) {
  for (const auto& [key, value] : file.metadata()) {
    (void)file.get_int(key, INT64_MIN, INT64_MAX);
    (void)file.get_number(key);
    (void)file.get_bool(key);
    (void)file.get_string(key);
    (void)file.get_strings(key);
    (void)file.get_floats(key);
    (void)file.get_ints(key);
  }
  for (const auto& [name, tensor] : file.tensors()) {
    int64_t rows = 1;
    for (const int64_t size : tensor.shape) rows *= size;
    rows /= tensor.shape.back();
    std::vector<float> row(static_cast<size_t>(tensor.shape.back()));
    atom::GgufFile::decode_rows(tensor, 0, 1, row.data());
    atom::GgufFile::decode_rows(tensor, rows - 1, 1, row.data());
  }
}

void use_model(const atom::ModelSource& source) {
  for (const atom::TensorSpec& tensor : atom::model_tensors(source.config())) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    std::vector<float> values(static_cast<size_t>(count));
    ATOM_CHECK(source.read(tensor.name, values).ok(), "an opened model reads");
  }
  (void)source.text_assets();
  (void)source.config_json();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  atom::set_thread_count(1);
  const std::span<const std::byte> bytes = std::as_bytes(std::span(data, size));
  const auto file = atom::GgufFile::parse(bytes, "fuzz");
  if (!file.ok()) return 0;
  use_container(*file);
  const auto source = atom::open_gguf_source(bytes, "fuzz");
  if (source.ok()) use_model(**source);
  return 0;
}
