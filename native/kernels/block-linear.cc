// A part of a block and the linear layer after it as one operator on CUDA: dsd::add_norm_linear and swiglu_linear. What the layer reads is not kept for
// its weight's gradient: the backward pass makes it again beside what it computes anyway, which costs one more write and saves a fifth of a
// step's memory. Elsewhere src/torch/fused.ts calls the two operators one after the other.
#include "block.h"
#include "rows.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>

#include <tuple>

namespace dsd {
namespace {

#ifdef DSD_CUDA

// (..., out)^T (..., in): the gradient of a weight (out, in).
at::Tensor weight_gradient(const at::Tensor& g, const at::Tensor& x) { return at::mm(g.reshape({-1, g.size(-1)}).t(), x.reshape({-1, x.size(-1)})); }

struct AddNormLinear : torch::autograd::Function<AddNormLinear> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& given, const Optional<at::Tensor>& given_gate, const Optional<at::Tensor>& given_y,
                               const Optional<at::Tensor>& given_shift, const Optional<at::Tensor>& given_scale, double eps, const at::Tensor& weight) {
    at::Tensor x = rows_of(given), y = or_empty(given_y), gate = or_empty(given_gate), shift = or_empty(given_shift), scale = or_empty(given_scale);
    if (y.defined()) y = rows_of(y);
    at::Tensor x1 = y.defined() ? at::empty_like(x) : x, n = at::empty(x.sizes(), x.options().dtype(weight.scalar_type()));
    add_norm_cuda(x, gate, y, shift, scale, eps, x1, n);
    ctx->save_for_backward({x1, gate, y, shift, scale, weight});
    ctx->set_materialize_grads(false);
    ctx->saved_data["eps"] = eps;
    return {y.defined() ? x1 : given, at::linear(n, weight)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("add_norm_linear");
    auto saved = ctx->get_saved_variables();
    auto x1 = saved[0], gate = saved[1], y = saved[2], shift = saved[3], scale = saved[4], weight = saved[5];
    at::Tensor dx1 = gradients[0].defined() ? rows_of(gradients[0]) : at::Tensor();
    auto g = gradients[1].defined() ? rows_of(gradients[1]) : at::zeros({x1.size(0), x1.size(1), weight.size(0)}, weight.options());
    at::Tensor dn = at::matmul(g, weight), dx = at::empty_like(x1), dy, dgate, dshift, dscale;
    if (y.defined()) dy = at::empty_like(y);
    // The norm comes to lie where its gradient was read: the kernel has an element's own before it writes there.
    add_norm_gradient_cuda(x1, gate, y, shift, scale, dx1, dn, ctx->saved_data["eps"].toDouble(), dx, dy, dgate, dshift, dscale, dn);
    return {dx, dgate, dy, dshift, dscale, at::Tensor(), weight_gradient(g, dn)};
  }
};

struct SwigluLinear : torch::autograd::Function<SwigluLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given, const at::Tensor& weight) {
    auto h = rows_of(given);
    ctx->save_for_backward({h, weight});
    auto shape = h.sizes().vec();
    shape.back() /= 2;
    auto s = at::empty(shape, h.options());
    swiglu_cuda(h, s);
    return at::linear(s, weight);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("swiglu_linear");
    auto saved = ctx->get_saved_variables();
    auto h = saved[0], weight = saved[1], g = rows_of(gradients[0]), ds = at::matmul(g, weight), dh = at::empty_like(h);
    swiglu_gradient_cuda(h, ds, dh, ds);  // likewise
    return {dh, weight_gradient(g, ds)};
  }
};

#endif

void check_weight(const char* name, const at::Tensor& weight, const at::Tensor& x, int64_t width) {
  TORCH_CHECK(x.is_cuda(), name, ": runs on CUDA, found a tensor on ", x.device());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == width, name, ": the weight must be (out, ", width, "), found ", weight.sizes());
  TORCH_CHECK(weight.device() == x.device(), name, ": the weight is on ", weight.device(), ", its input on ", x.device());
}

std::tuple<at::Tensor, at::Tensor> add_norm_linear(const at::Tensor& x, Optional<at::Tensor> gate, const Optional<at::Tensor>& y,
                                                   Optional<at::Tensor> shift, Optional<at::Tensor> scale, double eps, const at::Tensor& weight) {
  check_add_norm("add_norm_linear", x, gate, y, shift, scale);
  check_weight("add_norm_linear", weight, x, x.size(2));
#ifdef DSD_CUDA
  auto out = AddNormLinear::apply(x, gate, y, shift, scale, eps, weight);
  return {out[0], out[1]};
#else
  return {};
#endif
}

at::Tensor swiglu_linear(const at::Tensor& h, const at::Tensor& weight) {
  TORCH_CHECK(h.dim() > 0 && h.size(-1) > 0 && h.size(-1) % 2 == 0, "swiglu_linear: the last dimension must be even and not 0, found ", h.sizes());
  check_weight("swiglu_linear", weight, h, h.size(-1) / 2);
  TORCH_CHECK(weight.scalar_type() == h.scalar_type(), "swiglu_linear: the weight is ", weight.scalar_type(), ", its input ", h.scalar_type());
#ifdef DSD_CUDA
  return SwigluLinear::apply(h, weight);
#else
  return {};
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("add_norm_linear(Tensor x, Tensor? gate, Tensor? y, Tensor? shift, Tensor? scale, float eps, Tensor weight) -> (Tensor, Tensor)",
              &add_norm_linear);
  library.def("swiglu_linear(Tensor h, Tensor weight) -> Tensor", &swiglu_linear);
}

}  // namespace dsd
