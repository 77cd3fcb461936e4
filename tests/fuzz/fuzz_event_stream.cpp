// What a server may stream: the events do not depend on where the bytes are cut.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "load/openai.h"
#include "load/sse_parser.h"

namespace {

std::vector<std::string> events_of(std::string_view stream, size_t piece) {
  std::vector<std::string> events;
  atom::SseParser parser;
  while (!stream.empty()) {
    const std::string_view part = stream.substr(0, piece);
    stream.remove_prefix(part.size());
    const auto status = parser.feed(part, [&](std::string_view data) -> atom::Status {
      events.emplace_back(data);
      return {};
    });
    if (!status.ok()) break;
  }
  return events;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string_view stream(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto events = events_of(stream, std::max<size_t>(1, size));
  ATOM_CHECK(events == events_of(stream, 1 + data[0]), "pieces make no difference");
  for (const std::string& event : events) {
    (void)atom::read_stream_event(event);
    (void)atom::read_usage(event);
    (void)atom::first_model(event);
    ATOM_CHECK(atom::failure_message(event).find('\n') == std::string::npos, "one line");
  }
  return 0;
}
