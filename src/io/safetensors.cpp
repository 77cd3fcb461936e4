#include "io/safetensors.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/json.h"
#include "base/printable.h"
#include "io/byte_reader.h"
#include "io/safetensors_header.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

constexpr uint64_t kMaxHeader = 100u << 20;  // the limit of the safetensors library

struct DTypeSize {
  std::string_view name;
  int64_t bytes;
};
// Everything the format defines with whole bytes; which of it is of use, the reader of a tensor
// decides.
constexpr DTypeSize kDTypes[] = {
    {"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"F8_E8M0", 1},
    {"I16", 2},  {"U16", 2}, {"F16", 2}, {"BF16", 2},    {"I32", 4},     {"U32", 4},
    {"F32", 4},  {"F64", 8}, {"I64", 8}, {"U64", 8},     {"C64", 8}};

int64_t dtype_size(std::string_view name) {
  for (const DTypeSize& type : kDTypes) {
    if (type.name == name) return type.bytes;
  }
  return 0;
}

Result<std::vector<fs::path>> files_of_index(const fs::path& index, const Json& document) {
  const JsonView view(document, index.string());
  const JsonView map = ATOM_TRY(view.at("weight_map"));
  std::set<std::string> names;
  for (const std::string& tensor : map.keys()) {
    const std::string file = ATOM_TRY(map.get_string(tensor));
    if (file.empty() || file != fs::path(file).filename().string() || file == "." || file == "..") {
      return error(ErrorCode::kCorrupt, "{}: weight_map: '{}' is not the name of a file beside it",
                   index.string(), printable(file));
    }
    names.insert(file);
  }
  if (names.empty()) {
    return error(ErrorCode::kCorrupt, "{}: weight_map lists no file", index.string());
  }
  std::vector<fs::path> files;
  for (const std::string& name : names) files.push_back(index.parent_path() / name);
  return files;
}

Result<std::vector<fs::path>> files_by_name(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("model-") && name.ends_with(".safetensors")) files.push_back(it->path());
  }
  if (ec) return error(ErrorCode::kIo, "{}: cannot list: {}", folder.string(), ec.message());
  std::sort(files.begin(), files.end());
  if (files.empty()) {
    return error(ErrorCode::kNotFound,
                 "{}: no model.safetensors, model.safetensors.index.json or model-*.safetensors",
                 folder.string());
  }
  return files;
}

}  // namespace

int64_t SafetensorsTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

Result<SafetensorsFile> SafetensorsFile::open(const fs::path& path) {
  MappedFile mapped = ATOM_TRY(MappedFile::open(path));
  SafetensorsFile file = ATOM_TRY(parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

Result<SafetensorsFile> SafetensorsFile::parse(std::span<const std::byte> bytes,
                                               std::string origin) {
  SafetensorsFile file;
  file.origin_ = std::move(origin);
  ByteReader reader(bytes);
  uint64_t header_size = 0;
  std::span<const std::byte> header;
  if (!reader.read(header_size)) {
    return error(ErrorCode::kCorrupt, "{}: not a safetensors file: only {} bytes", file.origin_,
                 bytes.size());
  }
  if (header_size > kMaxHeader || !reader.take(header_size, header)) {
    return error(ErrorCode::kCorrupt, "{}: header length {}, but the file has {} bytes",
                 file.origin_, header_size, bytes.size());
  }
  std::vector<SafetensorsEntry> entries =
      ATOM_TRY(parse_safetensors_header(as_text(header), file.origin_));
  std::sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  const std::span<const std::byte> data = bytes.subspan(reader.offset());
  uint64_t expected = 0;
  for (SafetensorsEntry& entry : entries) {
    const std::string name = printable(entry.name);
    if (entry.begin != expected || entry.end < entry.begin || entry.end > data.size()) {
      return error(ErrorCode::kCorrupt,
                   "{}: tensor '{}': data_offsets [{}, {}], expected to begin at {} and to end "
                   "within {} bytes of data",
                   file.origin_, name, entry.begin, entry.end, expected, data.size());
    }
    SafetensorsTensor tensor{entry.dtype, std::move(entry.shape),
                             data.subspan(entry.begin, entry.end - entry.begin)};
    const int64_t size = dtype_size(entry.dtype);
    if (size == 0) {
      return error(ErrorCode::kUnsupported, "{}: tensor '{}': dtype '{}' is not known",
                   file.origin_, name, printable(entry.dtype));
    }
    if (static_cast<uint64_t>(tensor.elements() * size) != entry.end - entry.begin) {
      return error(ErrorCode::kCorrupt, "{}: tensor '{}': {} bytes for {} values of {}",
                   file.origin_, name, entry.end - entry.begin, tensor.elements(), entry.dtype);
    }
    expected = entry.end;
    file.tensors_.emplace(std::move(entry.name), std::move(tensor));
  }
  if (expected != data.size()) {
    return error(ErrorCode::kCorrupt, "{}: {} bytes of data, but the tensors have {}", file.origin_,
                 data.size(), expected);
  }
  return file;
}

void SafetensorsFile::release(const SafetensorsTensor& tensor) const {
  if (file_) file_->release(tensor.bytes);
}

Result<SafetensorsFolder> SafetensorsFolder::open(const fs::path& folder) {
  std::error_code ec;
  const fs::path single = folder / "model.safetensors";
  const fs::path index = folder / "model.safetensors.index.json";
  std::vector<fs::path> paths = {single};
  std::optional<Json> map;
  if (!fs::exists(single, ec)) {
    if (fs::exists(index, ec)) {
      map = ATOM_TRY(read_json_file(index));
      paths = ATOM_TRY(files_of_index(index, *map));
    } else {
      paths = ATOM_TRY(files_by_name(folder));
    }
  }
  std::vector<SafetensorsFile> files;
  for (const fs::path& path : paths) files.push_back(ATOM_TRY(SafetensorsFile::open(path)));
  SafetensorsFolder result = ATOM_TRY(from_files(std::move(files)));
  result.origin_ = folder.string();
  if (!map) return result;
  const JsonView view(*map, index.string());
  const JsonView weight_map = ATOM_TRY(view.at("weight_map"));
  for (const std::string& name : weight_map.keys()) {
    const std::string file = (folder / ATOM_TRY(weight_map.get_string(name))).string();
    const auto it = result.entries_.find(name);
    if (it == result.entries_.end() || it->second.file->origin() != file) {
      return error(ErrorCode::kCorrupt, "{}: weight_map: tensor '{}' is not in '{}'",
                   index.string(), printable(name), file);
    }
  }
  return result;
}

Result<SafetensorsFolder> SafetensorsFolder::from_files(std::vector<SafetensorsFile> files) {
  SafetensorsFolder folder;
  folder.files_ = std::move(files);  // entries point into it; moving a vector keeps its elements
  if (!folder.files_.empty()) folder.origin_ = folder.files_.front().origin();
  for (const SafetensorsFile& file : folder.files_) {
    for (const auto& [name, tensor] : file.tensors()) {
      const auto [it, fresh] = folder.entries_.emplace(name, Entry{&file, &tensor});
      if (fresh) continue;
      return error(ErrorCode::kCorrupt, "{}: tensor '{}' is in '{}' too", file.origin(),
                   printable(name), it->second.file->origin());
    }
  }
  return folder;
}

Result<SafetensorsFolder::Entry> SafetensorsFolder::find(std::string_view name) const {
  const auto it = entries_.find(name);
  if (it != entries_.end()) return it->second;
  return error(ErrorCode::kNotFound, "{}: tensor '{}' is missing", origin_, printable(name));
}

}  // namespace atom
