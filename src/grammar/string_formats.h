// The values of JSON Schema's `format` that constrain strings.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace atom::grammar {

// Patterns that a string of this format matches as a whole, all of them; empty if it is unknown.
std::vector<std::string> format_patterns(std::string_view format);
// The known names, for messages.
std::string_view format_names();

}  // namespace atom::grammar
