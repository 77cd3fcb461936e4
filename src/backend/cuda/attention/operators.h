// The attention operators' arguments as the kernels take them.
#pragma once

#include "backend/cuda/attention/attention.h"
#include "backend/cuda/device_batch.h"
#include "backend/cuda/kv/rope_append.h"
#include "backend/cuda/runtime/host_arrays.h"
#include "ops/backend.h"

namespace atom::cuda {

// `batch` holds the arguments' batch.
RopeAppendParams rope_append_params(const RopeAppendArgs& args, const DeviceBatch& batch,
                                    HostArrays& arrays);
attention::Params attention_params(const AttentionArgs& args, const DeviceBatch& batch);
// exact: all of it in float.
AttentionWork attention_work(const DeviceBatch& batch, bool exact);

}  // namespace atom::cuda
