#include "grammar/json_schema.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "base/file.h"
#include "grammar/byte_automaton.h"

namespace atom::grammar {
namespace {

using nlohmann::ordered_json;
using test::ByteAutomaton;

ordered_json read_cases() {
  const auto text = read_text_file(ATOM_TEST_DATA "/grammar/schemas.json", 1 << 20);
  return ordered_json::parse(text.value());
}

std::string error_of(const std::string& schema) {
  const Result<Grammar> grammar = grammar_of_json_schema(schema, "schema");
  return grammar.ok() ? "compiled" : grammar.status().message();
}

bool accepts(const std::string& schema, const std::string& document) {
  Result<Grammar> grammar = grammar_of_json_schema(schema, "schema");
  EXPECT_TRUE(grammar.ok()) << grammar.status().message();
  return grammar.ok() && ByteAutomaton(std::move(grammar).value()).accepts(document);
}

TEST(JsonSchema, AcceptsWhatTheTableSays) {
  int documents = 0;
  for (const ordered_json& row : read_cases()) {
    const auto name = row.at("name").get<std::string>();
    Result<Grammar> grammar = grammar_of_json_schema(row.at("schema").dump(), "schema");
    ASSERT_TRUE(grammar.ok()) << name << ": " << grammar.status().message();
    ByteAutomaton automaton(std::move(grammar).value());
    for (const char* kind : {"accepted", "declined", "wrong"}) {
      for (const ordered_json& document : row.at(kind)) {
        const auto& text = document.get_ref<const std::string&>();
        EXPECT_EQ(automaton.accepts(text), std::string(kind) == "accepted")
            << name << ": " << kind << " " << text;
        ++documents;
      }
    }
  }
  EXPECT_GT(documents, 400);
}

TEST(JsonSchema, KeepsUtf8Valid) {
  const std::string schema = R"({"type": "string"})";
  for (const char* good :
       {"\"\xc3\xa9\"", "\"\xed\x9f\xbf\"", "\"\xf4\x8f\xbf\xbf\"", "\"\x7f\""}) {
    EXPECT_TRUE(accepts(schema, good)) << good;
  }
  for (const char* bad : {"\"\xc3\"", "\"\xa9\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"",
                          "\"\xf4\x90\x80\x80\"", "\"\xff\""}) {
    EXPECT_FALSE(accepts(schema, bad)) << bad;
  }
}

TEST(JsonSchema, NamesWhatItCannotKeep) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "array", "uniqueItems": true})", "schema: #/uniqueItems: 'uniqueItems' is not"},
      {R"({"properties": {"a": {"not": {"type": "null"}}}})",
       "schema: #/properties/a/not: the keyword 'not' is not supported"},
      {R"({"properties": {"a/b": {"if": true}}})", "schema: #/properties/a~1b/if: "},
      {R"({"type": "object", "patternProperties": {}})", "#/patternProperties"},
      {R"({"type": "object", "minProperties": 1})", "#/minProperties"},
      {R"({"type": "object", "maxProperties": 1})", "#/maxProperties"},
      {R"({"type": "array", "contains": {}})", "#/contains"},
      {R"({"type": "wrong"})", "schema: #/type: expected the name of a type, found \"wrong\""},
      {R"({"type": 3})", "schema: #/type"},
      {R"({"minimum": "3"})", "schema: #/minimum: expected a number, found \"3\""},
      {R"({"exclusiveMinimum": true})", "schema: #/exclusiveMinimum"},
      {R"({"maxLength": -1})", "schema: #/maxLength"},
      {R"({"maxLength": 2.5})", "schema: #/maxLength"},
      {R"({"multipleOf": 0})", "schema: #/multipleOf"},
      {R"({"multipleOf": 0.3})", "schema: #/multipleOf"},
      {R"({"type": "string", "format": "colour"})", "schema: #/format: formats other than date"},
      {R"~({"pattern": "(?=a)"})~", "schema: #/pattern: at character 2 of the pattern"},
      {R"({"pattern": 1})", "schema: #/pattern"},
      {R"({"required": "a"})", "schema: #/required"},
      {R"({"properties": []})", "schema: #/properties"},
      {R"({"items": [{}]})", "schema: #/items"},
      {R"({"prefixItems": {}})", "schema: #/prefixItems"},
      {R"({"enum": 3})", "schema: #/enum"},
      {R"({"anyOf": []})", "schema: #/anyOf"},
      {R"({"anyOf": [3]})", "schema: #/anyOf/0: expected a schema"},
      {R"({"$ref": "other.json"})", "schema: #/$ref"},
      {R"({"$ref": "#/$defs/a"})", "schema: #/$ref: '#/$defs/a' is not there"},
      {R"({"$ref": "#"})", "refers to itself"},
      {R"({"anyOf": [{"$ref": "#"}, {"type": "string"}]})", "refers to itself"},
      {R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})",
       "schema: #/oneOf: members 0 and 1 may both hold"},
      {R"({"oneOf": [{"type": "object", "properties": {"a": {"const": 1}}},
                     {"type": "object", "properties": {"a": {"const": 2}}}]})",
       "schema: #/oneOf"},
      {R"({"oneOf": [{"const": {"a": 1, "b": 2}}, {"const": {"b": 2, "a": 1.0}}]})",
       "schema: #/oneOf"},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})",
       "schema: #: no finite document"},
      {R"({"type": "integer", "minimum": 3, "maximum": 2})", "no finite document"},
      {R"({"type": "array", "minItems": 3, "maxItems": 2})", "no finite document"},
      {R"({"type": "array", "items": false, "minItems": 1})", "no finite document"},
      {R"({"type": "object", "required": ["a"], "additionalProperties": false})",
       "no finite document"},
      {R"({"enum": []})", "no finite document"},
      {"false", "no finite document"},
      {"3", "schema: #: expected a schema"},
      {"{", "schema: not valid JSON"},
      {"", "schema: not valid JSON"},
  };
  for (const auto& [schema, message] : cases) {
    EXPECT_NE(error_of(schema).find(message), std::string::npos)
        << schema << "\n  " << error_of(schema);
  }
}

TEST(JsonSchema, HostileSchemasEndInErrors) {
  const auto repeated = [](const std::string& text, int times) {
    std::string result;
    for (int i = 0; i < times; ++i) result += text;
    return result;
  };
  // Deep, large, and such that would multiply.
  std::vector<std::string> schemas = {
      repeated(R"({"items":)", 1000) + "{}" + repeated("}", 1000),
      R"({"description": ")" + std::string(300'000, 'x') + R"("})",
      R"({"enum": [)" + repeated("\"" + std::string(50, 'a') + "\",", 10'000) + "1]}",
      R"({"pattern": "^x{1,100000}$"})",
      R"({"pattern": "^((x{1,100}){1,100}){1,100}$"})",
      R"({"pattern": "^(a|b)*a(a|b){30}$"})",
      R"({"pattern": "^(((){1000}){1000}){1000}$"})",
      R"({"pattern": "^[a-z]+$", "maxLength": 1000000})",
      R"({"pattern": "^(a{7})*$", "allOf": [{"pattern": "^(a{11})*$"}, {"pattern": "^(a{13})*$"},
          {"pattern": "^(a{17})*$"}, {"pattern": "^(a{19})*$"}]})",
      R"({"allOf": [)" + repeated(R"({"anyOf": [{"minimum": 1}, {"maximum": 2}]},)", 30) + "{}]}",
      R"({"allOf": [)" + repeated(R"({"anyOf": [{}]},)", 2000) + "{}]}",
      R"({"enum": [)" + repeated("1,", 50'000) + R"(2], "allOf": [{"enum": [)" +
          repeated("3,", 50'000) + "4]}]}",
  };
  std::string properties;
  for (int i = 0; i < 6000; ++i) properties += fmt::format("\"p{}\": {{}},", i);
  schemas.push_back(R"({"properties": {)" + properties + R"("x": {}}})");
  std::string chain;
  for (int i = 0; i < 3000; ++i) {
    chain += fmt::format(R"("d{}": {{"$ref": "#/$defs/d{}"}},)", i, i + 1);
  }
  schemas.push_back(R"({"$defs": {)" + chain + R"("d3000": {}}, "$ref": "#/$defs/d0"})");
  // Each level has two ways to the next one: as many alternatives as a number has bits.
  std::string doubling;
  for (int i = 0; i < 60; ++i) {
    doubling += fmt::format(
        R"("d{0}": {{"anyOf": [{{"$ref": "#/$defs/d{1}"}}, {{"$ref": "#/$defs/d{1}", "title": "x"}}]}},)",
        i, i + 1);
  }
  schemas.push_back(R"({"$defs": {)" + doubling + R"("d60": {}}, "$ref": "#/$defs/d0"})");
  std::string chained_one_of;
  for (int i = 0; i < 500; ++i) {
    chained_one_of += fmt::format(
        R"("d{0}": {{"oneOf": [{{"type": "object", "properties": {{"a": {{"$ref": "#/$defs/d{1}"}}}}, "required": ["a"]}},
        {{"type": "object", "properties": {{"a": {{"$ref": "#/$defs/d{1}"}}}}, "required": ["a"]}}]}},)",
        i, i + 1);
  }
  schemas.push_back(R"({"$defs": {)" + chained_one_of + R"("d500": {}}, "$ref": "#/$defs/d0"})");
  for (const std::string& schema : schemas) {
    const std::string message = error_of(schema);
    EXPECT_EQ(message.rfind("schema", 0), 0u) << schema.substr(0, 80) << "\n  " << message;
    EXPECT_LT(message.size(), 400u) << message;
  }
}

TEST(JsonSchema, LargeHonestSchemasCompile) {
  std::string properties;
  for (int i = 0; i < 1000; ++i) {
    properties += fmt::format(R"("property{}": {{"type": "string", "maxLength": 100000}},)", i);
  }
  EXPECT_TRUE(accepts(R"({"properties": {)" + properties + R"("x": {"type": "null"}}})",
                      R"({"property17":"a","property900":"b","x":null})"));
  std::string values;
  for (int i = 0; i < 3000; ++i) values += fmt::format("\"value number {}\",", i);
  EXPECT_TRUE(accepts(R"({"enum": [)" + values + "null]}", "\"value number 2999\""));
}

TEST(JsonSchema, DeepDocumentsStaySmall) {
  // Two alternatives at each level must not make states that double with each level.
  Result<Grammar> grammar = grammar_of_json_schema(
      R"({"anyOf": [{"type": "array", "items": {"$ref": "#"}},
                    {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
                    {"type": "integer"}]})",
      "schema");
  ASSERT_TRUE(grammar.ok()) << grammar.status().message();
  ByteAutomaton automaton(std::move(grammar).value());
  const std::string depth(2000, '[');
  EXPECT_TRUE(automaton.accepts(depth + "7" + std::string(2000, ']')));
  EXPECT_FALSE(automaton.accepts(depth + "7" + std::string(1999, ']')));
  EXPECT_LT(automaton.automaton().bytes(), size_t{20} << 20);
}

}  // namespace
}  // namespace atom::grammar
