// The half of chunk_tiles_sm90a.cu that brings pages: a warpgroup unpacks their records into tensor
// core operands of 64 tokens in shared memory.
#pragma once

#include "backend/cuda/attention/chunk_columns.cuh"
#include "backend/cuda/attention/page_reader.cuh"
#include "backend/cuda/attention/softmax_state.cuh"
#include "backend/cuda/ptx/sync.cuh"
#include "backend/cuda/runtime/launch.cuh"

namespace atom::cuda::attention {

inline constexpr int kMathGroups = 2;  // math warpgroups
inline constexpr int kMathThreads = kMathGroups * 128, kTileThreads = kMathThreads + 128;
inline constexpr int kTileTokens = 64;  // of a tile: a page for each warp that unpacks
inline constexpr int kTileStages = 3,
                     kRecordRing = 3;  // unpacked tiles; records a warp has on their way

// What the columns' weights need of a tile's tokens, in pairs of tokens as a thread holds them.
struct TokenScales {
  float2 key[kTileTokens];    // {scale times the score's, minimum}
  float2 value[kTileTokens];  // {scale, minimum}
  float level[kTileTokens];   // log2 of the value's scale
};

template <class Reader, int kHeadDim>
struct TileMemory {
  static constexpr int kKeyTile = (kHeadDim + 63) / 64 * kTileTokens * 128;  // 64 channels a piece
  static constexpr int kValueTile = kHeadDim * kTileTokens * 2;
  static constexpr int kStage = kKeyTile + kValueTile;
  static constexpr int kScales = kTileStages * kStage;
  static constexpr int kRecords = kScales + kTileStages * static_cast<int>(sizeof(TokenScales));
  static constexpr int kFull = kRecords + 4 * kRecordRing * Reader::kBytes;  // a stage is unpacked
  static constexpr int kEmpty = kFull + 8 * kTileStages;                     // ... and read
  static constexpr int kArrived = kEmpty + 8 * kTileStages;                  // [warp][ring] records
  static constexpr int kBytes = kArrived + 8 * 4 * kRecordRing;
};

// Byte of a 16-byte piece in rows of 128 bytes under the 128-byte swizzle.
__device__ inline int swizzled(int row, int piece) {
  return row * 128 + ((piece ^ (row % 8)) * 16);
}

__device__ inline int tile_count(const PageRange& pages) {
  return ((pages.end - pages.first) * 16 + kTileTokens - 1) / kTileTokens;
}

// The warpgroup that brings pages and unpacks them.
template <class Reader, int kHeadDim>
class Unpacker {
  using M = TileMemory<Reader, kHeadDim>;

 public:
  __device__ Unpacker(const Params& p, const PageRange& pages, uint8_t* memory)
      : p_(p),
        pages_(pages),
        memory_(memory),
        warp_(static_cast<int>(threadIdx.x) % 128 / 32),
        lane_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void run() {
    const int tiles = tile_count(pages_);
    for (int t = 0; t < kRecordRing; ++t) fetch(t);
    for (int t = 0; t < tiles; ++t) {
      const int stage = t % kTileStages;
      if (t >= kTileStages) {
        ptx::barrier_wait(ptx::shared_address(memory_ + M::kEmpty + 8 * stage),
                          (t / kTileStages - 1) % 2);
      }
      unpack(t, memory_ + stage * M::kStage,
             reinterpret_cast<TokenScales*>(memory_ + M::kScales) + stage);
      ptx::fence_to_copies();  // the tensor cores read as copies do
      ptx::barrier_arrive(ptx::shared_address(memory_ + M::kFull + 8 * stage));
    }
  }

 private:
  __device__ int page(int t) const { return pages_.first + 4 * t + warp_; }
  __device__ uint32_t arrived(int t) const {
    return ptx::shared_address(memory_ + M::kArrived + 8 * (warp_ * kRecordRing + t % kRecordRing));
  }
  __device__ uint8_t* record(int t) const {
    return memory_ + M::kRecords + (warp_ * kRecordRing + t % kRecordRing) * Reader::kBytes;
  }
  // This warp's page of tile t.
  __device__ void fetch(int t) const {
    if (lane_ != 0 || page(t) >= pages_.end) return;
    ptx::barrier_expect(arrived(t), Reader::kBytes);
    ptx::bulk_copy(ptx::shared_address(record(t)),
                   p_.cache.records + pages_.table[page(t)] * p_.cache.page_stride +
                       static_cast<int64_t>(blockIdx.x) * Reader::kBytes,
                   Reader::kBytes, arrived(t));
  }

  // Lane (g, c) has the words of tokens g and g + 8 (keys), of channels g and g + 8 of each 16
  // (values): four lanes write 16 bytes of a row, eight rows miss each other's banks.
  __device__ void unpack(int t, uint8_t* tile, TokenScales* scales) const {
    const int g = lane_ / 4, c = lane_ % 4, first = 16 * warp_;
    uint8_t* values = tile + M::kKeyTile;
    if (page(t) >= pages_.end) {
      // No such page: what the weights, which are zero, meet must be numbers.
#pragma unroll
      for (int i = 0; i < kHeadDim / 16; ++i) {
        *reinterpret_cast<uint4*>(values + swizzled(8 * (2 * i + c / 2) + g, 2 * warp_ + c % 2)) =
            uint4{};
      }
      if (lane_ < 16) clear_scales(scales, first + lane_);
      return;
    }
    ptx::barrier_wait(arrived(t), t / kRecordRing % 2);
    const uint8_t* from = record(t);
    const int real = pages_.length - page(t) * 16;
    Reader reader;
    reader.load_keys(from, lane_);
    reader.load_values(from, lane_, real);
#pragma unroll
    for (int step = 0; step < kHeadDim / 16; ++step) {
      uint32_t a[4];
      reader.key_fragment(step, a);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int token = first + g + 8 * (i % 2), piece = step % 4 * 2 + i / 2;
        *reinterpret_cast<uint32_t*>(tile + step / 4 * kTileTokens * 128 + swizzled(token, piece) +
                                     4 * c) = a[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      uint32_t a[4];
      reader.value_fragment(i, a);
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int channel = 16 * i + 8 * (k % 2) + g;
        *reinterpret_cast<uint32_t*>(values + swizzled(channel, 2 * warp_ + k / 2) + 4 * c) = a[k];
      }
    }
    if constexpr (Reader::kScaled) {
      if (lane_ < real) unpack_scales(from, scales);
      if (lane_ >= real && lane_ < 16) clear_scales(scales, first + lane_);
    }
    __syncwarp();  // the record has been read
    fetch(t + kRecordRing);
  }
  // Those of token `lane` of the page.
  __device__ void unpack_scales(const uint8_t* from, TokenScales* scales) const {
    if (lane_ >= 16) return;
    using Pages = typename Reader::Pages;
    const float2 k = scale_pair(from, Pages(kHeadDim).key_scale(lane_));
    const float2 v = scale_pair(from, Pages(kHeadDim).value_scale(lane_));
    const int token = 16 * warp_ + lane_;
    scales->key[token] = make_float2(k.x * (Reader::kScore * p_.scale * kLog2E), k.y);
    scales->value[token] = v;
    scales->level[token] = __log2f(fmaxf(v.x, 0x1p-24f));
  }
  __device__ static void clear_scales(TokenScales* scales, int token) {
    scales->key[token] = scales->value[token] = float2{};
    scales->level[token] = 0;
  }

  const Params& p_;
  PageRange pages_;
  uint8_t* memory_;
  int warp_, lane_;
};

}  // namespace atom::cuda::attention
