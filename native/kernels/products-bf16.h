// Matrix products on processors that multiply pairs of bfloat16: for files that are compiled for them (bf16.h). Twice as many products an instruction as in
// float32. It adds to each of sixteen lanes the product of two pairs, so an operand has to hold, side by side, the two numbers that follow each other along
// the sum. Small products only: what they read has to fit the second cache.
#pragma once

#include "vector.h"

namespace dsd {
namespace {  // each file has its own: none of this may be shared with what is compiled for other processors

// C = A B, or added to C. `a` holds pairs along the sum: pair k of row i at a[i * a_pitch + k], or, `across`, at a[k * a_pitch + i]. `b` has them for each
// column: b[k * b_pitch + j]. Rows in eights, columns in thirty-twos.
struct Product {
  const uint32_t* a;
  int64_t a_pitch;
  const uint32_t* b;
  int64_t b_pitch;
  float* c;
  int64_t c_pitch, rows, columns, pairs;
};
constexpr int64_t tile_rows = 8, tile_columns = 32;

template <bool across, bool add>
void multiply(const Product& p) {
  for (int64_t j = 0; j < p.columns; j += tile_columns) {
    for (int64_t i = 0; i < p.rows; i += tile_rows) {
      __m512 sums[tile_rows][2];
      float* c = p.c + i * p.c_pitch + j;
#pragma GCC unroll 8
      for (int64_t r = 0; r < tile_rows; r++) {
        sums[r][0] = add ? _mm512_loadu_ps(c + r * p.c_pitch) : _mm512_setzero_ps();
        sums[r][1] = add ? _mm512_loadu_ps(c + r * p.c_pitch + 16) : _mm512_setzero_ps();
      }
      const uint32_t *a = p.a + (across ? i : i * p.a_pitch), *b = p.b + j;
      for (int64_t k = 0; k < p.pairs; k++, b += p.b_pitch) {
        __m512bh left = (__m512bh)_mm512_loadu_si512(b), right = (__m512bh)_mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
        for (int64_t r = 0; r < tile_rows; r++) {
          __m512bh pair = (__m512bh)_mm512_set1_epi32(across ? a[k * p.a_pitch + r] : a[r * p.a_pitch + k]);
          sums[r][0] = _mm512_dpbf16_ps(sums[r][0], pair, left);
          sums[r][1] = _mm512_dpbf16_ps(sums[r][1], pair, right);
        }
      }
#pragma GCC unroll 8
      for (int64_t r = 0; r < tile_rows; r++) {
        _mm512_storeu_ps(c + r * p.c_pitch, sums[r][0]);
        _mm512_storeu_ps(c + r * p.c_pitch + 16, sums[r][1]);
      }
    }
  }
}

// Rows, `pitch` pairs apart, of `pairs` pairs (in sixteens) along a row, become rows of pairs along a column, one for two rows; after an odd last one
// comes a row of zeros.
inline void pair_rows(const uint32_t* from, int64_t pitch, int64_t rows, int64_t pairs, uint32_t* to) {
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  for (int64_t i = 0; i < rows; i += 2, from += 2 * pitch) {
    for (int64_t j = 0; j < pairs; j += 16, to += 32) {
      __m512i even = _mm512_loadu_si512(from + j), odd = i + 1 < rows ? _mm512_loadu_si512(from + pitch + j) : _mm512_setzero_si512();
      _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, low, odd));
      _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(even, high, odd));
    }
  }
}

// A row of results to bfloat16, n numbers, each times `factor`.
DSD_INLINE void put_row(const float* from, float factor, c10::BFloat16* to, int64_t n) {
  for (int64_t i = 0; i < n; i += lanes<float>) store<float>(to + i, load_all(from + i) * factor, n - i);
}

}  // namespace
}  // namespace dsd
