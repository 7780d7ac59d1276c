// A product and the stream that its results are added to, for compute capability 9.0: out = x + (1 + gate) (r W^T), of r (M, d), W (N, d), x and out (M, N), and
// gate (pictures, N) for the `tokens` rows of a picture, a multiple of a tile's. In bfloat16, gate and sums in float32; the product is rounded before it is
// added, as where it is written.
//
// Half of the N columns, F, are called u and the others w: see product-hopper.h. A warp has 16 rows of a tile and 256 columns, which leave by four boxes of 64
// columns, while the products of the next tile are on their way. What a box is added to was asked for two boxes ahead, and the gates of a tile with its last
// products: whoever waits for memory here keeps the next products waiting.

#include "product-hopper.h"

constexpr int gates_bytes = 1024;  // of a tile: u's columns, then w's

// The four boxes of each of a warp's tiles, one after another: number n is number n % 4 of its tile n / 4. In shared memory there is room for two, and for
// the gates of two tiles.
template <class Shape>
struct Sums {
  u32 u[32], w[32];
  const Tiles<Shape>& tiles;
  const TensorMap& x;
  const TensorMap& out;
  unsigned char* own;   // two boxes
  Barrier* come;        // what they are added to has
  const float* gates;   // of two tiles
  Barrier* gates_come;
  int below;            // of the tile's rows, the warp's first
  int row, column;      // of the tile whose sums are here
  int left = 0;         // how many boxes have left

  // What the box two after the last that left is added to, once that one has been read; and of the first two by n = 0 and 1.
  __device__ __forceinline__ void ask(int n) {
    const int tile = tiles.first + n / 4 * tiles.stride;
    if (thread_number() % 32 == 0 && tile < tiles.count) {
      wait_for_stores<0>();
      expect(come + n % 2, 2048);
      load_box(own + n % 2 * 2048, x, come + n % 2, tiles.column(tile) + n % 4 / 2 * 64, n % 2, tiles.row(tile) + below);
    }
    __syncwarp();
  }
  __device__ __forceinline__ void take(const float* sums, int tile) {
#pragma unroll
    for (int i = 0; i < 32; i++) u[i] = pack(sums[2 * i], sums[2 * i + 1]), w[i] = pack(sums[64 + 2 * i], sums[64 + 2 * i + 1]);
    row = tiles.row(tile) + below, column = tiles.column(tile);
  }
  template <int box>
  __device__ __forceinline__ void leave_box() const {
    const u32* const words = (box % 2 ? w : u) + box / 2 * 16;
    unsigned char* const place = own + box % 2 * 2048;
    const Rows16 rows;
    const int lane = thread_number() % 32, tile = left / 4;
    const float* const by = gates + tile % 2 * (gates_bytes / 4) + box % 2 * Shape::half + box / 2 * 64 + lane % 4 * 2;
    if (box == 0) wait(gates_come + tile % 2, tile / 2 & 1);
    wait(come + box % 2, left / 2 & 1);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      u32 added[4];
      load_matrices(added, place + rows(2 * i));
#pragma unroll
      for (int q = 0; q < 4; q++) {
        const float2 gate = *reinterpret_cast<const float2*>(by + 8 * (2 * i + q / 2));
        const u32 y = words[4 * i + q];
        added[q] = pack(low_of(added[q]) + (1 + gate.x) * low_of(y), high_of(added[q]) + (1 + gate.y) * high_of(y));
      }
      store_matrices(place + rows(2 * i), added);
    }
    publish();
    __syncwarp();
    if (lane == 0) store_box(out, place, column + box / 2 * 64, box % 2, row), commit_stores();
  }
  // The next box.
  template <int box = 0>
  __device__ __forceinline__ void leave() {
    if (left % 4 == box) leave_box<box>(), left++;
    else if constexpr (box < 3) leave<box + 1>();
  }
};

// The gates of one tile after another.
template <class Shape>
struct Gates {
  float* places;  // two
  Barrier* come;
  const float* gate;
  u32 stride;
  int tokens, last, F;  // the last row of all
  int count = 0;
  // Where none of the tile's rows is there, others are read: nothing is written of it.
  __device__ __forceinline__ void load(int row, int column) {
    float* to = places + count % 2 * (gates_bytes / 4);
    const float* from = gate + (u32(min(row, last) / tokens) * stride + column);
    expect(come + count % 2, gates_bytes);
    load_numbers(to, from, Shape::half, come + count % 2);
    load_numbers(to + Shape::half, from + F, Shape::half, come + count % 2);
    count++;
  }
};

// Maps: r (M, d), d at least 193, and W (2, F, d), F a multiple of 128, boxes of 128 rows; x and out (M, 2, F), of 16 rows. Blocks of 384 threads, and of them
// a multiple of a cluster's; shared memory of Shape::shared_bytes and twice the gates'.
template <class Shape>
static __device__ __forceinline__ void product_add(const TensorMap& r, const TensorMap& weight, const TensorMap& x, const TensorMap& out, const float* gate,
                                                   u32 stride, int tokens, int M, int F, int d) {
  DSD_SHARED(shared);
  unsigned char* const boxes = shared + Shape::stages * Shape::Pipe::bytes;
  Barrier* const barriers = reinterpret_cast<Barrier*>(boxes + Shape::staged);
  Barrier* const come = barriers + 2 * Shape::stages;
  Barrier* const gates_come = come + 16;
  static_assert((2 * Shape::stages + 18) * sizeof(Barrier) <= 256, "barriers have their room");
  static_assert(Shape::stages <= 4, "a tile's last step is loaded when all have begun it or left the tile before, so that gates of two tiles before are free");
  static_assert(2 * gates_bytes == 2048, "as swiglu-hopper.cc launches it");
  float* const gates = reinterpret_cast<float*>(shared + Shape::shared_bytes);
  const typename Shape::Pipe ring(shared, barriers);
  const Tiles<Shape> tiles(M, F);
  const int steps = (d + 63) / 64;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ring.start_all(8);
    for (int i = 0; i < 18; i++) start(come + i, 1);
    started();
  }
  meet<Shape::blocks>();
  if (warp < 4) {
    give_registers<24>();
    if (threadIdx.x == 0) {
      Gates<Shape> of_tiles{gates, gates_come, gate, stride, tokens, M - 1, F};
      // By a tile's last step all have left the tile before it, and those of two before it are free.
      load_tiles<Shape>(ring, tiles, steps, r, weight, [&](int row, int column) { of_tiles.load(row, column); });
    }
  } else {
    take_registers<240>();
    const int group = warp / 4 - 1, between = steps / 4;
    Sums<Shape> results{{}, {}, tiles, x, out, boxes + (warp - 4) * 4096, come + 2 * (warp - 4), gates, gates_come, group * 64 + warp % 4 * 16, 0, 0};
    results.ask(0), results.ask(1);
    Place<Shape::stages> place;
#pragma unroll 1
    for (int tile = tiles.first; tile < tiles.count; tile += tiles.stride) {
      float sums[128];
      int turn = tile == tiles.first ? steps : 0;
      ring.multiply_all(place, steps, [&](const unsigned char* stage, bool add) { multiply_tile(sums, stage, group, Shape::left, add); }, [&] {
        // A box of the tile before leaves at one turn, and its room is asked for at one of those that follow, when it has been read.
        if (turn < 4 * between && turn % between == 0) results.leave();
        if (turn < 4 * between && (turn + 1) % between == 0) results.ask(results.left + 1);
        turn++;
      });
      settled<128>(sums);
      results.take(sums, tile);
    }
#pragma unroll 1
    for (int i = 0; i < 4 && tiles.first < tiles.count; i++) results.leave(), results.ask(results.left + 1);
    if (thread_number() % 32 == 0) wait_for_stores<0>();
  }
  // Others of the cluster may still write into this block's memory.
  if (Shape::blocks > 1) meet<Shape::blocks>();
}

extern "C" __global__ void DSD_CLUSTER(2) __launch_bounds__(384, 1)
    dsd_product_add_hopper(const __grid_constant__ TensorMap r, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap x,
                           const __grid_constant__ TensorMap out, const float* gate, u32 stride, int tokens, int M, int F, int d) {
  product_add<ProductShape<2>>(r, weight, x, out, gate, stride, tokens, M, F, d);
}
