#include "server/http_framing.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/status.hpp>
#include <ctime>

namespace atom {
namespace {

namespace http = boost::beast::http;

std::string http_date() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  ::gmtime_r(&now, &utc);
  constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                     kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
}

}  // namespace

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [&](char x, char y) { return lower(x) == lower(y); });
}

std::string HttpFraming::head(const HttpResponse& response,
                              std::optional<size_t> content_length) const {
  const auto reason = http::obsolete_reason(static_cast<http::status>(response.status));
  std::string text = fmt::format("HTTP/1.{} {} {}\r\nDate: {}\r\n", http11 ? 1 : 0, response.status,
                                 std::string_view(reason), http_date());
  if (!response.content_type.empty()) {
    text += fmt::format("Content-Type: {}\r\n", response.content_type);
  }
  for (const HttpHeader& header : response.headers) {
    text += fmt::format("{}: {}\r\n", header.name, header.value);
  }
  if (content_length) {
    text += fmt::format("Content-Length: {}\r\n", *content_length);
  } else if (http11) {
    text += "Transfer-Encoding: chunked\r\n";
  }
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  return text;
}

std::string HttpFraming::whole(const HttpResponse& response) const {
  std::string text = head(response, response.body.size());
  if (!head_only) text += response.body;
  return text;
}

void HttpFraming::append_piece(std::string& to, std::string_view piece) const {
  if (piece.empty() || head_only) return;
  if (http11) {
    to += fmt::format("{:x}\r\n", piece.size());
    to += piece;
    to += "\r\n";
  } else {
    to += piece;
  }
}

}  // namespace atom
