// The half of chunk_tiles_sm90a.cu that brings queries and pages: a warpgroup unpacks the pages'
// records into tensor core operands of 64 tokens in shared memory: keys as codes, values as the
// halves that their codes stand for. A sum over channels or tokens may have them in any order, so
// they lie as a lane of a record has them side by side, and are written in the widest stores, which
// miss each other's banks:
//
//   K    [block of 64 channels][row of a token][8 pieces of 8 channels]   128-byte swizzle
//        lane part c of a record, its channels 8j .. 8j + 7, is piece 2c + j % 2 of block j / 2;
//        in a block that has but one j (heads of 96), piece c
//   V^T  [channel][8 pieces of 8 tokens]                                  128-byte swizzle
//   rows of K and columns of V^T alike: token t of the page that warp w unpacks is at token_place()
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
inline constexpr int kTileStages = 3;   // unpacked tiles
// Records that a warp has on their way.
constexpr int record_ring(int record_bytes) { return record_bytes > 6000 ? 2 : 3; }

// Where a tile has token t of page `page`, and which token is there: lane c of a quad, which holds
// places 8j + 2c + i of a row of scores, has token 16 (j % 4) + 4 (j / 4) + i + quad_token(c).
__device__ inline int token_place(int page, int t) {
  return 8 * (page + t / 4 % 2 * 4) + t / 2 % 2 * 4 + t / 8 * 2 + t % 2;
}
__device__ inline int quad_token(int c) { return c % 2 * 8 + c / 2 * 2; }

// The first channel of half h of k-step s of the scores: lane part of a record, and piece of it.
template <int kHeadDim>
constexpr int step_channel(int s, int h) {
  const int j = s / 4 * 2, part = kHeadDim / 4;
  return j + 1 < kHeadDim / 32 ? s % 4 * part + 8 * (j + h) : (s % 4 * 2 + h) * part + 8 * j;
}

// Of a tile's keys, by their places: {scale times Reader::kScore, minimum}.
struct KeyScales {
  float2 of[kTileTokens];
};

template <class Reader, int kHeadDim>
struct TileMemory {
  static constexpr int kKeyTile = (kHeadDim + 63) / 64 * kTileTokens * 128;  // 64 channels a piece
  static constexpr int kValueTile = kHeadDim * kTileTokens * 2;
  static constexpr int kStage = kKeyTile + kValueTile;
  static constexpr int kScales = kTileStages * kStage;
  static constexpr int kScalesBytes = Reader::kScaled ? static_cast<int>(sizeof(KeyScales)) : 0;
  static constexpr int kRecords = kScales + kTileStages * kScalesBytes;
  static constexpr int kRing = record_ring(Reader::kBytes);
  // Floats of a column's query, rows apart by more than their length for the banks' sake.
  static constexpr int kQueries = kRecords + 4 * kRing * Reader::kBytes;
  static constexpr int kQueryStride = kHeadDim * 4 + 16;
  static constexpr int kFull = kQueries + chunk_columns(kHeadDim) * kQueryStride;  // stage unpacked
  static constexpr int kEmpty = kFull + 8 * kTileStages;                           // ... and read
  static constexpr int kArrived = kEmpty + 8 * kTileStages;  // [warp][ring] records
  static constexpr int kQueriesFull = kArrived + 8 * 4 * kRing;
  static constexpr int kQueriesEmpty = kQueriesFull + 8;
  static constexpr int kBytes = kQueriesEmpty + 8;
  static_assert(kBytes <= 227 << 10);
};

// Byte of a 16-byte piece in rows of 128 bytes under the 128-byte swizzle.
__device__ inline int swizzled(int row, int piece) {
  return row * 128 + ((piece ^ (row % 8)) * 16);
}

__device__ inline int tile_count(const PageRange& pages) {
  return ((pages.end - pages.first) * 16 + kTileTokens - 1) / kTileTokens;
}

// The CTA's tile of columns in a turn. Tiles with the most work come first; turns go through them
// to and fro.
__device__ inline ChunkTile find_turn(const Params& p, int columns, int turn) {
  const auto ctas = static_cast<int>(gridDim.x), cta = static_cast<int>(blockIdx.x);
  return find_tile(p, columns, turn * ctas + (turn % 2 == 0 ? cta : ctas - 1 - cta));
}

// The warpgroup that brings queries, and pages, which it unpacks. Each warp has a ring of records
// that are on their way, which runs ahead into the CTA's next turn, as queries do.
template <class Reader, int kHeadDim>
class Unpacker {
  using M = TileMemory<Reader, kHeadDim>;
  static constexpr int kColumns = chunk_columns(kHeadDim), kRing = M::kRing;
  static_assert(kColumns == 128, "a query a thread");

 public:
  __device__ Unpacker(const Params& p, uint8_t* memory)
      : p_(p),
        memory_(memory),
        warp_(static_cast<int>(threadIdx.x) % 128 / 32),
        lane_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void run() {
    // Pages full since an earlier step, then those that the kernel before has written to.
    ChunkTile tile = find_turn(p_, kColumns, 0);
    begin_fetching(tile);
    for (int i = 0; i < kRing && fetch_page_ < min(fetch_end_, tile.past / 16); ++i) fetch();
    wait_for_previous();
    let_next_start();
    fetch_ahead();
    int n = 0;  // tiles of tokens
    for (int turn = 0; tile.count > 0;) {
      const PageRange pages = visible_pages(p_, tile, kColumns);
      tile = find_turn(p_, kColumns, ++turn);
      for (int page = pages.first + warp_; page < pages.end + warp_; page += 4, ++n) {
        const int stage = n % kTileStages;
        if (n >= kTileStages) {
          ptx::barrier_wait(ptx::shared_address(memory_ + M::kEmpty + 8 * stage),
                            (n / kTileStages - 1) % 2);
        }
        unpack(page < pages.end, pages.length - page * 16, memory_ + stage * M::kStage,
               reinterpret_cast<KeyScales*>(memory_ + M::kScales) + stage);
        ptx::fence_to_copies();  // the tensor cores read as copies do
        ptx::barrier_arrive(ptx::shared_address(memory_ + M::kFull + 8 * stage));
      }
      if (tile.count == 0) return;
      if (turn > 1) {
        ptx::barrier_wait(ptx::shared_address(memory_ + M::kQueriesEmpty), turn % 2);
      }
      fetch_queries(tile);
    }
  }

 private:
  __device__ uint32_t arrived(int i) const {
    return ptx::shared_address(memory_ + M::kArrived + 8 * (warp_ * kRing + i % kRing));
  }
  __device__ uint8_t* record(int i) const {
    return memory_ + M::kRecords + (warp_ * kRing + i % kRing) * Reader::kBytes;
  }
  // This thread's of the tile's columns.
  __device__ void fetch_queries(const ChunkTile& tile) const {
    constexpr int kQueryBytes = kHeadDim * 4;
    const int column = 32 * warp_ + lane_;
    const int64_t row = tile.row(tile.column + column);
    const uint32_t full = ptx::shared_address(memory_ + M::kQueriesFull);
    if (row < 0) {
      ptx::barrier_arrive(full);
    } else {
      ptx::barrier_expect(full, kQueryBytes);
      ptx::bulk_copy(ptx::shared_address(memory_ + M::kQueries + column * M::kQueryStride),
                     p_.q + row * kHeadDim, kQueryBytes, full);
    }
  }
  __device__ void begin_fetching(const ChunkTile& tile) {
    const PageRange pages = visible_pages(p_, tile, kColumns);
    fetch_page_ = pages.first + warp_;
    fetch_end_ = pages.end;
    fetch_table_ = pages.table;
    fetch_from_ = p_.cache.records + static_cast<int64_t>(tile.kv_head) * Reader::kBytes;
    if (fetch_page_ < fetch_end_) next_page_ = fetch_table_[fetch_page_];
  }
  // This warp's next page, whose index was read before.
  __device__ void fetch() {
    if (lane_ == 0) {
      ptx::barrier_expect(arrived(fetched_), Reader::kBytes);
      ptx::bulk_copy(ptx::shared_address(record(fetched_)),
                     fetch_from_ + int64_t{next_page_} * p_.cache.page_stride, Reader::kBytes,
                     arrived(fetched_));
    }
    ++fetched_;
    fetch_page_ += 4;
    if (fetch_page_ < fetch_end_) next_page_ = fetch_table_[fetch_page_];
  }
  // Fills the ring, in turn with pages of the tiles to come. At least one page is on its way then
  // if this warp has any more.
  __device__ void fetch_ahead() {
    while (fetched_ - unpacked_ < kRing && fetch_turn_ >= 0) {
      if (fetch_page_ < fetch_end_) {
        fetch();
        continue;
      }
      const ChunkTile tile = find_turn(p_, kColumns, fetch_turn_ + 1);
      fetch_turn_ = tile.count == 0 ? -1 : fetch_turn_ + 1;
      if (tile.count > 0) begin_fetching(tile);
    }
  }

  // Lane (g, c) has the words of tokens g and g + 8 (keys), of channels g and g + 8 of each 16
  // (values). real: tokens from the page's first on.
  __device__ void unpack(bool exists, int real, uint8_t* tile, KeyScales* scales) {
    const int g = lane_ / 4, c = lane_ % 4;
    uint8_t* values = tile + M::kKeyTile;
    if (!exists) {
      // What the weights, which are zero, meet must be numbers.
#pragma unroll
      for (int i = 0; i < kHeadDim / 16; ++i) {
        *reinterpret_cast<uint4*>(values + swizzled(8 * (2 * i + c / 2) + g, warp_ + c % 2 * 4)) =
            uint4{};
      }
      fetch_ahead();
      return;
    }
    ptx::barrier_wait(arrived(unpacked_), unpacked_ / kRing % 2);
    const uint8_t* from = record(unpacked_++);
    Reader reader;
    reader.load_keys(from, lane_);
    reader.load_values(from, lane_, real);
    constexpr int kPieces = kHeadDim / 32;  // of a lane's part of a token's channels
#pragma unroll
    for (int j = 0; j < kPieces; ++j) {
      uint32_t a[4], b[4];
      reader.key_fragment(2 * j, a);
      reader.key_fragment(2 * j + 1, b);
      const int piece = j % 2 == 0 && j + 1 == kPieces ? c : 2 * c + j % 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        *reinterpret_cast<uint4*>(tile + j / 2 * kTileTokens * 128 +
                                  swizzled(token_place(warp_, g + 8 * half), piece)) =
            make_uint4(a[half], a[2 + half], b[half], b[2 + half]);
      }
    }
    if constexpr (Reader::kScaled) {
      if (lane_ < 16) {
        const float2 k = scale_pair(from, typename Reader::Pages(kHeadDim).key_scale(lane_));
        scales->of[token_place(warp_, lane_)] = make_float2(k.x * Reader::kScore, k.y);
      }
    }
    const Levels levels[2] = {value_levels(from, 2 * c, real), value_levels(from, 8 + 2 * c, real)};
#pragma unroll
    for (int i = 0; i < kHeadDim / 16; ++i) {
      uint32_t a[4];
      reader.value_fragment(i, a);
#pragma unroll
      for (int hi = 0; hi < 2; ++hi) {
        const int channel = 16 * i + 8 * hi + g;
        *reinterpret_cast<uint2*>(values + swizzled(channel, warp_ + c / 2 * 4) + c % 2 * 8) =
            make_uint2(halves(a[hi], hi, levels[0]), halves(a[2 + hi], hi, levels[1]));
      }
    }
    __syncwarp();  // the record has been read
    fetch_ahead();
  }

  // Scales and minima of the values of two tokens, neither where there are no such tokens.
  struct Levels {
    __half2 scale, minimum;
  };
  __device__ static Levels value_levels(const uint8_t* from, int token, int real) {
    if constexpr (Reader::kScaled) {
      __half2 pairs[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        pairs[i] = *reinterpret_cast<const __half2*>(
            from + typename Reader::Pages(kHeadDim).value_scale(token + i));
        if (token + i >= real) pairs[i] = __half2{};
      }
      return {__lows2half2(pairs[0], pairs[1]), __highs2half2(pairs[0], pairs[1])};
    } else {
      return {};
    }
  }
  // A word of values' codes as the halves that they stand for, each rounded once. 1024 + code and
  // 1024 + 16 code are halves whose bits are the code's and 0x6400.
  __device__ static uint32_t halves(uint32_t codes, int high, const Levels& levels) {
    if constexpr (Reader::kScaled) {
      constexpr float kHigh = Reader::output(0) / Reader::output(1);
      const uint32_t bits = codes | 0x64006400u;
      const float unit = high == 0 ? 1.0f : kHigh;
      const __half2 code =
          __hfma2(*reinterpret_cast<const __half2*>(&bits), __float2half2_rn(1.0f / unit),
                  __float2half2_rn(-1024.0f / unit));
      const __half2 value = __hfma2(code, levels.scale, levels.minimum);
      return *reinterpret_cast<const uint32_t*>(&value);
    } else {
      return codes;
    }
  }

  const Params& p_;
  uint8_t* memory_;
  int warp_, lane_;
  int fetched_ = 0, unpacked_ = 0;  // records of this warp
  // What is fetched next: a page, the next tile's from fetch_end_ on.
  int fetch_turn_ = 0, fetch_page_ = 0, fetch_end_ = 0;  // turn -1: there are no more
  const int32_t* fetch_table_ = nullptr;
  const uint8_t* fetch_from_ = nullptr;
  int32_t next_page_ = 0;  // fetch_table_[fetch_page_]
};

}  // namespace atom::cuda::attention
