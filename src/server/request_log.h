// The log of requests: one JSON line each, written by a thread of its own so that a slow or full
// disk holds up nobody.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "base/status.h"

namespace atom {

class RequestLog {
 public:
  // path: a file to append to, "-" for stderr, or empty for no log. Fails where it cannot be
  // opened.
  static Result<std::unique_ptr<RequestLog>> open(const std::string& path);
  // Writes what is queued.
  ~RequestLog();
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  bool enabled() const { return file_ >= 0; }
  // Queues a line, without its line end. Lines beyond the queue's limit and those that the system
  // does not take are lost, counted, and told of once on stderr.
  void write(std::string line);
  int64_t lost_lines() const;

 private:
  explicit RequestLog(int file);
  void run();
  void lose(int64_t lines, const char* why);  // under the lock

  const int file_;  // -1: none
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> queue_;
  int64_t lost_ = 0;
  bool told_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace atom
