// A config.json: what is accepted must be valid and survive being written and read again.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/check.h"
#include "io/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = atom::parse_json(text, "fuzz");
  if (!json.ok()) return 0;
  auto config = atom::parse_hf_config(*json, "fuzz");
  if (!config.ok()) return 0;
  ATOM_CHECK(atom::validate(*config, "fuzz").ok(), "parsed configurations are valid");
  const auto again = atom::parse_hf_config(atom::hf_config_json(*config), "fuzz");
  ATOM_CHECK(again.ok() && *again == *config, "configurations survive a round trip");
  (void)atom::add_generation_config(*json, "fuzz", *config);
  return 0;
}
