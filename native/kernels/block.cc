// The element-wise parts of a transformer block, each in one pass over memory: dsd::add_norm and swiglu (attention.cc has the rest). Here on the
// CPU, in block-cuda.cc on CUDA; src/torch/fused.ts has the same as compositions, for what neither takes and for the tests.
//
// `wide` is the type in which all is computed, float32 or float64, and on the CPU that of the residual stream; `narrow` that of the matrix products,
// which is the same or bfloat16. Sums over tokens and heads are made picture by picture, so that no result depends on the number of threads.
#include "block.h"

#include "bf16.h"
#include "block-rows.h"
#include "rows.h"

#include <tuple>

namespace dsd {
namespace {

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

template <typename Rows>
DSD_VECTOR void run_anywhere(const Rows& rows, int64_t begin, int64_t end) {
  rows(begin, end);
}
// By what suits types and processor.
template <typename Rows>
void run(const Rows& rows, int64_t begin, int64_t end) {
#ifdef DSD_BF16
  if constexpr (std::is_same_v<typename Rows::Stored, c10::BFloat16>) {
    if (has_bf16_products()) return run_bf16(rows, begin, end);
  }
#endif
  run_anywhere(rows, begin, end);
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
      for_rows(x.size(0) * N, d, [&](int64_t begin, int64_t end) { run(rows, begin, end); });
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
      for_rows(B, N * d, [&](int64_t begin, int64_t end) { run(rows, begin, end); });
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
      SwiGluRows<T, S> rows{data<S>(h), data<S>(out), F};
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { run(rows, begin, end); });
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
      SwiGluGradient<T, S> rows{data<S>(h), data<S>(g), data<S>(dh), F};
      for_rows(h.numel() / (2 * F), 2 * F, [&](int64_t begin, int64_t end) { run(rows, begin, end); });
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
