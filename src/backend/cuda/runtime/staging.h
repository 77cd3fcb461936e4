// Large arrays on their way to the GPU.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "backend/cuda/runtime/device.h"
#include "backend/cuda/runtime/upload.h"
#include "base/parallel.h"

namespace atom::cuda {

// Two pinned buffers in turns: all threads write the next piece of an array into one while the copy
// engine still reads the piece before from the other. Copies are queued in one stream; what was
// sent may be freed or changed at once. The buffers stay for the next array.
class Staging {
 public:
  explicit Staging(cudaStream_t stream) : stream_(stream) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  // Copies items of `item_bytes` bytes to GPU memory; write(i, place) writes item i, whole, and is
  // called from several threads. Fails when pinned memory is short.
  template <class Write>
  Status send(uint8_t* to, int64_t items, int64_t item_bytes, const Write& write) {
    if (items * item_bytes == 0) return {};
    // Pieces of one size, so that none leaves threads without an item.
    const int64_t pieces = (items * item_bytes + kPieceBytes - 1) / kPieceBytes;
    const int64_t most = (items + pieces - 1) / pieces;
    for (int64_t first = 0; first < items; first += most) {
      const int64_t count = std::min(most, items - first);
      uint8_t* piece = ATOM_TRY(next_piece(count * item_bytes));
      parallel_for(count, [&](int64_t i) { write(first + i, piece + i * item_bytes); });
      copy_piece(to + first * item_bytes, count * item_bytes);
    }
    return {};
  }
  // Copies an array as it is.
  Status send(uint8_t* to, std::span<const uint8_t> bytes);

 private:
  static constexpr int64_t kPieceBytes = 16 << 20;

  struct Stage {
    PinnedBuffer host;
    cudaEvent_t copied = nullptr;
  };
  // The buffer whose turn it is, once what it held has been copied.
  Result<uint8_t*> next_piece(int64_t bytes);
  void copy_piece(uint8_t* to, int64_t bytes);

  cudaStream_t stream_;
  std::array<Stage, 2> stages_;
  size_t turn_ = 0;
};

}  // namespace atom::cuda
