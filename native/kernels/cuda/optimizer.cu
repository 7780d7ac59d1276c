// The optimizer's passes over memory: optimizer.cc says what each is, optimizer-cuda.cc launches them. What changes from step to step is read from
// `numbers`; nothing is in the arguments but addresses and constants, so that a graph may repeat a launch.
#include "bf16.h"

typedef unsigned long long Address;  // of gradients the lowest bit says that they are bfloat16
enum { FINITE, DIVISOR, RATE, DECAY, SIZE, ROOT, TARGET_SHARE, AVERAGE_SHARE };
enum { PIECE = 8192, SPAN = 16384, THREADS = 256 };

__device__ __forceinline__ bool is_narrow(Address address) { return address & 1; }
__device__ __forceinline__ float widened(unsigned half) { return __uint_as_float(half << 16); }

// Up to four elements from element i on. `whole`: four are there, and the address is a multiple of theirs in bytes.
__device__ __forceinline__ void load(float (&x)[4], const float* from, Address i, unsigned left, bool whole) {
  if (whole) {
    const float4 all = *reinterpret_cast<const float4*>(from + i);
    x[0] = all.x, x[1] = all.y, x[2] = all.z, x[3] = all.w;
  } else {
#pragma unroll
    for (unsigned j = 0; j < 4; j++) x[j] = j < left ? from[i + j] : 0.0f;
  }
}
__device__ __forceinline__ void load(float (&x)[4], const unsigned short* from, Address i, unsigned left, bool whole) {
  if (whole) {
    const uint2 all = *reinterpret_cast<const uint2*>(from + i);
    x[0] = widened(all.x & 0xffff), x[1] = __uint_as_float(all.x & 0xffff0000u);
    x[2] = widened(all.y & 0xffff), x[3] = __uint_as_float(all.y & 0xffff0000u);
  } else {
#pragma unroll
    for (unsigned j = 0; j < 4; j++) x[j] = j < left ? widened(from[i + j]) : 0.0f;
  }
}
__device__ __forceinline__ void load(float (&x)[4], Address from, Address i, unsigned left, bool whole) {
  if (is_narrow(from)) load(x, reinterpret_cast<const unsigned short*>(from - 1), i, left, whole);
  else load(x, reinterpret_cast<const float*>(from), i, left, whole);
}
__device__ __forceinline__ void store(float* to, const float (&x)[4], Address i, unsigned left, bool whole) {
  if (whole) {
    *reinterpret_cast<float4*>(to + i) = make_float4(x[0], x[1], x[2], x[3]);
  } else {
#pragma unroll
    for (unsigned j = 0; j < 4; j++) {
      if (j < left) to[i + j] = x[j];
    }
  }
}
__device__ __forceinline__ void store(unsigned short* to, const float (&x)[4], Address i, unsigned left, bool whole) {
  const unsigned low = pack(x[0], x[1]), high = pack(x[2], x[3]);
  if (whole) {
    *reinterpret_cast<uint2*>(to + i) = make_uint2(low, high);
  } else {
    if (0 < left) to[i] = (unsigned short)low;
    if (1 < left) to[i + 1] = (unsigned short)(low >> 16);
    if (2 < left) to[i + 2] = (unsigned short)high;
    if (3 < left) to[i + 3] = (unsigned short)(high >> 16);
  }
}
// Whether four elements from an index that four divides can be moved at once.
__device__ __forceinline__ bool aligned(const void* wide) { return ((Address)wide & 15) == 0; }
__device__ __forceinline__ bool aligned_half(const void* half) { return ((Address)half & 7) == 0; }
__device__ __forceinline__ bool aligned(Address either) { return ((either & ~1ull) & (is_narrow(either) ? 7 : 15)) == 0; }

// The last of `begin` that is not beyond `block`.
__device__ __forceinline__ unsigned find(const unsigned* begin, unsigned size, unsigned block) {
  unsigned low = 0;
  for (unsigned high = size; high - low > 1;) {
    const unsigned middle = (low + high) / 2;
    if (begin[middle] <= block) low = middle;
    else high = middle;
  }
  return low;
}

// The sum over all threads of a block, the same in each, always in the same order.
__device__ __forceinline__ double sum_of_block(double value) {
  __shared__ double warps[32];
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(~0u, value, lanes);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  double sum = 0;
  for (unsigned i = 0; i < blockDim.x / 32; i++) sum += warps[i];
  return sum;
}

// --- The norm: a sum for each block of a list, then the root of their sum.

struct Spans {
  Address data[192], count[192];
  unsigned begin[192], size;  // the first block of each
};

extern "C" __global__ void __launch_bounds__(THREADS) dsd_squares(const __grid_constant__ Spans all, double* sums) {
  const unsigned which = find(all.begin, all.size, blockIdx.x);
  const Address data = all.data[which], count = all.count[which], begin = (Address)(blockIdx.x - all.begin[which]) * SPAN;
  const Address end = begin + SPAN < count ? begin + SPAN : count;
  const bool is_aligned = aligned(data);
  double sum = 0;
#pragma unroll 4
  for (Address i = begin + threadIdx.x * 4; i < end; i += THREADS * 4) {
    const unsigned left = end - i < 4 ? (unsigned)(end - i) : 4;
    float x[4];
    load(x, data, i, left, is_aligned && left == 4);
#pragma unroll
    for (int j = 0; j < 4; j++) sum += (double)x[j] * x[j];  // a square may be more than a float
  }
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(1024) dsd_root(const double* sums, unsigned count, float* norm) {
  double sum = 0;
#pragma unroll 8
  for (unsigned i = threadIdx.x; i < count; i += 1024) sum += sums[i];
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

// --- The numbers of a step, by one thread.

extern "C" __global__ void dsd_numbers(const float* norm, float* step, const void* rates, int rates_are_double, float clip, double beta1, double beta2,
                                       double weight_decay, double* numbers) {
  const double* wide = (const double*)rates;
  const float* narrow = (const float*)rates;
  double rate[3];
  for (int i = 0; i < 3; i++) rate[i] = rates_are_double ? wide[i] : (double)narrow[i];
  const bool is_finite = (__float_as_uint(*norm) & 0x7f800000u) != 0x7f800000u;
  const float t = *step + (is_finite ? 1.0f : 0.0f), divisor = (*norm + 1e-6f) / clip;
  *step = t;
  numbers[FINITE] = is_finite;
  numbers[DIVISOR] = divisor > 1.0f ? divisor : 1.0f;
  numbers[RATE] = rate[0];
  numbers[DECAY] = rate[0] * weight_decay;
  numbers[SIZE] = rate[0] / (1.0 - pow(beta1, (double)t));
  numbers[ROOT] = 1.0 / sqrt(1.0 - pow(beta2, (double)t));
  numbers[TARGET_SHARE] = rate[1];
  numbers[AVERAGE_SHARE] = rate[2];
}

// --- The pass over all parameters.

struct Parameter {
  float* weight;
  Address gradient;  // 0: none
  float *first, *second, *target, *average;
  unsigned short *copy, *target_copy;
};
struct Parameters {
  Parameter at[48];
  Address count[48];
  float scale[48];
  unsigned begin[48], size;
};

extern "C" __global__ void __launch_bounds__(THREADS) dsd_update(const __grid_constant__ Parameters all, const double* numbers, float beta1_rest,
                                                                 float beta2, float beta2_rest, float eps) {
  const unsigned which = find(all.begin, all.size, blockIdx.x);
  const Parameter one = all.at[which];
  const Address count = all.count[which], begin = (Address)(blockIdx.x - all.begin[which]) * PIECE;
  const Address end = begin + PIECE < count ? begin + PIECE : count;
  const bool moves = one.gradient && numbers[FINITE] != 0;
  const float inverse = (float)(1.0 / numbers[DIVISOR]), keep = (float)(1.0 - numbers[DECAY]), size = (float)numbers[SIZE], root = (float)numbers[ROOT];
  const float straight = (float)(-numbers[RATE] * all.scale[which]), decay = (float)numbers[DECAY];
  const float target_share = (float)numbers[TARGET_SHARE], average_share = (float)numbers[AVERAGE_SHARE];
  const bool is_aligned = aligned(one.weight) && aligned(one.gradient) && aligned(one.first) && aligned(one.second) && aligned(one.target) &&
                          aligned(one.average) && aligned_half(one.copy) && aligned_half(one.target_copy);
  for (Address i = begin + threadIdx.x * 4; i < end; i += THREADS * 4) {
    const unsigned left = end - i < 4 ? (unsigned)(end - i) : 4;
    const bool whole = is_aligned && left == 4;
    float p[4], g[4], m[4], v[4], target[4], average[4];
    // All that is read comes before anything is computed, so that it is on its way together.
    load(p, one.weight, i, left, whole);
    if (moves) load(g, one.gradient, i, left, whole);
    if (moves && one.first) {
      load(m, one.first, i, left, whole);
      load(v, one.second, i, left, whole);
    }
    if (one.target) load(target, one.target, i, left, whole);
    if (one.average) load(average, one.average, i, left, whole);
    if (moves) {
      if (one.first) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
          const float gradient = g[j] * inverse;
          m[j] += beta1_rest * (gradient - m[j]);
          v[j] = beta2 * v[j] + beta2_rest * gradient * gradient;
          p[j] = keep * p[j] - size * m[j] / (sqrtf(v[j]) * root + eps);
        }
        store(one.first, m, i, left, whole);
        store(one.second, v, i, left, whole);
      } else {
#pragma unroll
        for (int j = 0; j < 4; j++) p[j] += straight * g[j] - decay * p[j];
      }
      store(one.weight, p, i, left, whole);
    }
    if (one.target) {
#pragma unroll
      for (int j = 0; j < 4; j++) target[j] += target_share * (p[j] - target[j]);
      store(one.target, target, i, left, whole);
      if (one.target_copy) store(one.target_copy, target, i, left, whole);
    }
    if (one.average) {
#pragma unroll
      for (int j = 0; j < 4; j++) average[j] += average_share * (p[j] - average[j]);
      store(one.average, average, i, left, whole);
    }
    if (one.copy) store(one.copy, p, i, left, whole);
  }
}

// --- Muon: momentum with the sum of squares of each piece of the direction, then the direction over its matrix's norm. The second pass makes the
// direction again: it is less to read than it would be to write.

struct Matrices {
  Address gradient[256];
};

// Matrix and piece of a block; `parts` pieces a matrix.
struct Place {
  unsigned matrix;
  Address begin, end;
  __device__ Place(unsigned parts, Address elements) : matrix(blockIdx.x / parts), begin((Address)(blockIdx.x % parts) * PIECE) {
    end = begin + PIECE < elements ? begin + PIECE : elements;
  }
};

extern "C" __global__ void __launch_bounds__(THREADS) dsd_momentum(const __grid_constant__ Matrices all, float* momentum, const double* numbers,
                                                                   float follow, float rest, Address elements, unsigned parts, double* sums) {
  if (numbers[FINITE] == 0) return;
  const Place place(parts, elements);
  const Address gradient = all.gradient[place.matrix];
  float* m = momentum + place.matrix * elements;
  const float inverse = (float)(1.0 / numbers[DIVISOR]);
  const bool is_aligned = aligned(gradient) && aligned(m);
  double sum = 0;
#pragma unroll 2
  for (Address i = place.begin + threadIdx.x * 4; i < place.end; i += THREADS * 4) {
    const unsigned left = place.end - i < 4 ? (unsigned)(place.end - i) : 4;
    const bool whole = is_aligned && left == 4;
    float g[4], x[4];
    load(g, gradient, i, left, whole);
    load(x, m, i, left, whole);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float now = g[j] * inverse, next = x[j] + follow * (now - x[j]), direction = next - (next - now) * rest;
      x[j] = next;
      sum += (double)direction * direction;
    }
    store(m, x, i, left, whole);
  }
  sum = sum_of_block(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(THREADS) dsd_direction(const __grid_constant__ Matrices all, const float* momentum, const double* numbers,
                                                                    float rest, Address elements, unsigned parts, const double* sums, void* out,
                                                                    int out_is_narrow) {
  const bool is_finite = numbers[FINITE] != 0;
  const Place place(parts, elements);
  const Address gradient = all.gradient[place.matrix];
  const float* m = momentum + place.matrix * elements;
  float* wide = (float*)out + place.matrix * elements;
  unsigned short* narrow = (unsigned short*)out + place.matrix * elements;
  double sum = 0;
  if (is_finite) {
    for (unsigned i = threadIdx.x; i < parts; i += THREADS) sum += sums[place.matrix * parts + i];
    sum = sum_of_block(sum);
  }
  const float inverse = (float)(1.0 / numbers[DIVISOR]), scale = (float)(1.0 / (sqrt(sum) + 1e-7));
  const bool is_aligned = aligned(gradient) && aligned(m) && (out_is_narrow ? aligned_half(narrow) : aligned(wide));
#pragma unroll 2
  for (Address i = place.begin + threadIdx.x * 4; i < place.end; i += THREADS * 4) {
    const unsigned left = place.end - i < 4 ? (unsigned)(place.end - i) : 4;
    const bool whole = is_aligned && left == 4;
    float g[4] = {}, x[4] = {};
    if (is_finite) {
      load(g, gradient, i, left, whole);
      load(x, m, i, left, whole);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const float now = g[j] * inverse;
      x[j] = (x[j] - (x[j] - now) * rest) * scale;
    }
    if (out_is_narrow) store(narrow, x, i, left, whole);
    else store(wide, x, i, left, whole);
  }
}

// --- square = a I + b x + c square, a warp a row.

template <typename T>
__device__ __forceinline__ void quintic(T* square, const T* x, unsigned rows, unsigned k, float a, float b, float c, bool is_aligned) {
  const unsigned row = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  const Address begin = (Address)row * k;
  const unsigned diagonal = row % k;
  for (unsigned i = threadIdx.x % 32 * 4; i < k; i += 32 * 4) {
    const unsigned left = k - i < 4 ? k - i : 4;
    const bool whole = is_aligned && left == 4;
    float s[4], y[4];
    load(s, square, begin + i, left, whole);
    load(y, x, begin + i, left, whole);
#pragma unroll
    for (unsigned j = 0; j < 4; j++) s[j] = (i + j == diagonal ? a : 0.0f) + b * y[j] + c * s[j];
    store(square, s, begin + i, left, whole);
  }
}
extern "C" __global__ void __launch_bounds__(THREADS) dsd_quintic(void* square, const void* x, int is_narrow, unsigned rows, unsigned k, float a, float b,
                                                                  float c) {
  if (is_narrow) {
    quintic((unsigned short*)square, (const unsigned short*)x, rows, k, a, b, c, k % 4 == 0 && aligned_half(square) && aligned_half(x));
  } else {
    quintic((float*)square, (const float*)x, rows, k, a, b, c, k % 4 == 0 && aligned(square) && aligned(x));
  }
}
