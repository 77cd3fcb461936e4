#include "base/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json_brackets.h"

namespace atom {
namespace {

TEST(Json, ErrorsNameThePlaceAndTheValue) {
  const Json parsed =
      parse_json(R"({"a": {"b": [1, -2, "x"]}, "big": 18446744073709551615})", "f.json").value();
  const JsonView root(parsed, "f.json");
  const JsonView list = root.at("a").value().at("b").value();
  EXPECT_EQ(list.at(0).value().as_int(0, 5).value(), 1);
  EXPECT_EQ(list.at(1).value().as_int(0, 5).status().message(),
            "f.json: a.b[1]: -2 is not within 0..5");
  EXPECT_EQ(list.at(2).value().as_number().status().message(),
            "f.json: a.b[2]: expected a number, found \"x\"");
  EXPECT_EQ(root.get_int("c", 0, 1).status().message(), "f.json: 'c' is missing");
  EXPECT_FALSE(root.get_int("big", 0, INT64_MAX).ok());
  EXPECT_EQ(root.get_int("c", 0, 1, 7).value(), 7);
  EXPECT_EQ(root.expect_keys({"a"}).message(), "f.json: unknown field 'big'");
}

TEST(Json, RefusesWhatIsNotJson) {
  EXPECT_EQ(parse_json("{", "f.json").status().message(), "f.json: not valid JSON");
  const std::string deep(100000, '[');  // no recursion to exhaust
  EXPECT_FALSE(parse_json(deep, "f.json").ok());
}

TEST(JsonBrackets, StopsBehindEachBracketOutsideOfStrings) {
  const auto walk = [](std::string_view text) {
    std::vector<std::pair<int64_t, size_t>> stops;
    JsonBrackets brackets(text);
    while (brackets.next()) stops.emplace_back(brackets.depth(), brackets.position());
    return stops;
  };
  using Stops = std::vector<std::pair<int64_t, size_t>>;
  EXPECT_EQ(walk(R"({"a": ["]}\"]"]} x)"), (Stops{{1, 1}, {2, 7}, {1, 15}, {0, 16}}));
  EXPECT_EQ(walk("]["), (Stops{{-1, 1}, {0, 2}}));
  EXPECT_EQ(walk(R"("never ends [)"), Stops{});
  EXPECT_EQ(walk("\"ends with \\"), Stops{});
  EXPECT_EQ(walk(""), Stops{});
}

}  // namespace
}  // namespace atom
