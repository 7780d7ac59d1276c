// dsd::qkv_attention on the CPU: all of attention between its two linear layers, head by head, so that nothing but its input and its result is ever whole in
// memory. Nothing but its input is kept for the gradient either: making the probabilities again costs less than writing and reading them.
// Here for any processor and type; attention-bf16.cc has what a processor that multiplies bfloat16 takes instead.
#include "attention.h"

#include "bf16.h"
#include "rows.h"

#include <ATen/ops/sum.h>

#include <cmath>
#include <limits>

namespace dsd {
namespace {

// In place: n rows of m scores become rows of softmax(scale * scores).
template <typename T>
DSD_INLINE void softmax_rows(T* scores, int64_t n, int64_t m, T scale) {
  const T nothing = -std::numeric_limits<T>::infinity();
  for (T* row = scores; row < scores + n * m; row += m) {
    Vector<T> most = Vector<T>{} + nothing, sums = {};
    for (int64_t i = 0; i < m; i += lanes<T>) {
      Vector<T> x = load<T>(row + i, m - i, nothing);
      most = x > most ? x : most;
    }
    T top = largest<T>(most);
    for (int64_t i = 0; i < m; i += lanes<T>) {
      Vector<T> e = exponential((load<T>(row + i, m - i, nothing) - top) * scale);
      store<T>(row + i, e, m - i);
      sums += e;
    }
    T inverse = T(1) / total<T>(sums);
    for (int64_t i = 0; i < m; i += lanes<T>) store<T>(row + i, load<T>(row + i, m - i) * inverse, m - i);
  }
}

// In place: n rows of gradients with regard to p become those with regard to the scores.
template <typename T>
DSD_INLINE void softmax_gradient(const T* p, T* g, int64_t n, int64_t m, T scale) {
  for (int64_t at = 0; at < n * m; at += m) {
    Vector<T> along = {};
    for (int64_t i = 0; i < m; i += lanes<T>) along += load<T>(p + at + i, m - i) * load<T>(g + at + i, m - i);
    T sum = total<T>(along);
    for (int64_t i = 0; i < m; i += lanes<T>) {
      store<T>(g + at + i, load<T>(p + at + i, m - i) * (load<T>(g + at + i, m - i) - sum) * scale, m - i);
    }
  }
}

// C = A B for small matrices, row by row in memory: A (M, K) of any strides, B (K, n) and C (M, n) with rows `b_row` and `c_row` apart. A
// batch of them by the BLAS would be a call each, and by the library a pass over memory for every product.
template <typename T>
struct Product {
  const T* a;
  int64_t a_row, a_column;
  const T* b;
  int64_t b_row;
  T* c;
  int64_t c_row, M, n, K;
};

// R rows and C vectors of columns, of which the last may go beyond the row's end if `left` says so.
template <typename T, int R, int C>
DSD_INLINE void product_tile(const Product<T>& p, int64_t i, int64_t j, int64_t left) {
  Vector<T> sums[R][C] = {};
  for (int64_t k = 0; k < p.K; k++) {
    Vector<T> b[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) b[c] = load<T>(p.b + k * p.b_row + j + c * lanes<T>, left - c * lanes<T>);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      T a = p.a[(i + r) * p.a_row + k * p.a_column];
#pragma GCC unroll 4
      for (int c = 0; c < C; c++) sums[r][c] += b[c] * a;
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
#pragma GCC unroll 4
    for (int c = 0; c < C; c++) store<T>(p.c + (i + r) * p.c_row + j + c * lanes<T>, sums[r][c], left - c * lanes<T>);
  }
}

template <typename T, int C>
DSD_INLINE void product_columns(const Product<T>& p, int64_t j, int64_t left) {
  int64_t i = 0;
  for (; i + 4 <= p.M; i += 4) product_tile<T, 4, C>(p, i, j, left);
  for (; i < p.M; i++) product_tile<T, 1, C>(p, i, j, left);
}

template <typename T>
DSD_VECTOR void multiply(const Product<T>& p) {
  int64_t j = 0;
  for (; j + 2 * lanes<T> <= p.n; j += 2 * lanes<T>) product_columns<T, 2>(p, j, 2 * lanes<T>);
  for (; j < p.n; j += lanes<T>) product_columns<T, 1>(p, j, p.n - j);
}

template <typename T>
DSD_INLINE void transpose(const T* from, T* to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j++) to[j * rows + i] = from[i * columns + j];
  }
}

// Rows of stored values to compute with, and back.
template <typename T, typename S>
DSD_INLINE void take_rows(const S* from, int64_t stride, T* to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j += lanes<T>) store<T>(to + i * columns + j, load<T>(from + i * stride + j, columns - j), columns - j);
  }
}
template <typename T, typename S>
DSD_INLINE void put_rows(const T* from, S* to, int64_t stride, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < columns; j += lanes<T>) store<T>(to + i * stride + j, load<T>(from + i * columns + j, columns - j), columns - j);
  }
}

template <typename T, typename S>
DSD_VECTOR void attend(const Attention<T, S>& a, int64_t begin, int64_t end, T* memory) {
  const int64_t N = a.N, D = a.D, size = N * D;
  const T scale = 1 / std::sqrt(T(D));
  T *one = memory, *other = one + size, *result = other + size, *scores = result + size;
  for (int64_t head = begin; head < end; head++) {
    turn_head(a, head, 1, one, D, D / 2);
    transpose(one, other, N, D);
    turn_head(a, head, 0, one, D, D / 2);
    multiply<T>({one, D, 1, other, N, scores, N, N, N, D});
    softmax_rows<T>(scores, N, N, scale);
    take_rows(a.qkv + a.in(head, 2), a.in_row(), one, N, D);
    multiply<T>({scores, N, 1, one, D, result, D, N, D, N});
    put_rows(result, a.out + a.out_at(head), a.out_row(), N, D);
  }
}

template <typename T, typename S>
DSD_VECTOR void attend_gradient(const Attention<T, S>& a, int64_t begin, int64_t end, T* memory) {
  const int64_t N = a.N, D = a.D, size = N * D;
  const T scale = 1 / std::sqrt(T(D));
  T *queries = memory, *keys = queries + size, *up = keys + size, *one = up + size, *other = one + size, *weights = other + size, *scores = weights + N * N;
  for (int64_t head = begin; head < end; head++) {
    turn_head(a, head, 0, queries, D, D / 2);
    turn_head(a, head, 1, keys, D, D / 2);
    transpose(keys, other, N, D);
    multiply<T>({queries, D, 1, other, N, weights, N, N, N, D});
    softmax_rows<T>(weights, N, N, scale);
    take_rows(a.up + a.out_at(head), a.out_row(), up, N, D);
    take_rows(a.qkv + a.in(head, 2), a.in_row(), one, N, D);
    transpose(one, other, N, D);
    multiply<T>({up, D, 1, other, N, scores, N, N, N, D});
    softmax_gradient<T>(weights, scores, N, N, scale);
    multiply<T>({weights, 1, N, up, D, one, D, N, D, N});
    put_rows(one, a.dqkv + a.in(head, 2), a.in_row(), N, D);
    multiply<T>({scores, N, 1, keys, D, one, D, N, D, N});
    turn_gradient(a, head, 0, one, D, 0, N, D / 2);
    multiply<T>({scores, 1, N, queries, D, one, D, N, D, N});
    turn_gradient(a, head, 1, one, D, 0, N, D / 2);
  }
}

// Heads begin to end by what suits types and processor.
template <typename T, typename S>
void attend_some(const Attention<T, S>& a, int64_t begin, int64_t end) {
  const bool gradient = a.dqkv != nullptr;
#ifdef DSD_BF16
  if constexpr (std::is_same_v<S, c10::BFloat16>) {
    if (has_bf16_products()) {
      auto memory = at::zeros({bf16_memory(a.N, a.D, gradient)}, at::kInt);
      return (gradient ? attend_gradient_bf16 : attend_bf16)(a, begin, end, data<uint32_t>(memory));
    }
  }
#endif
  auto memory = at::empty({gradient ? 5 * a.N * a.D + 2 * a.N * a.N : 3 * a.N * a.D + a.N * a.N}, c10::CppTypeToScalarType<T>::value);
  (gradient ? attend_gradient<T, S> : attend<T, S>)(a, begin, end, data<T>(memory));
}

// qkv, the weights of both norms, cosine and sine, all contiguous; `out` for the forward, the last three for the gradient.
void attend_all(const variable_list& in, int64_t heads, double eps, const at::Tensor& out, const at::Tensor& up, const at::Tensor& dqkv, const at::Tensor& dnorms) {
  const auto& qkv = in[0];
  by_type("qkv_attention", in[1].scalar_type(), qkv.scalar_type(), [&](auto wide, auto narrow) {
    using T = decltype(wide);
    using S = decltype(narrow);
    auto wide_of = [](const at::Tensor& tensor) { return tensor.defined() ? data<T>(tensor) : nullptr; };
    auto narrow_of = [](const at::Tensor& tensor) { return tensor.defined() ? data<S>(tensor) : nullptr; };
    Attention<T, S> a{qkv.size(1), heads, qkv.size(2) / (3 * heads), T(eps), data<S>(qkv), {data<T>(in[1]), data<T>(in[2])}, data<T>(in[3]), data<T>(in[4]),
                      narrow_of(out), narrow_of(up), narrow_of(dqkv), wide_of(dnorms)};
    for_rows(qkv.size(0) * heads, a.N * a.D, [&](int64_t begin, int64_t end) { attend_some(a, begin, end); });
  });
}

struct CpuAttention : torch::autograd::Function<CpuAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm,
                            const at::Tensor& cosine, const at::Tensor& sine, double eps) {
    variable_list in = {qkv.contiguous(), q_norm.contiguous(), k_norm.contiguous(), cosine.contiguous(), sine.contiguous()};
    auto out = at::empty({qkv.size(0), qkv.size(1), qkv.size(2) / 3}, qkv.options());
    attend_all(in, heads, eps, out, {}, {}, {});
    ctx->save_for_backward(in);
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["eps"] = eps;
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("qkv_attention");
    auto in = ctx->get_saved_variables();
    int64_t heads = ctx->saved_data["heads"].toInt();
    auto dqkv = at::empty_like(in[0]);
    // Of each head by itself: so the sum's order does not depend on the number of threads.
    auto dnorms = at::zeros({in[0].size(0) * heads, 2, in[1].size(0)}, in[1].options());
    attend_all(in, heads, ctx->saved_data["eps"].toDouble(), {}, gradients[0].contiguous(), dqkv, dnorms);
    auto sums = at::sum(dnorms, 0);
    return {dqkv, at::Tensor(), sums.select(0, 0), sums.select(0, 1), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

void check_qkv_attention(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cosine,
                         const at::Tensor& sine) {
  TORCH_CHECK(qkv.dim() == 3 && heads > 0 && qkv.size(2) > 0 && qkv.size(2) % (6 * heads) == 0,
              "qkv_attention: qkv must be (B, N, 3 h D) with h = ", heads, " and D even, found ", qkv.sizes());
  int64_t N = qkv.size(1), D = qkv.size(2) / (3 * heads);
  for (const auto* norm : {&q_norm, &k_norm}) TORCH_CHECK(norm->dim() == 1 && norm->size(0) == D, "qkv_attention: norms must be (", D, "), found ", norm->sizes());
  for (const auto* turn : {&cosine, &sine}) {
    TORCH_CHECK(turn->dim() == 2 && turn->size(0) == N && turn->size(1) == D / 2, "qkv_attention: cos and sin must be (", N, ", ", D / 2, "), found ", turn->sizes());
  }
  auto wide = wide_of(qkv.scalar_type());
  for (const auto* given : {&q_norm, &k_norm, &cosine, &sine}) {
    TORCH_CHECK(given->scalar_type() == wide && given->device() == qkv.device(), "qkv_attention: norms, cos and sin must be ", wide, " on ", qkv.device(),
                ", found ", given->scalar_type(), " on ", given->device());
  }
}

at::Tensor qkv_attention_cpu(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cosine,
                             const at::Tensor& sine, double eps) {
  check_qkv_attention(qkv, heads, q_norm, k_norm, cosine, sine);
  return CpuAttention::apply(qkv, heads, q_norm, k_norm, cosine, sine, eps);
}

}  // namespace dsd
