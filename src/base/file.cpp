#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace atom {
namespace fs = std::filesystem;
namespace {

Status os_error(const fs::path& path, const char* what) {
  const int code = errno;
  return error(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, "{}: {}: {}", path.string(),
               what, std::strerror(code));
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

}  // namespace

Result<MappedFile> MappedFile::open(const fs::path& path) {
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return os_error(path, "cannot open");
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) return os_error(path, "cannot stat");
  if (!S_ISREG(info.st_mode)) {
    return error(ErrorCode::kInvalidArgument, "{}: not a regular file", path.string());
  }
  MappedFile mapped;
  mapped.path_ = path;
  mapped.size_ = static_cast<size_t>(info.st_size);
  if (mapped.size_ == 0) return mapped;  // mmap refuses empty files
  void* data = ::mmap(nullptr, mapped.size_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) return os_error(path, "cannot map");
  mapped.data_ = static_cast<const std::byte*>(data);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(path_, other.path_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

Result<std::string> read_text_file(const fs::path& path, size_t max_bytes) {
  const MappedFile file = ATOM_TRY(MappedFile::open(path));
  if (file.bytes().size() > max_bytes) {
    return error(ErrorCode::kInvalidArgument, "{}: {} bytes, more than the {} allowed here",
                 path.string(), file.bytes().size(), max_bytes);
  }
  return std::string(file.text());
}

Status write_file_atomically(const fs::path& path, std::string_view bytes) {
  const fs::path temporary = path.string() + ".tmp" + std::to_string(::getpid());
  std::FILE* file = std::fopen(temporary.c_str(), "wb");
  if (file == nullptr) return os_error(path, "cannot create");
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed || std::rename(temporary.c_str(), path.c_str()) != 0) {
    Status failure = os_error(path, "cannot write");
    ::unlink(temporary.c_str());
    return failure;
  }
  return {};
}

Result<StagedFolder> StagedFolder::create(const fs::path& target) {
  std::error_code ec;
  if (fs::exists(target, ec) && !(fs::is_directory(target, ec) && fs::is_empty(target, ec))) {
    return error(ErrorCode::kInvalidArgument, "{}: already exists", target.string());
  }
  StagedFolder folder;
  folder.target_ = fs::absolute(target, ec).lexically_normal();
  if (!folder.target_.has_filename()) folder.target_ = folder.target_.parent_path();
  fs::create_directories(folder.target_.parent_path(), ec);
  folder.staging_ = folder.target_.string() + ".partial" + std::to_string(::getpid());
  if (!fs::create_directory(folder.staging_, ec)) {
    Status failure = error(ErrorCode::kIo, "{}: cannot create: {}", folder.staging_.string(),
                           ec ? ec.message() : "already exists");
    folder.staging_.clear();
    return failure;
  }
  return folder;
}

StagedFolder::StagedFolder(StagedFolder&& other) noexcept
    : target_(std::move(other.target_)), staging_(std::move(other.staging_)) {
  other.staging_.clear();
}

StagedFolder::~StagedFolder() {
  if (staging_.empty()) return;
  std::error_code ec;
  fs::remove_all(staging_, ec);
}

Status StagedFolder::commit() {
  std::error_code ec;
  fs::remove(target_, ec);  // an empty folder may stand there
  fs::rename(staging_, target_, ec);
  if (ec) {
    return error(ErrorCode::kIo, "{}: cannot rename from {}: {}", target_.string(),
                 staging_.string(), ec.message());
  }
  staging_.clear();
  return {};
}

}  // namespace atom
