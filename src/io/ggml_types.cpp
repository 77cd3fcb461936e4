#include "io/ggml_types.h"

#include <cstring>

#include "io/widen.h"
#include "tensor/dtype.h"

namespace atom {
namespace {

constexpr int kSuper = 256;  // values in a block of the K types

template <class T>
T load(const uint8_t* in) {
  T value;
  std::memcpy(&value, in, sizeof value);
  return value;
}

float load_half(const uint8_t* in) { return f16_to_f32(load<uint16_t>(in)); }

// 32 values: f16 scale d, 16 bytes; value j in the low nibble of byte j, value j + 16 in the high.
void decode_q4_0(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 18, out += 32) {
    const float d = load_half(in);
    const uint8_t* q = in + 2;
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>((q[j] & 0xf) - 8);
      out[j + 16] = d * static_cast<float>((q[j] >> 4) - 8);
    }
  }
}

// As Q4_0 with an f16 minimum after the scale.
void decode_q4_1(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 20, out += 32) {
    const float d = load_half(in), m = load_half(in + 2);
    const uint8_t* q = in + 4;
    for (int j = 0; j < 16; ++j) {
      out[j] = d * static_cast<float>(q[j] & 0xf) + m;
      out[j + 16] = d * static_cast<float>(q[j] >> 4) + m;
    }
  }
}

// As Q4_0 with a fifth bit a value: bit j of the little-endian word after the scale.
void decode_q5_0(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 22, out += 32) {
    const float d = load_half(in);
    const auto high = load<uint32_t>(in + 2);
    const uint8_t* q = in + 6;
    for (int j = 0; j < 16; ++j) {
      const int low = (q[j] & 0xf) | static_cast<int>((high >> j) & 1u) << 4;
      const int top = (q[j] >> 4) | static_cast<int>((high >> (j + 16)) & 1u) << 4;
      out[j] = d * static_cast<float>(low - 16);
      out[j + 16] = d * static_cast<float>(top - 16);
    }
  }
}

void decode_q5_1(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 24, out += 32) {
    const float d = load_half(in), m = load_half(in + 2);
    const auto high = load<uint32_t>(in + 4);
    const uint8_t* q = in + 8;
    for (int j = 0; j < 16; ++j) {
      const int low = (q[j] & 0xf) | static_cast<int>((high >> j) & 1u) << 4;
      const int top = (q[j] >> 4) | static_cast<int>((high >> (j + 16)) & 1u) << 4;
      out[j] = d * static_cast<float>(low) + m;
      out[j + 16] = d * static_cast<float>(top) + m;
    }
  }
}

void decode_q8_0(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 34, out += 32) {
    const float d = load_half(in);
    const uint8_t* q = in + 2;
    for (int j = 0; j < 32; ++j) out[j] = static_cast<float>(static_cast<int8_t>(q[j])) * d;
  }
}

// 16 groups of 16: scales[16] (low nibble scale, high nibble minimum), qs[64], f16 d, f16 dmin.
// The 2-bit codes of values 128h + 32s + l stand at bits 2s of byte 32h + l.
void decode_q2_k(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 84, out += kSuper) {
    const float d = load_half(in + 80), dmin = load_half(in + 82);
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(in[g] & 0xf);
      const float minimum = dmin * static_cast<float>(in[g] >> 4);
      const uint8_t* q = in + 16 + 32 * (g / 8) + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4);
      for (int l = 0; l < 16; ++l) {
        out[16 * g + l] = scale * static_cast<float>((q[l] >> shift) & 3) - minimum;
      }
    }
  }
}

// hmask[32], qs[64] as Q2_K, scales[12], f16 d. Bit i of hmask[l] clear: 4 is taken from the code
// of value 32i + l. Scale g: four low bits in nibble g/8 of byte g%8, two high bits at bits 2(g/4)
// of byte 8 + g%4, minus 32.
void decode_q3_k(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 110, out += kSuper) {
    const float d = load_half(in + 108);
    const uint8_t* s = in + 96;
    for (int g = 0; g < 16; ++g) {
      const int low = (s[g % 8] >> (4 * (g / 8))) & 0xf;
      const int high = (s[8 + g % 4] >> (2 * (g / 4))) & 3;
      const float scale = d * static_cast<float>((low | high << 4) - 32);
      const uint8_t* q = in + 32 + 32 * (g / 8) + 16 * (g % 2);
      const uint8_t* mask = in + 16 * (g % 2);
      const int shift = 2 * (g / 2 % 4), bit = g / 2;
      for (int l = 0; l < 16; ++l) {
        const int code = ((q[l] >> shift) & 3) - (((mask[l] >> bit) & 1) ^ 1) * 4;
        out[16 * g + l] = scale * static_cast<float>(code);
      }
    }
  }
}

// Six-bit scale and minimum of group g of eight, packed in twelve bytes (Q4_K, Q5_K).
struct ScaleMin {
  int scale, minimum;
};
ScaleMin unpack_scale_min(const uint8_t* s, int g) {
  if (g < 4) return {s[g] & 0x3f, s[g + 4] & 0x3f};
  return {(s[g + 4] & 0xf) | ((s[g - 4] >> 2) & 0x30), (s[g + 4] >> 4) | ((s[g] >> 2) & 0x30)};
}

// f16 d, f16 dmin, scales[12], qs[128]: groups of 32; groups 2i and 2i + 1 are the low and high
// nibbles of bytes 32i...
void decode_q4_k(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 144, out += kSuper) {
    const float d = load_half(in), dmin = load_half(in + 2);
    for (int g = 0; g < 8; ++g) {
      const ScaleMin packed = unpack_scale_min(in + 4, g);
      const float scale = d * static_cast<float>(packed.scale);
      const float minimum = dmin * static_cast<float>(packed.minimum);
      const uint8_t* q = in + 16 + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int l = 0; l < 32; ++l) {
        out[32 * g + l] = scale * static_cast<float>((q[l] >> shift) & 0xf) - minimum;
      }
    }
  }
}

// As Q4_K with qh[32] before qs: bit g of qh[l] is the fifth bit of value 32g + l.
void decode_q5_k(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 176, out += kSuper) {
    const float d = load_half(in), dmin = load_half(in + 2);
    const uint8_t* high = in + 16;
    for (int g = 0; g < 8; ++g) {
      const ScaleMin packed = unpack_scale_min(in + 4, g);
      const float scale = d * static_cast<float>(packed.scale);
      const float minimum = dmin * static_cast<float>(packed.minimum);
      const uint8_t* q = in + 48 + 32 * (g / 2);
      const int shift = 4 * (g % 2);
      for (int l = 0; l < 32; ++l) {
        const int code = ((q[l] >> shift) & 0xf) | ((high[l] >> g) & 1) << 4;
        out[32 * g + l] = scale * static_cast<float>(code) - minimum;
      }
    }
  }
}

// ql[128], qh[64], int8 scales[16], f16 d: runs of 32. Run r takes nibble r/2%2 of ql bytes
// 64(r/4) + 32(r%2) + l and bits 2(r%4) of qh byte 32(r/4) + l.
void decode_q6_k(const uint8_t* __restrict in, int64_t blocks, float* __restrict out) {
  for (int64_t b = 0; b < blocks; ++b, in += 210, out += kSuper) {
    const float d = load_half(in + 208);
    for (int g = 0; g < 16; ++g) {
      const float scale = d * static_cast<float>(static_cast<int8_t>(in[192 + g]));
      const int run = g / 2, half = 16 * (g % 2);
      const uint8_t* low = in + 64 * (run / 4) + 32 * (run % 2) + half;
      const uint8_t* high = in + 128 + 32 * (run / 4) + half;
      const int low_shift = 4 * (run / 2 % 2), high_shift = 2 * (run % 4);
      for (int l = 0; l < 16; ++l) {
        const int code = ((low[l] >> low_shift) & 0xf) | ((high[l] >> high_shift) & 3) << 4;
        out[16 * g + l] = scale * static_cast<float>(code - 32);
      }
    }
  }
}

constexpr GgmlType kTypes[] = {
    {0, "F32", 1, 4, widen_f32},
    {1, "F16", 1, 2, widen_f16},
    {2, "Q4_0", 32, 18, decode_q4_0},
    {3, "Q4_1", 32, 20, decode_q4_1},
    {6, "Q5_0", 32, 22, decode_q5_0},
    {7, "Q5_1", 32, 24, decode_q5_1},
    {8, "Q8_0", 32, 34, decode_q8_0},
    {10, "Q2_K", kSuper, 84, decode_q2_k},
    {11, "Q3_K", kSuper, 110, decode_q3_k},
    {12, "Q4_K", kSuper, 144, decode_q4_k},
    {13, "Q5_K", kSuper, 176, decode_q5_k},
    {14, "Q6_K", kSuper, 210, decode_q6_k},
    {28, "F64", 1, 8, widen_f64},
    {30, "BF16", 1, 2, widen_bf16},
};

struct NamedType {
  uint32_t id;
  const char* name;
};
constexpr NamedType kOtherTypes[] = {
    {9, "Q8_1"},    {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},
    {26, "I32"},    {27, "I64"},   {29, "IQ1_M"},   {34, "TQ1_0"},  {35, "TQ2_0"},   {39, "MXFP4"},
};

}  // namespace

std::span<const GgmlType> ggml_types() { return kTypes; }

const GgmlType* find_ggml_type(uint32_t id) {
  for (const GgmlType& type : kTypes) {
    if (type.id == id) return &type;
  }
  return nullptr;
}

const char* ggml_type_name(uint32_t id) {
  if (const GgmlType* type = find_ggml_type(id)) return type->name;
  for (const NamedType& type : kOtherTypes) {
    if (type.id == id) return type.name;
  }
  return "unknown";
}

}  // namespace atom
