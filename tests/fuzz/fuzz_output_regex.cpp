// Compiles the input as the regular expression of an output and walks through what it allows.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "grammar/constraint.h"
#include "grammar_walk.h"
#include "text/unicode.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto grammar = atom::grammar::grammar_of_regex(
      std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!grammar.ok()) return 0;
  const atom::fuzz::Walk walk = atom::fuzz::walk(std::move(grammar).value(), data, size);
  if (walk.complete && !atom::is_valid_utf8(walk.text)) std::abort();
  return 0;
}
