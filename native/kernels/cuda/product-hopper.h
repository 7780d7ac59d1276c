// What products of rows (M, d) with a weight of 2 F rows share, for compute capability 9.0: the shape of their tiles, and what loads them.
//
// A tile is 128 rows and the same columns of the weight's first half, u, and of its second, w. Blocks stay and take one tile after another. A thread loads
// what the products read, as far ahead as there are stages; two groups of four warps multiply, 64 rows of a tile each.

#pragma once

#include "tma.h"

template <int blocks_>  // 1 or 2
struct ProductShape {
  static constexpr int half = 128;        // columns of u, and of w
  static constexpr int blocks = blocks_;  // of a cluster: they take tiles below each other, of the same columns
  static constexpr int left = 128 * 128, right = 2 * half * 128, staged = 8 * 4096;
  static constexpr int pieces = 2 / blocks;  // the boxes of W, of u's or of w's rows, that a block loads
  static constexpr int stages = (232448 - staged - 256) / (left + right);
  static constexpr int shared_bytes = stages * (left + right) + staged + 256;
  static_assert(shared_bytes == 229632, "as swiglu-hopper.cc launches it");
  typedef Ring<stages, left + right, blocks> Pipe;
};

// Where a block's tiles are: the blocks of a cluster have rows below each other.
template <class Shape>
struct Tiles {
  int columns, count, first, stride, rank;
  __device__ __forceinline__ Tiles(int M, int F)
      : columns((F + Shape::half - 1) / Shape::half),
        count((M + 128 * Shape::blocks - 1) / (128 * Shape::blocks) * columns),
        first(blockIdx.x / Shape::blocks),
        stride(gridDim.x / Shape::blocks),
        rank(Shape::blocks > 1 ? rank_in_cluster() : 0) {}
  __device__ __forceinline__ int column(int tile) const { return tile % columns * Shape::half; }
  __device__ __forceinline__ int row(int tile) const { return (tile / columns * Shape::blocks + rank) * 128; }
};

struct Nothing {
  __device__ __forceinline__ void operator()(int, int) const {}
};

// By one thread: rows (M, d), and the weight (2, F, d), by boxes of 128 rows. With the last of a tile's it calls last(the tile's row and column).
template <class Shape, class Last = Nothing>
static __device__ __forceinline__ void load_tiles(const typename Shape::Pipe& ring, const Tiles<Shape>& tiles, int steps, const TensorMap& rows,
                                                  const TensorMap& weight, Last last = {}) {
  Place<Shape::stages> place;
#pragma unroll 1
  for (int tile = tiles.first; tile < tiles.count; tile += tiles.stride) {
    const int column = tiles.column(tile), row = tiles.row(tile);
#pragma unroll 1
    for (int k = 0; k < steps; k++) {
      unsigned char* to = ring.fill(place);
      Barrier* full = ring.full + place.stage;
      load_box(to, rows, full, 64 * k, row);
#pragma unroll
      for (int i = 0; i < Shape::pieces; i++) {
        const int half = tiles.rank * Shape::pieces + i;
        load_for_all<Shape::blocks>(to + Shape::left + half * Shape::half * 128, weight, full, 64 * k, column, half);
      }
      place.next();
    }
    last(row, column);
  }
}

// The sums (64, 256) of a group's rows, of u and then of w.
static __device__ __forceinline__ void multiply_tile(float* sums, const unsigned char* stage, int group, int left, bool add) {
  const Tile a = tile_at(stage + group * 8192, 0), b = tile_at(stage + left, 0);
#pragma unroll
  for (int k = 0; k < 4; k++) rows_by_256(sums, a + 32 * k, b + 32 * k, add || k > 0);
}
