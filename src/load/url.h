// Where a server listens.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

namespace atom {

struct Url {
  std::string host;  // a name or an address, IPv6 without its brackets
  std::string port;
  std::string prefix;  // what stands before "/v1/...", without a slash at its end

  // "host:port" as the Host header wants it.
  std::string authority() const;
};

// Reads "http://host[:port][/prefix]"; a final "/v1", as OpenAI's clients want it, is left out.
// Fails for other schemes: there is no TLS here.
Result<Url> parse_url(std::string_view text);

}  // namespace atom
