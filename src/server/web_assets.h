// The files of the web page, built into the program from src/server/web.
#pragma once

#include <span>
#include <string_view>

namespace atom {

struct WebAsset {
  std::string_view path = {};  // "/app.js"; the page itself is "/"
  std::string_view content_type = {};
  std::string_view bytes = {};
  std::string_view etag = {};  // quoted
};

std::span<const WebAsset> web_assets();

}  // namespace atom
