// The first product of a block's MLP with SwiGLU behind it, for compute capability 9.0: h = n W^T, rows (M, 2 F) of u and w, and s = silu(u) w. In bfloat16, sums
// in float32. u and w are rounded before silu, whether or not h is written: s is the same either way.
//
// A tile is 128 rows and the same columns of u and of w, so that a thread has both in its sums. Blocks stay and take one tile after another. A thread loads
// what the products read, as far ahead as there are stages; two groups of four warps multiply and write, 64 rows of a tile each. One is a few stages ahead, so
// that its results leave while the other multiplies.

#include "tma.h"

template <int blocks_, int ahead_>
struct ProductShape {
  static constexpr int half = 128;        // columns of u, and of w
  static constexpr int blocks = blocks_;  // of a cluster: they take tiles below each other, of the same columns
  static constexpr int ahead = ahead_;    // by how many stages the first group of warps begins earlier
  static constexpr int left = 128 * 128, right = 2 * half * 128, staged = 8 * 4096;
  static constexpr int pieces = blocks > 2 ? blocks : 2, piece = right / pieces;  // the boxes of W, in bytes
  static constexpr int stages = (232448 - staged - 256) / (left + right);
  static constexpr int shared_bytes = stages * (left + right) + staged + 256;
  typedef Ring<stages, left + right, blocks> Pipe;
};

static __device__ __forceinline__ float swiglu_of(float u, float w) { return __fdividef(u, 1 + exp2_of(-log2_e * u)) * w; }

// Eight chunks of 16 rows, by one of a warp's two boxes in shared memory: the `count`th one that leaves.
static __device__ __forceinline__ unsigned char* begin_box(unsigned char* own, int count, const Rows16& rows, const u32* words) {
  unsigned char* box = own + count % 2 * 2048;
  if (thread_number() % 32 == 0) wait_for_stores<1>();
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 4; i++) store_matrices(box + rows(2 * i), words + 4 * i);
  publish();
  __syncwarp();
  return box;
}

// Results of a warp: 16 rows from `row`, of u and w `half` columns each from `column`.
template <int half, bool with_h>
static __device__ __forceinline__ void leave(const float* sums, unsigned char* own, const TensorMap& h, const TensorMap& s, int row, int column) {
  const Rows16 rows;
  const bool first_lane = thread_number() % 32 == 0;
#pragma unroll
  for (int c = 0; c < half / 64; c++) {
    u32 u[16], w[16];
    const int count = c * (with_h ? 3 : 1), at = column + 64 * c;
#pragma unroll
    for (int i = 0; i < 16; i++) {
      u[i] = pack(sums[32 * c + 2 * i], sums[32 * c + 2 * i + 1]);
      w[i] = pack(sums[half / 2 + 32 * c + 2 * i], sums[half / 2 + 32 * c + 2 * i + 1]);
    }
    if (with_h) {
      const unsigned char* box = begin_box(own, count, rows, u);
      if (first_lane) store_box(h, box, at, 0, row), commit_stores();
      box = begin_box(own, count + 1, rows, w);
      if (first_lane) store_box(h, box, at, 1, row), commit_stores();
      // The compiler would take all exponentials first, for which there are not registers enough.
      keep<16>(u), keep<16>(w);
    }
#pragma unroll
    for (int i = 0; i < 16; i++) u[i] = pack(swiglu_of(low_of(u[i]), low_of(w[i])), swiglu_of(high_of(u[i]), high_of(w[i])));
    const unsigned char* box = begin_box(own, count + (with_h ? 2 : 0), rows, u);
    if (first_lane) store_box(s, box, at, row), commit_stores();
  }
}

// Maps: n (M, d), boxes of 128 rows; W (2, F, d), of piece / 128 rows; h (M, 2, F) and s (M, F), of 16 rows. Blocks of 384 threads, and of them a multiple of a
// cluster's.
template <class Shape, bool with_h>
static __device__ __forceinline__ void swiglu_product(const TensorMap& n, const TensorMap& weight, const TensorMap& h, const TensorMap& s, int M, int F, int d) {
  DSD_SHARED(shared);
  unsigned char* const boxes = shared + Shape::stages * Shape::Pipe::bytes;
  Barrier* const barriers = reinterpret_cast<Barrier*>(boxes + Shape::staged);
  Barrier* const begun = barriers + 2 * Shape::stages;
  const typename Shape::Pipe ring(shared, barriers);
  const int rank = Shape::blocks > 1 ? rank_in_cluster() : 0, steps = (d + 63) / 64, columns = (F + Shape::half - 1) / Shape::half;
  const int tiles = (M + 128 * Shape::blocks - 1) / (128 * Shape::blocks) * columns, stride = gridDim.x / Shape::blocks;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ring.start_all(8);
    start(begun, 4);
    started();
  }
  meet<Shape::blocks>();
  Place<Shape::stages> place;
  if (warp < 4) {
    give_registers<24>();
    if (threadIdx.x == 0) {
#pragma unroll 1
      for (int tile = blockIdx.x / Shape::blocks; tile < tiles; tile += stride) {
        const int column = tile % columns * Shape::half, row = (tile / columns * Shape::blocks + rank) * 128;
#pragma unroll 1
        for (int k = 0; k < steps; k++) {
          unsigned char* to = ring.fill(place);
          Barrier* full = ring.full + place.stage;
          load_box(to, n, full, 64 * k, row);
#pragma unroll
          for (int i = 0; i < Shape::pieces / Shape::blocks; i++) {
            const int at = (rank * (Shape::pieces / Shape::blocks) + i) * (Shape::piece / 128);
            load_for_all<Shape::blocks>(to + Shape::left + at * 128, weight, full, 64 * k, column + at % Shape::half, at / Shape::half);
          }
          place.next();
        }
      }
    }
  } else {
    take_registers<240>();
    const int group = warp / 4 - 1;
    unsigned char* const own = boxes + (warp - 4) * 4096;
    bool waits = group == 1 && Shape::ahead, tells = group == 0;
#pragma unroll 1
    for (int tile = blockIdx.x / Shape::blocks; tile < tiles; tile += stride) {
      const int column = tile % columns * Shape::half, row = (tile / columns * Shape::blocks + rank) * 128 + group * 64 + warp % 4 * 16;
      float sums[Shape::half];
      if (waits) wait(begun, 0);
      waits = false;
      ring.multiply_all(place, steps, [&](const unsigned char* stage, bool add) {
        const Tile a = tile_at(stage + group * 8192, 0), b = tile_at(stage + Shape::left, 0);
#pragma unroll
        for (int k = 0; k < 4; k++) rows_by_256(sums, a + 32 * k, b + 32 * k, add || k > 0);
      }, [&](int begun_steps) {
        if (!tells || begun_steps != min(Shape::ahead, steps)) return;
        if (thread_number() % 32 == 0) arrive(begun);
        tells = false;
      });
      settled<Shape::half>(sums);
      leave<Shape::half, with_h>(sums, own, h, s, row, column);
    }
    if (thread_number() % 32 == 0) wait_for_stores<0>();
  }
  // Others of the cluster may still write into this block's memory.
  if (Shape::blocks > 1) meet<Shape::blocks>();
}

typedef ProductShape<1, 3> Best;
#define DSD_PRODUCT(name, Shape, with_h)                                                                                                          \
  extern "C" __global__ void DSD_CLUSTER(Shape::blocks) __launch_bounds__(384, 1)                                                                 \
      name(const __grid_constant__ TensorMap n, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap h, const __grid_constant__ TensorMap s, \
           int M, int F, int d) {                                                                                                                 \
    swiglu_product<Shape, with_h>(n, weight, h, s, M, F, d);                                                                                      \
  }
DSD_PRODUCT(dsd_swiglu_product_hopper, Best, true)
DSD_PRODUCT(dsd_swiglu_product_hopper_alone, Best, false)
