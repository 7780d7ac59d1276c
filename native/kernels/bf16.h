// Files that are compiled for processors that multiply bfloat16 (AVX512-BF16): attention-bf16.cc and block-bf16.cc. Whoever calls them asks
// has_bf16_products() first.
#pragma once

// Such a file sets the compiler's target for itself. So that no function of a library comes out for these processors alone, and is then the one that all
// files get, it includes what is not ours before.
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 10
#define DSD_BF16
#include <immintrin.h>
#endif

namespace dsd {

bool has_bf16_products();

}  // namespace dsd
