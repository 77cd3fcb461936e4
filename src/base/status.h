// Errors that an input can cause travel as values: Status where nothing else is returned, Result<T>
// where something is. The message is one line that names the file, tensor or field and the value.
// Programmer errors abort instead: see base/check.h.
#pragma once

#include <fmt/core.h>

#include <optional>
#include <string>
#include <utility>

#include "base/check.h"

namespace atom {

enum class ErrorCode : uint8_t {
  kOk,
  kInvalidArgument,  // the caller asked for something that makes no sense
  kNotFound,         // a file, tensor or field is missing
  kCorrupt,          // the input contradicts itself or its format
  kUnsupported,      // well formed, but not something this build can do
  kOutOfMemory,
  kIo,         // the operating system refused a read or write
  kCancelled,  // Ctrl-C, or the client went away
  kInternal,
};

// The word used for a code in messages and JSON, e.g. "corrupt".
const char* error_code_name(ErrorCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == ErrorCode::kOk; }
  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // So that ATOM_TRY serves Status and Result alike.
  const Status& status() const { return *this; }
  void value() const {}

  // The same error with a place put in front: "model.gguf: <message>".
  Status with_context(const std::string& place) const {
    return ok() ? *this : Status(code_, place + ": " + message_);
  }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {  // NOLINT: implicit on purpose
    ATOM_CHECK(!status_.ok(), "a Result needs a value or an error");
  }

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  T& value() & {
    ATOM_CHECK(ok(), "value() of a failed Result");
    return *value_;
  }
  const T& value() const& {
    ATOM_CHECK(ok(), "value() of a failed Result");
    return *value_;
  }
  T value() && {
    ATOM_CHECK(ok(), "value() of a failed Result");
    return std::move(*value_);
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

// Makes an error: return error(ErrorCode::kCorrupt, "{}: tensor '{}' ends at {}", path, name, end);
template <class... Args>
Status error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Status(code, fmt::format(format, std::forward<Args>(args)...));
}

// auto x = ATOM_TRY(f());   leaves the enclosing function with f's error, or yields its value.
#define ATOM_TRY(expression)                                    \
  (__extension__({                                              \
    auto&& atom_try_result = (expression);                      \
    if (!atom_try_result.ok()) return atom_try_result.status(); \
    std::move(atom_try_result).value();                         \
  }))

}  // namespace atom
