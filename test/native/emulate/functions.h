// Functions that CUDA has built in. See emulate.h.
#pragma once

#include "warp.h"

#include <cmath>

#define __syncthreads() emulated::barrier()
inline void __syncwarp(unsigned mask = ~0u) {
  int nothing = 0;
  emulated::exchange("__syncwarp", mask, nothing, [](int**) {});
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  return emulated::shuffle("__shfl_xor_sync", mask, value, [&](int lane) { return lane ^ lanes; }, width);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  return emulated::shuffle("__shfl_down_sync", mask, value, [&](int lane) { return lane + static_cast<int>(lanes); }, width);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  return emulated::shuffle("__shfl_up_sync", mask, value, [&](int lane) { return lane - static_cast<int>(lanes); }, width);
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
  return emulated::shuffle("__shfl_sync", mask, value, [&](int) { return from & (width - 1); }, width);
}
inline unsigned __ballot_sync(unsigned mask, int value) { return emulated::ballot(mask, value != 0); }
inline int __any_sync(unsigned mask, int value) { return emulated::ballot(mask, value != 0) != 0; }
inline int __all_sync(unsigned mask, int value) { return emulated::ballot(mask, value == 0) == 0; }
inline void __threadfence() {}
inline unsigned __float_as_uint(float value) { return emulated::float_to_bits(value); }
inline float __uint_as_float(unsigned bits) { return emulated::bits_to_float(bits); }
inline int __float_as_int(float value) { return static_cast<int>(emulated::float_to_bits(value)); }
inline float __int_as_float(int bits) { return emulated::bits_to_float(static_cast<unsigned>(bits)); }
inline float rsqrtf(float x) { return static_cast<float>(1 / std::sqrt(static_cast<double>(x))); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned by) {
  const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
  unsigned bytes = 0;
  for (int i = 0; i < 4; i++) bytes |= static_cast<unsigned>(both >> 8 * (by >> 4 * i & 7) & 255) << 8 * i;
  return bytes;
}
inline unsigned __umulhi(unsigned x, unsigned y) { return static_cast<unsigned>(static_cast<uint64_t>(x) * y >> 32); }
template <typename T>
T __ldg(const T* address) { return *address; }
template <typename T>
T __ldcs(const T* address) { return *address; }
template <typename T>
void __stcs(T* address, T value) { *address = value; }
using std::max;
using std::min;
