// bfloat16 in the texts of kernels.

#pragma once

typedef unsigned int u32;
typedef unsigned short bf16;

// Two numbers rounded: to nearest, halves to even; NaN stays one.
#ifdef DSD_EMULATED
static u32 pack(float low, float high) { return emulated::bf16x2(high, low); }
#elif __CUDA_ARCH__ >= 800
static __device__ __forceinline__ u32 pack(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
static __device__ __forceinline__ u32 rounded(float x) {
  const u32 bits = __float_as_uint(x);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
static __device__ __forceinline__ u32 pack(float low, float high) { return rounded(high) << 16 | rounded(low); }
#endif
