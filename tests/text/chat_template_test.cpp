#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace atom {
namespace {

using OrderedJson = nlohmann::ordered_json;

const std::filesystem::path kData = std::filesystem::path(ATOM_TEST_DATA) / "chat";

std::string read(const std::filesystem::path& path) {
  Result<std::string> text = read_text_file(path, size_t{16} << 20);
  EXPECT_TRUE(text.ok()) << text.status().message();
  return text.ok() ? *text : "";
}

OrderedJson read_json(const std::filesystem::path& path) {
  OrderedJson json = OrderedJson::parse(read(path), nullptr, false);
  EXPECT_FALSE(json.is_discarded()) << path;
  return json;
}

// The clock that make_chat_goldens.py sets.
jinja::RenderOptions fixed_clock() {
  std::tm now{};
  now.tm_year = 2024 - 1900;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 9;
  now.tm_min = 5;
  now.tm_sec = 7;
  now.tm_wday = 5;
  now.tm_yday = 207;
  jinja::RenderOptions options;
  options.now = now;
  return options;
}

Result<std::string> render(std::string_view source, const OrderedJson& variables,
                           const jinja::RenderOptions& options = fixed_clock()) {
  const ChatTemplate chat_template = ATOM_TRY(ChatTemplate::parse(source, "test", options));
  return chat_template.render(variables);
}

// What jinja2 made of it: the text, or any error.
void expect_golden(const Result<std::string>& ours, const OrderedJson& golden,
                   const std::string& what) {
  if (golden.contains("error")) {
    EXPECT_FALSE(ours.ok()) << what << "\nours: " << *ours << "\njinja2: " << golden["error"];
    return;
  }
  ASSERT_TRUE(ours.ok()) << what << "\nours: " << ours.status().message()
                         << "\njinja2: " << golden["expected"];
  EXPECT_EQ(*ours, golden["expected"].get<std::string>()) << what;
}

TEST(ChatTemplate, RendersRealTemplatesAsTransformersDoes) {
  OrderedJson conversations = read_json(kData / "conversations.json");
  const OrderedJson defaults = conversations["defaults"];
  conversations.erase("defaults");
  const OrderedJson goldens = read_json(kData / "chat_goldens.json");
  EXPECT_GE(goldens.size(), 12u);
  for (const auto& [name, results] : goldens.items()) {
    const std::string source = read(kData / "templates" / (name + ".jinja"));
    const auto chat_template = ChatTemplate::parse(source, name, fixed_clock());
    ASSERT_TRUE(chat_template.ok()) << chat_template.status().message();
    EXPECT_EQ(results.size(), conversations.size()) << name;
    for (const auto& [conversation, golden] : results.items()) {
      OrderedJson variables = defaults;
      variables.update(conversations[conversation]);
      expect_golden(chat_template->render(variables), golden, name + ", " + conversation);
    }
  }
}

TEST(ChatTemplate, AgreesWithJinja2OnEveryConstruct) {
  const OrderedJson variables = read_json(kData / "snippet_variables.json");
  const OrderedJson goldens = read_json(kData / "snippet_goldens.json");
  EXPECT_GE(goldens.size(), 300u);
  for (const OrderedJson& golden : goldens) {
    const auto source = golden["source"].get<std::string>();
    expect_golden(render(source, variables), golden, source);
  }
}

}  // namespace
}  // namespace atom
