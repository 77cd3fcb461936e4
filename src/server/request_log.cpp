#include "server/request_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/log.h"

namespace atom {
namespace {

constexpr size_t kMaxQueuedLines = 10'000;

// False, with errno set, where not all of it could be written.
bool write_all(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::write(file, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

}  // namespace

Result<std::unique_ptr<RequestLog>> RequestLog::open(const std::string& path) {
  int file = -1;
  if (path == "-") {
    file = ::dup(STDERR_FILENO);
  } else if (!path.empty()) {
    file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  }
  if (file < 0 && !path.empty()) {
    return error(ErrorCode::kIo, "{}: cannot be opened for the log ({})", path,
                 std::strerror(errno));
  }
  return std::unique_ptr<RequestLog>(new RequestLog(file));
}

RequestLog::RequestLog(int file) : file_(file) {
  if (enabled()) thread_ = std::thread([this] { run(); });
}

RequestLog::~RequestLog() {
  if (!enabled()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_one();
  thread_.join();
  ::close(file_);
}

void RequestLog::write(std::string line) {
  if (!enabled()) return;
  line += '\n';
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kMaxQueuedLines) {
      lose(1, "the disk is too slow");
      return;
    }
    queue_.push_back(std::move(line));
  }
  changed_.notify_one();
}

int64_t RequestLog::lost_lines() const {
  const std::lock_guard lock(mutex_);
  return lost_;
}

void RequestLog::lose(int64_t lines, const char* why) {
  lost_ += lines;
  if (std::exchange(told_, true)) return;
  log_error("the request log loses lines: {}", why);
}

void RequestLog::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::deque<std::string> lines;
    lines.swap(queue_);
    lock.unlock();
    std::string bytes;
    for (const std::string& line : lines) bytes += line;
    const bool written = write_all(file_, bytes);
    const int problem = errno;
    lock.lock();
    if (!written) lose(static_cast<int64_t>(lines.size()), std::strerror(problem));
  }
}

}  // namespace atom
