#include "io/model_source.h"

#include "io/gguf_source.h"
#include "io/hf_source.h"

namespace atom {
namespace fs = std::filesystem;

Result<std::unique_ptr<ModelSource>> open_model_source(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec)) return HfSource::create(path);
  return GgufSource::create(ATOM_TRY(GgufFile::open(path)));
}

Result<std::unique_ptr<ModelSource>> open_gguf_source(std::span<const std::byte> bytes,
                                                      std::string origin) {
  return GgufSource::create(ATOM_TRY(GgufFile::parse(bytes, std::move(origin))));
}

}  // namespace atom
