// What commands write to stdout.
#pragma once

#include <nlohmann/json_fwd.hpp>

namespace atom::cli {

// One JSON document, in the order in which its members were added.
void print_json(const nlohmann::ordered_json& document);

// For a number that no JSON could hold (an infinite perplexity) null is printed.
nlohmann::ordered_json json_number(double value);

}  // namespace atom::cli
