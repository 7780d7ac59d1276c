// The gradient of dsd::qkv_attention for compute capability 9.0, D = 64 and N a multiple of 64 up to 256: see attention-gradient.cu and hopper.h.
//
// A block works on one head of a picture, of which all lies in shared memory; four warps, a group, have 64 keys and 64 queries. By blocks of 64 queries,
// each group makes the scores of its keys, sums the gradients of its keys and values, and leaves the gradients of the scores, rounded to bfloat16, in shared
// memory; the group whose queries they are then makes the gradients of these, while the others go on. Last, each warp turns what it has of the gradients of
// prepared tokens back, and takes it through the norms. No two warps add to one number, so the results are the same each time.

#include "hopper.h"

// The scores of 32 queries, and the gradients of values and scores by them: `slice` takes the latter, at the warp's 16 keys. dk lacks a factor log2(e).
static __device__ __forceinline__ void over_queries(float* dk, float* dv, Tile keys, Tile values, Tile queries, Tile gradients, const float* minus_lse,
                                                    const float* minus_delta, unsigned char* slice, int chunk, const Row& lane) {
  float s[16], dp[16];
  u32 p[2][4], ds[2][4];
  begin_products();
#pragma unroll
  for (int k = 0; k < 4; k++) rows_by_32(s, keys + 32 * k, queries + 32 * k, k > 0);
#pragma unroll
  for (int k = 0; k < 4; k++) rows_by_32(dp, values + 32 * k, gradients + 32 * k, k > 0);
  end_products<16>(s);
  settled<16>(dp);
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const float2 l = *reinterpret_cast<const float2*>(minus_lse + 8 * j + 2 * lane.t);
    const float2 d = *reinterpret_cast<const float2*>(minus_delta + 8 * j + 2 * lane.t);
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int i = 4 * j + 2 * r;
      const float first = exp2_of(s[i] + l.x), second = exp2_of(s[i + 1] + l.y);
      const u32 pair = pack(first * (dp[i] + d.x), second * (dp[i + 1] + d.y));
      p[j / 2][2 * (j % 2) + r] = pack(first, second);
      ds[j / 2][2 * (j % 2) + r] = pair;
      *reinterpret_cast<u32*>(slice + (8 * r + lane.g) * 128 + (((chunk + j) ^ lane.g) << 4) + 4 * lane.t) = pair;
    }
  }
  begin_products();
#pragma unroll
  for (int k = 0; k < 2; k++) {
    add_weighted(dv, p[k], gradients + k * 2048);
    add_weighted(dk, ds[k], queries + k * 2048);
  }
  end_products<32>(dk);
  settled<32>(dv);
}

// The gradient of a norm's weight, from what a warp's lanes have of it.
static __device__ __forceinline__ void store_sums(float* sums, float* to, const Row& lane) {
  const u32 odd = chooser(lane.odd);
#pragma unroll
  for (int i = 0; i < 8; i++) {
    const u32 a = __float_as_uint(sums[i]), b = __float_as_uint(sums[i + 8]);
    sums[i] = __uint_as_float(choose(a, b, odd)), sums[i + 8] = __uint_as_float(choose(b, a, odd));
  }
  share_sums<8>(sums, 16, chooser(lane.number >> 4 & 1));
  share_sums<4>(sums, 8, chooser(lane.number >> 3 & 1));
  share_sums<2>(sums, 4, chooser(lane.number >> 2 & 1));
  const int kept = (lane.number >> 4 & 1) * 8 + (lane.number >> 3 & 1) * 4 + (lane.number >> 2 & 1) * 2;
#pragma unroll
  for (int i = 0; i < 2; i++) to[((kept + i) / 8 * 4 + lane.t) * 8 + (kept + i) % 8] = sums[i];
}

// Shared memory: four tiles of all tokens, then the gradients of the scores by 64 queries, (keys, 64), twice, and two numbers a token.
struct Memory {
  unsigned char *queries, *gradients, *keys, *values, *slices;
  float *minus_lse, *minus_delta;
};

// The warp's 16 tokens into shared memory, prepared.
static __device__ __forceinline__ void begin_head(const Inputs& x, const Memory& memory, int head, int begin) {
  const Row lane;
  const int part = x.heads * 64, width = 3 * part;
  const bf16 *tokens = x.qkv + start_of(head, x.heads, x.N, 64, 3), *out = x.out + start_of(head, x.heads, x.N, 64, 1);
  const bf16* grad = x.grad + start_of(head, x.heads, x.N, 64, 1);
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = begin + 4 * i + lane.number / 8, chunk = lane.number % 8, to = place_in_tile(row, chunk);
    copy_async(memory.gradients + to, grad + row * part + 8 * chunk);
    copy_async(memory.values + to, tokens + row * width + 2 * part + 8 * chunk);
  }
  u32 q[2][8], k[2][8], o[2][8];
  float l[2];
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int row = begin + 8 * j + lane.g;
    lane.load(q[j], tokens + row * width);
    lane.load(k[j], tokens + row * width + part);
    lane.load(o[j], out + row * part);
    l[j] = x.lse[head * x.N + row];
  }
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int at = (begin + 8 * j) * 128;
    const Angle angle = lane.angle(x.cosine, x.sine, begin + 8 * j + lane.g);
    float weight[16];
    lane.load_weight(weight, x.q_norm, log2_e * scale_of<64>());
    prepare<64>(q[j], weight, angle, x.eps, 0);
    lane.load_weight(weight, x.k_norm, 1);
    prepare<64>(k[j], weight, angle, x.eps, 0);
    lane.store(q[j], memory.queries + at);
    lane.store(k[j], memory.keys + at);
  }
  wait_for_copies();
  __syncwarp();
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int row = begin + 8 * j + lane.g;
    u32 up[8];
    float a[16], b[16], along = 0;
    lane.load(up, memory.gradients + (begin + 8 * j) * 128);
    unpack<64>(a, up);
    unpack<64>(b, o[j]);
#pragma unroll
    for (int i = 0; i < 16; i++) along += a[i] * b[i];
    memory.minus_delta[row] = -sum_of_four(along), memory.minus_lse[row] = -l[j];  // the same in four lanes
  }
  publish();
}

// What the block that comes after this one on the multiprocessor will read.
static __device__ __forceinline__ void ask_for(const Inputs& x, int head) {
  const int part = x.heads * 64;
  const bf16 *tokens = x.qkv + start_of(head, x.heads, x.N, 64, 3), *out = x.out + start_of(head, x.heads, x.N, 64, 1);
  const bf16* grad = x.grad + start_of(head, x.heads, x.N, 64, 1);
  for (int i = threadIdx.x; i < 3 * x.N; i += blockDim.x) prefetch(tokens + i / 3 * 3 * part + i % 3 * part);
  for (int i = threadIdx.x; i < x.N; i += blockDim.x) prefetch(out + i * part), prefetch(grad + i * part);
}

// From the gradients that the warp left in shared memory: those of its values in the tile of values, of keys in that of gradients, of queries in their own.
static __device__ __forceinline__ void end_head(const Inputs& x, const Memory& memory, int head, int begin, bf16* dqkv, float* share) {
  const Row lane;
  const int part = x.heads * 64, width = 3 * part;
  const size_t first = start_of(head, x.heads, x.N, 64, 3);
  float sums[2][16] = {};
#pragma unroll
  for (int j = 0; j < 2; j++) {
    const int row = begin + 8 * j + lane.g, at = (begin + 8 * j) * 128;
    const bf16* token = x.qkv + first + row * width;
    bf16* to = dqkv + first + row * width;
    u32 tokens[2][8], gradient[8];
    lane.load(tokens[0], token), lane.load(tokens[1], token + part);
    lane.load(gradient, memory.values + at);
    lane.store(gradient, to + 2 * part);
    const Angle angle = lane.angle(x.cosine, x.sine, row);
#pragma unroll
    for (int which = 0; which < 2; which++) {
      float weight[16];
      lane.load_weight(weight, which ? x.k_norm : x.q_norm, 1);
      lane.load(gradient, (which ? memory.gradients : memory.queries) + at);
      unprepare<64>(gradient, tokens[which], weight, angle, x.eps, 0, sums[which]);
      lane.store(gradient, to + which * part);
    }
  }
#pragma unroll
  for (int which = 0; which < 2; which++) store_sums(sums[which], share + which * 64, lane);
}

// dnorm (all, 2, 64): the gradients of q_norm and k_norm by head of a picture, of which there are `all`; `ahead` is how many blocks run at a time.
extern "C" __global__ void __launch_bounds__(512, 1)
    dsd_attention_gradient_hopper(const bf16* qkv, const float* q_norm, const float* k_norm, const float* cosine, const float* sine, const bf16* out,
                                  const bf16* grad, const float* lse, bf16* dqkv, float* dnorm, int N, int heads, int all, float eps, int ahead) {
  DSD_SHARED(shared);
  const Inputs x = {qkv, q_norm, k_norm, cosine, sine, out, grad, lse, N, heads, eps};
  const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0), group = warp / 4, begin = 16 * warp, rows = N * 128, head = blockIdx.x;
  float* numbers = reinterpret_cast<float*>(shared + 6 * rows);
  const Memory memory = {shared, shared + rows, shared + 2 * rows, shared + 3 * rows, shared + 4 * rows, numbers, numbers + N};
  begin_head(x, memory, head, begin);
  __syncthreads();
  if (head + ahead < all) ask_for(x, head + ahead);
  float dk[32], dv[32];
#pragma unroll
  for (int i = 0; i < 32; i++) dk[i] = dv[i] = 0;
  const Tile keys = tile_at(memory.keys) + group * 8192, values = tile_at(memory.values) + group * 8192;
  {
    const Row lane;
#pragma unroll 1
    for (int block = 0; block < N / 64; block++) {
      unsigned char* slice = memory.slices + block % 2 * rows;
#pragma unroll 1
      for (int half = 0; half < 2; half++) {
        const int query = 64 * block + 32 * half;
        over_queries(dk, dv, keys, values, tile_at(memory.queries) + query * 128, tile_at(memory.gradients) + query * 128, memory.minus_lse + query,
                     memory.minus_delta + query, slice + begin * 128, 4 * half, lane);
      }
      publish();
      __syncthreads();
      if (group == block) {
        float dq[32] = {};
        begin_products();
#pragma unroll 1
        for (int key = 0; key < N; key += 64) {
#pragma unroll
          for (int k = 0; k < 4; k++) add_weighted(dq, tile_at(slice) + (key + 16 * k) * 128, tile_at(memory.keys) + (key + 16 * k) * 128);
        }
        end_products<32>(dq);
#pragma unroll
        for (int r = 0; r < 2; r++) lane.leave(dq, r, scale_of<64>(), memory.queries + begin * 128);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; r++) {
      lane.leave(dv, r, 1, memory.values + begin * 128);
      lane.leave(dk, r, 1 / log2_e, memory.gradients + begin * 128);
    }
  }
  __syncwarp();
  float* shares = reinterpret_cast<float*>(memory.slices + N / 64 % 2 * rows);  // the slice that the last queries did not take is free
  end_head(x, memory, head, begin, dqkv, shares + warp * 128);
  __syncthreads();
  if (threadIdx.x < 128) {
    float sum = 0;
    for (int w = 0; w < N / 16; w++) sum += shares[w * 128 + threadIdx.x];
    dnorm[(size_t)head * 128 + threadIdx.x] = sum;
  }
}
