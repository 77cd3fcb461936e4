#include "grammar/string_formats.h"

#include <fmt/core.h>

namespace atom::grammar {
namespace {

// RFC 3339. Days fit their months, leap years included.
std::string date_pattern() {
  constexpr std::string_view kLeapYear =
      "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)";
  return fmt::format(
      "(?:[0-9]{{4}}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
      "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|{}-02-29)",
      kLeapYear);
}
constexpr std::string_view kTime =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?"
    "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
constexpr std::string_view kNotYearZero =
    "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])-[-0-9T:.Z+]*";

// ISO 8601 as RFC 3339 appendix A has it: weeks alone, or units from large to small.
constexpr std::string_view kDuration =
    "P(?:[0-9]{1,4}W|(?:(?:[0-9]{1,4}Y(?:[0-9]{1,4}M(?:[0-9]{1,4}D)?)?"
    "|[0-9]{1,4}M(?:[0-9]{1,4}D)?|[0-9]{1,4}D)(?:T{time})?|T{time}))";
constexpr std::string_view kDurationTime =
    "(?:[0-9]{1,4}H(?:[0-9]{1,4}M(?:[0-9]{1,4}S)?)?|[0-9]{1,4}M(?:[0-9]{1,4}S)?|[0-9]{1,4}S)";

constexpr std::string_view kUuid =
    "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}";
// Up to four labels of 62 characters, so that a name keeps within 253.
constexpr std::string_view kLabel = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,60}[A-Za-z0-9])?";
constexpr std::string_view kByte = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

std::string hostname_pattern() { return fmt::format("{0}(?:\\.{0}){{0,3}}", kLabel); }
std::string email_pattern() {
  return fmt::format(
      "[A-Za-z0-9_+-]{{1,31}}(?:\\.[A-Za-z0-9_+-]{{1,31}})?@(?:{}\\.){{1,2}}[A-Za-z]{{2,24}}",
      kLabel);
}
std::string ipv4_pattern() { return fmt::format("{0}\\.{0}\\.{0}\\.{0}", kByte); }

// Eight groups, or fewer around one "::" that stands for at least two.
std::string ipv6_pattern() {
  constexpr std::string_view kGroup = "[0-9a-fA-F]{1,4}";
  std::string pattern = fmt::format("(?:{0}:){{7}}{0}|::(?:{0}(?::{0}){{0,5}})?", kGroup);
  for (int before = 1; before <= 6; ++before) {
    const int after = 6 - before;
    pattern += fmt::format("|{0}(?::{0}){{{1}}}::", kGroup, before - 1);
    if (after > 0) pattern += fmt::format("(?:{0}(?::{0}){{0,{1}}})?", kGroup, after - 1);
  }
  return pattern;
}

std::string uri_pattern() {
  constexpr std::string_view kCharacter = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})";
  return fmt::format(
      "[A-Za-z][A-Za-z0-9+.-]*://{1}(?::[0-9]{{1,5}})?(?:/{0}*)?(?:\\?{0}*)?(?:#{0}*)?", kCharacter,
      hostname_pattern());
}

std::string duration_pattern() {
  std::string pattern(kDuration);
  for (size_t at = pattern.find("{time}"); at != std::string::npos; at = pattern.find("{time}")) {
    pattern.replace(at, 6, kDurationTime);
  }
  return pattern;
}

}  // namespace

std::vector<std::string> format_patterns(std::string_view format) {
  if (format == "date") return {date_pattern(), std::string(kNotYearZero)};
  if (format == "time") return {std::string(kTime)};
  if (format == "date-time") {
    return {fmt::format("{}T{}", date_pattern(), kTime), std::string(kNotYearZero)};
  }
  if (format == "duration") return {duration_pattern()};
  if (format == "uuid") return {std::string(kUuid)};
  if (format == "email") return {email_pattern()};
  if (format == "hostname") return {hostname_pattern()};
  if (format == "ipv4") return {ipv4_pattern()};
  if (format == "ipv6") return {ipv6_pattern()};
  if (format == "uri") return {uri_pattern()};
  return {};
}

std::string_view format_names() {
  return "date, time, date-time, duration, uuid, email, hostname, ipv4, ipv6, uri";
}

}  // namespace atom::grammar
