// Strings from outside, made fit to stand in a one-line error message.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace atom {

// Bytes that are not printable ASCII become \xHH; what gets longer than the limit is cut.
std::string printable(std::string_view text, size_t limit = 100);

}  // namespace atom
