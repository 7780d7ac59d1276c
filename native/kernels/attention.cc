// What attention does beside its matrix products, each in one pass over memory: dsd::split_heads (RMSNorm of queries and keys, rotary positions, and
// the order of dimensions that the products want) and dsd::attention (softmax between two products). See block.cc.
#include "rows.h"

#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

namespace dsd {
namespace {

// --- split_heads: (B, N, 3 h D) -> q, k, v, (B, h, N, D) each

struct Heads {
  int64_t B, N, h, D;
  // Of q, k or v (`which`): where a head of a token begins, before and after.
  int64_t before(int64_t token, int64_t which, int64_t head) const { return ((token * 3 + which) * h + head) * D; }
  int64_t after(int64_t token, int64_t head) const { return ((token / N * h + head) * N + token % N) * D; }
};

// Tokens begin to end of q or k: each pair (x[i], x[i + D/2]) of the normalised head is turned by its token's angle.
template <typename T, typename S>
DSD_VECTOR void turn_rows(const S* qkv, int64_t which, const T* weight, const T* cosine, const T* sine, S* out, int64_t begin, int64_t end, Heads s,
                          T eps) {
  int64_t half = s.D / 2;
  for (int64_t token = begin; token < end; token++) {
    const T *c = cosine + token % s.N * half, *n = sine + token % s.N * half;
    for (int64_t head = 0; head < s.h; head++) {
      const S* in = qkv + s.before(token, which, head);
      S* to = out + s.after(token, head);
      T root = reciprocal_root<T>(in, s.D, eps);
      for (int64_t i = 0; i < half; i += lanes<T>) {
        int64_t left = half - i;
        Vector<T> a = load<T>(in + i, left) * root * load<T>(weight + i, left);
        Vector<T> b = load<T>(in + half + i, left) * root * load<T>(weight + half + i, left);
        Vector<T> cos = load<T>(c + i, left), sin = load<T>(n + i, left);
        store<T>(to + i, a * cos - b * sin, left);
        store<T>(to + half + i, a * sin + b * cos, left);
      }
    }
  }
}

// Pictures begin to end; dweight (B, D) starts at zero.
template <typename T, typename S>
DSD_VECTOR void turn_gradient(const S* qkv, int64_t which, const T* weight, const T* cosine, const T* sine, const S* g, S* dqkv, T* dweight,
                              int64_t begin, int64_t end, Heads s, T eps) {
  int64_t half = s.D / 2;
  for (int64_t token = begin * s.N; token < end * s.N; token++) {
    const T *c = cosine + token % s.N * half, *n = sine + token % s.N * half;
    T* sums = dweight + token / s.N * s.D;
    for (int64_t head = 0; head < s.h; head++) {
      const S *in = qkv + s.before(token, which, head), *up = g + s.after(token, head);
      S* to = dqkv + s.before(token, which, head);
      T root = reciprocal_root<T>(in, s.D, eps);
      Vector<T> along = {};
      T mean = 0;
      for (int pass = 0; pass < 2; pass++) {  // first the sums, then, with their mean, the gradient
        for (int64_t i = 0; i < half; i += lanes<T>) {
          int64_t left = half - i, j = half + i;
          Vector<T> ga = load<T>(up + i, left), gb = load<T>(up + j, left), cos = load<T>(c + i, left), sin = load<T>(n + i, left);
          Vector<T> a = load<T>(in + i, left) * root, b = load<T>(in + j, left) * root;
          Vector<T> da = ga * cos + gb * sin, db = gb * cos - ga * sin;
          Vector<T> na = da * load<T>(weight + i, left), nb = db * load<T>(weight + j, left);
          if (pass == 0) {
            store<T>(sums + i, load<T>(sums + i, left) + da * a, left);
            store<T>(sums + j, load<T>(sums + j, left) + db * b, left);
            along += na * a + nb * b;
          } else {
            store<T>(to + i, (na - a * mean) * root, left);
            store<T>(to + j, (nb - b * mean) * root, left);
          }
        }
        if (pass == 0) mean = total<T>(along) / T(s.D);
      }
    }
  }
}

template <typename S>
void copy_heads(const S* from, S* to, int64_t begin, int64_t end, Heads s, bool back) {
  for (int64_t token = begin; token < end; token++) {
    for (int64_t head = 0; head < s.h; head++) {
      int64_t joined = s.before(token, 2, head), split = s.after(token, head);
      std::memcpy(to + (back ? joined : split), from + (back ? split : joined), s.D * sizeof(S));
    }
  }
}

Heads heads_of(const at::Tensor& qkv, int64_t heads) { return {qkv.size(0), qkv.size(1), heads, qkv.size(2) / (3 * heads)}; }

struct SplitHeads : torch::autograd::Function<SplitHeads> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& given, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm,
                               const at::Tensor& cosine, const at::Tensor& sine, double eps) {
    auto qkv = given.contiguous();
    Heads s = heads_of(qkv, heads);
    ctx->save_for_backward({qkv, q_norm, k_norm, cosine, sine});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["eps"] = eps;
    variable_list out;
    for (int which = 0; which < 3; which++) out.push_back(at::empty({s.B, s.h, s.N, s.D}, qkv.options()));
    by_type("split_heads", cosine.scalar_type(), qkv.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(s.B * s.N, 3 * s.h * s.D, [&](int64_t begin, int64_t end) {
        for (int which = 0; which < 2; which++) {
          turn_rows<T, S>(data<S>(qkv), which, data<T>(which == 0 ? q_norm : k_norm), data<T>(cosine), data<T>(sine), data<S>(out[which]), begin, end,
                          s, T(eps));
        }
        copy_heads<S>(data<S>(qkv), data<S>(out[2]), begin, end, s, false);
      });
    });
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("split_heads");
    auto saved = ctx->get_saved_variables();
    auto qkv = saved[0], cosine = saved[3], sine = saved[4];
    double eps = ctx->saved_data["eps"].toDouble();
    Heads s = heads_of(qkv, ctx->saved_data["heads"].toInt());
    auto dqkv = at::empty_like(qkv);
    std::vector<at::Tensor> dnorm;
    for (auto& g : gradients) g = g.contiguous();
    for (int which = 0; which < 2; which++) dnorm.push_back(at::zeros({s.B, s.D}, cosine.options()));
    by_type("split_heads", cosine.scalar_type(), qkv.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(s.B, s.N * 3 * s.h * s.D, [&](int64_t begin, int64_t end) {
        for (int which = 0; which < 2; which++) {
          turn_gradient<T, S>(data<S>(qkv), which, data<T>(saved[1 + which]), data<T>(cosine), data<T>(sine), data<S>(gradients[which]), data<S>(dqkv),
                              data<T>(dnorm[which]), begin, end, s, T(eps));
        }
        copy_heads<S>(data<S>(gradients[2]), data<S>(dqkv), begin * s.N, end * s.N, s, true);
      });
    });
    return {dqkv, at::Tensor(), dnorm[0].sum(0), dnorm[1].sum(0), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor, at::Tensor> split_heads(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm,
                                                           const at::Tensor& cosine, const at::Tensor& sine, double eps) {
  TORCH_CHECK(qkv.dim() == 3 && heads > 0 && qkv.size(2) > 0 && qkv.size(2) % (6 * heads) == 0,
              "split_heads: qkv must be (B, N, 3 h D) with h = ", heads, " and D even, found ", qkv.sizes());
  int64_t N = qkv.size(1), D = qkv.size(2) / (3 * heads);
  for (const auto* norm : {&q_norm, &k_norm}) TORCH_CHECK(norm->dim() == 1 && norm->size(0) == D, "split_heads: norms must be (", D, "), found ", norm->sizes());
  for (const auto* turn : {&cosine, &sine}) {
    TORCH_CHECK(turn->dim() == 2 && turn->size(0) == N && turn->size(1) == D / 2, "split_heads: cos and sin must be (", N, ", ", D / 2, "), found ", turn->sizes());
  }
  for (const auto* wide : {&q_norm, &k_norm, &sine}) {
    TORCH_CHECK(wide->scalar_type() == cosine.scalar_type(), "split_heads: norms, cos and sin must be of one dtype");
  }
  for (const auto* given : {&qkv, &q_norm, &k_norm, &cosine, &sine}) TORCH_CHECK(given->is_cpu(), "split_heads: runs on the CPU, found a tensor on ", given->device());
  auto out = SplitHeads::apply(qkv, heads, q_norm.contiguous(), k_norm.contiguous(), cosine.contiguous(), sine.contiguous(), eps);
  return {out[0], out[1], out[2]};
}

// --- attention: softmax(q k^T / sqrt(D)) v, its heads side by side: (B, h, N, D) -> (B, N, h D)

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
DSD_INLINE void multiply(const Product<T>& p) {
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

// A head of a picture: where it begins among (B, h, N, D), where its first token lies among (B, N, h D), and its weights among (B h, N, N).
struct HeadShape {
  int64_t h, N, D;
  int64_t split(int64_t head) const { return head * N * D; }
  int64_t joined(int64_t head) const { return (head / h * N * h + head % h) * D; }
  int64_t weights(int64_t head) const { return head * N * N; }
};

template <typename T, typename S>
DSD_VECTOR void attend(const S* q, const S* k, const S* v, S* p, S* out, int64_t begin, int64_t end, HeadShape s, T scale) {
  const int64_t N = s.N, D = s.D, size = N * D;
  std::vector<T> memory(3 * size + N * N);
  T *one = memory.data(), *other = one + size, *result = other + size, *scores = result + size;
  for (int64_t head = begin; head < end; head++) {
    take_rows(k + s.split(head), D, one, N, D);
    transpose(one, other, N, D);
    take_rows(q + s.split(head), D, one, N, D);
    multiply<T>({one, D, 1, other, N, scores, N, N, N, D});
    softmax_rows<T>(scores, N, N, scale);
    put_rows(scores, p + s.weights(head), N, N, N);
    take_rows(v + s.split(head), D, one, N, D);
    multiply<T>({scores, N, 1, one, D, result, D, N, D, N});
    put_rows(result, out + s.joined(head), s.h * D, N, D);
  }
}

template <typename T, typename S>
DSD_VECTOR void attend_gradient(const S* q, const S* k, const S* v, const S* p, const S* g, S* dq, S* dk, S* dv, int64_t begin, int64_t end,
                                HeadShape s, T scale) {
  const int64_t N = s.N, D = s.D, size = N * D;
  std::vector<T> memory(4 * size + 2 * N * N);
  T *one = memory.data(), *other = one + size, *up = other + size, *result = up + size, *weights = result + size, *scores = weights + N * N;
  for (int64_t head = begin; head < end; head++) {
    int64_t at = s.split(head);
    take_rows(p + s.weights(head), N, weights, N, N);
    take_rows(g + s.joined(head), s.h * D, up, N, D);
    multiply<T>({weights, 1, N, up, D, result, D, N, D, N});
    put_rows(result, dv + at, D, N, D);
    take_rows(v + at, D, one, N, D);
    transpose(one, other, N, D);
    multiply<T>({up, D, 1, other, N, scores, N, N, N, D});
    softmax_gradient<T>(weights, scores, N, N, scale);
    take_rows(k + at, D, one, N, D);
    multiply<T>({scores, N, 1, one, D, result, D, N, D, N});
    put_rows(result, dq + at, D, N, D);
    take_rows(q + at, D, one, N, D);
    multiply<T>({scores, 1, N, one, D, result, D, N, D, N});
    put_rows(result, dk + at, D, N, D);
  }
}

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given_q, const at::Tensor& given_k, const at::Tensor& given_v) {
    auto q = given_q.contiguous(), k = given_k.contiguous(), v = given_v.contiguous();
    int64_t B = q.size(0), h = q.size(1), N = q.size(2), D = q.size(3);
    auto p = at::empty({B * h, N, N}, q.options()), out = at::empty({B, N, h * D}, q.options());
    by_type("attention", wide_of(q.scalar_type()), q.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      T scale = T(1 / std::sqrt(static_cast<double>(D)));
      for_rows(B * h, N * D, [&](int64_t begin, int64_t end) {
        attend<T, S>(data<S>(q), data<S>(k), data<S>(v), data<S>(p), data<S>(out), begin, end, {h, N, D}, scale);
      });
    });
    ctx->save_for_backward({q, k, v, p});
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("attention");
    auto saved = ctx->get_saved_variables();
    auto q = saved[0], k = saved[1], v = saved[2], p = saved[3], g = gradients[0].contiguous();
    int64_t B = q.size(0), h = q.size(1), N = q.size(2), D = q.size(3);
    auto dq = at::empty_like(q), dk = at::empty_like(k), dv = at::empty_like(v);
    by_type("attention", wide_of(q.scalar_type()), q.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      T scale = T(1 / std::sqrt(static_cast<double>(D)));
      for_rows(B * h, N * D, [&](int64_t begin, int64_t end) {
        attend_gradient<T, S>(data<S>(q), data<S>(k), data<S>(v), data<S>(p), data<S>(g), data<S>(dq), data<S>(dk), data<S>(dv), begin, end, {h, N, D},
                              scale);
      });
    });
    return {dq, dk, dv};
  }
};

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  TORCH_CHECK(q.dim() == 4 && q.sizes() == k.sizes() && q.sizes() == v.sizes(), "attention: q, k and v must be (B, h, N, D) alike, found ", q.sizes(),
              ", ", k.sizes(), " and ", v.sizes());
  TORCH_CHECK(q.scalar_type() == k.scalar_type() && q.scalar_type() == v.scalar_type(), "attention: q, k and v must be of one dtype, found ",
              q.scalar_type(), ", ", k.scalar_type(), " and ", v.scalar_type());
  for (const auto* given : {&q, &k, &v}) TORCH_CHECK(given->is_cpu(), "attention: runs on the CPU, found a tensor on ", given->device());
  return Attention::apply(q, k, v);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("split_heads(Tensor qkv, int heads, Tensor q_norm, Tensor k_norm, Tensor cos, Tensor sin, float eps) -> (Tensor, Tensor, Tensor)",
              &split_heads);
  library.def("attention(Tensor q, Tensor k, Tensor v) -> Tensor", &attention);
}

}  // namespace dsd
