#include "io/safetensors_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/file.h"
#include "base/json.h"

namespace atom {
namespace fs = std::filesystem;
namespace {

Status os_error(const fs::path& path, const char* what) {
  return error(ErrorCode::kIo, "{}: {}: {}", path.string(), what, std::strerror(errno));
}

Status write_all(std::FILE* file, const void* data, size_t size, const fs::path& path) {
  if (size == 0 || std::fwrite(data, 1, size, file) == size) return {};
  return os_error(path, "cannot write");
}

// The order of element types that the safetensors library uses when it sorts tensors.
int sort_rank(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kI32:
      return 1;
    case DType::kBF16:
      return 2;
    case DType::kF16:
      return 3;
    case DType::kI8:
      return 4;
    case DType::kU8:
      return 5;
  }
  return 6;
}

}  // namespace

Result<SafetensorsWriter> SafetensorsWriter::create(const fs::path& folder, int64_t shard_bytes) {
  SafetensorsWriter writer;
  writer.folder_ = folder;
  writer.shard_bytes_ = shard_bytes;
  writer.scratch_.reset(std::fopen(writer.scratch_path().c_str(), "w+b"));
  if (!writer.scratch_) return os_error(writer.scratch_path(), "cannot create");
  return writer;
}

SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&& other) noexcept
    : folder_(std::move(other.folder_)),
      shard_bytes_(other.shard_bytes_),
      scratch_(std::move(other.scratch_)),
      scratch_bytes_(other.scratch_bytes_),
      entries_(std::move(other.entries_)),
      shards_(std::move(other.shards_)),
      total_bytes_(other.total_bytes_),
      finished_(std::exchange(other.finished_, true)) {}

SafetensorsWriter::~SafetensorsWriter() {
  if (finished_) return;
  std::error_code ec;
  scratch_.reset();
  fs::remove(scratch_path(), ec);
  for (size_t i = 0; i < shards_.size() + 1; ++i) fs::remove(unnamed_shard(i), ec);
}

fs::path SafetensorsWriter::unnamed_shard(size_t index) const {
  return folder_ / fmt::format("shard-{:05}.scratch", index + 1);
}

Status SafetensorsWriter::add(std::string_view name, DType dtype, const std::vector<int64_t>& shape,
                              std::span<const std::byte> bytes) {
  ATOM_CHECK(!finished_, "add() after finish()");
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  const auto size = static_cast<int64_t>(bytes.size());
  ATOM_CHECK(elements * dtype_bytes(dtype) == size, "bytes do not fit the shape");
  if (!entries_.empty() && scratch_bytes_ + size > shard_bytes_) ATOM_TRY(close_shard());
  ATOM_TRY(write_all(scratch_.get(), bytes.data(), bytes.size(), scratch_path()));
  entries_.push_back({std::string(name), dtype, shape, scratch_bytes_, size});
  scratch_bytes_ += size;
  return {};
}

Status SafetensorsWriter::close_shard() {
  std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
    return std::pair(sort_rank(a.dtype), std::string_view(a.name)) <
           std::pair(sort_rank(b.dtype), std::string_view(b.name));
  });
  std::vector<std::string> names;
  nlohmann::ordered_json header = {{"__metadata__", {{"format", "pt"}}}};
  int64_t offset = 0;
  for (const Entry& entry : entries_) {
    header[entry.name] = {{"dtype", dtype_name(entry.dtype)},
                          {"shape", entry.shape},
                          {"data_offsets", {offset, offset + entry.size}}};
    offset += entry.size;
    names.push_back(entry.name);
  }
  ATOM_CHECK(header.size() == entries_.size() + 1, "a tensor was added twice");
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // data begin at a multiple of 8
  const fs::path path = unnamed_shard(shards_.size());
  const File out(std::fopen(path.c_str(), "wb"));
  if (!out) return os_error(path, "cannot create");
  const uint64_t header_size = text.size();
  ATOM_TRY(write_all(out.get(), &header_size, sizeof header_size, path));
  ATOM_TRY(write_all(out.get(), text.data(), text.size(), path));
  ATOM_TRY(copy_entries(out.get(), path));
  if (std::fflush(out.get()) != 0) return os_error(path, "cannot write");
  shards_.push_back(std::move(names));
  total_bytes_ += scratch_bytes_;
  entries_.clear();
  scratch_bytes_ = 0;
  scratch_.reset(std::freopen(scratch_path().c_str(), "w+b", scratch_.release()));
  if (!scratch_) return os_error(scratch_path(), "cannot truncate");
  return {};
}

Status SafetensorsWriter::copy_entries(std::FILE* out, const fs::path& path) {
  if (std::fflush(scratch_.get()) != 0) return os_error(scratch_path(), "cannot write");
  std::vector<char> buffer(1 << 20);
  for (const Entry& entry : entries_) {
    if (std::fseek(scratch_.get(), entry.scratch_offset, SEEK_SET) != 0) {
      return os_error(scratch_path(), "cannot seek");
    }
    for (int64_t left = entry.size; left > 0;) {
      const auto part =
          static_cast<size_t>(std::min<int64_t>(left, static_cast<int64_t>(buffer.size())));
      if (std::fread(buffer.data(), 1, part, scratch_.get()) != part) {
        return os_error(scratch_path(), "cannot read back");
      }
      ATOM_TRY(write_all(out, buffer.data(), part, path));
      left -= static_cast<int64_t>(part);
    }
  }
  return {};
}

Status SafetensorsWriter::finish() {
  ATOM_CHECK(!finished_, "finish() twice");
  if (!entries_.empty() || shards_.empty()) ATOM_TRY(close_shard());
  const size_t count = shards_.size();
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) {
    names.push_back(count == 1 ? "model.safetensors"
                               : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, count));
    if (std::rename(unnamed_shard(i).c_str(), (folder_ / names[i]).c_str()) != 0) {
      return os_error(folder_ / names[i], "cannot rename to");
    }
  }
  if (count > 1) ATOM_TRY(write_index(names));
  std::error_code ec;
  scratch_.reset();
  fs::remove(scratch_path(), ec);
  finished_ = true;
  return {};
}

Status SafetensorsWriter::write_index(const std::vector<std::string>& names) const {
  Json map = Json::object();
  for (size_t i = 0; i < names.size(); ++i) {
    for (const std::string& tensor : shards_[i]) map[tensor] = names[i];
  }
  const Json index = {{"metadata", {{"total_size", total_bytes_}}}, {"weight_map", map}};
  return write_file_atomically(folder_ / "model.safetensors.index.json", index.dump(2) + "\n");
}

}  // namespace atom
