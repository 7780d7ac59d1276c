// The gradient of a linear layer's weight on processors that multiply pairs of bfloat16: linear.cc says what and why.
#include "bf16.h"

#ifdef DSD_BF16
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,bmi2")
#define DSD_BF16_PROCESSOR
#include "linear.h"
#include "products-bf16.h"

namespace dsd {

namespace {
// Rows at a time: what they are as pairs along the rows lies in the second cache, beside the sums.
constexpr int64_t chunk = 128;
}  // namespace

int64_t weight_gradient_memory(int64_t out, int64_t in) { return chunk / 2 * (out + in) + out * in; }

void weight_gradient_bf16(const WeightGradient& w, int64_t begin, int64_t end, uint32_t* memory) {
  const int64_t out = end - begin;
  uint32_t *up = memory, *x = up + chunk / 2 * out;
  float* sums = reinterpret_cast<float*>(x + chunk / 2 * w.in);
  auto pairs_of = [](const c10::BFloat16* from) { return reinterpret_cast<const uint32_t*>(from); };
  for (int64_t row = 0; row < w.rows; row += chunk) {
    int64_t rows = std::min(chunk, w.rows - row);
    pair_rows(pairs_of(w.up + row * w.out + begin), w.out / 2, rows, out / 2, up);
    pair_rows(pairs_of(w.x + row * w.in), w.in / 2, rows, w.in / 2, x);
    (row == 0 ? multiply<true, false> : multiply<true, true>)({up, out, x, w.in, sums, w.in, out, w.in, (rows + 1) / 2});
  }
  for (int64_t i = 0; i < out; i++) put_row(sums + i * w.in, 1, w.to + (begin + i) * w.in, w.in);
}

}  // namespace dsd
#pragma GCC pop_options
#endif
