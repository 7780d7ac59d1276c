// The gradient of dsd::qkv_attention on CUDA: see attention.cu. The probabilities are made again from the logarithms of their sums.
//
// A block works on one head of a picture after another, and fetches the next while it works. A warp has 32 tokens. First, with their keys and values in
// registers, it goes through all queries and sums the gradients of its keys and values; the gradients of the scores, rounded to bfloat16, go into shared
// memory, all of them. Then it takes those of its 32 queries from there, for the gradient of these. Last, these gradients of prepared tokens are turned
// back, and through the norms. No two warps add to one number, so the results are the same each time.

#include "token.h"

// The gradient of a norm's weight, from what all lanes have of it: (D) numbers in memory.
template <int D>
static __device__ __forceinline__ void store_sums(float* sums, float* to, const Lane<D>& lane) {
  constexpr int size = Lane<D>::size;
  share_sums<size / 2>(sums, 16, chooser(lane.number >> 4 & 1));
  share_sums<size / 4>(sums, 8, chooser(lane.number >> 3 & 1));
  share_sums<size / 8>(sums, 4, chooser(lane.number >> 2 & 1));
  const int kept = ((lane.number >> 4 & 1) * 4 + (lane.number >> 3 & 1) * 2 + (lane.number >> 2 & 1)) * (size / 8);
#pragma unroll
  for (int i = 0; i < size / 8; i++) to[((kept + i) / 8 * 4 + lane.t) * 8 + (kept + i) % 8] = sums[i];
}

// Queries and gradients of a warp's 32 tokens, as they are, into shared memory.
template <int D>
static __device__ __forceinline__ void fetch(unsigned char* queries, unsigned char* gradients, const bf16* query, const bf16* gradient, int part, int begin,
                                             int N, const Lane<D>& lane) {
#pragma unroll
  for (int i = 0; i < D / 8; i++) {
    const int row = begin + (32 * i + lane.number) / (D / 8), some = min(row, N - 1), chunk = lane.number % (D / 8);
    copy_async(queries + place<D>(row, chunk), query + some * 3 * part + 8 * chunk);
    copy_async(gradients + place<D>(row, chunk), gradient + some * part + 8 * chunk);
  }
}

// Shared memory. `slices` are the gradients of the scores by 32 queries: (warps, keys, 32).
struct Memory {
  unsigned char *queries, *gradients, *keys, *slices;
  float *minus_lse, *minus_delta;
};

// The warp's part of keys and values into registers, as left operands, and of the queries, keys and sums into shared memory.
template <int D>
static __device__ __forceinline__ void begin_head(u32 (*key)[D / 16][4], u32 (*value)[D / 16][4], const Inputs& x, const Memory& memory, int head,
                                                  int begin, const Lane<D>& lane) {
  const int part = x.heads * D, width = 3 * part;
  const u32 zero = x.N >> 20;
  const bf16 *tokens = x.qkv + start_of(head, x.heads, x.N, D, 3), *out = x.out + start_of(head, x.heads, x.N, D, 1);
  u32 k[4][Lane<D>::words], v[4][Lane<D>::words], o[4][Lane<D>::words];
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int row = min(begin + 8 * j + lane.g, x.N - 1);
    lane.load(k[j], tokens + row * width + part);
    lane.load(o[j], out + row * part);
    lane.load(v[j], tokens + row * width + 2 * part);
  }
  float q_weight[Lane<D>::size], k_weight[Lane<D>::size];
  lane.load_weight(q_weight, x.q_norm, log2_e * scale_of<D>());
  lane.load_weight(k_weight, x.k_norm, 1);
  wait_for_copies();
  __syncwarp();
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int row = begin + 8 * j + lane.g, some = min(row, x.N - 1), at = (begin + 8 * j) * 2 * D;
    const Angle angle = angle_of<D>(x.cosine, x.sine, some, lane.t);
    prepare<D>(k[j], k_weight, angle, x.eps, lane.t);
    u32 q[Lane<D>::words], up[Lane<D>::words];
    lane.load(q, memory.queries + at);
    lane.load(up, memory.gradients + at);
    prepare<D>(q, q_weight, angle, x.eps, lane.t);
    float a[Lane<D>::size], b[Lane<D>::size], along = 0;
    unpack<D>(a, up);
    unpack<D>(b, o[j]);
#pragma unroll
    for (int i = 0; i < Lane<D>::size; i++) along += a[i] * b[i];
    along = sum_of_four(along);
    lane.store(k[j], memory.keys + at);
    lane.store(q, memory.queries + at);
    memory.minus_delta[row] = -along, memory.minus_lse[row] = -x.lse[head * x.N + some];  // the same in four lanes
  }
#pragma unroll
  for (int m = 0; m < 2; m++) as_left<D>(key[m], k[2 * m], k[2 * m + 1], zero), as_left<D>(value[m], v[2 * m], v[2 * m + 1], zero);
}

// The gradients of 32 values, and of 32 keys but for a factor log2(e); those of their scores into the slices, at `to` of the first 32 queries.
template <int D>
static __device__ __forceinline__ void over_queries(float (*dk)[D / 8][4], float (*dv)[D / 8][4], const u32 (*key)[D / 16][4], const u32 (*value)[D / 16][4],
                                                    const Memory& memory, unsigned char* to, int slice, int N, const Lane<D>& lane) {
  const int at[2] = {place<32>(lane.g, 0) + 4 * lane.t, place<32>(lane.g, 1) + 4 * lane.t};
#pragma unroll 1
  for (int query = 0; query < N; query += 16) {
    u32 p[2][4], ds[2][4];
#pragma unroll
    for (int i = 0; i < 2; i++) {  // eight queries at a time
      const float2 l = *reinterpret_cast<const float2*>(memory.minus_lse + query + 8 * i + 2 * lane.t);
      const float2 d = *reinterpret_cast<const float2*>(memory.minus_delta + query + 8 * i + 2 * lane.t);
      float s[2][4] = {{l.x, l.y, l.x, l.y}, {l.x, l.y, l.x, l.y}}, dp[2][4] = {{d.x, d.y, d.x, d.y}, {d.x, d.y, d.x, d.y}};
      products<D>(s, key, memory.queries + (query + 8 * i) * 2 * D, lane);
      products<D>(dp, value, memory.gradients + (query + 8 * i) * 2 * D, lane);
#pragma unroll
      for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
          const float first = exp2_of(s[m][2 * half]), second = exp2_of(s[m][2 * half + 1]);
          p[m][2 * i + half] = pack(first, second);
          ds[m][2 * i + half] = pack(first * dp[m][2 * half], second * dp[m][2 * half + 1]);
          // place() of the keys 16 m + 8 half + g and the chunk query % 32 / 8 + i
          *reinterpret_cast<u32*>(to + query / 32 * slice + (16 * m + 8 * half) * 64 + (at[i] ^ (query & 16) << 1)) = ds[m][2 * i + half];
        }
      }
    }
    accumulate<D>(dv, p, memory.gradients + query * 2 * D, lane);
    accumulate<D>(dk, ds, memory.queries + query * 2 * D, lane);
  }
}

// dnorm (all, 2, D): the gradients of q_norm and k_norm by head of a picture, of which there are `all`.
template <int D>
static __device__ __forceinline__ void backward(const Inputs& x, bf16* dqkv, float* dnorm, int all) {
  DSD_SHARED(shared);
  const Lane<D> lane;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), warps = blockDim.x / 32, N = x.N, heads = x.heads;
  const int part = heads * D, width = 3 * part, begin = 32 * warp, slice = 32 * warps * 64, rows = 32 * warps * 2 * D;
  unsigned char* slices = shared + 3 * rows;
  float* sums = reinterpret_cast<float*>(slices + warps * slice);
  const Memory memory = {shared, shared + rows, shared + 2 * rows, slices, sums, sums + 32 * warps};
  const size_t first = start_of(blockIdx.x, heads, N, D, 3), first_out = start_of(blockIdx.x, heads, N, D, 1);
  fetch<D>(memory.queries, memory.gradients, x.qkv + first, x.grad + first_out, part, begin, N, lane);
#pragma unroll 1
  for (int head = blockIdx.x; head < all; head += gridDim.x) {
    float dk[2][D / 8][4] = {}, dv[2][D / 8][4] = {}, dq[2][D / 8][4] = {};
    {
      u32 key[2][D / 16][4], value[2][D / 16][4];
      begin_head<D>(key, value, x, memory, head, begin, lane);
      __syncthreads();
      over_queries<D>(dk, dv, key, value, memory, slices + begin * 64, slice, N, lane);
      __syncthreads();
    }
    const int next = head + gridDim.x;
    if (next < all) {
      const size_t in = start_of(next, heads, N, D, 3), out = start_of(next, heads, N, D, 1);
      fetch<D>(memory.queries, memory.gradients, x.qkv + in, x.grad + out, part, begin, N, lane);
      const int row = min(begin + lane.number, N - 1);
      prefetch(x.qkv + in + row * width + part), prefetch(x.qkv + in + row * width + 2 * part), prefetch(x.out + out + row * part);
    }
    // The tokens as they came are needed once more: they are asked for before the last product.
    const size_t in = start_of(head, heads, N, D, 3);
    u32 q[4][Lane<D>::words], k[4][Lane<D>::words], gradient[4][D / 8];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const bf16* token = x.qkv + in + min(begin + 8 * j + lane.g, N - 1) * width;
      lane.load(q[j], token), lane.load(k[j], token + part);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = begin + 8 * j + lane.g;
      gather<D>(gradient[j], dv[j / 2], j % 2, 1, lane);
      lane.store_if(row < N, gradient[j], dqkv + in + row * width + 2 * part);
      gather<D>(gradient[j], dk[j / 2], j % 2, 1 / log2_e, lane);
    }
    const unsigned char* own = slices + warp * slice;
    const int key_of = lane.number / 16 * 8 + lane.number % 8, chunk = lane.number / 8 % 2, at[2] = {place<32>(key_of, chunk), place<32>(key_of, 2 + chunk)};
    for (int key = 0; key < N; key += 16) {
      u32 left[2][4];
      load_transposed(left[0], own + key * 64 + at[0]);
      load_transposed(left[1], own + key * 64 + at[1]);
      accumulate<D>(dq, left, memory.keys + key * 2 * D, lane);
    }
    float q_weight[Lane<D>::size], k_weight[Lane<D>::size], q_sums[Lane<D>::size] = {}, k_sums[Lane<D>::size] = {};
    lane.load_weight(q_weight, x.q_norm, 1);
    lane.load_weight(k_weight, x.k_norm, 1);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = begin + 8 * j + lane.g;
      const u32 mask = row < N ? ~0u : 0;
      const Angle angle = angle_of<D>(x.cosine, x.sine, min(row, N - 1), lane.t);
#pragma unroll
      for (int i = 0; i < Lane<D>::words; i++) gradient[j][i] &= mask;
      unprepare<D>(gradient[j], k[j], k_weight, angle, x.eps, lane.t, k_sums);
      lane.store_if(row < N, gradient[j], dqkv + in + row * width + part);
      gather<D>(gradient[j], dq[j / 2], j % 2, scale_of<D>(), lane);
#pragma unroll
      for (int i = 0; i < Lane<D>::words; i++) gradient[j][i] &= mask;
      unprepare<D>(gradient[j], q[j], q_weight, angle, x.eps, lane.t, q_sums);
      lane.store_if(row < N, gradient[j], dqkv + in + row * width);
    }
    __syncwarp();  // the warp has read its slice, which now takes its share of the weights' gradients
    float* share = reinterpret_cast<float*>(slices + warp * slice);
    store_sums<D>(q_sums, share, lane);
    store_sums<D>(k_sums, share + D, lane);
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * D; i += blockDim.x) {
      float sum = 0;
      for (int w = 0; w < warps; w++) sum += reinterpret_cast<const float*>(slices + w * slice)[i];
      dnorm[(size_t)head * 2 * D + i] = sum;
    }
  }
}

#define DSD_ATTENTION_GRADIENT(D)                                                                                                               \
  extern "C" __global__ void __launch_bounds__(256, 1) dsd_attention_gradient_##D(                                                              \
      const bf16* qkv, const float* q_norm, const float* k_norm, const float* cosine, const float* sine, const bf16* out, const bf16* grad,     \
      const float* lse, bf16* dqkv, float* dnorm, int N, int heads, int all, float eps) {                                                       \
    backward<D>({qkv, q_norm, k_norm, cosine, sine, out, grad, lse, N, heads, eps}, dqkv, dnorm, all);                                          \
  }
DSD_ATTENTION_GRADIENT(32)
DSD_ATTENTION_GRADIENT(64)
