// dsd::qkv_attention for compute capability 9.0, D = 64 and N a multiple of 64 up to 256: what attention.cu computes, by the products of four warps.
//
// A block of eight warps, or of four where N is 64, works on one head of a picture: all its keys and values lie in shared memory, and each warp has
// 16 rows there for its queries before the products and for its results after them.

#include "hopper.h"

static __device__ __forceinline__ float largest(const float* weight) {
  float most = 0;
#pragma unroll
  for (int i = 0; i < 16; i++) most = fmaxf(most, fabsf(weight[i]));
  return most_of_four(most);
}

// Scores of 64 queries and 64 keys.
static __device__ __forceinline__ void scores_of(float* s, const u32 (*q)[4], Tile keys) {
  begin_products();
#pragma unroll
  for (int k = 0; k < 4; k++) rows_by_64(s, q[k], keys + 32 * k, k > 0);
  end_products<32>(s);
}

// o = weights times values, of 64 queries; their sums, and what is taken off the scores, are those of a lane's two rows.
template <bool large>
static __device__ __forceinline__ void attend(float* o, float* sums, float* tops, const u32 (*q)[4], Tile keys, Tile values, int N) {
#pragma unroll
  for (int i = 0; i < 32; i++) o[i] = 0;
  sums[0] = sums[1] = 0, tops[0] = tops[1] = large ? -1e30f : 0;
  if (large) {
#pragma unroll 1
    for (int key = 0; key < N; key += 64) {
      float s[32];
      scores_of(s, q, keys + key * 128);
#pragma unroll
      for (int i = 0; i < 32; i++) tops[i / 2 % 2] = fmaxf(tops[i / 2 % 2], s[i]);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) tops[r] = most_of_four(tops[r]);
  }
#pragma unroll 1
  for (int key = 0; key < N; key += 64) {
    float s[32];
    u32 weights[4][4];
    scores_of(s, q, keys + key * 128);
    settled<32>(o);
#pragma unroll
    for (int j = 0; j < 8; j++) {
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const float* pair = s + 4 * j + 2 * r;
        const float first = exp2_of(large ? pair[0] - tops[r] : pair[0]), second = exp2_of(large ? pair[1] - tops[r] : pair[1]);
        sums[r] += first + second;
        weights[j / 2][2 * (j % 2) + r] = pack(first, second);
      }
    }
    begin_products();
#pragma unroll
    for (int k = 0; k < 4; k++) add_weighted(o, weights[k], values + (key + 16 * k) * 128);
    end_products<32>(o);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) sums[r] = sum_of_four(sums[r]);
}

// lse (heads of all pictures, N): the logarithm to base 2 of the sums. Warps are N / 16, or half as many and more.
extern "C" __global__ void __launch_bounds__(256, 2)
    dsd_attention_hopper(const bf16* qkv, const float* q_norm, const float* k_norm, const float* cosine, const float* sine, bf16* out, float* lse, int N,
                         int heads, float eps) {
  DSD_SHARED(shared);
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), warps = blockDim.x / 32, part = heads * 64, width = 3 * part, head = blockIdx.x;
  unsigned char *keys = shared, *values = shared + N * 128, *own = shared + 2 * N * 128 + warp * 2048;
  const bf16* tokens = qkv + start_of(head, heads, N, 64, 3);
  bool large;
  {
    const Row lane;
    for (int i = threadIdx.x; i < N * 8; i += blockDim.x) {
      copy_async(values + place_in_tile(i / 8, i % 8), tokens + i / 8 * width + 2 * part + 8 * (i % 8));
    }
    u32 q[2][8], k[2][2][8];
#pragma unroll
    for (int j = 0; j < 2; j++) lane.load(k[0][j], tokens + (16 * warp + 8 * j + lane.g) * width + part);
#pragma unroll
    for (int j = 0; j < 2; j++) lane.load(q[j], tokens + (16 * warp + 8 * j + lane.g) * width);
#pragma unroll
    for (int j = 0; j < 2; j++) lane.load(k[1][j], tokens + min(16 * (warp + warps) + 8 * j + lane.g, N - 1) * width + part);
    float q_weight[16], k_weight[16];
    lane.load_weight(q_weight, q_norm, log2_e * scale_of<64>());
    lane.load_weight(k_weight, k_norm, 1);
    // No score exceeds this product, since a normalised token without weight is at most sqrt(D) long; and if it is small, 2^score needs no maximum.
    large = __any_sync(0xffffffffu, !(largest(q_weight) * largest(k_weight) * 64 <= 100));
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int first = 16 * (warp + i * warps);
      if (first >= N) break;
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const Angle angle = lane.angle(cosine, sine, first + 8 * j + lane.g);
        prepare<64>(k[i][j], k_weight, angle, eps, 0);
        lane.store(k[i][j], keys + (first + 8 * j) * 128);
        if (i == 0) {
          prepare<64>(q[j], q_weight, angle, eps, 0);
          lane.store(q[j], own + 8 * j * 128);
        }
      }
    }
  }
  wait_for_copies();
  publish();
  __syncthreads();
#pragma unroll 1
  for (int first = 16 * warp; first < N; first += 16 * warps) {
    const Row lane;
    u32 q[4][4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
#pragma unroll
      for (int i = 0; i < 4; i++) q[k][i] = *reinterpret_cast<const u32*>(own + place_in_tile(i % 2 * 8 + lane.g, 2 * k + i / 2) + 4 * lane.t);
    }
    float o[32], sums[2], tops[2];
    if (large) attend<true>(o, sums, tops, q, tile_at(keys), tile_at(values), N);
    else attend<false>(o, sums, tops, q, tile_at(keys), tile_at(values), N);
    const int next = first + 16 * warps;
    u32 token[2][8];
    if (next < N) {
#pragma unroll
      for (int j = 0; j < 2; j++) lane.load(token[j], tokens + (next + 8 * j + lane.g) * width);
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if (lane.t == 0) lse[head * N + first + 8 * r + lane.g] = __log2f(sums[r]) + tops[r];
      lane.leave(o, r, __fdividef(1, sums[r]), own);
    }
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 2; j++) {
      u32 x[8];
      lane.load(x, own + 8 * j * 128);
      lane.store(x, out + start_of(head, heads, N, 64, 1) + (first + 8 * j + lane.g) * part);
    }
    if (next < N) {
      float weight[16];
      lane.load_weight(weight, q_norm, log2_e * scale_of<64>());
#pragma unroll
      for (int j = 0; j < 2; j++) {
        prepare<64>(token[j], weight, lane.angle(cosine, sine, next + 8 * j + lane.g), eps, 0);
        lane.store(token[j], own + 8 * j * 128);  // where the lane has just read
      }
    }
    __syncwarp();
  }
}
