// The gradient of SwiGLU behind the product that makes it from the gradient of a block's MLP, for compute capability 9.0: with g (M, d) and W (d, F) of the second
// linear layer, ds = g W; from it and h (M, 2 F), rows of u and w, come du and dw, written over u and w, and s = silu(u) w, made again for W's gradient. In bfloat16;
// sums in float32, and ds never rounded.
//
// A tile is 128 rows and 128 columns. Blocks stay and take one tile after another, as in swiglu-hopper.cu; a warp asks for its u and w before the products
// begin, and turns them in their place into what it writes.

#include "tma.h"

template <int blocks_, int ahead_>
struct GradientShape {
  static constexpr int blocks = blocks_;  // of a cluster: they take tiles below each other, of the same columns
  static constexpr int ahead = ahead_;    // by how many stages the first group of warps begins earlier
  static constexpr int left = 128 * 128, right = 128 * 128, kept = 8 * 12288;
  static constexpr int pieces = blocks > 2 ? blocks : 2, piece = right / pieces;  // the boxes of W, in bytes
  static constexpr int stages = (232448 - kept - 256) / (left + right);
  static constexpr int shared_bytes = stages * (left + right) + kept + 256;
  typedef Ring<stages, left + right, blocks> Pipe;
};

// Of one element.
static __device__ __forceinline__ void differentiate(float g, float& u, float& w, float& s) {
  const float sigmoid = __fdividef(1, 1 + exp2_of(-log2_e * u)), silu = u * sigmoid;
  s = silu * w;
  u = g * w * sigmoid * (u * (1 - sigmoid) + 1);
  w = g * silu;
}

// A warp's 16 rows of 64 columns: ds in registers, u and w in two boxes, which become du and dw; s goes into a third.
static __device__ __forceinline__ void differentiate_box(const float* sums, unsigned char* box, const Rows16& rows) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    unsigned char* const at = box + rows(2 * i);
    u32 u[4], w[4], s[4];
    load_matrices(u, at), load_matrices(w, at + 2048);
#pragma unroll
    for (int q = 0; q < 4; q++) {
      float du[2] = {low_of(u[q]), high_of(u[q])}, dw[2] = {low_of(w[q]), high_of(w[q])}, again[2];
#pragma unroll
      for (int e = 0; e < 2; e++) differentiate(sums[8 * i + 2 * q + e], du[e], dw[e], again[e]);
      u[q] = pack(du[0], du[1]), w[q] = pack(dw[0], dw[1]), s[q] = pack(again[0], again[1]);
    }
    store_matrices(at, u), store_matrices(at + 2048, w), store_matrices(at + 4096, s);
  }
}

// Maps: g (M, d), boxes of 128 rows; W (d, F), of piece / 128 rows; h (M, 2, F) and s (M, F), of 16 rows. Blocks of 384 threads, and of them a multiple of a
// cluster's.
template <class Shape>
static __device__ __forceinline__ void swiglu_gradient(const TensorMap& g, const TensorMap& weight, const TensorMap& h, const TensorMap& s, int M, int F, int d) {
  DSD_SHARED(shared);
  unsigned char* const boxes = shared + Shape::stages * Shape::Pipe::bytes;
  Barrier* const barriers = reinterpret_cast<Barrier*>(boxes + Shape::kept);
  Barrier *const begun = barriers + 2 * Shape::stages, *const read = begun + 1;
  const typename Shape::Pipe ring(shared, barriers);
  const int rank = Shape::blocks > 1 ? rank_in_cluster() : 0, steps = (d + 63) / 64, columns = (F + 127) / 128;
  const int tiles = (M + 128 * Shape::blocks - 1) / (128 * Shape::blocks) * columns, stride = gridDim.x / Shape::blocks;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ring.start_all(8);
    start(begun, 4);
    for (int i = 0; i < 8; i++) start(read + i, 1);
    started();
  }
  meet<Shape::blocks>();
  Place<Shape::stages> place;
  if (warp < 4) {
    give_registers<24>();
    if (threadIdx.x == 0) {
#pragma unroll 1
      for (int tile = blockIdx.x / Shape::blocks; tile < tiles; tile += stride) {
        const int column = tile % columns * 128, row = (tile / columns * Shape::blocks + rank) * 128;
#pragma unroll 1
        for (int k = 0; k < steps; k++) {
          unsigned char* to = ring.fill(place);
          Barrier* full = ring.full + place.stage;
          load_box(to, g, full, 64 * k, row);
#pragma unroll
          for (int i = 0; i < Shape::pieces / Shape::blocks; i++) {
            const int at = (rank * (Shape::pieces / Shape::blocks) + i) * Shape::piece;
            load_for_all<Shape::blocks>(to + Shape::left + at, weight, full, column + at / 8192 * 64, 64 * k + at % 8192 / 128);
          }
          place.next();
        }
      }
    }
  } else {
    take_registers<240>();
    const int group = warp / 4 - 1;
    const bool first_lane = thread_number() % 32 == 0;
    unsigned char* const own = boxes + (warp - 4) * 12288;  // u, w and s of 64 columns, then of the next 64
    Barrier* const come = read + warp - 4;
    bool waits = group == 1 && Shape::ahead, tells = group == 0;
    u32 phase = 0;
#pragma unroll 1
    for (int tile = blockIdx.x / Shape::blocks; tile < tiles; tile += stride) {
      const int column = tile % columns * 128, row = (tile / columns * Shape::blocks + rank) * 128 + group * 64 + warp % 4 * 16;
      if (first_lane) {
        wait_for_stores<0>();
        expect(come, 8192);
#pragma unroll
        for (int i = 0; i < 4; i++) load_box(own + i / 2 * 6144 + i % 2 * 2048, h, come, column + i / 2 * 64, i % 2, row);
      }
      __syncwarp();
      if (waits) wait(begun, 0);
      waits = false;
      float sums[64];
      ring.multiply_all(place, steps, [&](const unsigned char* stage, bool add) {
        const Tile a = tile_at(stage + group * 8192, 0), b = tile_at(stage + Shape::left, 8192);
#pragma unroll
        for (int k = 0; k < 4; k++) weighted_128(sums, a + 32 * k, b + 2048 * k, add || k > 0);
      }, [&](int begun_steps) {
        if (!tells || begun_steps != min(Shape::ahead, steps)) return;
        if (first_lane) arrive(begun);
        tells = false;
      });
      settled<64>(sums);
      wait(come, phase), phase ^= 1;
      const Rows16 rows;
#pragma unroll
      for (int c = 0; c < 2; c++) {
        unsigned char* const box = own + 6144 * c;
        differentiate_box(sums + 32 * c, box, rows);
        publish();
        __syncwarp();
        if (first_lane) {
          store_box(h, box, column + 64 * c, 0, row), store_box(h, box + 2048, column + 64 * c, 1, row), store_box(s, box + 4096, column + 64 * c, row);
          commit_stores();
        }
      }
    }
    if (first_lane) wait_for_stores<0>();
  }
  // Others of the cluster may still write into this block's memory.
  if (Shape::blocks > 1) meet<Shape::blocks>();
}

typedef GradientShape<1, 3> BestGradient;
#define DSD_GRADIENT(name, Shape)                                                                                                                 \
  extern "C" __global__ void DSD_CLUSTER(Shape::blocks) __launch_bounds__(384, 1)                                                                 \
      name(const __grid_constant__ TensorMap g, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap h, const __grid_constant__ TensorMap s, \
           int M, int F, int d) {                                                                                                                 \
    swiglu_gradient<Shape>(g, weight, h, s, M, F, d);                                                                                             \
  }
DSD_GRADIENT(dsd_swiglu_gradient_hopper, BestGradient)
