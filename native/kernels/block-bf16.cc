// The element-wise parts of a block in bfloat16 on processors that convert to it in one instruction (block.cc has the rest): elsewhere that takes nine, and
// SwiGLU's exponential a precision that bfloat16 cannot show.
#include "bf16.h"

#include <cstdlib>

#ifdef DSD_BF16
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,bmi2")
#define DSD_BF16_PROCESSOR
#include "block-rows.h"

namespace dsd {

using c10::BFloat16;

void run_bf16(const AddNormRows<float, BFloat16, BFloat16>& rows, int64_t begin, int64_t end) { rows(begin, end); }
void run_bf16(const AddNormRows<float, BFloat16, float>& rows, int64_t begin, int64_t end) { rows(begin, end); }
void run_bf16(const AddNormGradient<float, BFloat16, BFloat16>& rows, int64_t begin, int64_t end) { rows(begin, end); }
void run_bf16(const AddNormGradient<float, BFloat16, float>& rows, int64_t begin, int64_t end) { rows(begin, end); }
void run_bf16(const SwiGluRows<float, BFloat16>& rows, int64_t begin, int64_t end) { rows(begin, end); }
void run_bf16(const SwiGluGradient<float, BFloat16>& rows, int64_t begin, int64_t end) { rows(begin, end); }

}  // namespace dsd
#pragma GCC pop_options

namespace dsd {

bool has_bf16_products() {
  static const bool has = [] {
    const char* limit = std::getenv("ATEN_CPU_CAPABILITY");  // with which libtorch is told to do with less
    if (limit && std::strcmp(limit, "avx512") != 0) return false;
    return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }();
  return has;
}

}  // namespace dsd
#endif
