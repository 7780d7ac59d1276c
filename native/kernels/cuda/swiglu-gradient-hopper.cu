// The gradient of SwiGLU behind the product that makes it from the gradient of a block's MLP, for compute capability 9.0: with g (M, d) and W (d, F) of the second
// linear layer, ds = g W; from it and h (M, 2 F), rows of u and w, come du and dw, written over u and w, and s = silu(u) w, made again for W's gradient. In bfloat16;
// sums in float32, and ds rounded once.
//
// A tile is 128 rows and 256 columns. Blocks stay and take one tile after another, as in swiglu-hopper.cu: ds, in registers, waits for the products of the next
// tile, under which it is used in parts. A group of four warps asks for u and w of its half of a tile as soon as what it made of the last ones has left, and
// turns them in their place into what it writes.

#include "tma.h"

struct GradientShape {
  static constexpr int left = 128 * 128, right = 256 * 128, kept = 2 * 5 * 8192;
  static constexpr int stages = (232448 - kept - 256) / (left + right);
  static constexpr int shared_bytes = stages * (left + right) + kept + 256;
  static_assert(shared_bytes == 229632, "as swiglu-hopper.cc launches it");
  typedef Ring<stages, left + right, 1> Pipe;
};

// Of one element.
static __device__ __forceinline__ void differentiate(float g, float& u, float& w, float& s) {
  const float sigmoid = __fdividef(1, 1 + exp2_of(-log2_e * u)), silu = u * sigmoid;
  s = silu * w;
  u = g * w * sigmoid * (u * (1 - sigmoid) + 1);
  w = g * silu;
}

// What a warp has of a tile: ds of 16 rows and 256 columns, rounded. Its group has in shared memory, of 64 rows and 64 columns, two pairs of boxes for u and w,
// which become du and dw, and a box for s.
struct Gradients {
  static constexpr int parts = 24;
  u32 ds[64];
  int row, column;  // of the group's rows, the first
  int F;
  unsigned char* boxes;
  Barrier* come;  // u and w, in each pair of boxes
  __device__ __forceinline__ void ask(const TensorMap& h, int c, int row, int column) {
    if (column + 64 * c >= F) return arrive(come + c % 2);  // nobody waits, but phases alternate
    expect(come + c % 2, 16384);
#pragma unroll
    for (int i = 0; i < 2; i++) load_box(boxes + 16384 * (c % 2) + 8192 * i, h, come + c % 2, column + 64 * c, i, row);
  }
  // 16 columns.
  __device__ __forceinline__ void differentiate_some(int c, int i, const Rows16& rows) const {
    unsigned char* const first = boxes + thread_number() / 32 % 4 * 2048 + rows(2 * i);
    unsigned char* const at = first + c % 2 * 16384;
    u32 u[4], w[4], s[4];
    load_matrices(u, at), load_matrices(w, at + 8192);
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const u32 up = ds[16 * c + 4 * i + q];
      float du[2] = {low_of(u[q]), high_of(u[q])}, dw[2] = {low_of(w[q]), high_of(w[q])}, again[2];
      differentiate(low_of(up), du[0], dw[0], again[0]), differentiate(high_of(up), du[1], dw[1], again[1]);
      u[q] = pack(du[0], du[1]), w[q] = pack(dw[0], dw[1]), s[q] = pack(again[0], again[1]);
    }
    store_matrices(at, u), store_matrices(at + 8192, w), store_matrices(first + 32768, s);
  }
  // Next to be asked for: the 64 rows from next_row.
  template <int part>
  __device__ __forceinline__ void leave_part(const TensorMap& h, const TensorMap& s, int next_row, int next_column) {
    constexpr int c = part / 6;
    const bool there = column + 64 * c < F;
    if (there && part % 6 == 0) {
      meet_group();  // the box of s has been read
      wait(come + c % 2, c / 2);
    }
    if (there && part % 6 < 4) differentiate_some(c, part % 6, Rows16());
    if (there && part % 6 == 3) {
      publish();
      meet_group();
      if (thread_number() % 128 == 0) {
        const unsigned char* box = boxes + 16384 * (c % 2);
        store_box(h, box, column + 64 * c, 0, row), store_box(h, box + 8192, column + 64 * c, 1, row), store_box(s, boxes + 32768, column + 64 * c, row);
        commit_stores();
      }
    }
    if (part % 6 == 5) {
      if (thread_number() % 128 == 0) {
        wait_for_stores<0>();
        if (c < 2) ask(h, c + 2, row, column);
        else if (next_row >= 0) ask(h, c - 2, next_row, next_column);
      }
      __syncwarp();
    }
  }
  // Parts `from` to `until` - 1 of them.
  template <int part = 0>
  __device__ __forceinline__ void leave_parts(int from, int until, const TensorMap& h, const TensorMap& s, int next_row, int next_column) {
    if (from <= part && part < until) leave_part<part>(h, s, next_row, next_column);
    if constexpr (part + 1 < parts) leave_parts<part + 1>(from, until, h, s, next_row, next_column);
  }
};

// Maps: g (M, d), boxes of 128 rows; W (d, F), h (M, 2, F) and s (M, F), of 64 rows. Blocks of 384 threads.
static __device__ __forceinline__ void swiglu_gradient(const TensorMap& g, const TensorMap& weight, const TensorMap& h, const TensorMap& s, int M, int F, int d) {
  typedef GradientShape Shape;
  DSD_SHARED(shared);
  unsigned char* const boxes = shared + Shape::stages * Shape::Pipe::bytes;
  Barrier* const barriers = reinterpret_cast<Barrier*>(boxes + Shape::kept);
  Barrier* const come = barriers + 2 * Shape::stages;
  const Shape::Pipe ring(shared, barriers);
  const int steps = (d + 63) / 64, columns = (F + 255) / 256, tiles = (M + 127) / 128 * columns;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  if (threadIdx.x == 0) {
    ring.start_all(8);
    for (int i = 0; i < 4; i++) start(come + i, 1);
    started();
  }
  __syncthreads();
  Place<Shape::stages> place;
  if (warp < 4) {
    give_registers<24>();
    if (threadIdx.x == 0) {
#pragma unroll 1
      for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
        const int column = tile % columns * 256, row = tile / columns * 128;
#pragma unroll 1
        for (int k = 0; k < steps; k++) {
          unsigned char* to = ring.fill(place);
          Barrier* full = ring.full + place.stage;
          load_box(to, g, full, 64 * k, row);
#pragma unroll
          for (int i = 0; i < 4; i++) load_box(to + Shape::left + 8192 * i, weight, full, column + 64 * i, 64 * k);
          place.next();
        }
      }
    }
  } else {
    take_registers<240>();
    const int group = warp / 4 - 1;
    Gradients results;
    results.boxes = boxes + group * 40960, results.come = come + 2 * group, results.F = F;
    const int at_once = (results.parts + steps - 1) / steps;
    int left = results.parts;  // how many parts of the last tile have
#pragma unroll 1
    for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
      const int column = tile % columns * 256, row = tile / columns * 128 + group * 64;
      if (tile == blockIdx.x && thread_number() % 128 == 0) results.ask(h, 0, row, column), results.ask(h, 1, row, column);
      float sums[128];
      ring.multiply_all(place, steps, [&](const unsigned char* stage, bool add) {
        const Tile a = tile_at(stage + group * 8192, 0), b = tile_at(stage + Shape::left, 8192);
#pragma unroll
        for (int k = 0; k < 4; k++) weighted_256(sums, a + 32 * k, b + 2048 * k, add || k > 0);
      }, [&] {
        results.leave_parts(left, left + at_once, h, s, row, column);
        left += at_once;
      });
      settled<128>(sums);
#pragma unroll
      for (int i = 0; i < 64; i++) results.ds[i] = pack(sums[2 * i], sums[2 * i + 1]);
      results.row = row, results.column = column;
      left = 0;
    }
    results.leave_parts(left, results.parts, h, s, -1, 0);
    if (thread_number() % 128 == 0) wait_for_stores<0>();
  }
}

extern "C" __global__ void __launch_bounds__(384, 1)
    dsd_swiglu_gradient_hopper(const __grid_constant__ TensorMap g, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMap h,
                               const __grid_constant__ TensorMap s, int M, int F, int d) {
  swiglu_gradient(g, weight, h, s, M, F, d);
}
