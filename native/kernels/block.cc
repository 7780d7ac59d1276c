// The element-wise parts of a transformer block, each in one pass over memory: dsd::modulated_norm, gated_add and swiglu
// (attention.cc has the rest). On the CPU; src/torch/fused.ts has the same as compositions, for other devices and for the tests.
//
// `wide` is the type of the residual stream, float32 or float64, in which all is computed; `narrow` that of the matrix products, which is the
// same or bfloat16. Sums over tokens and heads are made picture by picture, so that no result depends on the number of threads.
#include "rows.h"

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
  return {data<T>(tensor), tensor.stride(0)};
}
at::Tensor check_per_picture(const char* name, const char* what, const at::Tensor& x, const at::Tensor& given) {
  TORCH_CHECK(given.dim() == 2 && given.size(0) == x.size(0) && given.size(1) == x.size(2), name, ": ", what, " must be (",
              x.size(0), ", ", x.size(2), "), found ", given.sizes());
  TORCH_CHECK(given.scalar_type() == x.scalar_type(), name, ": ", what, " is ", given.scalar_type(), ", expected ", x.scalar_type());
  return given.stride(1) == 1 ? given : given.contiguous();
}

// --- y = x / sqrt(mean(x^2) + eps) * (1 + scale) + shift

template <typename T, typename S>
DSD_VECTOR void norm_rows(const T* x, PerPicture<T> shift, PerPicture<T> scale, S* y, int64_t begin, int64_t end, int64_t N, int64_t d, T eps) {
  for (int64_t row = begin; row < end; row++) {
    const T *in = x + row * d, *h = shift.of(row / N), *s = scale.of(row / N);
    T root = reciprocal_root<T>(in, d, eps);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      store<T>(y + row * d + i, load<T>(in + i, d - i) * root * (load<T>(s + i, d - i) + T(1)) + load<T>(h + i, d - i), d - i);
    }
  }
}

template <typename T, typename S>
DSD_VECTOR void norm_gradient(const T* x, PerPicture<T> scale, const S* g, T* dx, T* dshift, T* dscale, int64_t begin, int64_t end, int64_t N,
                              int64_t d, T eps) {
  for (int64_t row = begin * N; row < end * N; row++) {
    int64_t picture = row / N;
    const T *in = x + row * d, *s = scale.of(picture);
    const S* up = g + row * d;
    T root = reciprocal_root<T>(in, d, eps);
    Vector<T> along = {};
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      Vector<T> gradient = load<T>(up + i, left), normed = load<T>(in + i, left) * root;
      T *sum = dshift + picture * d + i, *scaled = dscale + picture * d + i;
      store<T>(sum, load<T>(sum, left) + gradient, left);
      store<T>(scaled, load<T>(scaled, left) + gradient * normed, left);
      along += gradient * (load<T>(s + i, left) + T(1)) * normed;
    }
    T mean = total<T>(along) / T(d);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t left = d - i;
      Vector<T> normed = load<T>(in + i, left) * root;
      store<T>(dx + row * d + i, (load<T>(up + i, left) * (load<T>(s + i, left) + T(1)) - normed * mean) * root, left);
    }
  }
}

struct ModulatedNorm : torch::autograd::Function<ModulatedNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given, const at::Tensor& shift, const at::Tensor& scale, double eps,
                            at::ScalarType dtype) {
    auto x = given.contiguous();
    ctx->save_for_backward({x, scale});
    ctx->saved_data["eps"] = eps;
    int64_t N = x.size(1), d = x.size(2);
    auto y = at::empty(x.sizes(), x.options().dtype(dtype));
    by_type("modulated_norm", x.scalar_type(), dtype, [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      auto h = per_picture<T>(shift), s = per_picture<T>(scale);
      for_rows(x.size(0) * N, d, [&](int64_t begin, int64_t end) { norm_rows<T, S>(data<T>(x), h, s, data<S>(y), begin, end, N, d, T(eps)); });
    });
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("modulated_norm");
    auto saved = ctx->get_saved_variables();
    auto x = saved[0], scale = saved[1], g = gradients[0].contiguous();
    double eps = ctx->saved_data["eps"].toDouble();
    int64_t B = x.size(0), N = x.size(1), d = x.size(2);
    auto dx = at::empty_like(x), dshift = at::zeros({B, d}, x.options()), dscale = at::zeros({B, d}, x.options());
    by_type("modulated_norm", x.scalar_type(), g.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      auto s = per_picture<T>(scale);
      for_rows(B, N * d, [&](int64_t begin, int64_t end) {
        norm_gradient<T, S>(data<T>(x), s, data<S>(g), data<T>(dx), data<T>(dshift), data<T>(dscale), begin, end, N, d, T(eps));
      });
    });
    return {dx, dshift, dscale, at::Tensor(), at::Tensor()};
  }
};

at::Tensor modulated_norm(const at::Tensor& x, const at::Tensor& shift, const at::Tensor& scale, double eps, at::ScalarType dtype) {
  TORCH_CHECK(x.dim() == 3, "modulated_norm: x must be (B, N, d), found ", x.sizes());
  return ModulatedNorm::apply(x, check_per_picture("modulated_norm", "shift", x, shift), check_per_picture("modulated_norm", "scale", x, scale), eps,
                              dtype);
}

// --- x + (1 + gate) y

template <typename T, typename S>
DSD_VECTOR void gated_rows(const T* x, PerPicture<T> gate, const S* y, T* out, int64_t begin, int64_t end, int64_t N, int64_t d) {
  for (int64_t row = begin; row < end; row++) {
    const T* a = gate.of(row / N);
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t at = row * d + i, left = d - i;
      store<T>(out + at, load<T>(x + at, left) + (load<T>(a + i, left) + T(1)) * load<T>(y + at, left), left);
    }
  }
}

template <typename T, typename S>
DSD_VECTOR void gated_gradient(PerPicture<T> gate, const S* y, const T* g, T* dgate, S* dy, int64_t begin, int64_t end, int64_t N, int64_t d) {
  for (int64_t row = begin * N; row < end * N; row++) {
    const T* a = gate.of(row / N);
    T* sums = dgate + row / N * d;
    for (int64_t i = 0; i < d; i += lanes<T>) {
      int64_t at = row * d + i, left = d - i;
      Vector<T> gradient = load<T>(g + at, left);
      store<T>(dy + at, (load<T>(a + i, left) + T(1)) * gradient, left);
      store<T>(sums + i, load<T>(sums + i, left) + gradient * load<T>(y + at, left), left);
    }
  }
}

struct GatedAdd : torch::autograd::Function<GatedAdd> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& stream, const at::Tensor& gate, const at::Tensor& branch) {
    auto x = stream.contiguous(), y = branch.contiguous();
    ctx->save_for_backward({gate, y});
    int64_t N = x.size(1), d = x.size(2);
    auto out = at::empty_like(x);
    by_type("gated_add", x.scalar_type(), y.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      auto a = per_picture<T>(gate);
      for_rows(x.size(0) * N, d, [&](int64_t begin, int64_t end) { gated_rows<T, S>(data<T>(x), a, data<S>(y), data<T>(out), begin, end, N, d); });
    });
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("gated_add");
    auto saved = ctx->get_saved_variables();
    auto gate = saved[0], y = saved[1], g = gradients[0].contiguous();
    int64_t B = y.size(0), N = y.size(1), d = y.size(2);
    auto dgate = at::zeros({B, d}, g.options()), dy = at::empty_like(y);
    by_type("gated_add", g.scalar_type(), y.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      auto a = per_picture<T>(gate);
      for_rows(B, N * d, [&](int64_t begin, int64_t end) {
        gated_gradient<T, S>(a, data<S>(y), data<T>(g), data<T>(dgate), data<S>(dy), begin, end, N, d);
      });
    });
    return {g, dgate, dy};
  }
};

at::Tensor gated_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y) {
  TORCH_CHECK(x.dim() == 3 && x.sizes() == y.sizes(), "gated_add: x and y must be (B, N, d) alike, found ", x.sizes(), " and ", y.sizes());
  return GatedAdd::apply(x, check_per_picture("gated_add", "gate", x, gate), y);
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
    auto h = given.contiguous();
    ctx->save_for_backward({h});
    auto shape = h.sizes().vec();
    int64_t F = shape.back() / 2;
    shape.back() = F;
    auto out = at::empty(shape, h.options());
    by_type("swiglu", wide_of(h.scalar_type()), h.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { swiglu_rows<T, S>(data<S>(h), data<S>(out), begin, end, F); });
    });
    return out;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("swiglu");
    auto h = ctx->get_saved_variables()[0], g = gradients[0].contiguous(), dh = at::empty_like(h);
    int64_t F = h.size(-1) / 2;
    by_type("swiglu", wide_of(h.scalar_type()), h.scalar_type(), [&](auto wide, auto narrow) {
      using T = decltype(wide);
      using S = decltype(narrow);
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { swiglu_gradient<T, S>(data<S>(h), data<S>(g), data<S>(dh), begin, end, F); });
    });
    return {dh};
  }
};

at::Tensor swiglu(const at::Tensor& h) {
  TORCH_CHECK(h.dim() > 0 && h.size(-1) > 0 && h.size(-1) % 2 == 0, "swiglu: the last dimension must be even and not 0, found ", h.sizes());
  return SwiGlu::apply(h);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("modulated_norm(Tensor x, Tensor shift, Tensor scale, float eps, ScalarType dtype) -> Tensor", &modulated_norm);
  library.def("gated_add(Tensor x, Tensor gate, Tensor y) -> Tensor", &gated_add);
  library.def("swiglu(Tensor h) -> Tensor", &swiglu);
}

}  // namespace dsd
