// Attention of a batch over the paged cache: which kernel takes which sequence.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cuda/attention/attention_kernels.h"
#include "base/status.h"

namespace atom::cuda {

// What a batch asks of attention; the lists are in GPU memory.
struct AttentionWork {
  const attention::DecodeItem* decode = nullptr;  // sequences with one new token
  int64_t decode_items = 0;
  int64_t longest_decode = 0;  // tokens of the longest of them, or an upper bound: sets the split
  const attention::ChunkItem* chunk_list = nullptr;  // sequences with several
  std::span<const int32_t> chunks = {};              // new tokens of each of those
  const int32_t* token_sequences = nullptr;          // [tokens]
  int64_t tokens = 0;
  bool exact = false;  // all in float
  int splits = 0;      // parts of a decode item; 0: chosen
  int warps = 0;       // of their CTAs, with `splits` and where there is a kernel with so many
};

// Scratch for any work, zeroed once; shared by the launches of one stream.
int64_t attention_workspace_bytes();

// `params` without items, splits and scratch. Sequences go to the tensor core kernels where there
// are any for the cache's layout and the number of heads, else all tokens to the exact one.
void launch_attention(attention::Params params, const AttentionWork& work, void* workspace,
                      cudaStream_t stream);

}  // namespace atom::cuda
