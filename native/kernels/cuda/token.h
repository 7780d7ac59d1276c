// What forward and backward of dsd::qkv_attention share: tokens of q and k on their way from memory into matrix products, and their gradients back.
//
// A warp takes 32 tokens at a time, and a lane holds of these the tokens g, g + 8, g + 16 and g + 24, g = lane / 4, and of a token chunks of eight
// elements, 16 bytes: chunk t = lane % 4 and, where D is 64, chunk t + 4. So global memory is read in 16-byte words, pairs of a rotation lie in
// one lane (D = 64) or two apart (D = 32), and a sum over a token is a sum over four lanes. A product over D may take the elements of D in any order: in
// that of the chunks, what a lane holds is its operand, without an exchange.
//
// No branch depends on whether a token is among the N: those beyond are taken to be the last one, have their place in shared memory, and are not
// written. The compiler would not know that the lanes of a warp agree on it, and exchanges between lanes that may have parted are slow.

#pragma once

#include "bf16.h"

#ifdef DSD_EMULATED
static float exp2_of(float x) { return exp2f(x); }
static void multiply(float* d, const u32* a, const u32* b) { emulated::mma_m16n8k16(d, a, b); }
static void load_transposed(u32* out, const unsigned char* row) { emulated::ldmatrix(out, row, 4, true); }
static void copy_async(unsigned char* shared, const void* global) { emulated::cp_async_16(shared, global); }
static void wait_for_copies() {
  emulated::cp_async_commit();
  emulated::cp_async_wait(0);
}
static void prefetch(const void*) {}
static uint4 load_once(const void* global) { return *static_cast<const uint4*>(global); }
static u32 settle(u32 word, u32) { return word; }
static void store_if(bool real, void* global, uint4 v) {
  if (real) *static_cast<uint4*>(global) = v;
}
#else
#define DSD_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]
static __device__ __forceinline__ float exp2_of(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
// d (16, 8) += a (16, 16) b (16, 8)
static __device__ __forceinline__ void multiply(float* d, const u32* a, const u32* b) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// Four matrices of 8 by 8, transposed; lane 8 i + j gives row j of matrix i.
static __device__ __forceinline__ void load_transposed(u32* out, const unsigned char* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"((u32)__cvta_generic_to_shared(row)));
}
static __device__ __forceinline__ void copy_async(unsigned char* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(shared)), "l"(global) : "memory");
}
static __device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
static __device__ __forceinline__ void prefetch(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }
// What is not read again soon should not drive the angles out of the first cache.
static __device__ __forceinline__ uint4 load_once(const void* global) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(global));
  return v;
}
// The same word, in a register of its own. `zero` is 0, but only known to be at run time.
static __device__ __forceinline__ u32 settle(u32 word, u32 zero) {
  u32 same;
  asm volatile("xor.b32 %0, %1, %2;" : "=r"(same) : "r"(word), "r"(zero));
  return same;
}
// Without a branch, which would keep the compiler from working on several tokens at a time.
static __device__ __forceinline__ void store_if(bool real, void* global, uint4 v) {
  asm volatile("{.reg .pred real; setp.ne.s32 real, %0, 0; @real st.global.v4.u32 [%1], {%2, %3, %4, %5};}" ::"r"((int)real), "l"(global), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}
#endif

static __device__ __forceinline__ float sum_of_four(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
static __device__ __forceinline__ float most_of_four(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
static __device__ __forceinline__ void put(u32* to, uint4 v) { to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w; }
static __device__ __forceinline__ void put(float* to, float4 v) { to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w; }
static __device__ __forceinline__ uint4 take(const u32* from) { return make_uint4(from[0], from[1], from[2], from[3]); }

// One of two, by chooser(0) or chooser(1). Of a condition the compiler would make a branch, with an exchange between lanes on either side of it.
static __device__ __forceinline__ u32 chooser(int second) { return 0x3210u + 0x4444u * second; }
static __device__ __forceinline__ u32 choose(u32 first, u32 second, u32 by) { return __byte_perm(first, second, by); }

constexpr float log2_e = 1.4426950408889634f;

// 1 / sqrt(D)
template <int D>
static __device__ constexpr float scale_of() {
  return D == 64 ? 0.125f : 0.17677669529663687f;
}

// Where a head's first token begins among (B, N, parts, heads, D).
static __device__ __forceinline__ size_t start_of(int head, int heads, int N, int D, int parts) {
  return (size_t)(head / heads) * N * (parts * heads * D) + head % heads * D;
}

// What the gradient of attention is made from.
struct Inputs {
  const bf16* qkv;
  const float *q_norm, *k_norm, *cosine, *sine;
  const bf16 *out, *grad;
  const float* lse;
  int N, heads;
  float eps;
};

// Where a chunk of a row lies in shared memory, in bytes. Chunks change places, by the row's last three bits, so that neither eight rows of one chunk
// (ldmatrix) nor two rows of four chunks (16-byte words) meet in a bank.
template <int D>
static __device__ __forceinline__ int place(int row, int chunk) {
  const int turn = D == 64 ? (row & 1) << 2 | (row >> 1 & 3) : row >> 1 & 3;
  return row * (2 * D) + ((chunk ^ turn) << 4);
}

template <int D>
struct Lane {
  static constexpr int chunks = D / 32, words = 4 * chunks, size = 8 * chunks;  // what a lane holds of a token
  int number, g, t;
  u32 odd, upper;       // for choose(): by the bits of t
  int own[chunks];      // where its chunks of row g lie
  int columns[D / 16];  // of 16 rows, where those lie that it names for ldmatrix, by pairs of chunks
  __device__ __forceinline__ Lane() : number(threadIdx.x % 32), g(number / 4), t(number % 4), odd(chooser(t & 1)), upper(chooser(t >> 1)) {
#pragma unroll
    for (int c = 0; c < chunks; c++) own[c] = place<D>(g, 4 * c + t);
#pragma unroll
    for (int j = 0; j < D / 16; j++) columns[j] = place<D>(number % 16, 2 * j + number / 16);
  }

  // A token in global memory; in shared memory, row g of `tile`.
  __device__ __forceinline__ void load(u32* to, const bf16* token) const {
#pragma unroll
    for (int c = 0; c < chunks; c++) put(to + 4 * c, load_once(token + 8 * (4 * c + t)));
  }
  __device__ __forceinline__ void load(u32* to, const unsigned char* tile) const {
#pragma unroll
    for (int c = 0; c < chunks; c++) put(to + 4 * c, *reinterpret_cast<const uint4*>(tile + own[c]));
  }
  __device__ __forceinline__ void store_if(bool real, const u32* from, bf16* token) const {
#pragma unroll
    for (int c = 0; c < chunks; c++) ::store_if(real, token + 8 * (4 * c + t), take(from + 4 * c));
  }
  __device__ __forceinline__ void store(const u32* from, unsigned char* tile) const {
#pragma unroll
    for (int c = 0; c < chunks; c++) *reinterpret_cast<uint4*>(tile + own[c]) = take(from + 4 * c);
  }
  __device__ __forceinline__ void load_weight(float* to, const float* weight, float scale) const {
#pragma unroll
    for (int i = 0; i < size; i += 4) put(to + i, *reinterpret_cast<const float4*>(weight + 8 * (i / 8 * 4 + t) + i % 8));
#pragma unroll
    for (int i = 0; i < size; i++) to[i] *= scale;
  }
};

template <int D>
static __device__ __forceinline__ void unpack(float* to, const u32* from) {
#pragma unroll
  for (int i = 0; i < Lane<D>::words; i++) to[2 * i] = __uint_as_float(from[i] << 16), to[2 * i + 1] = __uint_as_float(from[i] & 0xffff0000u);
}
template <int D>
static __device__ __forceinline__ void pack_all(u32* to, const float* from) {
#pragma unroll
  for (int i = 0; i < Lane<D>::words; i++) to[i] = pack(from[2 * i], from[2 * i + 1]);
}

// A token's angles, as far as they are those of the lane's chunks.
struct Angle {
  float cos[8], sin[8];
};
template <int D>
static __device__ __forceinline__ Angle angle_of(const float* cosine, const float* sine, int token, int t) {
  const int at = token * (D / 2) + 8 * (D == 64 ? t : t & 1);
  Angle angle;
  put(angle.cos, *reinterpret_cast<const float4*>(cosine + at)), put(angle.cos + 4, *reinterpret_cast<const float4*>(cosine + at + 4));
  put(angle.sin, *reinterpret_cast<const float4*>(sine + at)), put(angle.sin + 4, *reinterpret_cast<const float4*>(sine + at + 4));
  return angle;
}

// Turns a token by its angle, or back.
template <int D, bool back>
static __device__ __forceinline__ void turn(float* x, const Angle& angle, int t) {
#pragma unroll
  for (int i = 0; i < 8; i++) {
    if (D == 64) {
      const float a = x[i], b = x[Lane<D>::size - 8 + i], s = back ? -angle.sin[i] : angle.sin[i];
      x[i] = a * angle.cos[i] - b * s;
      x[Lane<D>::size - 8 + i] = a * s + b * angle.cos[i];
    } else {
      const float other = __shfl_xor_sync(0xffffffffu, x[i], 2);
      x[i] = x[i] * angle.cos[i] + (back ? 1 - (t & 2) : (t & 2) - 1) * angle.sin[i] * other;
    }
  }
}

template <int D>
static __device__ __forceinline__ float root_of(const float* x, float eps) {
  float squares = 0;
#pragma unroll
  for (int i = 0; i < Lane<D>::size; i++) squares += x[i] * x[i];
  return rsqrtf(sum_of_four(squares) * (1.0f / D) + eps);
}

// In place: a token of q or k as it comes from memory becomes the operand of the products.
template <int D>
static __device__ __forceinline__ void prepare(u32* token, const float* weight, const Angle& angle, float eps, int t) {
  float x[Lane<D>::size];
  unpack<D>(x, token);
  const float root = root_of<D>(x, eps);
#pragma unroll
  for (int i = 0; i < Lane<D>::size; i++) x[i] = x[i] * root * weight[i];
  turn<D, false>(x, angle, t);
  pack_all<D>(token, x);
}

// In place: a gradient with regard to a prepared token becomes that with regard to the token as it comes from memory; `sums` takes the weight's.
template <int D>
static __device__ __forceinline__ void unprepare(u32* gradient, const u32* token, const float* weight, const Angle& angle, float eps, int t, float* sums) {
  float x[Lane<D>::size], g[Lane<D>::size], along = 0;
  unpack<D>(x, token);
  unpack<D>(g, gradient);
  const float root = root_of<D>(x, eps);
  turn<D, true>(g, angle, t);
#pragma unroll
  for (int i = 0; i < Lane<D>::size; i++) {
    x[i] *= root;
    sums[i] += g[i] * x[i];
    g[i] *= weight[i];
    along += g[i] * x[i];
  }
  along = sum_of_four(along) * (1.0f / D);
#pragma unroll
  for (int i = 0; i < Lane<D>::size; i++) g[i] = (g[i] - x[i] * along) * root;
  pack_all<D>(gradient, g);
}

// Two tokens eight apart as the left operand of 16 rows, by steps of 16 elements. Of itself the compiler would keep the words where they were loaded, and
// move them together before every product.
template <int D>
static __device__ __forceinline__ void as_left(u32 (*left)[4], const u32* token, const u32* eighth, u32 zero) {
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    left[k][0] = settle(token[2 * k], zero), left[k][1] = settle(eighth[2 * k], zero);
    left[k][2] = settle(token[2 * k + 1], zero), left[k][3] = settle(eighth[2 * k + 1], zero);
  }
}

// 32 tokens in registers (left) times eight rows of shared memory, over D: added to the sums.
template <int D>
static __device__ __forceinline__ void products(float (*sums)[4], const u32 (*left)[D / 16][4], const unsigned char* tile, const Lane<D>& lane) {
  u32 right[Lane<D>::words];
  lane.load(right, tile);
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
#pragma unroll
    for (int m = 0; m < 2; m++) multiply(sums[m], left[m][k], right + 2 * k);
  }
}

// sums (32, D) += left (32, 16) times 16 rows of shared memory.
template <int D>
static __device__ __forceinline__ void accumulate(float (*sums)[D / 8][4], const u32 (*left)[4], const unsigned char* tile, const Lane<D>& lane) {
#pragma unroll
  for (int j = 0; j < D / 16; j++) {
    u32 right[4];
    load_transposed(right, tile + lane.columns[j]);
#pragma unroll
    for (int m = 0; m < 2; m++) {
      multiply(sums[m][2 * j], left[m], right);
      multiply(sums[m][2 * j + 1], left[m], right + 2);
    }
  }
}

// The products leave a lane with two elements, one word, of each chunk of a token; four lanes exchange them so that each has chunks as above.
template <int D>
static __device__ __forceinline__ void gather_chunk(u32* w, const Lane<D>& lane) {
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const u32 other = __shfl_xor_sync(0xffffffffu, choose(w[i + 1], w[i], lane.odd), 1);
    w[i] = choose(w[i], other, lane.odd), w[i + 1] = choose(other, w[i + 1], lane.odd);
  }
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const u32 other = __shfl_xor_sync(0xffffffffu, choose(w[i + 2], w[i], lane.upper), 2);
    w[i] = choose(w[i], other, lane.upper), w[i + 2] = choose(other, w[i + 2], lane.upper);
  }
}

// Row `half` of a lane's two in a tile of 16 rows: sums become packed chunks.
template <int D>
static __device__ __forceinline__ void gather(u32* token, const float (*tile)[4], int half, float scale, const Lane<D>& lane) {
#pragma unroll
  for (int j = 0; j < D / 8; j++) token[j] = pack(tile[j][2 * half] * scale, tile[j][2 * half + 1] * scale);
#pragma unroll
  for (int c = 0; c < Lane<D>::chunks; c++) gather_chunk(token + 4 * c, lane);
}

// Adds up twice n numbers with a lane `lanes` away: the lower of the two keeps the sums of the first n, the upper those of the last.
template <int n>
static __device__ __forceinline__ void share_sums(float* x, int lanes, u32 upper) {
#pragma unroll
  for (int i = 0; i < n; i++) {
    const u32 lower_sum = __float_as_uint(x[i]), upper_sum = __float_as_uint(x[i + n]);
    const u32 other = __shfl_xor_sync(0xffffffffu, choose(upper_sum, lower_sum, upper), lanes);
    x[i] = __uint_as_float(choose(lower_sum, upper_sum, upper)) + __uint_as_float(other);
  }
}
