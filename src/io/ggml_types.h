// The tensor element types of GGUF files: block sizes, and decoding to float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace atom {

// A type that we can decode. Values of a row stand in blocks of block_values, block_bytes each.
struct GgmlType {
  uint32_t id;       // as stored in the file
  const char* name;  // "Q4_K"
  int64_t block_values;
  int64_t block_bytes;
  // Decodes `blocks` whole blocks. The float operations and their order are those of the `gguf`
  // package's gguf.quants, so that results are equal bit for bit.
  void (*decode)(const uint8_t* in, int64_t blocks, float* out);
};

// Null for types that we cannot decode.
const GgmlType* find_ggml_type(uint32_t id);
// All types that we can decode.
std::span<const GgmlType> ggml_types();
// The name of any type that is known to exist, e.g. "IQ4_XS"; "unknown" for the rest.
const char* ggml_type_name(uint32_t id);

}  // namespace atom
