// Calibration text as windows of tokens, and the hidden states that stream through the layers.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace atom {

// Cuts tokens into windows. Where they hold no more than `windows` of them, consecutive windows
// from the start; else windows at random places; or at the given offsets. Text shorter than one
// window gives a single shorter one. Fails on fewer than 16 tokens or an offset out of range.
Result<std::vector<std::vector<int32_t>>> cut_windows(std::span<const int32_t> tokens,
                                                      int64_t windows, int64_t context,
                                                      uint64_t seed,
                                                      std::span<const int64_t> offsets);

// [windows][context][D] floats in an unlinked temporary file that the kernel may page out, so that
// the resident memory does not grow with the calibration text.
class HiddenStates {
 public:
  // Fails where the folder for temporary files (TMPDIR, else /tmp) has no room.
  static Result<HiddenStates> create(int64_t windows, int64_t floats_per_window);

  HiddenStates(HiddenStates&& other) noexcept;
  HiddenStates& operator=(HiddenStates&&) = delete;
  ~HiddenStates();

  std::span<float> window(int64_t index);
  // Lets the pages of a window leave memory; their contents stay in the file.
  void release(int64_t index);

 private:
  HiddenStates() = default;
  float* data_ = nullptr;
  int64_t windows_ = 0;
  int64_t stride_ = 0;  // floats, a multiple of a page
  int64_t floats_ = 0;
};

}  // namespace atom
