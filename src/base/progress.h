// A progress bar with an estimate of the time left, on stderr: redrawn in place on a terminal, a
// line every tenth of the way elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace atom {

class Progress {
 public:
  // label: what is being done ("quantizing"); total: the units of work, of any size.
  Progress(std::string label, int64_t total, bool enabled = true);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t units = 1);
  // A few words behind the bar, such as the current layer or loss.
  void note(std::string text);

 private:
  void draw(bool last);
  std::string label_;
  std::string note_;
  int64_t total_;
  int64_t done_ = 0;
  int64_t tenths_shown_ = -1;
  bool enabled_;
  bool terminal_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point drawn_;
};

// "4m 05s", "12.3s".
std::string format_duration(double seconds);

}  // namespace atom
