// What linear.cc calls of linear-bf16.cc.
#pragma once

#include <c10/util/BFloat16.h>

#include <cstdint>

namespace dsd {

// to = up^T x: (rows, out), (rows, in) -> (out, in); `out` and `in` in thirty-twos.
struct WeightGradient {
  const c10::BFloat16 *up, *x;
  c10::BFloat16* to;
  int64_t rows, out, in;
};
// Rows begin to end of the result, also in thirty-twos; its numbers do not depend on how they are cut. `memory`: numbers of 32 bits.
void weight_gradient_bf16(const WeightGradient& w, int64_t begin, int64_t end, uint32_t* memory);
int64_t weight_gradient_memory(int64_t out, int64_t in);

}  // namespace dsd
