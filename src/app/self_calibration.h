// Calibration text that nobody has to supply: the model writes it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "io/model_source.h"
#include "ops/backend.h"

namespace atom {

struct SelfCalibrationOptions {
  int64_t windows = 32;
  int64_t context = 2048;  // tokens a window
  uint64_t seed = 0;
  bool show_progress = true;
};

// Samples windows at temperature 1, each from the model's BOS on (from a random token where there
// is none) and past its ends of text: windows * context ids, one window after another. The same for
// the same seed, whatever the number of threads. Loads the float model for as long as it takes;
// (kCancelled) on Ctrl-C.
Result<std::vector<int32_t>> write_calibration_text(Backend& backend, const ModelSource& source,
                                                    const SelfCalibrationOptions& options);

}  // namespace atom
