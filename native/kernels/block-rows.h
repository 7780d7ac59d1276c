// The element-wise parts of a block, row by row, on the CPU: what block.cc and block-bf16.cc compile, each for its processors. Rows are called with
// begin and end: tokens, or in gradients with sums over a picture's tokens, pictures.
#pragma once

#include "vector.h"

#include <cmath>

namespace dsd {

// A vector a picture: (B, d), rows `stride` apart.
template <typename T>
struct PerPicture {
  const T* first;
  int64_t stride;
  const T* of(int64_t picture) const { return first + picture * stride; }
};

// x1 = x + (1 + gate) y, or x where there is no branch; n = x1 / sqrt(mean(x1^2) + eps) * (1 + scale) + shift, or without the last two.
template <typename T, typename S, typename O>
struct AddNormRows {
  using Stored = S;
  const T* x;
  PerPicture<T> gate;
  const S* y;  // null: no branch, and x1 is x
  PerPicture<T> shift, scale;  // null: no modulation
  T* x1;
  O* n;
  int64_t N, d;
  T eps;

  DSD_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; row++) {
      T root = T(1) / std::sqrt(total<T>(added(row)) / T(d) + eps);
      const T* from = (y ? x1 : x) + row * d;
      O* to = n + row * d;
      if (!scale.first) {
        for (int64_t i = 0; i < d; i += lanes<T>) store<T>(to + i, load<T>(from + i, d - i) * root, d - i);
        continue;
      }
      const T *shifts = shift.of(row / N), *scales = scale.of(row / N);
      for (int64_t i = 0; i < d; i += lanes<T>) {
        int64_t left = d - i;
        store<T>(to + i, load<T>(from + i, left) * root * (load<T>(scales + i, left) + T(1)) + load<T>(shifts + i, left), left);
      }
    }
  }

  // Writes a row of x1; the squares of its numbers, added up lane by lane.
  DSD_INLINE Vector<T> added(int64_t row) const {
    Vector<T> squares = {};
    if (!y) {
      for (int64_t i = 0; i < d; i += lanes<T>) {
        Vector<T> v = load<T>(x + row * d + i, d - i);
        squares += v * v;
      }
      return squares;
    }
    const T* gates = gate.of(row / N);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      Vector<T> v = load<T>(x + row * d + i, left) + (load<T>(gates + i, left) + T(1)) * load<T>(y + row * d + i, left);
      store<T>(x1 + row * d + i, v, left);
      squares += v * v;
    }
    return squares;
  }
};

// Its gradient; the sums over a picture's tokens start at zero.
template <typename T, typename S, typename O>
struct AddNormGradient {
  using Stored = S;
  const T* x1;
  PerPicture<T> gate;
  const S* y;
  PerPicture<T> scale;
  const T* dx1;  // null: nothing but the norm reads x1
  const O* dn;
  T *dx, *dgate;
  S* dy;
  T *dshift, *dscale;
  int64_t N, d;
  T eps;

  DSD_INLINE void operator()(int64_t begin, int64_t end) const {
    const Vector<T> one = Vector<T>{} + T(1);
    for (int64_t row = begin * N; row < end * N; row++) {
      const int64_t picture = row / N, at = row * d;
      const T* scales = scale.first ? scale.of(picture) : nullptr;
      T root = reciprocal_root<T>(x1 + at, d, eps);
      Vector<T> along = {};
      for (int64_t i = 0; i < d; i += lanes<T>) {
        int64_t left = d - i;
        Vector<T> up = load<T>(dn + at + i, left), normed = load<T>(x1 + at + i, left) * root;
        if (scales) {
          T *dshifts = dshift + picture * d + i, *dscales = dscale + picture * d + i;
          store<T>(dshifts, load<T>(dshifts, left) + up, left);
          store<T>(dscales, load<T>(dscales, left) + up * normed, left);
        }
        along += up * (scales ? load<T>(scales + i, left) + T(1) : one) * normed;
      }
      T mean = total<T>(along) / T(d);
      for (int64_t i = 0; i < d; i += lanes<T>) {
        int64_t left = d - i;
        Vector<T> up = load<T>(dn + at + i, left) * (scales ? load<T>(scales + i, left) + T(1) : one);
        Vector<T> g = (up - load<T>(x1 + at + i, left) * root * mean) * root;
        if (dx1) g += load<T>(dx1 + at + i, left);
        store<T>(dx + at + i, g, left);
        if (!y) continue;
        T* dgates = dgate + picture * d + i;
        store<T>(dgates, load<T>(dgates, left) + g * load<T>(y + at + i, left), left);
        store<T>(dy + at + i, (load<T>(gate.of(picture) + i, left) + T(1)) * g, left);
      }
    }
  }
};

// silu(u) w, where a row of h is u and w one after the other, F each.
template <typename T, typename S>
struct SwiGluRows {
  using Stored = S;
  const S* h;
  S* out;
  int64_t F;

  DSD_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; row++) {
      for (int64_t i = 0; i < F; i += lanes<T>) {
        Vector<T> u = load<T>(h + row * 2 * F + i, F - i), w = load<T>(h + row * 2 * F + F + i, F - i);
        store<T>(out + row * F + i, u * reciprocal(exponential(-u) + T(1)) * w, F - i);
      }
    }
  }
};

template <typename T, typename S>
struct SwiGluGradient {
  using Stored = S;
  const S *h, *g;
  S* dh;
  int64_t F;

  DSD_INLINE void operator()(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end; row++) {
      for (int64_t i = 0; i < F; i += lanes<T>) {
        int64_t at = row * 2 * F + i;
        Vector<T> u = load<T>(h + at, F - i), w = load<T>(h + at + F, F - i), up = load<T>(g + row * F + i, F - i);
        Vector<T> sigmoid = reciprocal(exponential(-u) + T(1));
        store<T>(dh + at, up * w * sigmoid * (u * (T(1) - sigmoid) + T(1)), F - i);
        store<T>(dh + at + F, up * u * sigmoid, F - i);
      }
    }
  }
};

// In block-bf16.cc: the same, for what is stored in bfloat16.
void run_bf16(const AddNormRows<float, c10::BFloat16, c10::BFloat16>& rows, int64_t begin, int64_t end);
void run_bf16(const AddNormRows<float, c10::BFloat16, float>& rows, int64_t begin, int64_t end);
void run_bf16(const AddNormGradient<float, c10::BFloat16, c10::BFloat16>& rows, int64_t begin, int64_t end);
void run_bf16(const AddNormGradient<float, c10::BFloat16, float>& rows, int64_t begin, int64_t end);
void run_bf16(const SwiGluRows<float, c10::BFloat16>& rows, int64_t begin, int64_t end);
void run_bf16(const SwiGluGradient<float, c10::BFloat16>& rows, int64_t begin, int64_t end);

}  // namespace dsd
