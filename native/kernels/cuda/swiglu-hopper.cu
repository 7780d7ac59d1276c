// The first product of a block's MLP with SwiGLU behind it, for compute capability 9.0: h = n W^T, rows (M, 2 F) of u and w, and s = silu(u) w. In bfloat16, sums
// in float32. u and w are rounded before silu, whether or not h is written: s is the same either way. With h alone it is any product, half
// of whose columns are called u.
//
// A thread has the sums of u and of w of a column. Rounded, a tile's results take half the registers of their sums: there they stay, to leave in parts while the
// products of the next tile are on their way.

#include "product-hopper.h"

static __device__ __forceinline__ float swiglu_of(float u, float w) { return __fdividef(u, 1 + exp2_of(-log2_e * u)) * w; }

// What a warp has of a tile: 16 rows, of u and w 128 columns each, and where they go. They leave by two boxes in shared memory, in turn.
template <bool with_h, bool with_s>
struct Results {
  static constexpr int parts = 8;
  u32 u[32], w[32];
  int row, column;
  __device__ __forceinline__ void take(const float* sums) {
#pragma unroll
    for (int i = 0; i < 32; i++) u[i] = pack(sums[2 * i], sums[2 * i + 1]), w[i] = pack(sums[64 + 2 * i], sums[64 + 2 * i + 1]);
  }
  // A box that nothing is read out of any more: the `count`th one of a tile.
  static __device__ __forceinline__ unsigned char* free_box(unsigned char* own, int count) {
    if (thread_number() % 32 == 0) wait_for_stores<1>();
    __syncwarp();
    return own + count % 2 * 2048;
  }
  // Calls store(box), by one thread.
  template <class Store>
  static __device__ __forceinline__ void leave(const unsigned char* box, Store store) {
    publish();
    __syncwarp();
    if (thread_number() % 32 == 0) store(box), commit_stores();
  }
  template <int part>
  __device__ __forceinline__ void leave_part(unsigned char* own, const TensorMap& h, const TensorMap& s) const {
    constexpr int c = part / 4, at = 16 * c, boxes = 2 * with_h + with_s;  // of 64 columns
    const Rows16 rows;
    if (part % 4 < 2) {
      if (!with_h) return;
      unsigned char* box = free_box(own, boxes * c + part % 4);
#pragma unroll
      for (int i = 0; i < 4; i++) store_matrices(box + rows(2 * i), (part % 4 ? w : u) + at + 4 * i);
      leave(box, [&](const unsigned char* from) { store_box(h, from, column + 64 * c, part % 4, row); });
    } else {
      if (!with_s) return;
      unsigned char* box = part % 4 == 2 ? free_box(own, boxes * c + boxes - 1) : own + (boxes * c + boxes - 1) % 2 * 2048;
#pragma unroll
      for (int i = part % 2 * 2; i < part % 2 * 2 + 2; i++) {
        u32 words[4];
#pragma unroll
        for (int q = 0; q < 4; q++) {
          const u32 a = u[at + 4 * i + q], b = w[at + 4 * i + q];
          words[q] = pack(swiglu_of(low_of(a), low_of(b)), swiglu_of(high_of(a), high_of(b)));
        }
        store_matrices(box + rows(2 * i), words);
      }
      if (part % 4 == 3) leave(box, [&](const unsigned char* from) { store_box(s, from, column + 64 * c, row); });
    }
  }
  // Parts `from` to `until` - 1 of them.
  template <int part = 0>
  __device__ __forceinline__ void leave_parts(int from, int until, unsigned char* own, const TensorMap& h, const TensorMap& s) const {
    if (from <= part && part < until) leave_part<part>(own, h, s);
    if constexpr (part + 1 < parts) leave_parts<part + 1>(from, until, own, h, s);
  }
};

// Maps: n (M, d) and W (2, F, d), boxes of 128 rows; h (M, 2, F) and s (M, F), of 16 rows. Blocks of 384 threads, and of them a multiple of a
// cluster's.
template <class Shape, bool with_h, bool with_s>
static __device__ __forceinline__ void swiglu_product(const TensorMap& n, const TensorMap& weight, const TensorMap& h, const TensorMap& s, int M, int F, int d) {
  DSD_SHARED(shared);
  unsigned char* const boxes = shared + Shape::stages * Shape::Pipe::bytes;
  Barrier* const barriers = reinterpret_cast<Barrier*>(boxes + Shape::staged);
  const typename Shape::Pipe ring(shared, barriers);
  const Tiles<Shape> tiles(M, F);
  const int steps = (d + 63) / 64;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ring.start_all(8);
    started();
  }
  meet<Shape::blocks>();
  if (warp < 4) {
    give_registers<24>();
    if (threadIdx.x == 0) load_tiles<Shape>(ring, tiles, steps, n, weight);
  } else {
    take_registers<240>();
    const int group = warp / 4 - 1;
    unsigned char* const own = boxes + (warp - 4) * 4096;
    Results<with_h, with_s> results;
    const int at_once = (results.parts + steps - 1) / steps;
    int left = results.parts;  // how many parts of the last tile have
    Place<Shape::stages> place;
#pragma unroll 1
    for (int tile = tiles.first; tile < tiles.count; tile += tiles.stride) {
      float sums[128];
      ring.multiply_all(place, steps, [&](const unsigned char* stage, bool add) { multiply_tile(sums, stage, group, Shape::left, add); }, [&] {
        results.leave_parts(left, left + at_once, own, h, s);
        left += at_once;
      });
      settled<Shape::half>(sums);
      results.take(sums);
      results.column = tiles.column(tile), results.row = tiles.row(tile) + group * 64 + warp % 4 * 16;
      left = 0;
    }
    results.leave_parts(left, results.parts, own, h, s);
    if (thread_number() % 32 == 0) wait_for_stores<0>();
  }
  // Others of the cluster may still write into this block's memory.
  if (Shape::blocks > 1) meet<Shape::blocks>();
}

#define DSD_PRODUCT(name, blocks, with_h, with_s)                                                                                \
  extern "C" __global__ void DSD_CLUSTER(blocks) __launch_bounds__(384, 1)                                                       \
      name(const __grid_constant__ TensorMap n, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap h,   \
           const __grid_constant__ TensorMap s, int M, int F, int d) {                                                           \
    swiglu_product<ProductShape<blocks>, with_h, with_s>(n, weight, h, s, M, F, d);                                              \
  }
// Clusters halve what is read of W: worth their waiting for each other where less is written.
DSD_PRODUCT(dsd_swiglu_product_hopper, 1, true, true)
DSD_PRODUCT(dsd_swiglu_product_hopper_alone, 2, false, true)
DSD_PRODUCT(dsd_product_hopper, 2, true, false)
