// What attention-hopper.cu and attention-gradient-hopper.cu share: the products of four warps (wgmma) of compute capability 9.0, for D = 64.
//
// Tiles lie in shared memory as rows of 64 elements, 128 bytes, the chunk c of row r (16 bytes) in place c ^ (r & 7), as the instruction has it: a tile
// begins at a multiple of 1024 bytes. Of each 16 rows that a warp has, a lane holds rows g = lane / 4 and g + 8, and of those, as in token.h, two chunks.

#pragma once

#include "token.h"

// A tile, or a part of it that begins at a multiple of 16 bytes: the lower half of what describes an operand. The upper half is the same of all.
struct Tile {
  u32 low;
  __device__ __forceinline__ Tile operator+(int bytes) const { return {low + bytes / 16}; }
};

// Of a result (64, n), a warp has 16 rows, and a lane of these, at 4 j and 4 j + 2, columns 8 j + 2 t and the next one of rows g and g + 8. An operand in
// registers is laid out like that, of 16 columns, in words. All four warps must come to a product, and its results are there after end_products() or settled().
#ifdef DSD_EMULATED
static Tile tile_at(const unsigned char* first) { return {u32(first - emulated::dynamic_shared) / 16}; }
static const unsigned char* begin_of(Tile tile) { return emulated::dynamic_shared + tile.low * 16; }
static void rows_by_32(float* d, Tile a, Tile b, bool add) { emulated::wgmma(d, 32, nullptr, begin_of(a), begin_of(b), false, false, add); }
static void rows_by_64(float* d, const u32* a, Tile b, bool add) { emulated::wgmma(d, 64, a, nullptr, begin_of(b), false, false, add); }
static void add_weighted(float* d, const u32* a, Tile b) { emulated::wgmma(d, 64, a, nullptr, begin_of(b), false, true, true); }
static void add_weighted(float* d, Tile a, Tile b) { emulated::wgmma(d, 64, nullptr, begin_of(a), begin_of(b), true, true, true); }
static void begin_products() {}
template <int n>
static void end_products(float*) {}
template <int n>
static void settled(float*) {}
static void publish() {}
static int thread_number() { return threadIdx.x; }
#else
// 64 bytes times 16 from one eight rows to the next, rows of 128 bytes, swizzled.
#define DSD_TILE_HIGH 0x40000040
#define DSD_NUMBERS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define DSD_NUMBERS_32 DSD_NUMBERS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define DSD_FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define DSD_SUMS_16(d) DSD_FOUR(d, 0), DSD_FOUR(d, 4), DSD_FOUR(d, 8), DSD_FOUR(d, 12)
#define DSD_SUMS_32(d) DSD_SUMS_16(d), DSD_FOUR(d, 16), DSD_FOUR(d, 20), DSD_FOUR(d, 24), DSD_FOUR(d, 28)

static __device__ __forceinline__ Tile tile_at(const unsigned char* first) { return {64u << 16 | (u32)__cvta_generic_to_shared(first) >> 4}; }
// d (64, 32) = a (64, 16) times the transpose of b (32, 16), added to what d was if told so.
static __device__ __forceinline__ void rows_by_32(float* d, Tile a, Tile b, bool add) {
  asm volatile("{.reg .pred add; .reg .b64 a, b; mov.b64 a, {%16, %19}; mov.b64 b, {%17, %19}; setp.ne.s32 add, %18, 0; "
               "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 {" DSD_NUMBERS_16 "}, a, b, add, 1, 1, 0, 0;}"
               : DSD_SUMS_16(d)
               : "r"(a.low), "r"(b.low), "r"((int)add), "n"(DSD_TILE_HIGH));
}
// d (64, 64) = a (64, 16) times the transpose of b (64, 16), or added.
static __device__ __forceinline__ void rows_by_64(float* d, const u32* a, Tile b, bool add) {
  asm volatile("{.reg .pred add; .reg .b64 b; mov.b64 b, {%36, %38}; setp.ne.s32 add, %37, 0; "
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" DSD_NUMBERS_32 "}, {%32, %33, %34, %35}, b, add, 1, 1, 0;}"
               : DSD_SUMS_32(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "r"((int)add), "n"(DSD_TILE_HIGH));
}
// d (64, 64) += a (64, 16) times b (16, 64)
static __device__ __forceinline__ void add_weighted(float* d, const u32* a, Tile b) {
  asm volatile("{.reg .b64 b; mov.b64 b, {%36, %37}; "
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" DSD_NUMBERS_32 "}, {%32, %33, %34, %35}, b, 1, 1, 1, 1;}"
               : DSD_SUMS_32(d)
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.low), "n"(DSD_TILE_HIGH));
}
// d (64, 64) += the transpose of a (16, 64) times b (16, 64)
static __device__ __forceinline__ void add_weighted(float* d, Tile a, Tile b) {
  asm volatile("{.reg .b64 a, b; mov.b64 a, {%32, %34}; mov.b64 b, {%33, %34}; "
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" DSD_NUMBERS_32 "}, a, b, 1, 1, 1, 1, 1;}"
               : DSD_SUMS_32(d)
               : "r"(a.low), "r"(b.low), "n"(DSD_TILE_HIGH));
}
// Before products of which something in registers was written since the last ones.
static __device__ __forceinline__ void begin_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The compiler does not know that products go on after their instruction: past end_products(), this tells it of further results.
template <int n>
static __device__ __forceinline__ void settled(float* d) {
#pragma unroll
  for (int i = 0; i < n; i++) asm volatile("" : "+f"(d[i])::"memory");
}
template <int n>
static __device__ __forceinline__ void end_products(float* d) {
  asm volatile("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;" ::: "memory");
  settled<n>(d);
}
// What this thread wrote to shared memory is there for products, once the others are told by a barrier.
static __device__ __forceinline__ void publish() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// Asked for again, where it would be kept in a register through the products.
static __device__ __forceinline__ int thread_number() {
  int number;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}
#endif

// A lane's chunks of a row are t and t + 4, of odd rows in the opposite order, so that eight lanes never meet in a bank; angles agree with that.
struct Row {
  int number, g, t, odd, chunk[2], own[2];
  __device__ __forceinline__ Row() : number(thread_number() % 32), g(number / 4), t(number % 4), odd(g & 1) {
    chunk[0] = t + 4 * odd, chunk[1] = t + 4 - 4 * odd;
    own[0] = g * 128 + ((chunk[0] ^ g) << 4), own[1] = g * 128 + ((chunk[1] ^ g) << 4);
  }
  __device__ __forceinline__ void load(u32* to, const bf16* token) const {
#pragma unroll
    for (int c = 0; c < 2; c++) put(to + 4 * c, load_once(token + 8 * chunk[c]));
  }
  // Row g of eight in shared memory.
  __device__ __forceinline__ void load(u32* to, const unsigned char* eight) const {
#pragma unroll
    for (int c = 0; c < 2; c++) put(to + 4 * c, *reinterpret_cast<const uint4*>(eight + own[c]));
  }
  __device__ __forceinline__ void store(const u32* from, bf16* token) const {
#pragma unroll
    for (int c = 0; c < 2; c++) *reinterpret_cast<uint4*>(token + 8 * chunk[c]) = take(from + 4 * c);
  }
  __device__ __forceinline__ void store(const u32* from, unsigned char* eight) const {
#pragma unroll
    for (int c = 0; c < 2; c++) *reinterpret_cast<uint4*>(eight + own[c]) = take(from + 4 * c);
  }
  __device__ __forceinline__ void load_weight(float* to, const float* weight, float scale) const {
#pragma unroll
    for (int i = 0; i < 16; i += 4) put(to + i, *reinterpret_cast<const float4*>(weight + 8 * chunk[i / 8] + i % 8));
#pragma unroll
    for (int i = 0; i < 16; i++) to[i] *= scale;
  }
  __device__ __forceinline__ Angle angle(const float* cosine, const float* sine, int token) const {
    Angle a = angle_of<64>(cosine, sine, token, t);
#pragma unroll
    for (int i = 0; i < 8; i++) a.sin[i] = __uint_as_float(__float_as_uint(a.sin[i]) ^ (u32)odd << 31);
    return a;
  }
  // Row g + 8 half of a product (64, 64), into its place among the warp's 16 rows of a tile.
  __device__ __forceinline__ void leave(const float* sums, int half, float scale, unsigned char* rows) const {
#pragma unroll
    for (int j = 0; j < 8; j++) {
      *reinterpret_cast<u32*>(rows + (8 * half + g) * 128 + ((j ^ g) << 4) + 4 * t) = pack(sums[4 * j + 2 * half] * scale, sums[4 * j + 2 * half + 1] * scale);
    }
  }
};

// Where a chunk of a row lies in a tile, in bytes.
static __device__ __forceinline__ int place_in_tile(int row, int chunk) { return row * 128 + ((chunk ^ (row & 7)) << 4); }
