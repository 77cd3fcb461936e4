#include "quant/calibration.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "base/random.h"

namespace atom {
namespace {

// An open temporary file of this size that no folder lists.
Result<int> make_spill_file(int64_t bytes) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") +
                     "/atom-calibration-XXXXXX";
  const int fd = ::mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) {
    return error(ErrorCode::kIo, "{}: cannot create a temporary file: {}", path,
                 std::strerror(errno));
  }
  ::unlink(path.c_str());
  // Room is claimed now: running out later would be a SIGBUS in the middle of the work.
  const int claimed = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (claimed != 0) {
    ::close(fd);
    return error(ErrorCode::kIo, "{}: no room for {} MB of calibration states: {}", path,
                 bytes >> 20, std::strerror(claimed));
  }
  return fd;
}

}  // namespace

Result<std::vector<std::vector<int32_t>>> cut_windows(std::span<const int32_t> tokens,
                                                      int64_t windows, int64_t context,
                                                      uint64_t seed,
                                                      std::span<const int64_t> offsets) {
  constexpr int64_t kFewest = 16;
  const auto total = static_cast<int64_t>(tokens.size());
  if (total < kFewest) {
    return error(ErrorCode::kInvalidArgument, "calibration text: {} tokens, at least {} are needed",
                 total, kFewest);
  }
  const int64_t length = std::min(context, total);
  std::vector<int64_t> places(offsets.begin(), offsets.end());
  if (places.empty()) {
    if (total / length <= windows) {
      for (int64_t i = 0; i < total / length; ++i) places.push_back(i * length);
    } else {
      Random random(seed);
      for (int64_t i = 0; i < windows; ++i) places.push_back(random.below(total - length + 1));
    }
  }
  std::vector<std::vector<int32_t>> result;
  for (const int64_t place : places) {
    if (place < 0 || place + length > total) {
      return error(ErrorCode::kInvalidArgument,
                   "calibration offset {}: a window of {} tokens does not fit the text's {}", place,
                   length, total);
    }
    const auto window = tokens.subspan(static_cast<size_t>(place), static_cast<size_t>(length));
    result.emplace_back(window.begin(), window.end());
  }
  return result;
}

Result<HiddenStates> HiddenStates::create(int64_t windows, int64_t floats_per_window,
                                          int64_t resident_bytes) {
  const auto page_floats = static_cast<int64_t>(::sysconf(_SC_PAGESIZE)) / int64_t{sizeof(float)};
  HiddenStates states;
  states.windows_ = windows;
  states.floats_ = floats_per_window;
  states.stride_ = (floats_per_window + page_floats - 1) / page_floats * page_floats;
  const int64_t bytes = windows * states.stride_ * int64_t{sizeof(float)};
  states.spilled_ = bytes > resident_bytes;
  const int fd = states.spilled_ ? ATOM_TRY(make_spill_file(bytes)) : -1;
  void* data = ::mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE,
                      states.spilled_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, fd, 0);
  if (fd >= 0) ::close(fd);
  if (data == MAP_FAILED) {
    return error(ErrorCode::kOutOfMemory, "cannot map {} MB of calibration states: {}", bytes >> 20,
                 std::strerror(errno));
  }
  states.data_ = static_cast<float*>(data);
  return states;
}

HiddenStates::HiddenStates(HiddenStates&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      windows_(other.windows_),
      stride_(other.stride_),
      floats_(other.floats_),
      spilled_(other.spilled_) {}

HiddenStates::~HiddenStates() {
  if (data_ != nullptr) {
    ::munmap(data_, static_cast<size_t>(windows_ * stride_) * sizeof(float));
  }
}

std::span<float> HiddenStates::window(int64_t index) {
  ATOM_CHECK(index >= 0 && index < windows_, "no such window");
  return {data_ + index * stride_, static_cast<size_t>(floats_)};
}

void HiddenStates::release(int64_t index) {
  if (!spilled_) return;
  ::madvise(data_ + index * stride_, static_cast<size_t>(stride_) * sizeof(float), MADV_DONTNEED);
}

}  // namespace atom
