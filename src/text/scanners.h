// Hand-written forms of the regular expressions that common byte-level models split text with. Each
// takes time linear in the text. Bytes that are no UTF-8 count as symbols (neither letter, number
// nor space).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace atom {

enum class ScannerKind : uint8_t { kGpt2, kLlama3, kQwen2 };

// GPT-2:   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
// Llama-3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}
//          | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
// Qwen2:   as Llama-3, with \p{N} for \p{N}{1,3}
std::string_view scanner_pattern(ScannerKind kind);
// The scanner that does what a pattern says, if one does.
std::optional<ScannerKind> scanner_for(std::string_view pattern);

// The end of the match that starts at p; every character belongs to some match.
// REQUIRES: p < end.
const char* scan_gpt2(const char* p, const char* end);
const char* scan_llama3(const char* p, const char* end, int max_digits);

inline const char* scan(ScannerKind kind, const char* p, const char* end) {
  switch (kind) {
    case ScannerKind::kGpt2:
      return scan_gpt2(p, end);
    case ScannerKind::kLlama3:
      return scan_llama3(p, end, 3);
    case ScannerKind::kQwen2:
      return scan_llama3(p, end, 1);
  }
  return end;
}

}  // namespace atom
