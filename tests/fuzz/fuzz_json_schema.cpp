// Compiles the input as a JSON Schema; what compiles must have a document, which a walk finds by
// taking the first byte that every state allows, and the document must be JSON.
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "grammar/json_schema.h"
#include "grammar_walk.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto grammar = atom::grammar::grammar_of_json_schema(
      std::string_view(reinterpret_cast<const char*>(data), size), "fuzz");
  if (!grammar.ok()) return 0;
  const atom::fuzz::Walk walk = atom::fuzz::walk(std::move(grammar).value(), data, size);
  if (walk.complete && !nlohmann::json::accept(walk.text)) std::abort();
  return 0;
}
