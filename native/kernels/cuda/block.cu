// The element-wise parts of a transformer block on CUDA, each in one pass over memory: see block.cc for what they compute, block-cuda.cc for how
// they are called. Rows are read and written in chunks of eight elements, 16 or 32 bytes, so widths are multiples of eight and pointers aligned to 16.
// Sums are float32, always in the same order.

#include "bf16.h"

#ifdef DSD_EMULATED
#define DSD_RESTRICT
#else
#define DSD_RESTRICT __restrict__
#define DSD_SHARED(name) extern __shared__ __align__(16) char name[]
#endif

// Eight elements as they lie in memory: fetched early, unpacked where they are used.
struct Floats {
  float4 a, b;
};
struct Halves {
  uint4 a;
};
template <typename T>
struct StoredOf;
template <>
struct StoredOf<float> {
  typedef Floats type;
};
template <>
struct StoredOf<bf16> {
  typedef Halves type;
};
template <typename T>
using Stored = typename StoredOf<T>::type;

static __device__ Floats fetch8(const float* from) {
  return {*reinterpret_cast<const float4*>(from), *reinterpret_cast<const float4*>(from + 4)};
}
static __device__ Halves fetch8(const bf16* from) { return {*reinterpret_cast<const uint4*>(from)}; }
static __device__ void unpack8(const Floats& from, float* to) {
  const float4 a = from.a, b = from.b;
  to[0] = a.x, to[1] = a.y, to[2] = a.z, to[3] = a.w, to[4] = b.x, to[5] = b.y, to[6] = b.z, to[7] = b.w;
}
static __device__ void unpack8(const Halves& from, float* to) {
  const unsigned pairs[4] = {from.a.x, from.a.y, from.a.z, from.a.w};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    to[2 * i] = __uint_as_float(pairs[i] << 16);
    to[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
  }
}
template <typename T>
static __device__ void load8(const T* from, float* to) {
  unpack8(fetch8(from), to);
}
static __device__ void store8(float* to, const float* from) {
  *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
  *reinterpret_cast<float4*>(to + 4) = make_float4(from[4], from[5], from[6], from[7]);
}
static __device__ void store8(bf16* to, const float* from) {
  *reinterpret_cast<uint4*>(to) = make_uint4(pack(from[0], from[1]), pack(from[2], from[3]), pack(from[4], from[5]), pack(from[6], from[7]));
}

// What is read again of what was written.
static __device__ void as_stored(const float*, float*) {}
static __device__ void as_stored(const bf16*, float* values) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const u32 pair = pack(values[2 * i], values[2 * i + 1]);
    values[2 * i] = __uint_as_float(pair << 16);
    values[2 * i + 1] = __uint_as_float(pair & 0xffff0000u);
  }
}

// The same sum in every lane.
static __device__ float warp_sum(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
  return x;
}

// --- add_norm and its gradient. K warps take a row, a lane one chunk of it, so that a lane needs few registers, holds its part of the picture's vectors and
// has its next row on the way while it works on one; the warps of a row tell each other their sums through shared memory. A block has several such groups,
// which take its rows in turn. blockIdx.x: which `rows` rows; blockIdx.y: picture. Vectors of a picture lie `*_stride` apart. Null: y no branch, scale no
// modulation.

#ifdef DSD_EMULATED
static void group_barrier(int group, int threads) { emulated::barrier(group + 1, threads); }
#else
static __device__ void group_barrier(int group, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(group + 1), "r"(threads) : "memory"); }
#endif

// A thread's place in its group, and what it has of a picture and of its rows.
template <int K>
struct Group {
  // As many threads as a multiprocessor has registers for, in one block or two.
  enum { count = K == 1 ? 8 : K == 3 ? 5 : 4, threads = count * K * 32, parts_size = 8 };
  int number, k, c, row, end, d;  // `row`, the first of its rows, to `end`
  bool real;
  long long first;
  float* parts;
  // `all_parts`: of all groups.
  __device__ __forceinline__ Group(int N, int d, int rows, float* all_parts)
      : number(threadIdx.x / 32 / K), k(threadIdx.x / 32 % K), c((k * 32 + threadIdx.x % 32) * 8), row(blockIdx.x * rows + number),
        end(min(static_cast<int>(blockIdx.x + 1) * rows, N)), d(d), real(c < d), first(static_cast<long long>(blockIdx.y) * N * d + c),
        parts(all_parts + number * parts_size) {}
  __device__ __forceinline__ bool has(int row) const { return real && row < end; }
  __device__ __forceinline__ long long at(int row) const { return first + static_cast<long long>(row) * d; }
  __device__ __forceinline__ void load(float* to, const float* vectors, long long stride) const {
    if (real) load8(vectors + blockIdx.y * stride + c, to);
  }
  // The same sum in every thread of the group. `which`, 0 or 1: not that of the sum before.
  __device__ __forceinline__ float sum(float x, int which) const {
    x = warp_sum(x);
    if (K == 1) return x;
    float* own = parts + 4 * which;
    if (threadIdx.x % 32 == 0) own[k] = x;
    group_barrier(number, K * 32);
    x = own[0];
#pragma unroll
    for (int i = 1; i < K; i++) x += own[i];
    return x;
  }
};

// Dynamic shared memory: parts_size floats a group.
template <typename X, typename Y, typename O, int K>
static __device__ void add_norm(const X* DSD_RESTRICT x, const float* DSD_RESTRICT gate, long long gate_stride, const Y* DSD_RESTRICT y,
                                const float* DSD_RESTRICT shift, long long shift_stride, const float* DSD_RESTRICT scale, long long scale_stride,
                                X* DSD_RESTRICT x1, O* DSD_RESTRICT n, int N, int d, float eps, int rows) {
  DSD_SHARED(memory);
  const Group<K> group(N, d, rows, reinterpret_cast<float*>(memory));
  float gates[8] = {}, shifts[8] = {}, scales[8] = {};
  if (y) group.load(gates, gate, gate_stride);
  if (scale) group.load(shifts, shift, shift_stride), group.load(scales, scale, scale_stride);
#pragma unroll
  for (int i = 0; i < 8; i++) gates[i] += 1, scales[i] += 1;
  struct {
    Stored<X> x;
    Stored<Y> y;
  } of = {}, next = {};
  auto fetch = [&](decltype(of)& to, int row) {
    if (!group.has(row)) return;
    to.x = fetch8(x + group.at(row));
    if (y) to.y = fetch8(y + group.at(row));
  };
  fetch(of, group.row);
  for (int row = group.row, turn = 0; row < group.end; row += group.count, turn ^= 1) {
    const long long at = group.at(row);
    fetch(next, row + group.count);
    float v[8], squares = 0;
    unpack8(of.x, v);
    if (y) {
      float branch[8];
      unpack8(of.y, branch);
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] += gates[i] * branch[i];
      if (group.real) store8(x1 + at, v);
      as_stored(x1, v);
    }
#pragma unroll
    for (int i = 0; i < 8; i++) squares += v[i] * v[i];
    const float root = rsqrtf(group.sum(squares, turn) / d + eps);
    if (group.real) {
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = v[i] * root * scales[i] + shifts[i];
      store8(n + at, v);
    }
    of = next;
  }
}

template <typename X, typename Y, typename O>
struct Chunk {
  Stored<X> x1, dx1;
  Stored<Y> y;
  Stored<O> dn;
};

// Where asked (n is not null) the norm is made again for whoever did not keep it; n may be dn. Else nobody needs shift.
// A block's sums over its rows go to sums (pictures, blocks of a picture, 3, d): of gate, shift and scale. Dynamic shared memory: groups (768 K + 8) floats.
template <typename X, typename Y, typename O, int K>
static __device__ void add_norm_gradient(const X* x1, const float* DSD_RESTRICT gate, long long gate_stride, const Y* y, const float* DSD_RESTRICT shift,
                                         long long shift_stride, const float* DSD_RESTRICT scale, long long scale_stride, const X* dx1, const O* dn, O* n, X* dx, Y* dy,
                                         float* sums, int N, int d, float eps, int rows) {
  enum { groups = Group<K>::count, width = K * 256 };
  DSD_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  const Group<K> group(N, d, rows, shared + groups * 3 * width);
  float gates[8] = {}, shifts[8] = {}, scales[8] = {}, dgate[8] = {}, dshift[8] = {}, dscale[8] = {};
  if (y) group.load(gates, gate, gate_stride);
  if (scale) group.load(scales, scale, scale_stride);
  if (scale && n) group.load(shifts, shift, shift_stride);
#pragma unroll
  for (int i = 0; i < 8; i++) gates[i] += 1, scales[i] += 1;
  auto fetch = [&](Chunk<X, Y, O>& to, int row) {
    if (!group.has(row)) return;
    const long long at = group.at(row);
    to.x1 = fetch8(x1 + at), to.dn = fetch8(dn + at);
    if (dx1) to.dx1 = fetch8(dx1 + at);
    if (y) to.y = fetch8(y + at);
  };
  Chunk<X, Y, O> of = {}, next = {};
  fetch(of, group.row);
  for (int row = group.row; row < group.end; row += groups) {
    const long long at = group.at(row);
    fetch(next, row + groups);
    float v[8], up[8], squares = 0, along = 0;
    unpack8(of.x1, v);
    unpack8(of.dn, up);
#pragma unroll
    for (int i = 0; i < 8; i++) squares += v[i] * v[i];
    const float root = rsqrtf(group.sum(squares, 0) / d + eps);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      v[i] *= root;
      dshift[i] += up[i];
      dscale[i] += up[i] * v[i];
      up[i] *= scales[i];
      along += up[i] * v[i];
    }
    if (n && group.real) {
      float out[8];
#pragma unroll
      for (int i = 0; i < 8; i++) out[i] = v[i] * scales[i] + shifts[i];
      store8(n + at, out);
    }
    const float mean = group.sum(along, 1) / d;
    if (group.real) {
      float g[8] = {};
      if (dx1) unpack8(of.dx1, g);
#pragma unroll
      for (int i = 0; i < 8; i++) g[i] += (up[i] - v[i] * mean) * root;
      store8(dx + at, g);
      if (y) {
        float branch[8];
        unpack8(of.y, branch);
#pragma unroll
        for (int i = 0; i < 8; i++) {
          dgate[i] += g[i] * branch[i];
          g[i] *= gates[i];
        }
        store8(dy + at, g);
      }
    }
    of = next;
  }
  float* own = shared + group.number * 3 * width + group.c;
  store8(own, dgate);
  store8(own + width, dshift);
  store8(own + 2 * width, dscale);
  __syncthreads();
  // The groups' sums one after another: the order must not depend on who comes first.
  float* to = sums + (static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x) * 3 * d;
  for (int which = 0; which < 3; which++) {
    for (int at = threadIdx.x; at < d; at += blockDim.x) {
      const float* from = shared + which * width + at;
      float total = from[0];
#pragma unroll
      for (int i = 1; i < groups; i++) total += from[i * 3 * width];
      to[which * d + at] = total;
    }
  }
}

// (pictures, blocks of a picture, 3, d) -> (pictures, 3, d), a thread four columns. blockIdx.y: picture.
extern "C" __global__ void dsd_add_norm_sums(const float* sums, float* out, int blocks, int columns) {
  const int at = (blockIdx.x * blockDim.x + threadIdx.x) * 4;
  if (at >= columns) return;
  const float* from = sums + static_cast<long long>(blockIdx.y) * blocks * columns + at;
  float4 total = *reinterpret_cast<const float4*>(from);
#pragma unroll 8
  for (int i = 1; i < blocks; i++) {
    const float4 more = *reinterpret_cast<const float4*>(from + static_cast<long long>(i) * columns);
    total.x += more.x, total.y += more.y, total.z += more.z, total.w += more.w;
  }
  *reinterpret_cast<float4*>(out + static_cast<long long>(blockIdx.y) * columns + at) = total;
}

// Two blocks at a time where the registers do: forward has too few for wide rows of float32, the gradient for any wide rows.
#define DSD_ADD_NORM(name, X, Y, O, K)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(Group<K>::threads, K < 3 || sizeof(X) == 2 ? 2 : 1)                                                   \
  dsd_add_norm_##name##_##K(const X* x, const float* gate, long long gate_stride, const Y* y, const float* shift, long long shift_stride,            \
                            const float* scale, long long scale_stride, X* x1, O* n, int N, int d, float eps, int rows) {                            \
    add_norm<X, Y, O, K>(x, gate, gate_stride, y, shift, shift_stride, scale, scale_stride, x1, n, N, d, eps, rows);                                 \
  }                                                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(Group<K>::threads, K < 3 ? 2 : 1)                                                                     \
  dsd_add_norm_gradient_##name##_##K(const X* x1, const float* gate, long long gate_stride, const Y* y, const float* shift, long long shift_stride,  \
                                     const float* scale, long long scale_stride, const X* dx1, const O* dn, O* n, X* dx, Y* dy, float* sums, int N,  \
                                     int d, float eps, int rows) {                                                                                   \
    add_norm_gradient<X, Y, O, K>(x1, gate, gate_stride, y, shift, shift_stride, scale, scale_stride, dx1, dn, n, dx, dy, sums, N, d, eps, rows);    \
  }
// Stream, branch and result in float32 (f) or bfloat16 (b).
#define DSD_ADD_NORMS(K)                    \
  DSD_ADD_NORM(fff, float, float, float, K) \
  DSD_ADD_NORM(fbb, float, bf16, bf16, K)   \
  DSD_ADD_NORM(fbf, float, bf16, float, K)  \
  DSD_ADD_NORM(bbb, bf16, bf16, bf16, K)    \
  DSD_ADD_NORM(bbf, bf16, bf16, float, K)
DSD_ADD_NORMS(1)
DSD_ADD_NORMS(2)
DSD_ADD_NORMS(3)
DSD_ADD_NORMS(4)

// --- swiglu: a thread takes chunks of eight of silu(u) w; rows of h are u, then w, F each. The gradient makes the product again
// where asked; dh may be h, and out may be g: a chunk is read before it is written.

template <typename S>
static __device__ void swiglu(const S* DSD_RESTRICT h, S* DSD_RESTRICT out, unsigned chunks, int F) {
  const unsigned width = F / 8;
  for (unsigned at = blockIdx.x * blockDim.x + threadIdx.x; at < chunks; at += gridDim.x * blockDim.x) {
    const long long row = at / width, c = (at - row * width) * 8;
    float u[8], w[8];
    load8(h + row * 2 * F + c, u);
    load8(h + row * 2 * F + F + c, w);
#pragma unroll
    for (int i = 0; i < 8; i++) u[i] = u[i] / (1 + __expf(-u[i])) * w[i];
    store8(out + row * F + c, u);
  }
}

template <typename S>
static __device__ void swiglu_gradient(const S* h, const S* g, S* dh, S* out, unsigned chunks, int F) {
  const unsigned width = F / 8;
  for (unsigned at = blockIdx.x * blockDim.x + threadIdx.x; at < chunks; at += gridDim.x * blockDim.x) {
    const long long row = at / width, c = (at - row * width) * 8;
    float u[8], w[8], up[8];
    load8(h + row * 2 * F + c, u);
    load8(h + row * 2 * F + F + c, w);
    load8(g + row * F + c, up);
#pragma unroll
    for (int i = 0; i < 8; i++) {
      const float sigmoid = 1 / (1 + __expf(-u[i]));
      const float silu = u[i] * sigmoid, along = up[i] * w[i] * sigmoid * (u[i] * (1 - sigmoid) + 1), product = silu * w[i];
      w[i] = up[i] * silu;
      u[i] = along;
      up[i] = product;
    }
    store8(dh + row * 2 * F + c, u);
    store8(dh + row * 2 * F + F + c, w);
    if (out) store8(out + row * F + c, up);
  }
}

extern "C" __global__ void dsd_swiglu_f(const float* h, float* out, unsigned chunks, int F) { swiglu(h, out, chunks, F); }
extern "C" __global__ void dsd_swiglu_b(const bf16* h, bf16* out, unsigned chunks, int F) { swiglu(h, out, chunks, F); }
extern "C" __global__ void dsd_swiglu_gradient_f(const float* h, const float* g, float* dh, float* out, unsigned chunks, int F) {
  swiglu_gradient(h, g, dh, out, chunks, F);
}
extern "C" __global__ void dsd_swiglu_gradient_b(const bf16* h, const bf16* g, bf16* dh, bf16* out, unsigned chunks, int F) {
  swiglu_gradient(h, g, dh, out, chunks, F);
}
