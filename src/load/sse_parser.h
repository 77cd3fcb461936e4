// Server-sent events, the stream format of OpenAI's API (WHATWG HTML, section 9.2).
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace atom {

// Puts events together from bytes that arrive in pieces of any size. Lines end in LF, CRLF or CR;
// of an event only its data matters here.
class SseParser {
 public:
  using Sink = std::function<Status(std::string_view data)>;

  // Calls sink with the data of each event that these bytes complete; stops at its first error.
  // Fails when an event grows beyond kMaxEventBytes.
  Status feed(std::string_view bytes, const Sink& sink);

  static constexpr size_t kMaxEventBytes = 1 << 20;

 private:
  Status end_line(const Sink& sink);

  std::string line_;
  std::string data_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool first_line_ = true;
};

}  // namespace atom
