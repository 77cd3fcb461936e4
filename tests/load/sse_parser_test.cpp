#include "load/sse_parser.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace atom {
namespace {

// The events of a stream that arrives in pieces of the given size.
std::vector<std::string> events_of(std::string_view stream, size_t piece) {
  std::vector<std::string> events;
  SseParser parser;
  while (!stream.empty()) {
    const std::string_view part = stream.substr(0, piece);
    stream.remove_prefix(part.size());
    const Status status = parser.feed(part, [&](std::string_view data) -> Status {
      events.emplace_back(data);
      return {};
    });
    EXPECT_TRUE(status.ok());
  }
  return events;
}

TEST(SseParser, DoesNotDependOnWhereTheBytesAreCut) {
  const std::string stream =
      "\xef\xbb\xbf"
      "data: {\"a\":1}\n\n"
      ": a comment\n"
      "event: x\nid: 7\ndata: first\ndata:second\ndata\n\n"
      "data: crlf\r\n\r\n"
      "data: cr\r\r"
      "ignored: x\n\n"
      "data:  two spaces\n\n"
      "data: [DONE]\n\n"
      "data: never finished\n";
  const std::vector<std::string> expected = {"{\"a\":1}", "first\nsecond\n", "crlf",
                                             "cr",        " two spaces",     "[DONE]"};
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    EXPECT_EQ(events_of(stream, piece), expected) << "pieces of " << piece;
  }
}

TEST(SseParser, EndsAtTheFirstErrorOfTheSink) {
  SseParser parser;
  int calls = 0;
  const Status status = parser.feed("data: a\n\ndata: b\n\n", [&](std::string_view) {
    ++calls;
    return error(ErrorCode::kCorrupt, "no");
  });
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(calls, 1);
}

TEST(SseParser, RefusesAnEndlessEvent) {
  SseParser parser;
  const SseParser::Sink ignore = [](std::string_view) { return Status(); };
  const std::string line = "data: " + std::string(1000, 'x') + "\n";
  Status status;
  int lines = 0;
  for (; status.ok() && lines < 10000; ++lines) status = parser.feed(line, ignore);
  EXPECT_EQ(status.code(), ErrorCode::kCorrupt);
  EXPECT_LE(lines * 1001, static_cast<int>(SseParser::kMaxEventBytes) + 2002);
}

}  // namespace
}  // namespace atom
