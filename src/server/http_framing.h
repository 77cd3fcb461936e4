// What an answer's bytes look like on one connection: status line, headers and chunks.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "server/http_server.h"

namespace atom {

// Of ASCII letters, as the names of headers are compared.
bool equal_ignoring_case(std::string_view a, std::string_view b);

struct HttpFraming {
  bool http11 = true;
  bool keep_alive = true;
  bool head_only = false;  // the request was HEAD: headers as for GET, no body

  // All that stands before the body; without a length the body comes in pieces.
  std::string head(const HttpResponse& response, std::optional<size_t> content_length) const;
  std::string whole(const HttpResponse& response) const;
  // One piece of a body without a length, and what ends such a body.
  void append_piece(std::string& to, std::string_view piece) const;
  std::string_view last_piece() const { return http11 && !head_only ? "0\r\n\r\n" : ""; }
};

}  // namespace atom
