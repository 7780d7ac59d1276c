// Attention on processors that multiply pairs of bfloat16 (AVX512-BF16). The operands of products are bfloat16, probabilities and the gradients of scores
// among them; sums, softmax and all else are float32.
//
// Scores are made transposed, a key a row: softmax then runs down the columns, sixteen queries at a time, and needs no sum across lanes; and its results
// are, two rows at a time, the pairs that the next product wants.
#include "bf16.h"

#ifdef DSD_BF16
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,bmi2")
#define DSD_BF16_PROCESSOR
#include "attention.h"
#include "products-bf16.h"

namespace dsd {
namespace {

using Call = Attention<float, c10::BFloat16>;

// Queries that are worked on at a time.
constexpr int64_t block = tile_columns;
constexpr int64_t rounded(int64_t n) { return (n + block - 1) / block * block; }

// Thirty-two numbers in their order.
DSD_INLINE __m512i in_order(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }
// Sixteen pairs of one number of each.
DSD_INLINE __m512i paired(__m512 first, __m512 second) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, in_order(first, second));
}

// Rows of pairs transposed, the pairs as they are: sixteen by sixteen, of which halves, quarters and so on change places.
template <int width>
DSD_INLINE void exchange(__m512i* rows) {
  alignas(64) int32_t first[16], second[16];
#pragma GCC unroll 16
  for (int lane = 0; lane < 16; lane++) {
    first[lane] = lane & width ? 16 + (lane ^ width) : lane;
    second[lane] = lane & width ? 16 + lane : lane ^ width;
  }
  const __m512i upper = _mm512_load_si512(first), lower = _mm512_load_si512(second);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    if (i & width) continue;
    __m512i x = rows[i], y = rows[i | width];
    rows[i] = _mm512_permutex2var_epi32(x, upper, y);
    rows[i | width] = _mm512_permutex2var_epi32(x, lower, y);
  }
}
void transpose(const uint32_t* from, int64_t rows, int64_t pairs, uint32_t* to) {
  for (int64_t i = 0; i < rows; i += 16) {
    for (int64_t j = 0; j < pairs; j += 16) {
      __m512i part[16];
#pragma GCC unroll 16
      for (int r = 0; r < 16; r++) part[r] = _mm512_loadu_si512(from + (i + r) * pairs + j);
      exchange<8>(part);
      exchange<4>(part);
      exchange<2>(part);
      exchange<1>(part);
#pragma GCC unroll 16
      for (int r = 0; r < 16; r++) _mm512_storeu_si512(to + (j + r) * rows + i, part[r]);
    }
  }
}

// What a head needs in memory: with 256 tokens of 64 numbers half a megabyte, which stays in the second cache.
struct Head {
  const Call& call;
  const int64_t N, D;
  const int64_t tokens, width, pairs;  // N, D and D/2 rounded up: what is beyond is zero, but for scores
  float scale;
  uint32_t* free;

  Head(const Call& call, uint32_t* memory)
      : call(call), N(call.N), D(call.D), tokens(rounded(N)), width(rounded(D)), pairs(width / 2), scale(1 / std::sqrt(static_cast<float>(D))), free(memory) {}
  uint32_t* take(int64_t numbers) {
    uint32_t* taken = free;
    free += numbers;
    return taken;
  }
  uint32_t* take_rows() { return take(tokens * pairs); }
  float* take_block(int64_t rows) { return reinterpret_cast<float*>(take(rows * block)); }

  void copy(const c10::BFloat16* from, int64_t pitch, uint32_t* to) const {
    for (int64_t i = 0; i < N; i++) std::memcpy(to + i * pairs, from + i * pitch, D * sizeof(*from));
  }
  void turn(int64_t head, int64_t which, uint32_t* to) const {
    auto* rows = reinterpret_cast<c10::BFloat16*>(to);
    if (D == 32) return turn_head(call, head, which, rows, width, 16);
    if (D == 64) return turn_head(call, head, which, rows, width, 32);
    turn_head(call, head, which, rows, width, D / 2);
  }
  void turn_back(int64_t head, int64_t which, const float* g, int64_t first, int64_t last) const {
    if (D == 32) return turn_gradient(call, head, which, g, width, first, last, 16);
    if (D == 64) return turn_gradient(call, head, which, g, width, first, last, 32);
    turn_gradient(call, head, which, g, width, first, last, D / 2);
  }

  // Of a block of queries, given as pairs across: for every key their products with its row. Keys that are none get nothing of a softmax.
  void scores(const uint32_t* rows, const uint32_t* across, int64_t query, float* to) const {
    multiply<false, false>({rows, pairs, across + query, tokens, to, block, tokens, block, pairs});
  }
  void leave_out(float* scores) const {
    for (float* at = scores + N * block; at < scores + tokens * block; at++) *at = -1e30f;
  }
};

// In place: scores become 2^((score - the column's largest) * factor); `sums` are a column's.
DSD_INLINE void exponentials(float* scores, int64_t rows, float factor, __m512* sums) {
  __m512 most[2];
  for (int c = 0; c < 2; c++) most[c] = _mm512_loadu_ps(scores + 16 * c), sums[c] = _mm512_setzero_ps();
  for (int64_t i = 1; i < rows; i++) {
    for (int c = 0; c < 2; c++) most[c] = _mm512_max_ps(most[c], _mm512_loadu_ps(scores + i * block + 16 * c));
  }
  for (int64_t i = 0; i < rows; i++) {
    for (int c = 0; c < 2; c++) {
      __m512 e = power_of_two((_mm512_loadu_ps(scores + i * block + 16 * c) - most[c]) * factor);
      _mm512_storeu_ps(scores + i * block + 16 * c, e);
      sums[c] += e;
    }
  }
}

constexpr float log2_e = 1.44269504f;

void forward(const Call& call, int64_t begin, int64_t end, uint32_t* memory) {
  Head s(call, memory);
  uint32_t *rows = s.take_rows(), *queries = s.take_rows(), *keys = s.take_rows(), *values = s.take_rows();
  float *scores = s.take_block(s.tokens), *result = s.take_block(s.width), *inverse = s.take_block(1);
  uint32_t* weights = s.take(s.tokens * block / 2);
  for (int64_t head = begin; head < end; head++) {
    s.turn(head, 0, rows);
    transpose(rows, s.tokens, s.pairs, queries);
    s.turn(head, 1, keys);
    s.copy(call.qkv + call.in(head, 2), call.in_row(), rows);
    pair_rows(rows, s.pairs, s.tokens, s.pairs, values);
    for (int64_t query = 0; query < s.N; query += block) {
      s.scores(keys, queries, query, scores);
      s.leave_out(scores);
      __m512 sums[2];
      exponentials(scores, s.tokens, s.scale * log2_e, sums);
      for (int c = 0; c < 2; c++) _mm512_storeu_ps(inverse + 16 * c, 1.0f / sums[c]);
      for (int64_t i = 0; i < s.tokens; i += 2) {
        const float* at = scores + i * block;
        for (int c = 0; c < 32; c += 16) _mm512_storeu_si512(weights + i / 2 * block + c, paired(_mm512_loadu_ps(at + c), _mm512_loadu_ps(at + block + c)));
      }
      multiply<true, false>({weights, block, values, s.width, result, s.width, block, s.width, s.tokens / 2});
      for (int64_t i = 0; i < std::min(block, s.N - query); i++) {
        put_row(result + i * s.width, inverse[i], call.out + call.out_at(head) + (query + i) * call.out_row(), s.D);
      }
    }
  }
}

void backward(const Call& call, int64_t begin, int64_t end, uint32_t* memory) {
  Head s(call, memory);
  // Of queries, keys, values and the gradient of the result: rows of pairs, the same transposed, and pairs along the tokens.
  uint32_t *rows = s.take_rows(), *keys = s.take_rows(), *values = s.take_rows(), *queries_across = s.take_rows(), *up_across = s.take_rows();
  uint32_t *query_pairs = s.take_rows(), *key_pairs = s.take_rows(), *up_pairs = s.take_rows();
  float *scores = s.take_block(s.tokens), *dweights = s.take_block(s.tokens);
  uint32_t *weights = s.take(s.tokens * block / 2), *dscores = s.take(s.tokens * block / 2), *dscore_pairs = s.take(s.tokens * block / 2);
  float* dqueries = s.take_block(s.width);
  auto whole = [&] { return reinterpret_cast<float*>(s.take(s.tokens * s.width)); };
  float *dkeys = whole(), *dvalues = whole();
  const int64_t pitch = block / 2;  // of rows of pairs of a block's queries
  for (int64_t head = begin; head < end; head++) {
    s.turn(head, 0, rows);
    transpose(rows, s.tokens, s.pairs, queries_across);
    pair_rows(rows, s.pairs, s.tokens, s.pairs, query_pairs);
    s.turn(head, 1, keys);
    pair_rows(keys, s.pairs, s.tokens, s.pairs, key_pairs);
    s.copy(call.qkv + call.in(head, 2), call.in_row(), values);
    s.copy(call.up + call.out_at(head), call.out_row(), rows);
    transpose(rows, s.tokens, s.pairs, up_across);
    pair_rows(rows, s.pairs, s.tokens, s.pairs, up_pairs);
    for (int64_t query = 0; query < s.N; query += block) {
      s.scores(keys, queries_across, query, scores);
      s.leave_out(scores);
      s.scores(values, up_across, query, dweights);
      __m512 sums[2], along[2], inverse[2];
      exponentials(scores, s.tokens, s.scale * log2_e, sums);
      for (int c = 0; c < 2; c++) along[c] = _mm512_setzero_ps(), inverse[c] = 1.0f / sums[c];
      for (int64_t i = 0; i < s.tokens; i++) {
        for (int c = 0; c < 2; c++) along[c] += _mm512_loadu_ps(scores + i * block + 16 * c) * _mm512_loadu_ps(dweights + i * block + 16 * c);
      }
      for (int c = 0; c < 2; c++) along[c] *= inverse[c];
      for (int64_t i = 0; i < s.tokens; i += 2) {
        __m512 p[2][2], d[2][2];
        for (int r = 0; r < 2; r++) {
          for (int c = 0; c < 2; c++) {
            int64_t at = (i + r) * block + 16 * c;
            p[r][c] = _mm512_loadu_ps(scores + at) * inverse[c];
            d[r][c] = p[r][c] * (_mm512_loadu_ps(dweights + at) - along[c]) * s.scale;
          }
          _mm512_storeu_si512(weights + (i + r) * pitch, in_order(p[r][0], p[r][1]));
          _mm512_storeu_si512(dscores + (i + r) * pitch, in_order(d[r][0], d[r][1]));
        }
        for (int c = 0; c < 2; c++) _mm512_storeu_si512(dscore_pairs + i / 2 * block + 16 * c, paired(d[0][c], d[1][c]));
      }
      auto over_queries = query == 0 ? multiply<false, false> : multiply<false, true>;
      over_queries({weights, pitch, up_pairs + query / 2 * s.width, s.width, dvalues, s.width, s.tokens, s.width, pitch});
      over_queries({dscores, pitch, query_pairs + query / 2 * s.width, s.width, dkeys, s.width, s.tokens, s.width, pitch});
      multiply<true, false>({dscore_pairs, block, key_pairs, s.width, dqueries, s.width, block, s.width, s.tokens / 2});
      s.turn_back(head, 0, dqueries, query, std::min(s.N, query + block));
    }
    s.turn_back(head, 1, dkeys, 0, s.N);
    for (int64_t i = 0; i < s.N; i++) put_row(dvalues + i * s.width, 1, call.dqkv + call.in(head, 2) + i * call.in_row(), s.D);
  }
}

}  // namespace

void attend_bf16(const Call& call, int64_t begin, int64_t end, uint32_t* memory) { forward(call, begin, end, memory); }
void attend_gradient_bf16(const Call& call, int64_t begin, int64_t end, uint32_t* memory) { backward(call, begin, end, memory); }

int64_t bf16_memory(int64_t N, int64_t D, bool gradient) {
  int64_t tokens = rounded(N), width = rounded(D), rows = tokens * width / 2, scores = tokens * block;
  return gradient ? 12 * rows + scores * 7 / 2 + width * block : 4 * rows + scores * 3 / 2 + width * block + block;
}

}  // namespace dsd
#pragma GCC pop_options
#endif
