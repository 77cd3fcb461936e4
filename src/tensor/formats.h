// Checks and names of number formats; the types are in format_types.h.
#pragma once

#include <string>

#include "base/status.h"
#include "tensor/format_types.h"

namespace atom {

// Checks that a format is one we define and fits K = `in` channels; the error names the field.
Status validate(const LinearFormat& format, int64_t in);
Status validate(const KvFormat& format, int64_t head_dim);

// Short names for people and JSON: "w4a4 g128 o64", "wfp4afp4 g128 o64", "wnvfp4anvfp4 g16".
std::string describe(const LinearFormat& format);
std::string describe(const KvFormat& format);

// Bits stored for each weight of a linear with `in` channels: codes, scales and outliers, no bias.
double effective_bits(const WeightFormat& format, int64_t in);

}  // namespace atom
