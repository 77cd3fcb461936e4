// Number formats as JSON, the same in recipes and in checkpoints. Enumerations are strings, unknown
// fields are refused, absent ones take the defaults of tensor/formats.h.
//
//   {"weight": {"kind": "grouped", "bits": 4, "group": 128, "outliers": 64, "outlier_kind":
//   "int8"},
//    "act": {"bits": 4, "group": 128, "rule": "symmetric", "clip": 0.9, "search": false}}
//   {"kind": "int", "bits": 4, "pre_rope": false, "centered": true, "hadamard": true}
//
// A linear without "act" takes float activations; weight kind "float" has just a "dtype".
#pragma once

#include "base/json.h"
#include "base/status.h"
#include "tensor/formats.h"

namespace atom {

Result<LinearFormat> linear_format_from_json(const JsonView& json);
Json to_json(const LinearFormat& format);

Result<KvFormat> kv_format_from_json(const JsonView& json);
Json to_json(const KvFormat& format);

}  // namespace atom
