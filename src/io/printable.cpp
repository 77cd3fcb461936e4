#include "io/printable.h"

#include <fmt/core.h>

namespace atom {

std::string printable(std::string_view text) {
  constexpr size_t kLimit = 100;
  std::string out;
  for (const char c : text) {
    if (out.size() >= kLimit) return out + "...";
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

}  // namespace atom
