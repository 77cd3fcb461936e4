// What the cases of operators that make activations share.
#pragma once

#include <functional>

#include "ops/ops_fixture.h"

namespace atom {

// Formats of activations with every rule, group, width and kind of outliers that validate allows.
std::vector<LinearFormat> every_activation_format();
// The width of an input of such a format, no more than the format needs.
int64_t channels_of(const LinearFormat& format);
// Rows that are hard to quantize: each of a kind, repeated over the channels.
Matrix difficult_rows(int64_t channels);

// Runs an op that fills `tokens` tokens of activations that held others before, and checks that the
// tokens behind kept theirs.
HostActivations filled(Backend& backend, const LinearFormat& format, int64_t channels,
                       int64_t tokens, const std::function<void(Activations&)>& op);
HostActivations run_quantize(Backend& backend, const LinearFormat& format, const Matrix& x,
                             std::span<const int32_t> perm);

}  // namespace atom
