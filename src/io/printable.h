// Strings out of files, made fit to stand in a one-line error message.
#pragma once

#include <string>
#include <string_view>

namespace atom {

// Bytes that are not printable ASCII become \xHH; what is longer than 100 characters is cut.
std::string printable(std::string_view text);

}  // namespace atom
