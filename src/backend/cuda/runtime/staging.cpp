#include "backend/cuda/runtime/staging.h"

#include <algorithm>
#include <cstring>

namespace atom::cuda {

Staging::~Staging() {
  for (Stage& stage : stages_) {
    if (stage.copied == nullptr) continue;
    (void)cudaEventSynchronize(stage.copied);
    (void)cudaEventDestroy(stage.copied);
  }
}

Result<uint8_t*> Staging::next_piece(int64_t bytes) {
  turn_ = (turn_ + 1) % stages_.size();
  Stage& stage = stages_[turn_];
  if (stage.copied == nullptr) {
    ATOM_CUDA_CHECK(cudaEventCreateWithFlags(&stage.copied, cudaEventDisableTiming));
  } else {
    ATOM_CUDA_CHECK(cudaEventSynchronize(stage.copied));
  }
  const int64_t size = std::max(bytes, kPieceBytes);
  ATOM_TRY(stage.host.reserve((size + 3) / int64_t{sizeof(int32_t)}));
  return reinterpret_cast<uint8_t*>(stage.host.data());
}

void Staging::copy_piece(uint8_t* to, int64_t bytes) {
  Stage& stage = stages_[turn_];
  ATOM_CUDA_CHECK(cudaMemcpyAsync(to, stage.host.data(), static_cast<size_t>(bytes),
                                  cudaMemcpyHostToDevice, stream_));
  ATOM_CUDA_CHECK(cudaEventRecord(stage.copied, stream_));
}

Status Staging::send(uint8_t* to, std::span<const uint8_t> bytes) {
  constexpr int64_t kItem = 128 << 10;
  const auto size = static_cast<int64_t>(bytes.size());
  const int64_t whole = size / kItem * kItem;
  ATOM_TRY(send(to, size / kItem, kItem, [&](int64_t i, uint8_t* place) {
    std::memcpy(place, bytes.data() + i * kItem, kItem);
  }));
  return send(to + whole, 1, size - whole, [&](int64_t, uint8_t* place) {
    std::memcpy(place, bytes.data() + whole, static_cast<size_t>(size - whole));
  });
}

}  // namespace atom::cuda
