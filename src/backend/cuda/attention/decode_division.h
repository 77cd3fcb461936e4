// How decode attention cuts sequences up, so that all multiprocessors have work.
#pragma once

#include <cstdint>

namespace atom::cuda::attention {

struct Division {
  int warps = 0;         // of a CTA, kWarps or kMostWarps
  int64_t splits = 1;    // parts of each sequence, a CTA each
  bool cluster = false;  // which are merged in a cluster, else in memory
};

// What the workspace has room for: partial results of pairs of a sequence and a KV head.
int64_t most_partials();
int64_t most_splits(int64_t pairs);

// Whether all clusters that a division makes, of one CTA a multiprocessor, run at once.
bool clusters_fit(int64_t pairs, int64_t splits, int warps);

// pages: of the longest sequence; group: query heads of a KV head; wide: whether there are CTAs of
// kMostWarps.
Division choose_division(int64_t pairs, int64_t pages, int group, bool wide);

}  // namespace atom::cuda::attention
