// Floats and the decimal numbers that people write for them.
#pragma once

#include <fmt/core.h>

#include <charconv>
#include <string>

namespace atom {

// The shortest decimal number that rounds to a finite float, as a double: 1e-5 for 1e-5f, so that
// files from which we read floats or to which we write them mean and show what a person meant.
inline double decimal_value(float value) {
  const std::string text = fmt::format("{}", value);
  double result = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return static_cast<float>(result) == value ? result : static_cast<double>(value);
}

}  // namespace atom
