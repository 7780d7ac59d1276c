// What the CPU's two ways through attention share (attention.cc, attention-bf16.cc): a head is taken out of qkv, its queries and keys normalised and
// turned while they are, and the gradient goes back the same way. So q, k, v and their gradients are never whole tensors.
#pragma once

#include "vector.h"

#include <cmath>

namespace dsd {

// Computed in T, stored in S.
template <typename T, typename S>
struct Attention {
  int64_t N, h, D;
  T eps;
  const S* qkv;  // (B, N, 3 h D)
  const T* norms[2];  // of queries and keys, (D) each
  const T *cosine, *sine;  // (N, D/2) each
  S* out;  // (B, N, h D); null in the gradient
  // Null in the forward: the gradient of `out`, then of qkv, and for each head those of the two norms, (B h, 2, D), which start at zero.
  const S* up;
  S* dqkv;
  T* dnorms;

  // A head is picture * h + its number there. Its tokens lie `in_row` apart in qkv, where `which` is 0, 1 or 2 for q, k and v, and `out_row` in `out`.
  int64_t in_row() const { return 3 * h * D; }
  int64_t out_row() const { return h * D; }
  int64_t in(int64_t head, int64_t which) const { return (head / h * N * 3 + which) * h * D + head % h * D; }
  int64_t out_at(int64_t head) const { return head / h * N * h * D + head % h * D; }
  T* dnorm(int64_t head, int64_t which) const { return dnorms + (head * 2 + which) * D; }
};

// Queries or keys of a head, normalised, each of their pairs (x[i], x[i + D/2]) turned by its token's angle: N rows, `pitch` apart in `to`.
// `half` is D/2; where it is a constant, the compiler knows what a row needs of loops and their ends.
template <typename T, typename S, typename O>
DSD_INLINE void turn_head(const Attention<T, S>& a, int64_t head, int64_t which, O* to, int64_t pitch, int64_t half) {
  const S* in = a.qkv + a.in(head, which);
  const T* weight = a.norms[which];
  for (int64_t token = 0; token < a.N; token++, in += a.in_row(), to += pitch) {
    const T *cosine = a.cosine + token * half, *sine = a.sine + token * half;
    T root = reciprocal_root<T>(in, 2 * half, a.eps);
    for (int64_t i = 0; i < half; i += lanes<T>) {
      int64_t left = half - i;
      Vector<T> x = load<T>(in + i, left) * root * load<T>(weight + i, left);
      Vector<T> y = load<T>(in + half + i, left) * root * load<T>(weight + half + i, left);
      Vector<T> cos = load<T>(cosine + i, left), sin = load<T>(sine + i, left);
      store<T>(to + i, x * cos - y * sin, left);
      store<T>(to + half + i, x * sin + y * cos, left);
    }
  }
}

// From the gradient g of turn_head's rows `first` to `last`, `pitch` apart, to that of qkv; the norm's is added to.
template <typename T, typename S>
DSD_INLINE void turn_gradient(const Attention<T, S>& a, int64_t head, int64_t which, const T* g, int64_t pitch, int64_t first, int64_t last, int64_t half) {
  const S* in = a.qkv + a.in(head, which) + first * a.in_row();
  S* to = a.dqkv + a.in(head, which) + first * a.in_row();
  const T* weight = a.norms[which];
  T* dweight = a.dnorm(head, which);
  for (int64_t token = first; token < last; token++, in += a.in_row(), to += a.in_row(), g += pitch) {
    const T *cosine = a.cosine + token * half, *sine = a.sine + token * half;
    T root = reciprocal_root<T>(in, 2 * half, a.eps);
    Vector<T> along = {};
    T mean = 0;
    for (int pass = 0; pass < 2; pass++) {  // first the sums, then, with their mean, the gradient
      for (int64_t i = 0; i < half; i += lanes<T>) {
        int64_t left = half - i, j = half + i;
        Vector<T> gx = load<T>(g + i, left), gy = load<T>(g + j, left), cos = load<T>(cosine + i, left), sin = load<T>(sine + i, left);
        Vector<T> x = load<T>(in + i, left) * root, y = load<T>(in + j, left) * root;
        Vector<T> dx = gx * cos + gy * sin, dy = gy * cos - gx * sin;
        Vector<T> nx = dx * load<T>(weight + i, left), ny = dy * load<T>(weight + j, left);
        if (pass == 0) {
          store<T>(dweight + i, load<T>(dweight + i, left) + dx * x, left);
          store<T>(dweight + j, load<T>(dweight + j, left) + dy * y, left);
          along += nx * x + ny * y;
        } else {
          store<T>(to + i, (nx - x * mean) * root, left);
          store<T>(to + j, (ny - y * mean) * root, left);
        }
      }
      if (pass == 0) mean = total<T>(along) / T(2 * half);
    }
  }
}

// attention-bf16.cc
int64_t bf16_memory(int64_t N, int64_t D, bool gradient);  // numbers of 32 bits that a thread needs, all zero at the start
void attend_bf16(const Attention<float, c10::BFloat16>& a, int64_t begin, int64_t end, uint32_t* memory);
void attend_gradient_bf16(const Attention<float, c10::BFloat16>& a, int64_t begin, int64_t end, uint32_t* memory);

}  // namespace dsd
