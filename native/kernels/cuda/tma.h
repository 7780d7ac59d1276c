// What kernels of products share, for compute capability 9.0: boxes that the copy engine moves between tensors in memory and tiles
// in shared memory, barriers that count its bytes, blocks that share a cluster, and products of four warps from tiles.
//
// A box is 64 elements wide, 128 bytes, and lies in shared memory as hopper.h has tiles. Beyond a tensor's edges zeros are read and nothing is written.

#pragma once

#include "hopper.h"

typedef unsigned long long Barrier;  // in shared memory

#ifdef DSD_EMULATED
typedef emulated::TensorMap TensorMap;
#define DSD_CLUSTER(blocks)
static void start(Barrier* barrier, int arrivals) { emulated::mbarrier_init(barrier, arrivals); }
static void started() {}
static void expect(Barrier* barrier, int bytes) { emulated::mbarrier_arrive(barrier, bytes); }
static void arrive(Barrier* barrier) { emulated::mbarrier_arrive(barrier, 0); }
static void arrive(Barrier* barrier, int) { emulated::mbarrier_arrive(barrier, 0); }
static void wait(Barrier* barrier, u32 parity) { emulated::mbarrier_wait(barrier, parity); }
static void load_box(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y) { emulated::load_box(to, from, barrier, {x, y}); }
static void load_box(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y, int z) { emulated::load_box(to, from, barrier, {x, y, z}); }
static void load_numbers(float* to, const float* from, int count, Barrier* barrier) { emulated::load_bytes(to, from, 4 * count, barrier); }
template <int blocks>
static void load_for_all(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y, int z) {
  emulated::load_box(to, from, barrier, {x, y, z});
}
static void store_box(const TensorMap& to, const unsigned char* from, int x, int y) { emulated::store_box(to, from, {x, y}); }
static void store_box(const TensorMap& to, const unsigned char* from, int x, int y, int z) { emulated::store_box(to, from, {x, y, z}); }
static void commit_stores() { emulated::bulk_commit(); }
template <int pending>
static void wait_for_stores() {
  emulated::bulk_wait_read(pending);
}
static void meet_group() { emulated::barrier(thread_number() / 128, 128); }
static int rank_in_cluster() { return 0; }
template <int blocks>
static void meet() {
  emulated::barrier();
}
template <int registers>
static void give_registers() {}
template <int registers>
static void take_registers() {}
template <int pending>
static void wait_for_products() {}
static void commit_products() {}
static Tile tile_at(const unsigned char* first, int) { return tile_at(first); }
static void rows_by_256(float* d, Tile a, Tile b, bool add) { emulated::wgmma(d, 256, nullptr, begin_of(a), begin_of(b), false, false, add); }
static void weighted_256(float* d, Tile a, Tile b, bool add) { emulated::wgmma(d, 256, nullptr, begin_of(a), begin_of(b), false, true, add, 8192); }
static void store_matrices(unsigned char* row, const u32* words) { emulated::stmatrix(words, row, 4, false); }
static void load_matrices(u32* words, const unsigned char* row) { emulated::ldmatrix(words, row, 4, false); }
#else
struct __align__(64) TensorMap {
  unsigned long long opaque[16];
};
#define DSD_CLUSTER(blocks) __cluster_dims__(blocks, 1, 1)
static __device__ __forceinline__ u32 in_shared(const void* address) { return (u32)__cvta_generic_to_shared(address); }

// A phase ends with the last of its arrivals, when the bytes that were announced have come too.
static __device__ __forceinline__ void start(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(in_shared(barrier)), "r"(arrivals) : "memory");
}
// By the thread that started barriers, before it meets the others.
static __device__ __forceinline__ void started() { asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async;" ::: "memory"); }
static __device__ __forceinline__ void expect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(in_shared(barrier)), "r"(bytes) : "memory");
}
static __device__ __forceinline__ void arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(in_shared(barrier)) : "memory");
}
// At the barrier of another block of the cluster. It tells of products that have ended, whose operands may be written over, of nothing that was written: the
// release to the cluster that could be asked for waits for all of the thread's writes, several hundred cycles a stage.
static __device__ __forceinline__ void arrive(Barrier* barrier, int block) {
  asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(in_shared(barrier)),
               "r"(block)
               : "memory");
}
// For the end of the phase of this parity: 0, 1, 0, ...
static __device__ __forceinline__ void wait(Barrier* barrier, u32 parity) {
  asm volatile("{.reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @done bra ended; bra again; ended:}" ::"r"(in_shared(barrier)),
               "r"(parity)
               : "memory");
}
static __device__ __forceinline__ void load_box(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(in_shared(to)), "l"(&from),
               "r"(x), "r"(y), "r"(in_shared(barrier))
               : "memory");
}
static __device__ __forceinline__ void load_box(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(in_shared(to)), "l"(&from),
               "r"(x), "r"(y), "r"(z), "r"(in_shared(barrier))
               : "memory");
}
// Numbers that lie side by side, a multiple of four.
static __device__ __forceinline__ void load_numbers(float* to, const float* from, int count, Barrier* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(in_shared(to)), "l"(from), "r"(4 * count),
               "r"(in_shared(barrier))
               : "memory");
}
// To the same place in each block of the cluster, whose barrier in the same place counts it.
template <int blocks>
static __device__ __forceinline__ void load_for_all(unsigned char* to, const TensorMap& from, Barrier* barrier, int x, int y, int z) {
  if (blocks == 1) return load_box(to, from, barrier, x, y, z);
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(
                   in_shared(to)),
               "l"(&from), "r"(x), "r"(y), "r"(z), "r"(in_shared(barrier)), "h"((unsigned short)((1 << blocks) - 1))
               : "memory");
}
static __device__ __forceinline__ void store_box(const TensorMap& to, const unsigned char* from, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&to), "r"(x), "r"(y), "r"(in_shared(from)) : "memory");
}
static __device__ __forceinline__ void store_box(const TensorMap& to, const unsigned char* from, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%1, %2, %3}], [%4];" ::"l"(&to), "r"(x), "r"(y), "r"(z), "r"(in_shared(from))
               : "memory");
}
// Stores of this thread since the last call become a group.
static __device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until all groups of this thread but the newest have been read out of shared memory.
template <int pending>
static __device__ __forceinline__ void wait_for_stores() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(pending) : "memory");
}
// Four warps. The first four of a block do not.
static __device__ __forceinline__ void meet_group() { asm volatile("bar.sync %0, 128;" ::"r"(thread_number() / 128) : "memory"); }
static __device__ __forceinline__ int rank_in_cluster() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of the cluster.
template <int blocks>
static __device__ __forceinline__ void meet() {
  if (blocks == 1) __syncthreads();
  else asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}
// Of four warps, each.
template <int registers>
static __device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}
template <int registers>
static __device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}
static __device__ __forceinline__ void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int pending>
static __device__ __forceinline__ void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// Of columns: `leading` bytes from 64 of them to the next. In a cluster an address has the block's rank above its 18 bits.
static __device__ __forceinline__ Tile tile_at(const unsigned char* first, int leading) { return {(u32)(leading / 16) << 16 | (in_shared(first) & 0x3ffff) >> 4}; }

#define DSD_NUMBERS_64                                                                                                                                 \
  DSD_NUMBERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, " \
                 "%58, %59, %60, %61, %62, %63"
#define DSD_NUMBERS_128                                                                                                                                \
  DSD_NUMBERS_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, " \
                 "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, " \
                 "%114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define DSD_SUMS_64(d) DSD_SUMS_32(d), DSD_SUMS_32((d + 32))
#define DSD_SUMS_128(d) DSD_SUMS_64(d), DSD_SUMS_64((d + 64))
// d (64, 256) = a (64, 16) times the transpose of b (256, 16), added to what d was if told so.
static __device__ __forceinline__ void rows_by_256(float* d, Tile a, Tile b, bool add) {
  asm volatile("{.reg .pred add; .reg .b64 a, b; mov.b64 a, {%128, %131}; mov.b64 b, {%129, %131}; setp.ne.s32 add, %130, 0; "
               "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" DSD_NUMBERS_128 "}, a, b, add, 1, 1, 0, 0;}"
               : DSD_SUMS_128(d)
               : "r"(a.low), "r"(b.low), "r"((int)add), "n"(DSD_TILE_HIGH));
}
// d (64, 256) = a (64, 16) times b (16, 256), or added. Of b, 64 columns lie 8192 bytes after the 64 before.
static __device__ __forceinline__ void weighted_256(float* d, Tile a, Tile b, bool add) {
  asm volatile("{.reg .pred add; .reg .b64 a, b; mov.b64 a, {%128, %131}; mov.b64 b, {%129, %131}; setp.ne.s32 add, %130, 0; "
               "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {" DSD_NUMBERS_128 "}, a, b, add, 1, 1, 0, 1;}"
               : DSD_SUMS_128(d)
               : "r"(a.low), "r"(b.low), "r"((int)add), "n"(DSD_TILE_HIGH));
}
// Four matrices of 8 by 8, of which a lane has, as in a product's result, row lane / 4 and columns 2 t and 2 t + 1; lane 8 i + j gives row j of matrix i.
static __device__ __forceinline__ void store_matrices(unsigned char* row, const u32* words) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(in_shared(row)), "r"(words[0]), "r"(words[1]), "r"(words[2]),
               "r"(words[3])
               : "memory");
}
static __device__ __forceinline__ void load_matrices(u32* words, const unsigned char* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(in_shared(row))
               : "memory");
}
#endif

// Which of a ring's places comes next, and the parity of its phase.
template <int stages>
struct Place {
  int stage = 0;
  u32 parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// What a lane names for store_matrices and load_matrices in 16 rows of a box, of chunks c and c + 1: words of c, rows 0 to 7 and 8 to 15, then those of c + 1.
struct Rows16 {
  int row, turn, second;
  __device__ __forceinline__ Rows16() {
    const int lane = thread_number() % 32;
    row = lane % 16 * 128, turn = lane & 7, second = lane / 16;
  }
  __device__ __forceinline__ int operator()(int c) const { return row + (((c + second) ^ turn) << 4); }
};

// Nothing that is made of these words is made before.
template <int n>
static __device__ __forceinline__ void keep(u32* words) {
#ifndef DSD_EMULATED
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+r"(words[i])::"memory");
#endif
}
static __device__ __forceinline__ float low_of(u32 pair) { return __uint_as_float(pair << 16); }
static __device__ __forceinline__ float high_of(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// A ring of stages that one thread fills with boxes and two groups of four warps multiply from. In a cluster, what all its blocks read is loaded once, a part
// by each; so a stage is free when it is in every block.
template <int stages_, int bytes_, int blocks_>
struct Ring {
  static constexpr int stages = stages_, bytes = bytes_, blocks = blocks_;
  unsigned char* tiles;  // stages of `bytes`
  Barrier *full, *empty;
  __device__ __forceinline__ Ring(unsigned char* tiles, Barrier* barriers) : tiles(tiles), full(barriers), empty(barriers + stages) {}
  // By one thread, once. Of each block, `warps` read a stage.
  __device__ __forceinline__ void start_all(int warps) const {
    for (int i = 0; i < stages; i++) start(full + i, 1), start(empty + i, warps * blocks);
  }
  // For the thread that fills: where to, once it is free.
  __device__ __forceinline__ unsigned char* fill(const Place<stages>& place) const {
    wait(empty + place.stage, place.parity ^ 1);
    expect(full + place.stage, bytes);
    return tiles + place.stage * bytes;
  }
  __device__ __forceinline__ void release(int stage) const {
    const int lane = thread_number() % 32;
    if (blocks == 1) {
      if (lane == 0) arrive(empty + stage);
    } else if (lane < blocks) {
      arrive(empty + stage, lane);
    }
  }
  // multiply(tiles of a stage, whether to add) for each of the next `steps` stages, and after each, while its products are on their way, beside(). All have
  // ended on return.
  template <class Multiply, class Beside>
  __device__ __forceinline__ void multiply_all(Place<stages>& place, int steps, Multiply multiply, Beside beside) const {
    int before = 0;
#pragma unroll 1
    for (int k = 0; k < steps; k++) {
      wait(full + place.stage, place.parity);
      begin_products();
      multiply(tiles + place.stage * bytes, k > 0);
      commit_products();
      if (k > 0) {
        wait_for_products<1>();
        release(before);
      }
      before = place.stage;
      place.next();
      beside();
    }
    wait_for_products<0>();
    release(before);
  }
};
