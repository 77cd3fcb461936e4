// The linears of a group in one launch: a grid's third dimension picks one.
#pragma once

#include "backend/cuda/linear/linear_kernels.h"

namespace atom::cuda {

template <class P>
struct Grouped {
  P params;
  LinearGroups groups;
};

// The rows of x and y that belong to this CTA's linear.
struct GroupRows {
  int group, count;
  int64_t first;

  __device__ explicit GroupRows(const LinearGroups& groups)
      : group(static_cast<int>(blockIdx.z)),
        count(groups.offsets[group + 1] - groups.offsets[group]),
        first(groups.offsets[group]) {}
};

}  // namespace atom::cuda
