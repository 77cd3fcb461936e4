// ATOM_CHECK(condition, "message") aborts with file, line and message: for what only a bug in this
// program can cause. Nothing that an input says may reach it.
#pragma once

#include <cstdint>

namespace atom::detail {
[[noreturn]] void check_failed(const char* file, int line, const char* condition,
                               const char* message);
}  // namespace atom::detail

#define ATOM_CHECK(condition, message)                                         \
  do {                                                                         \
    if (!(condition)) [[unlikely]]                                             \
      ::atom::detail::check_failed(__FILE__, __LINE__, #condition, (message)); \
  } while (false)
