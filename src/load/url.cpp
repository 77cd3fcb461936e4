#include "load/url.h"

#include <algorithm>
#include <charconv>

namespace atom {
namespace {

Status bad_url(std::string_view text, std::string_view why) {
  return error(ErrorCode::kInvalidArgument, "--url '{}': {}", text, why);
}

bool is_port(std::string_view text) {
  unsigned number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  return problem == std::errc() && end == text.data() + text.size() && number >= 1 &&
         number <= 65535;
}

}  // namespace

std::string Url::authority() const {
  return host.find(':') == std::string::npos ? host + ":" + port : "[" + host + "]:" + port;
}

Result<Url> parse_url(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < '\x7f'; });
  if (!printable) return bad_url(text, "spaces and characters outside ASCII do not belong here");
  if (text.starts_with("https://")) {
    return error(ErrorCode::kUnsupported, "--url '{}': only http:// is spoken, no TLS", text);
  }
  if (!text.starts_with(kScheme)) return bad_url(text, "expected http://host:port");
  std::string_view rest = text.substr(kScheme.size());
  if (rest.find_first_of("?#@") != std::string_view::npos) {
    return bad_url(text, "expected no more than http://host:port/prefix");
  }
  const size_t slash = std::min(rest.find('/'), rest.size());
  std::string_view place = rest.substr(0, slash);
  std::string_view prefix = rest.substr(slash);
  while (prefix.ends_with('/')) prefix.remove_suffix(1);
  if (prefix.ends_with("/v1")) prefix.remove_suffix(3);

  Url url{.host = {}, .port = "80", .prefix = std::string(prefix)};
  if (place.starts_with('[')) {
    const size_t close = place.find(']');
    if (close == std::string_view::npos) return bad_url(text, "the '[' is never closed");
    url.host = place.substr(1, close - 1);
    place.remove_prefix(close + 1);
  } else {
    const size_t colon = std::min(place.find(':'), place.size());
    url.host = place.substr(0, colon);
    place.remove_prefix(colon);
  }
  if (url.host.empty()) return bad_url(text, "the host is missing");
  if (!place.empty()) {
    if (!place.starts_with(':') || !is_port(place.substr(1))) {
      return bad_url(text, "the port is not a number within 1..65535");
    }
    url.port = place.substr(1);
  }
  return url;
}

}  // namespace atom
