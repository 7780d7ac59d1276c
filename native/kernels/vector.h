// Sixteen float32 or eight float64 side by side, in the compiler's own vector types: it makes of them what each width of register wants.
// Stored values may be bfloat16; arithmetic never is. Files of bf16.h define DSD_BF16_PROCESSOR and get what such a processor has instructions for.
#pragma once

#include <c10/util/BFloat16.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#define DSD_INLINE __attribute__((always_inline)) inline

namespace dsd {

template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(64)));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(64)));
};
template <typename T>
using Vector = typename VectorOf<T>::type;
template <typename T>
constexpr int64_t lanes = 64 / sizeof(T);

typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t HalfBits __attribute__((vector_size(32)));

template <typename To, typename From>
DSD_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "of one size");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// A whole vector from memory, and into it.
DSD_INLINE Vector<float> load_all(const float* from) {
  Vector<float> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
DSD_INLINE Vector<double> load_all(const double* from) {
  Vector<double> x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
DSD_INLINE Vector<float> load_all(const c10::BFloat16* from) {
  HalfBits half;
  std::memcpy(&half, from, sizeof(half));
#ifdef DSD_BF16_PROCESSOR
  return bit_cast<Vector<float>>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bit_cast<__m256i>(half)), 16));
#else
  return bit_cast<Vector<float>>(__builtin_convertvector(half, Bits) << 16);
#endif
}
DSD_INLINE void store_all(float* to, Vector<float> x) { std::memcpy(to, &x, sizeof(x)); }
DSD_INLINE void store_all(double* to, Vector<double> x) { std::memcpy(to, &x, sizeof(x)); }
DSD_INLINE void store_all(c10::BFloat16* to, Vector<float> x) {
#ifdef DSD_BF16_PROCESSOR
  HalfBits half = bit_cast<HalfBits>(_mm512_cvtneps_pbh(bit_cast<__m512>(x)));
#else
  Bits bits = bit_cast<Bits>(x);
  Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, halves to even
  Bits is_nan = bit_cast<Bits>(x != x);
  HalfBits half = __builtin_convertvector((rounded & ~is_nan) | (0x7fc0 & is_nan), HalfBits);
#endif
  std::memcpy(to, &half, sizeof(half));
}

// The next vector of a row of which `left` elements remain; past its end it is filled up, with zeros unless told otherwise, and nothing written.
template <typename T, typename S>
DSD_INLINE Vector<T> load(const S* from, int64_t left, S fill = S(0)) {
  if (left >= lanes<T>) return load_all(from);
  S part[lanes<T>];
  for (S& each : part) each = fill;
  std::memcpy(part, from, left * sizeof(S));
  return load_all(part);
}
template <typename T, typename S>
DSD_INLINE void store(S* to, Vector<T> x, int64_t left) {
  if (left >= lanes<T>) return store_all(to, x);
  S part[lanes<T>];
  store_all(part, x);
  std::memcpy(to, part, left * sizeof(S));
}

// All lanes folded into one, always in the same order: halves onto each other, down to single numbers. Each half is a type of its own, so that it is a
// register; a loop over an array would be one through memory.
template <typename T, int64_t count>
struct Part {
  typedef T type __attribute__((vector_size(count * sizeof(T))));
};
template <typename T, int64_t count, typename Fold>
DSD_INLINE T folded(typename Part<T, count>::type x, Fold fold) {
  if constexpr (count == 2) {
    return fold(x[0], x[1]);
  } else {
    typename Part<T, count / 2>::type halves[2];
    std::memcpy(halves, &x, sizeof(x));
    return folded<T, count / 2>(fold(halves[0], halves[1]), fold);
  }
}
struct Sum {
  template <typename X>
  DSD_INLINE X operator()(X a, X b) const {
    return a + b;
  }
};
struct Larger {
  template <typename X>
  DSD_INLINE X operator()(X a, X b) const {
    return a > b ? a : b;
  }
};
template <typename T>
DSD_INLINE T total(Vector<T> x) {
  return folded<T, lanes<T>>(x, Sum());
}
template <typename T>
DSD_INLINE T largest(Vector<T> x) {
  return folded<T, lanes<T>>(x, Larger());
}

// 1 / sqrt(mean(x^2) + eps) of a row.
template <typename T, typename S>
DSD_INLINE T reciprocal_root(const S* x, int64_t d, T eps) {
  Vector<T> squares = {};
  for (int64_t i = 0; i < d; i += lanes<T>) {
    Vector<T> v = load<T>(x + i, d - i);
    squares += v * v;
  }
  return T(1) / std::sqrt(total<T>(squares) / T(d) + eps);
}

#ifdef DSD_BF16_PROCESSOR
// As precise as what is stored in bfloat16 can show: to 3e-6, by a polynomial between -1/2 and 1/2, and to 6e-5.
DSD_INLINE Vector<float> power_of_two(Vector<float> x) {
  Vector<float> whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), part = x - whole;
  Vector<float> sum = part * 0.00958285294f + 0.0559064262f;
  sum = sum * part + 0.240240991f;
  sum = sum * part + 0.693124175f;
  sum = sum * part + 1.0f;
  return _mm512_scalef_ps(sum, whole);
}
DSD_INLINE Vector<float> exponential(Vector<float> x) { return power_of_two(x * 1.44269504f); }
DSD_INLINE Vector<float> reciprocal(Vector<float> x) { return _mm512_rcp14_ps(x); }
#else
// e^x to a rounding or two: x = n ln 2 + r, e^r by its series, 2^n by the exponent's bits.
DSD_INLINE Vector<float> exponential(Vector<float> x) {
  const Vector<float> least = Vector<float>{} - 87.3f, most = Vector<float>{} + 88.0f;
  x = x < least ? least : x;
  x = x > most ? most : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, which then lies in the low bits
  Vector<float> shifted = x * 1.44269504f + magic;
  Vector<float> n = shifted - magic;
  Vector<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts, the first of few bits
  Vector<float> sum = r * (1.0f / 5040) + 1.0f / 720;
  sum = sum * r + 1.0f / 120;
  sum = sum * r + 1.0f / 24;
  sum = sum * r + 1.0f / 6;
  sum = sum * r + 0.5f;
  sum = sum * r + 1.0f;
  sum = sum * r + 1.0f;
  return sum * bit_cast<Vector<float>>((bit_cast<Bits>(shifted) << 23) + (127u << 23));
}
DSD_INLINE Vector<float> reciprocal(Vector<float> x) { return 1.0f / x; }
#endif
DSD_INLINE Vector<double> exponential(Vector<double> x) {
  for (int64_t i = 0; i < lanes<double>; i++) x[i] = std::exp(x[i]);
  return x;
}
DSD_INLINE Vector<double> reciprocal(Vector<double> x) { return 1.0 / x; }

}  // namespace dsd
