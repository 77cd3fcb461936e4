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

// [windows][context][D] floats: in memory up to kResidentBytes, a larger text's in an unlinked
// temporary file that the kernel may page out, so that resident memory does not grow with the text.
// The file is written out once a layer, which a slow disk makes felt.
class HiddenStates {
 public:
  static constexpr int64_t kResidentBytes = int64_t{1} << 30;

  // Fails where memory, or the folder for temporary files (TMPDIR, else /tmp), has no room.
  static Result<HiddenStates> create(int64_t windows, int64_t floats_per_window,
                                     int64_t resident_bytes = kResidentBytes);

  HiddenStates(HiddenStates&& other) noexcept;
  HiddenStates& operator=(HiddenStates&&) = delete;
  ~HiddenStates();

  std::span<float> window(int64_t index);
  // Lets the pages of a window that is in the file leave memory; its contents stay.
  void release(int64_t index);
  bool spilled() const { return spilled_; }

 private:
  HiddenStates() = default;
  float* data_ = nullptr;
  int64_t windows_ = 0;
  int64_t stride_ = 0;  // floats, a multiple of a page
  int64_t floats_ = 0;
  bool spilled_ = false;
};

}  // namespace atom
