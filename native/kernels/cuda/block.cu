// The element-wise parts of a transformer block on CUDA, each in one pass over memory: see block.cc for what they compute, block-cuda.cc for how
// they are called. Rows are read and written in chunks of eight elements, 16 or 32 bytes, so widths are multiples of eight and pointers aligned to 16.
// Sums are float32, always in the same order.

typedef unsigned short bf16;

#ifdef DSD_EMULATED
#define DSD_RESTRICT
static unsigned rounded_pair(float low, float high) { return emulated::bf16x2(high, low); }
#else
#define DSD_RESTRICT __restrict__
#define DSD_SHARED(name) extern __shared__ __align__(16) char name[]
#if __CUDA_ARCH__ >= 800
static __device__ unsigned rounded_pair(float low, float high) {
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
static __device__ unsigned rounded(float x) {  // to nearest, halves to even; NaN stays one
  const unsigned bits = __float_as_uint(x);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
static __device__ unsigned rounded_pair(float low, float high) { return rounded(high) << 16 | rounded(low); }
#endif
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
  *reinterpret_cast<uint4*>(to) = make_uint4(rounded_pair(from[0], from[1]), rounded_pair(from[2], from[3]), rounded_pair(from[4], from[5]),
                                             rounded_pair(from[6], from[7]));
}

// What is read again of what was written.
static __device__ void as_stored(const float*, float*) {}
static __device__ void as_stored(const bf16*, float* values) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const unsigned pair = rounded_pair(values[2 * i], values[2 * i + 1]);
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

// --- add_norm: a warp takes `rows` rows of a picture one after another, a lane chunks lane, lane + 32, ... of a row, K at most.
// blockIdx.x: which rows; blockIdx.y: picture. Vectors of a picture lie `*_stride` apart. Null: y no branch, scale no modulation.

template <typename X, typename Y, typename O, int K>
static __device__ void add_norm(const X* DSD_RESTRICT x, const float* DSD_RESTRICT gate, long long gate_stride, const Y* DSD_RESTRICT y,
                                const float* DSD_RESTRICT shift, long long shift_stride, const float* DSD_RESTRICT scale, long long scale_stride,
                                X* DSD_RESTRICT x1, O* DSD_RESTRICT n, int N, int d, float eps, int rows) {
  const int lane = threadIdx.x % 32, picture = blockIdx.y;
  const int begin = (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32) * rows, end = min(begin + rows, N);
  for (int row = begin; row < end; row++) {
    const long long at = ((long long)picture * N + row) * d;
    float v[K][8], squares = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int c = (k * 32 + lane) * 8;
      if (c >= d) continue;
      load8(x + at + c, v[k]);
      if (y) {
        float branch[8], factor[8];
        load8(y + at + c, branch);
        load8(gate + picture * gate_stride + c, factor);
#pragma unroll
        for (int i = 0; i < 8; i++) v[k][i] += (1 + factor[i]) * branch[i];
        store8(x1 + at + c, v[k]);
        as_stored(x1, v[k]);
      }
#pragma unroll
      for (int i = 0; i < 8; i++) squares += v[k][i] * v[k][i];
    }
    const float root = rsqrtf(warp_sum(squares) / d + eps);
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int c = (k * 32 + lane) * 8;
      if (c >= d) continue;
      float out[8];
#pragma unroll
      for (int i = 0; i < 8; i++) out[i] = v[k][i] * root;
      if (scale) {
        float factor[8], term[8];
        load8(scale + picture * scale_stride + c, factor);
        load8(shift + picture * shift_stride + c, term);
#pragma unroll
        for (int i = 0; i < 8; i++) out[i] = out[i] * (1 + factor[i]) + term[i];
      }
      store8(n + at + c, out);
    }
  }
}

// Gradients; where asked (n is not null) the norm is made again for whoever did not keep it; n may be dn. A block's sums over its rows go to sums (pictures, blocks of a picture, 3, d): of gate, shift and scale. Dynamic shared memory: d floats.
template <typename X, typename Y, typename O, int K>
static __device__ void add_norm_gradient(const X* DSD_RESTRICT x1, const float* DSD_RESTRICT gate, long long gate_stride, const Y* DSD_RESTRICT y,
                                         const float* DSD_RESTRICT shift, long long shift_stride, const float* DSD_RESTRICT scale, long long scale_stride,
                                         const X* DSD_RESTRICT dx1, const O* dn, O* n, X* DSD_RESTRICT dx, Y* DSD_RESTRICT dy, float* DSD_RESTRICT sums, int N, int d, float eps, int rows) {
  DSD_SHARED(memory);
  float* shared = reinterpret_cast<float*>(memory);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32, picture = blockIdx.y;
  const int begin = (blockIdx.x * warps + warp) * rows, end = min(begin + rows, N);
  float dgate[K][8] = {}, dshift[K][8] = {}, dscale[K][8] = {};
  for (int row = begin; row < end; row++) {
    const long long at = ((long long)picture * N + row) * d;
    // All that a row needs is under way before the first of it is used.
    Stored<X> of_x1[K], of_dx1[K];
    Stored<O> of_dn[K];
    Stored<Y> of_y[K];
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int c = (k * 32 + lane) * 8;
      if (c >= d) continue;
      of_x1[k] = fetch8(x1 + at + c);
      of_dn[k] = fetch8(dn + at + c);
      if (dx1) of_dx1[k] = fetch8(dx1 + at + c);
      if (y) of_y[k] = fetch8(y + at + c);
    }
    float squares = 0, along = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
      if ((k * 32 + lane) * 8 >= d) continue;
      float v[8];
      unpack8(of_x1[k], v);
#pragma unroll
      for (int i = 0; i < 8; i++) squares += v[i] * v[i];
    }
    const float root = rsqrtf(warp_sum(squares) / d + eps);
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int c = (k * 32 + lane) * 8;
      if (c >= d) continue;
      float v[8], up[8], factor[8] = {};
      unpack8(of_x1[k], v);
      unpack8(of_dn[k], up);
      if (scale) load8(scale + picture * scale_stride + c, factor);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        v[i] *= root;
        dshift[k][i] += up[i];
        dscale[k][i] += up[i] * v[i];
        factor[i] += 1;
        along += up[i] * factor[i] * v[i];
      }
      if (n) {
        float term[8] = {};
        if (scale) load8(shift + picture * shift_stride + c, term);
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = v[i] * factor[i] + term[i];
        store8(n + at + c, v);
      }
    }
    const float mean = warp_sum(along) / d;
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int c = (k * 32 + lane) * 8;
      if (c >= d) continue;
      float v[8], up[8], factor[8] = {}, g[8] = {};
      unpack8(of_x1[k], v);
      unpack8(of_dn[k], up);
      if (scale) load8(scale + picture * scale_stride + c, factor);
      if (dx1) unpack8(of_dx1[k], g);
#pragma unroll
      for (int i = 0; i < 8; i++) g[i] += (up[i] * (1 + factor[i]) - v[i] * root * mean) * root;
      store8(dx + at + c, g);
      if (!y) continue;
      float branch[8];
      unpack8(of_y[k], branch);
      load8(gate + picture * gate_stride + c, factor);
#pragma unroll
      for (int i = 0; i < 8; i++) {
        dgate[k][i] += g[i] * branch[i];
        g[i] *= 1 + factor[i];
      }
      store8(dy + at + c, g);
    }
  }
  // The warps' sums one after another: the order must not depend on who comes first.
#pragma unroll
  for (int which = 0; which < 3; which++) {
    if (which == 0 ? !y : !scale) continue;
    for (int turn = 0; turn < warps; turn++) {
      if (turn == warp) {
#pragma unroll
        for (int k = 0; k < K; k++) {
          const int c = (k * 32 + lane) * 8;
          if (c >= d) continue;
#pragma unroll
          for (int i = 0; i < 8; i++) {
            const float mine = which == 0 ? dgate[k][i] : which == 1 ? dshift[k][i] : dscale[k][i];
            // Eights by lane, so that neighbouring lanes use neighbouring banks.
            float* at = shared + (k * 8 + i) * 32 + lane;
            *at = turn == 0 ? mine : *at + mine;
          }
        }
      }
      __syncthreads();
    }
    float* to = sums + (((long long)picture * gridDim.x + blockIdx.x) * 3 + which) * d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) to[c] = shared[(c / 256 * 8 + c % 8) * 32 + c / 8 % 32];
    __syncthreads();
  }
}

#define DSD_ADD_NORM(name, X, Y, O, K)                                                                                                               \
  extern "C" __global__ void dsd_add_norm_##name##_##K(const X* x, const float* gate, long long gate_stride, const Y* y, const float* shift,        \
                                                       long long shift_stride, const float* scale, long long scale_stride, X* x1, O* n, int N,      \
                                                       int d, float eps, int rows) {                                                                \
    add_norm<X, Y, O, K>(x, gate, gate_stride, y, shift, shift_stride, scale, scale_stride, x1, n, N, d, eps, rows);                                \
  }                                                                                                                                                 \
  extern "C" __global__ void dsd_add_norm_gradient_##name##_##K(const X* x1, const float* gate, long long gate_stride, const Y* y,                  \
                                                                const float* shift, long long shift_stride, const float* scale,                     \
                                                                long long scale_stride, const X* dx1, const O* dn, O* n, X* dx, Y* dy, float* sums, \
                                                                int N, int d, float eps, int rows) {                                                \
    add_norm_gradient<X, Y, O, K>(x1, gate, gate_stride, y, shift, shift_stride, scale, scale_stride, dx1, dn, n, dx, dy, sums, N, d, eps, rows);   \
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
