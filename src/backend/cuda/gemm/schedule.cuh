// Which tiles, and which part of K of each, one CTA works on.
//
// The last `split_tiles` tiles are cut along K into equal shares (stream-K), so that every CTA
// ends at the same time; the others are done whole. A CTA's share is a run of (tile, block)
// pairs; it may begin inside one tile and end inside another:
//
//     tile      |       5       |       6       |       7       |
//     CTA 0     |==========|
//     CTA 1                |==========|                           begins tile 6, ends tile 5
//     CTA 2                           |==========|
//
// The CTA that has a tile's last block finishes it: it adds the others' partial sums. Partial
// sums for others are computed first and one's own finishing last, so nobody waits long.
#pragma once

#include <cstdint>

#include "backend/cuda/gemm/kernel_args.h"

namespace atom::cuda {

struct Work {
  int tile_w, token0;  // the tile: its number over weight rows, its first token
  int begin, end;      // blocks
  bool finishes;       // the tile, or a slice of it
  int first;           // linear index of block 0 of this tile among the split tiles' blocks
  int expert;          // of a mixture
};

// Tile `tile` of a matrix with `tiles_t` tiles over its tokens. Tiles are visited in bands of token
// tiles.
__device__ inline int locate_tile(const SchedulePlan& plan, int tiles_t, int tile, Work& work) {
  // Unsigned divisions take half as long, and every CTA's first copies wait for them.
  const unsigned per_band = plan.band * plan.tiles_w, number = tile;
  const int first = static_cast<int>(number / per_band) * plan.band;
  const unsigned in_band = number % per_band;
  const unsigned width = min(tiles_t - first, plan.band);
  work.tile_w = static_cast<int>(in_band / width);
  return first + static_cast<int>(in_band % width);
}

// The tiles of one matrix. kShare: neighbouring channels' tiles, which as many CTAs of a cluster do
// at the same time, count as one.
template <int kTokens, int kShare>
class MatrixTiles {
 public:
  __device__ explicit MatrixTiles(const SchedulePlan& plan) : plan_(plan) {}

  __device__ int count() const { return plan_.tiles_w * plan_.tiles_t; }
  __device__ int whole() const { return plan_.whole_tiles; }
  __device__ int ctas() const { return plan_.ctas; }
  __device__ int blocks() const { return plan_.blocks; }
  __device__ void locate(int tile, Work& work) const {
    work.token0 = locate_tile(plan_, plan_.tiles_t, tile, work) * kTokens;
    work.tile_w = work.tile_w * kShare + static_cast<int>(blockIdx.x) % kShare;
  }

 private:
  const SchedulePlan& plan_;
};

template <class Tiles>
class Schedule {
 public:
  __device__ Schedule(const Tiles& tiles, int cta) : tiles_(tiles), whole_(cta) {
    const unsigned blocks = (tiles.count() - tiles.whole()) * tiles.blocks();
    const unsigned ctas = tiles.ctas();
    share_ = static_cast<int>(blocks / ctas);
    longer_ = static_cast<int>(blocks % ctas);
    // Of a mixture's CTAs, those behind the last share have none.
    begin_ = share_begin(min(cta, tiles.ctas()));
    end_ = share_begin(min(cta + 1, tiles.ctas()));
  }

  __device__ bool next(Work& work) {
    if (stage_ == 0) {
      stage_ = 1;
      if (end_ > begin_ && end_ % tiles_.blocks() != 0) return take_split(work);
    }
    if (stage_ == 1) {
      if (whole_ < tiles_.whole()) {
        tiles_.locate(whole_, work);
        work.begin = 0;
        work.end = tiles_.blocks();
        work.finishes = true;
        work.first = 0;
        whole_ += tiles_.ctas();
        return true;
      }
      stage_ = 2;
    }
    return end_ > begin_ && take_split(work);
  }

  // First block of a CTA's share, counted over the split tiles.
  __device__ int share_begin(int cta) const { return share_ * cta + min(cta, longer_); }

 private:
  __device__ bool take_split(Work& work) {
    const int tile = (end_ - 1) / tiles_.blocks();
    work.first = tile * tiles_.blocks();
    work.begin = begin_ > work.first ? begin_ - work.first : 0;
    work.end = end_ - work.first;
    work.finishes = work.end == tiles_.blocks();
    tiles_.locate(tiles_.whole() + tile, work);
    end_ = work.first + work.begin;
    return true;
  }

  Tiles tiles_;
  int share_, longer_;  // blocks of a CTA's share; so many CTAs have one more
  int begin_, end_;
  int whole_;
  int stage_ = 0;
};

// The CTAs of a cluster share one tile: each takes an equal part of K, then exchanges sums with the
// others and finishes a slice of the tokens.
template <class Tiles, int kCluster, int kSlices>
class ClusterSchedule {
 public:
  __device__ ClusterSchedule(const Tiles& tiles, int cta) : tiles_(tiles), cta_(cta) {}

  __device__ bool next(Work& work) {
    const int tile = cta_ / kCluster;
    if (done_ || tile >= tiles_.count()) return false;
    done_ = true;
    const int rank = cta_ % kCluster;
    tiles_.locate(tile, work);
    work.begin = tiles_.blocks() * rank / kCluster;
    work.end = tiles_.blocks() * (rank + 1) / kCluster;
    work.finishes = rank < kSlices;
    work.first = 0;
    return true;
  }

 private:
  Tiles tiles_;
  int cta_;
  bool done_ = false;
};

}  // namespace atom::cuda
