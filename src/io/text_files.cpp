#include "io/text_files.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxTextFile = 256u << 20;

// Contents, or nothing if there is no such file.
Result<std::string> read_optional(const fs::path& path) {
  std::error_code ec;
  if (!fs::exists(path, ec)) return std::string();
  return read_text_file(path, kMaxTextFile);
}

}  // namespace

Result<std::string> chat_template_of(const std::string& tokenizer_config,
                                     const std::string& origin) {
  const Json document = ATOM_TRY(parse_json(tokenizer_config, origin));
  const JsonView view(document, origin);
  if (!view.has("chat_template")) return std::string();
  const JsonView templates = ATOM_TRY(view.at("chat_template"));
  if (!templates.is_array()) return templates.as_string();
  for (size_t i = 0; i < templates.size(); ++i) {
    const JsonView item = ATOM_TRY(templates.at(i));
    if (ATOM_TRY(item.get_string("name")) == "default") return item.get_string("template");
  }
  return error(ErrorCode::kUnsupported, "{}: chat_template: none of the {} is named 'default'",
               origin, templates.size());
}

Result<TextAssets> read_text_files(const fs::path& folder) {
  TextAssets assets;
  assets.tokenizer_json = ATOM_TRY(read_optional(folder / "tokenizer.json"));
  const fs::path config = folder / "tokenizer_config.json";
  assets.tokenizer_config_json = ATOM_TRY(read_optional(config));
  assets.chat_template = ATOM_TRY(read_optional(folder / "chat_template.jinja"));
  if (assets.chat_template.empty() && !assets.tokenizer_config_json.empty()) {
    assets.chat_template =
        ATOM_TRY(chat_template_of(assets.tokenizer_config_json, config.string()));
  }
  return assets;
}

}  // namespace atom
