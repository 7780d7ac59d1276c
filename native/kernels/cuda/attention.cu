// dsd::qkv_attention on CUDA: out = softmax(q k^T / sqrt(D)) v of each head, where q and k are normalised (RMSNorm with weight) and turned (each pair
// (x[i], x[i + D/2]) by its token's angle) on the way from qkv (B, N, 3 h D) into registers and shared memory. D is 32 or 64, N a multiple of 16 up
// to 256. For the matrix units of compute capability 8.0 and newer. attention-gradient.cu is its gradient.
//
// A block of up to four warps works on one head of a picture: all its keys and values lie in shared memory. Scores are in units of log2: q is scaled by
// log2(e) / sqrt(D) before it is rounded. Probabilities are rounded to bfloat16 for the product; all sums are float32, in the same order each time.

#include "token.h"

// Scores of 32 queries and 16 keys: s[i] of keys 8 i to 8 i + 7.
template <int D>
static __device__ __forceinline__ void scores_of(float (*s)[2][4], const u32 (*q)[D / 16][4], const unsigned char* keys, const Lane<D>& lane) {
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int m = 0; m < 2; m++) s[i][m][0] = s[i][m][1] = s[i][m][2] = s[i][m][3] = 0;
    products<D>(s[i], q, keys + 8 * i * 2 * D, lane);
  }
}

// o = weights times values, of 32 queries; their sums, and what is taken off the scores, are those of a lane's four tokens.
template <int D, bool large>
static __device__ __forceinline__ void attend(float (*o)[D / 8][4], float* sums, float* tops, const u32 (*q)[D / 16][4], const unsigned char* keys,
                                              const unsigned char* values, int N, const Lane<D>& lane) {
#pragma unroll
  for (int r = 0; r < 4; r++) sums[r] = 0, tops[r] = large ? -1e30f : 0;
#pragma unroll
  for (int m = 0; m < 2; m++) {
#pragma unroll
    for (int j = 0; j < D / 8; j++) o[m][j][0] = o[m][j][1] = o[m][j][2] = o[m][j][3] = 0;
  }
  if (large) {
#pragma unroll 1
    for (int key = 0; key < N; key += 16) {
      float s[2][2][4];
      scores_of<D>(s, q, keys + key * 2 * D, lane);
#pragma unroll
      for (int i = 0; i < 16; i++) tops[i / 2 % 4] = fmaxf(tops[i / 2 % 4], s[i / 8][i / 4 % 2][i % 4]);
    }
#pragma unroll
    for (int r = 0; r < 4; r++) tops[r] = most_of_four(tops[r]);
  }
#pragma unroll 1
  for (int key = 0; key < N; key += 16) {
    float s[2][2][4];
    u32 weights[2][4];
    scores_of<D>(s, q, keys + key * 2 * D, lane);
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {  // keys of s[i / 2], row i % 2 of the lane's two
        const float *pair = s[i / 2][m] + i % 2 * 2, top = tops[2 * m + i % 2];
        const float first = exp2_of(large ? pair[0] - top : pair[0]), second = exp2_of(large ? pair[1] - top : pair[1]);
        sums[2 * m + i % 2] += first + second;
        weights[m][i] = pack(first, second);
      }
    }
    accumulate<D>(o, weights, values + key * 2 * D, lane);
  }
#pragma unroll
  for (int r = 0; r < 4; r++) sums[r] = sum_of_four(sums[r]);
}

template <int D>
static __device__ __forceinline__ float largest_of(const float* weight) {
  float most = 0;
#pragma unroll
  for (int i = 0; i < Lane<D>::size; i++) most = fmaxf(most, fabsf(weight[i]));
  return most_of_four(most);
}

// lse (heads of all pictures, N): the logarithm to base 2 of the sums. Warps are at least half as many as there are 32 tokens.
template <int D>
static __device__ __forceinline__ void forward(const bf16* qkv, const float* q_norm, const float* k_norm, const float* cosine, const float* sine,
                                               bf16* out, float* lse, int N, int heads, float eps) {
  DSD_SHARED(memory);
  unsigned char *keys = memory, *values = memory + (N + 31) / 32 * 32 * 2 * D;
  const Lane<D> lane;
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), warps = blockDim.x / 32, part = heads * D, width = 3 * part, head = blockIdx.x;
  const u32 zero = N >> 20;
  const bf16* first = qkv + start_of(head, heads, N, D, 3);
  for (int i = threadIdx.x; i < N * (D / 8); i += blockDim.x) {
    const int row = i / (D / 8), chunk = i % (D / 8);
    copy_async(values + place<D>(row, chunk), first + row * width + 2 * part + 8 * chunk);
  }
  // Each warp prepares the keys of the tokens whose queries it takes: at most twice 32 of them.
  u32 token[4][Lane<D>::words], key[2][4][Lane<D>::words];
#pragma unroll
  for (int j = 0; j < 12; j++) {
    const int row = min(32 * (warp + (j < 8 ? 0 : warps)) + 8 * (j % 4) + lane.g, N - 1);
    lane.load(j < 4 ? token[j] : key[j / 8][j % 4], first + row * width + (j < 4 ? 0 : part));
  }
  float q_weight[Lane<D>::size], k_weight[Lane<D>::size];
  lane.load_weight(q_weight, q_norm, log2_e * scale_of<D>());
  lane.load_weight(k_weight, k_norm, 1);
#pragma unroll
  for (int j = 0; j < 8; j++) {
    const int tile = warp + j / 4 * warps, row = 32 * tile + 8 * (j % 4) + lane.g;
    if (32 * tile >= N) break;
    const Angle angle = angle_of<D>(cosine, sine, min(row, N - 1), lane.t);
    prepare<D>(key[j / 4][j % 4], k_weight, angle, eps, lane.t);
    lane.store(key[j / 4][j % 4], keys + (row - lane.g) * 2 * D);
    if (j < 4) prepare<D>(token[j], q_weight, angle, eps, lane.t);
  }
  // No score exceeds this product, since a normalised token without weight is at most sqrt(D) long; and if it is small, 2^score needs no maximum.
  const bool large = __any_sync(0xffffffffu, !(largest_of<D>(q_weight) * largest_of<D>(k_weight) * D <= 100));
  wait_for_copies();
  __syncthreads();
#pragma unroll 1
  for (int tile = warp; 32 * tile < N; tile += warps) {
    u32 left[2][D / 16][4];
#pragma unroll
    for (int m = 0; m < 2; m++) as_left<D>(left[m], token[2 * m], token[2 * m + 1], zero);
    float o[2][D / 8][4], sums[4], tops[4];
    if (large) attend<D, true>(o, sums, tops, left, keys, values, N, lane);
    else attend<D, false>(o, sums, tops, left, keys, values, N, lane);
    const bool more = 32 * (tile + warps) < N;
    if (more) {
#pragma unroll
      for (int j = 0; j < 4; j++) lane.load(token[j], first + min(32 * (tile + warps) + 8 * j + lane.g, N - 1) * width);
    }
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int row = 32 * tile + 8 * j + lane.g;
      u32 result[D / 8];
      gather<D>(result, o[j / 2], j % 2, __fdividef(1, sums[j]), lane);
      lane.store_if(row < N, result, out + start_of(head, heads, N, D, 1) + row * part);
      if (row < N && lane.t == 0) lse[head * N + row] = __log2f(sums[j]) + tops[j];
    }
    if (more) {
      lane.load_weight(q_weight, q_norm, log2_e * scale_of<D>());
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const Angle angle = angle_of<D>(cosine, sine, min(32 * (tile + warps) + 8 * j + lane.g, N - 1), lane.t);
        prepare<D>(token[j], q_weight, angle, eps, lane.t);
      }
    }
  }
}

#define DSD_ATTENTION(D)                                                                                                                       \
  extern "C" __global__ void __launch_bounds__(128, 3) dsd_attention_##D(const bf16* qkv, const float* q_norm, const float* k_norm,           \
                                                                         const float* cosine, const float* sine, bf16* out, float* lse, int N, \
                                                                         int heads, float eps) {                                               \
    forward<D>(qkv, q_norm, k_norm, cosine, sine, out, lse, N, heads, eps);                                                                    \
  }
DSD_ATTENTION(32)
DSD_ATTENTION(64)
