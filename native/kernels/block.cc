// The element-wise parts of a transformer block, each in one pass over memory: dsd::add_norm and swiglu (attention.cc has the rest). Here on the
// CPU, in block-cuda.cc on CUDA; src/torch/fused.ts has the same as compositions, for what neither takes and for the tests.
//
// `wide` is the type in which all is computed, float32 or float64, and on the CPU that of the residual stream; `narrow` that of the matrix products,
// which is the same or bfloat16. Sums over tokens and heads are made picture by picture, so that no result depends on the number of threads.
#include "block.h"
#include "rows.h"

#include <tuple>

namespace dsd {
namespace {

// A vector a picture: (B, d), rows `stride` apart.
template <typename T>
struct PerPicture {
  const T* first;
  int64_t stride;
  const T* of(int64_t picture) const { return first + picture * stride; }
};
template <typename T>
PerPicture<T> per_picture(const at::Tensor& tensor) {
  return tensor.defined() ? PerPicture<T>{data<T>(tensor), tensor.stride(0)} : PerPicture<T>{nullptr, 0};
}
void check_device(const char* name, const char* what, const at::Tensor& x, const at::Tensor& given) {
  TORCH_CHECK(given.device() == x.device(), name, ": ", what, " is on ", given.device(), ", x on ", x.device());
}
at::Tensor check_per_picture(const char* name, const char* what, const at::Tensor& x, const at::Tensor& given) {
  TORCH_CHECK(given.dim() == 2 && given.size(0) == x.size(0) && given.size(1) == x.size(2), name, ": ", what, " must be (",
              x.size(0), ", ", x.size(2), "), found ", given.sizes());
  TORCH_CHECK(given.scalar_type() == wide_of(x.scalar_type()), name, ": ", what, " is ", given.scalar_type(), ", expected ", wide_of(x.scalar_type()));
  check_device(name, what, x, given);
  return given.stride(1) == 1 ? given : given.contiguous();
}

// --- x1 = x + (1 + gate) y, or x where there is no branch; n = x1 / sqrt(mean(x1^2) + eps) * (1 + scale) + shift, or without the last two

template <typename T, typename S, typename O>
struct AddNormRows {
  const T* x;
  PerPicture<T> gate;
  const S* y;  // null: no branch, and x1 is x
  PerPicture<T> shift, scale;  // null: no modulation
  T* x1;
  O* n;
  int64_t N, d;
  T eps;
};

template <typename T, typename S, typename O>
DSD_VECTOR void add_norm_rows(const AddNormRows<T, S, O>& a, int64_t begin, int64_t end) {
  const int64_t d = a.d;
  for (int64_t row = begin; row < end; row++) {
    T* x1 = a.x1 + row * d;
    if (a.y) {
      const T *x = a.x + row * d, *gate = a.gate.of(row / a.N);
      const S* y = a.y + row * d;
      for (int64_t i = 0; i < d; i += lanes<T>) {
        int64_t left = d - i;
        store<T>(x1 + i, load<T>(x + i, left) + (load<T>(gate + i, left) + T(1)) * load<T>(y + i, left), left);
      }
    }
    T root = reciprocal_root<T>(x1, d, a.eps);
    O* n = a.n + row * d;
    if (!a.scale.first) {
      for (int64_t i = 0; i < d; i += lanes<T>) store<T>(n + i, load<T>(x1 + i, d - i) * root, d - i);
      continue;
    }
    const T *shift = a.shift.of(row / a.N), *scale = a.scale.of(row / a.N);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      store<T>(n + i, load<T>(x1 + i, left) * root * (load<T>(scale + i, left) + T(1)) + load<T>(shift + i, left), left);
    }
  }
}

template <typename T, typename S, typename O>
struct AddNormGradient {
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
};

// Pictures begin to end; the sums over a picture's tokens start at zero.
template <typename T, typename S, typename O>
DSD_VECTOR void add_norm_gradient(const AddNormGradient<T, S, O>& a, int64_t begin, int64_t end) {
  const int64_t d = a.d;
  const Vector<T> one = Vector<T>{} + T(1);
  for (int64_t row = begin * a.N; row < end * a.N; row++) {
    const int64_t picture = row / a.N, at = row * d;
    const T *x1 = a.x1 + at, *scale = a.scale.first ? a.scale.of(picture) : nullptr;
    const O* dn = a.dn + at;
    T root = reciprocal_root<T>(x1, d, a.eps);
    Vector<T> along = {};
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      Vector<T> up = load<T>(dn + i, left), normed = load<T>(x1 + i, left) * root;
      if (scale) {
        T *shifts = a.dshift + picture * d + i, *scales = a.dscale + picture * d + i;
        store<T>(shifts, load<T>(shifts, left) + up, left);
        store<T>(scales, load<T>(scales, left) + up * normed, left);
      }
      along += up * (scale ? load<T>(scale + i, left) + T(1) : one) * normed;
    }
    T mean = total<T>(along) / T(d);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      Vector<T> up = load<T>(dn + i, left) * (scale ? load<T>(scale + i, left) + T(1) : one);
      Vector<T> g = (up - load<T>(x1 + i, left) * root * mean) * root;
      if (a.dx1) g += load<T>(a.dx1 + at + i, left);
      store<T>(a.dx + at + i, g, left);
      if (!a.y) continue;
      T* gates = a.dgate + picture * d + i;
      store<T>(gates, load<T>(gates, left) + g * load<T>(a.y + at + i, left), left);
      store<T>(a.dy + at + i, (load<T>(a.gate.of(picture) + i, left) + T(1)) * g, left);
    }
  }
}

// The types of stream, branch and result: the branch is what the matrices multiply in, the result is that or the stream's own.
template <typename Run>
void by_types(at::ScalarType wide, at::ScalarType branch, at::ScalarType result, Run run) {
  by_type("add_norm", wide, branch, [&](auto t, auto s) {
    if (result == wide) return run(t, s, t);
    TORCH_CHECK(result == branch, "add_norm: the result is of the stream's type or of the branch's, found ", result);
    run(t, s, s);
  });
}

at::Tensor or_empty(const Optional<at::Tensor>& given) { return given ? *given : at::Tensor(); }

struct AddNorm : torch::autograd::Function<AddNorm> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& given, const Optional<at::Tensor>& given_gate, const Optional<at::Tensor>& given_y,
                               const Optional<at::Tensor>& given_shift, const Optional<at::Tensor>& given_scale, double eps, at::ScalarType dtype) {
    at::Tensor x = rows_of(given), y = or_empty(given_y), gate = or_empty(given_gate), shift = or_empty(given_shift), scale = or_empty(given_scale);
    if (y.defined()) y = rows_of(y);
    at::Tensor x1 = y.defined() ? at::empty_like(x) : x, n = at::empty(x.sizes(), x.options().dtype(dtype));
    ctx->save_for_backward({x1, gate, y, scale});
    ctx->set_materialize_grads(false);  // of what is not used: no tensor of zeros
    ctx->saved_data["eps"] = eps;
    int64_t N = x.size(1), d = x.size(2);
#ifdef DSD_CUDA
    if (x.is_cuda()) {
      add_norm_cuda(x, gate, y, shift, scale, eps, x1, n);
      return {y.defined() ? x1 : given, n};
    }
#endif
    by_types(x.scalar_type(), y.defined() ? y.scalar_type() : dtype, dtype, [&](auto wide, auto branch, auto result) {
      using T = decltype(wide);
      using S = decltype(branch);
      using O = decltype(result);
      AddNormRows<T, S, O> rows{data<T>(x), per_picture<T>(gate), y.defined() ? data<S>(y) : nullptr, per_picture<T>(shift), per_picture<T>(scale),
                                data<T>(x1), data<O>(n), N, d, T(eps)};
      for_rows(x.size(0) * N, d, [&](int64_t begin, int64_t end) { add_norm_rows(rows, begin, end); });
    });
    return {y.defined() ? x1 : given, n};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("add_norm");
    auto saved = ctx->get_saved_variables();
    auto x1 = saved[0], gate = saved[1], y = saved[2], scale = saved[3];
    double eps = ctx->saved_data["eps"].toDouble();
    int64_t B = x1.size(0), N = x1.size(1), d = x1.size(2);
    at::Tensor dx1 = gradients[0].defined() ? rows_of(gradients[0]) : at::Tensor();
    at::Tensor dn = gradients[1].defined() ? rows_of(gradients[1]) : at::zeros(x1.sizes(), x1.options());
    at::Tensor dx = at::empty_like(x1), dy, dgate, dshift, dscale;
    if (y.defined()) dy = at::empty_like(y);
#ifdef DSD_CUDA
    if (x1.is_cuda()) {
      at::Tensor unwanted;
      add_norm_gradient_cuda(x1, gate, y, at::Tensor(), scale, dx1, dn, eps, dx, dy, dgate, dshift, dscale, unwanted);
      return {dx, dgate, dy, dshift, dscale, at::Tensor(), at::Tensor()};
    }
#endif
    if (y.defined()) dgate = at::zeros({B, d}, x1.options());
    if (scale.defined()) dshift = at::zeros({B, d}, x1.options()), dscale = at::zeros({B, d}, x1.options());
    by_types(x1.scalar_type(), y.defined() ? y.scalar_type() : dn.scalar_type(), dn.scalar_type(), [&](auto wide, auto branch, auto result) {
      using T = decltype(wide);
      using S = decltype(branch);
      using O = decltype(result);
      auto of = [](const at::Tensor& tensor) { return tensor.defined() ? data<T>(tensor) : nullptr; };
      AddNormGradient<T, S, O> rows{data<T>(x1), per_picture<T>(gate), y.defined() ? data<S>(y) : nullptr, per_picture<T>(scale), of(dx1), data<O>(dn),
                                    data<T>(dx), of(dgate), dy.defined() ? data<S>(dy) : nullptr, of(dshift), of(dscale), N, d, T(eps)};
      for_rows(B, N * d, [&](int64_t begin, int64_t end) { add_norm_gradient(rows, begin, end); });
    });
    return {dx, dgate, dy, dshift, dscale, at::Tensor(), at::Tensor()};
  }
};

std::tuple<at::Tensor, at::Tensor> add_norm(const at::Tensor& x, Optional<at::Tensor> gate, const Optional<at::Tensor>& y, Optional<at::Tensor> shift,
                                            Optional<at::Tensor> scale, double eps, at::ScalarType dtype) {
  check_add_norm("add_norm", x, gate, y, shift, scale);
  TORCH_CHECK(x.is_cpu() || x.is_cuda(), "add_norm: runs on the CPU and on CUDA, found a tensor on ", x.device());
  auto out = AddNorm::apply(x, gate, y, shift, scale, eps, dtype);
  return {out[0], out[1]};
}

// --- silu(u) w, where a row is u and w one after the other

template <typename T, typename S>
DSD_VECTOR void swiglu_rows(const S* h, S* out, int64_t begin, int64_t end, int64_t F) {
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < F; i += lanes<T>) {
      Vector<T> u = load<T>(h + row * 2 * F + i, F - i), w = load<T>(h + row * 2 * F + F + i, F - i);
      store<T>(out + row * F + i, u / (exponential(-u) + T(1)) * w, F - i);
    }
  }
}

template <typename T, typename S>
DSD_VECTOR void swiglu_gradient(const S* h, const S* g, S* dh, int64_t begin, int64_t end, int64_t F) {
  for (int64_t row = begin; row < end; row++) {
    for (int64_t i = 0; i < F; i += lanes<T>) {
      int64_t at = row * 2 * F + i;
      Vector<T> u = load<T>(h + at, F - i), w = load<T>(h + at + F, F - i), gradient = load<T>(g + row * F + i, F - i);
      Vector<T> sigmoid = T(1) / (exponential(-u) + T(1));
      store<T>(dh + at, gradient * w * sigmoid * (u * (T(1) - sigmoid) + T(1)), F - i);
      store<T>(dh + at + F, gradient * u * sigmoid, F - i);
    }
  }
}

struct SwiGlu : torch::autograd::Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given) {
    auto h = rows_of(given);
    ctx->save_for_backward({h});
    auto shape = h.sizes().vec();
    int64_t F = shape.back() / 2;
    shape.back() = F;
    auto out = at::empty(shape, h.options());
#ifdef DSD_CUDA
    if (h.is_cuda()) {
      swiglu_cuda(h, out);
      return out;
    }
#endif
    by_type("swiglu", wide_of(h.scalar_type()), h.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { swiglu_rows<T, S>(data<S>(h), data<S>(out), begin, end, F); });
    });
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("swiglu");
    auto h = ctx->get_saved_variables()[0], g = rows_of(gradients[0]), dh = at::empty_like(h);
    int64_t F = h.size(-1) / 2;
#ifdef DSD_CUDA
    if (h.is_cuda()) {
      at::Tensor unwanted;
      swiglu_gradient_cuda(h, g, dh, unwanted);
      return {dh};
    }
#endif
    by_type("swiglu", wide_of(h.scalar_type()), h.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { swiglu_gradient<T, S>(data<S>(h), data<S>(g), data<S>(dh), begin, end, F); });
    });
    return {dh};
  }
};

at::Tensor swiglu(const at::Tensor& h) {
  TORCH_CHECK(h.is_cpu() || h.is_cuda(), "swiglu: runs on the CPU and on CUDA, found a tensor on ", h.device());
  TORCH_CHECK(h.dim() > 0 && h.size(-1) > 0 && h.size(-1) % 2 == 0, "swiglu: the last dimension must be even and not 0, found ", h.sizes());
  return SwiGlu::apply(h);
}

}  // namespace

void check_add_norm(const char* name, const at::Tensor& x, Optional<at::Tensor>& gate, const Optional<at::Tensor>& y, Optional<at::Tensor>& shift,
                    Optional<at::Tensor>& scale) {
  TORCH_CHECK(x.dim() == 3, name, ": x must be (B, N, d), found ", x.sizes());
  TORCH_CHECK(bool(gate) == bool(y), name, ": a branch has both, gate and y");
  TORCH_CHECK(bool(shift) == bool(scale), name, ": a modulation has both, shift and scale");
  if (y) {
    TORCH_CHECK(x.sizes() == y->sizes(), name, ": x and y must be (B, N, d) alike, found ", x.sizes(), " and ", y->sizes());
    check_device(name, "y", x, *y);
    gate = check_per_picture(name, "gate", x, *gate);
  }
  if (scale) {
    shift = check_per_picture(name, "shift", x, *shift);
    scale = check_per_picture(name, "scale", x, *scale);
  }
}

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("add_norm(Tensor x, Tensor? gate, Tensor? y, Tensor? shift, Tensor? scale, float eps, ScalarType dtype) -> (Tensor, Tensor)", &add_norm);
  library.def("swiglu(Tensor h) -> Tensor", &swiglu);
}

}  // namespace dsd
