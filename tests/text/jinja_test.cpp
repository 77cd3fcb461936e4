#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "text/chat_template.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

Result<std::string> render(std::string_view source,
                           const OrderedJson& variables = OrderedJson::object(),
                           const jinja::RenderOptions& options = {}) {
  const ChatTemplate chat_template = ATOM_TRY(ChatTemplate::parse(source, "test", options));
  return chat_template.render(variables);
}

std::string error_of(std::string_view source, const OrderedJson& variables = OrderedJson::object(),
                     const jinja::RenderOptions& options = {}) {
  const Result<std::string> text = render(source, variables, options);
  EXPECT_FALSE(text.ok()) << source.substr(0, 200);
  return text.status().message();
}

std::string repeated(std::string_view text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

TEST(Jinja, NamesOriginAndLineInErrors) {
  EXPECT_EQ(error_of("a\n{{ 1 +\n }}"), "test: line 3: unexpected end of print statement");
  EXPECT_EQ(error_of("a\n\n{{ x.y }}\n"), "test: line 3: 'x' is undefined");
  EXPECT_EQ(error_of("{% if true %}\n{% for i in [1] %}\n{{ raise_exception('no ' ~ i) }}\n{% "
                     "endfor %}{% endif %}"),
            "test: line 3: no 1");
  EXPECT_EQ(error_of("{% macro m(a) %}\n\n{{ a + 1 }}{% endmacro %}\n\n{{ m('x') }}"),
            "test: line 3: can only concatenate str (not \"int\") to str");
  EXPECT_EQ(error_of("{#\n\n#}{{ 'a\nb' ~ (1 / 0) }}"), "test: line 4: division by zero");
}

TEST(Jinja, RefusesVariablesThatAreNoObject) {
  EXPECT_EQ(error_of("x", OrderedJson::array()), "test: the variables are not an object");
  EXPECT_EQ(error_of("x", {{"n", UINT64_MAX}}),
            "test: variables: the integer 18446744073709551615 takes more than 64 bits");
  OrderedJson deep = 1;
  for (int i = 0; i < 300; ++i) deep = OrderedJson::array({deep});
  EXPECT_EQ(error_of("x", {{"deep", deep}}), "test: variables: JSON is nested more than 200 deep");
}

TEST(Jinja, KeepsTheOrderOfKeysOrSortsThem) {
  const auto chat_template = ChatTemplate::parse("{{ tool | tojson }}", "test");
  ASSERT_TRUE(chat_template.ok());
  const OrderedJson ordered = {{"tool", {{"type", "f"}, {"name", "g"}}}};
  EXPECT_EQ(*chat_template->render(ordered), R"({"type": "f", "name": "g"})");
  EXPECT_EQ(*chat_template->render(Json(ordered)), R"({"name": "g", "type": "f"})");
}

TEST(Jinja, IntegersStayWithin64Bits) {
  EXPECT_EQ(error_of("{{ 9223372036854775808 }}"),
            "test: line 1: the integer 9223372036854775808 takes more than 64 bits");
  for (const char* source :
       {"{{ 9223372036854775807 + 1 }}", "{{ -9223372036854775807 - 2 }}",
        "{{ 4294967296 * 4294967296 }}", "{{ 10 ** 19 }}", "{{ -(-9223372036854775807 - 1) }}",
        "{{ (-9223372036854775807 - 1) // -1 }}", "{{ (-9223372036854775807 - 1) | abs }}",
        "{{ 9223372036854775807 | round(-1) }}"}) {
    EXPECT_NE(error_of(source).find("64 bits"), std::string::npos) << source;
  }
  EXPECT_EQ(*render("{{ (-9223372036854775807 - 1) % -1 }}"), "0");
  EXPECT_EQ(
      *render("{{ 'xyz'[9223372036854775807:] }}|{{ 'xyz'[::9223372036854775807] }}|"
              "{{ 'xyz'[::-9223372036854775807 - 1] }}|"
              "{{ range(-9223372036854775807, 9223372036854775807, 9223372036854775807) | list }}"),
      "|x|z|[-9223372036854775807, 0]");
  EXPECT_FALSE(render("{{ 1e300 | int }}").ok());
}

TEST(Jinja, RefusesTemplatesNestedTooDeeply) {
  const size_t many = 100000;
  for (const std::string& source :
       {"{{ " + repeated("(", many) + "1" + repeated(")", many) + " }}",
        "{{ " + repeated("[", many) + repeated("]", many) + " }}",
        "{{ " + repeated("not ", many) + "1 }}", "{{ " + repeated("-", many) + "1 }}",
        "{{ 1" + repeated(" + 1", many) + " }}", "{{ x" + repeated(".a", many) + " }}",
        "{{ x" + repeated("|e", many) + " }}", "{{ x" + repeated("[0]", many) + " }}",
        "{{ x" + repeated("()", many) + " }}", "{{ 1" + repeated(" if 1 else 1", many / 2) + " }}",
        "{{ 1" + repeated(" if 1", many) + " }}", "{{ 1" + repeated(" ** 1", many) + " }}",
        repeated("{% if 1 %}", many / 2) + repeated("{% endif %}", 9),
        repeated("{% for a in b %}", many / 2)}) {
    EXPECT_NE(error_of(source).find("nested too deeply"), std::string::npos)
        << source.substr(0, 40);
  }
  EXPECT_EQ(*render("{{ " + repeated("(", 60) + "1" + repeated(")", 60) + " }}"), "1");
  EXPECT_EQ(*render(repeated("{% if 1 %}", 100) + "x" + repeated("{% endif %}", 100)), "x");
  EXPECT_EQ(*render("{{ 1" + repeated(" + 1", 150) + " }}"), "151");
  EXPECT_EQ(*render("{{ ''" + repeated(" ~ 'a'", 5000) + " }}"), std::string(5000, 'a'));
}

TEST(Jinja, RefusesEndlessRecursion) {
  EXPECT_NE(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").find("recurses too deeply"),
            std::string::npos);
  EXPECT_NE(error_of("{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}")
                .find("recurses too deeply"),
            std::string::npos);
  EXPECT_NE(
      error_of(
          "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{{ caller() }}{% endmacro %}"
          "{% call m() %}x{% endcall %}")
          .find("recurses too deeply"),
      std::string::npos);
  EXPECT_EQ(*render("{% macro m(n) %}{% if n %}{{ n }},{{ m(n - 1) }}{% endif %}{% endmacro %}"
                    "{{ m(50) | length }}"),
            "141");
}

TEST(Jinja, RefusesTooManySteps) {
  jinja::RenderOptions options;
  options.limits.max_steps = 200000;
  options.limits.max_text_bytes = 1 << 20;
  const OrderedJson none = OrderedJson::object();
  const char* loops =
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}";
  EXPECT_NE(error_of(loops, none, options).find("takes too many steps"), std::string::npos);
  const char* doubling =
      "{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% "
      "endfor %}";
  EXPECT_NE(error_of(doubling, none, options).find("takes too many steps"), std::string::npos);
  // A value that is small in memory but large when walked: each level holds the last one twice.
  const std::string shared =
      "{% set ns = namespace(l=[1], m=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% set ns.m = [ns.m, ns.m] %}{% endfor %}";
  EXPECT_NE(error_of(shared + "{{ ns.l == ns.m }}", none, options).find("takes too many steps"),
            std::string::npos);
  EXPECT_FALSE(render(shared + "{{ ns.l }}", none, options).ok());
  EXPECT_FALSE(render(shared + "{{ ns.l | tojson }}", none, options).ok());
}

TEST(Jinja, RefusesTextsThatGrowTooLarge) {
  for (const char* source :
       {"{{ 'ab' * 9000000 }}", "{{ 'ab' * 9223372036854775807 }}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% "
        "endfor %}",
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% "
        "endfor %}",
        "{% for i in range(100000) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set s = 'a' * 100000 %}{{ s | replace('', s) }}",
        "{% set s = 'a\n' * 100000 %}{{ s | indent(10000) }}", "{{ 'a' | center(100000000) }}",
        "{{ 'a'.ljust(9223372036854775807) }}", "{{ ('a' * 10000000) | join('b' * 1000) }}",
        "{{ ('é' * 4000000) | urlencode }}"}) {
    const std::string message = error_of(source);
    EXPECT_TRUE(message.find("beyond the limit") != std::string::npos ||
                message.find("too many steps") != std::string::npos)
        << source << ": " << message;
  }
  jinja::RenderOptions options;
  options.limits.max_text_bytes = 10;
  EXPECT_EQ(*render("0123456789", OrderedJson::object(), options), "0123456789");
  EXPECT_EQ(error_of("0123456789x", OrderedJson::object(), options),
            "test: line 1: a text grows beyond the limit of 10 bytes");
  options.limits.max_source_bytes = 3;
  EXPECT_EQ(error_of("abcd", OrderedJson::object(), options),
            "test: 4 bytes, more than the 3 allowed");
}

TEST(Jinja, RefusesValuesNestedTooDeeply) {
  for (const char* source :
       {"{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor "
        "%}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = {'a': ns.l} %}{% "
        "endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = cycler(ns.l) %}{% "
        "endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = joiner(ns.l) %}{% "
        "endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = dict(a=ns.l) %}{% "
        "endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% for j in [ns.l] %}"
        "{% set ns.l = loop %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(l=1) %}{% for i in range(1000) %}{% set ns.l = [ns.l] | map('list') "
        "%}"
        "{% endfor %}"}) {
    EXPECT_FALSE(render(source).ok()) << source;
  }
}

// Namespaces and macros can hold themselves: nothing may leak or run forever.
TEST(Jinja, FreesWhatHoldsItself) {
  EXPECT_TRUE(render("{% set ns = namespace() %}{% set ns.me = ns %}{% set ns.l = [ns] %}x").ok());
  EXPECT_FALSE(render("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}").ok());
  EXPECT_TRUE(
      render("{% set ns = namespace() %}{% macro m() %}{{ ns }}{% endmacro %}{% set ns.m = m %}x")
          .ok());
  EXPECT_TRUE(render("{% for i in [1] %}{% macro m() %}{{ m }}{% endmacro %}{% endfor %}x").ok());
  EXPECT_TRUE(
      render("{% set ns = namespace() %}{% for i in [1, 2] %}{% set ns.l = loop %}{% endfor %}"
             "{{ ns.l.index }}{{ ns.l.last }}{{ ns.l.nextitem is defined }}")
          .ok());
  EXPECT_TRUE(render("{% set ns = namespace(c=none) %}{% for i in range(5000) %}"
                     "{% set ns.c = namespace(c=ns.c) %}{% endfor %}x")
                  .ok());
}

TEST(Jinja, TakesInvalidUtf8) {
  EXPECT_EQ(*render("a\xff\xc3{{ 'b\xe2\x82' | length }}{{ '\xff' | upper }}"),
            "a\xff\xc3"
            "3\xff");
  EXPECT_EQ(*render("{{ '\xf0\x9f' | tojson }}{{ ['\x80'] }}"), "\"\xf0\x9f\"['\\x80']");
  EXPECT_FALSE(render("{{ '\\ud83d' }}").ok());
  EXPECT_EQ(*render("{{ '\\ud83d\\ude42' }}"), "🙂");
}

TEST(Jinja, TellsTheTimeItWasGiven) {
  jinja::RenderOptions options;
  options.now = std::tm{};
  options.now->tm_year = 99;
  options.now->tm_mday = 31;
  options.now->tm_mon = 11;
  EXPECT_EQ(*render("{{ strftime_now('%d %b %Y%z') }}", OrderedJson::object(), options),
            "31 Dec 1999");
  EXPECT_EQ(render("{{ strftime_now('%Y') }}")->size(), 4u);
  EXPECT_FALSE(render("{{ strftime_now('%d' * 1000) }}").ok());
}

TEST(Jinja, PassesOverLoopItemsAsTheLoopGetsToThem) {
  // The condition sees what the body has done, unless the length was asked for first.
  const char* source =
      "{% set ns = namespace(stop=false) %}{% for i in [1, 2, 3, 4] if not ns.stop %}{{ i }}"
      "{% if i == 2 %}{% set ns.stop = true %}{% endif %}{% endfor %}";
  EXPECT_EQ(*render(source), "12");
  EXPECT_EQ(*render("{% for i in range(6) if i % 2 %}{{ loop.length }}{{ loop.revindex }}{{ i }} "
                    "{% endfor %}"),
            "331 323 315 ");
}

}  // namespace
}  // namespace atom
