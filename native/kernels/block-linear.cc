// What a branch of a block begins with, with the layers after it, as one operator on CUDA: dsd::add_norm_linear and add_norm_mlp. What a layer reads
// is not kept for its weight's gradient: the backward pass makes it again beside what it computes anyway, which costs one more write and saves a
// fifth of a step's memory. Where no gradient is wanted, dsd::add_norm_swiglu ends before the last layer, which linear_add adds to the stream, or product
// leaves for the next to add. Elsewhere src/torch/fused.ts calls operators one after the other.
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

// A gradient of a result (B, N, out) of the stream's and a weight's; not defined: nobody used the result.
at::Tensor given_gradient(const at::Tensor& g, const at::Tensor& x1, const at::Tensor& weight) {
  return g.defined() ? rows_of(g) : at::zeros({x1.size(0), x1.size(1), weight.size(0)}, weight.options());
}

// The stream with its branch added, the norm of that, and what they are made of as kernels take it.
struct Normed {
  at::Tensor gate, y, shift, scale, x1, n, sum;  // `sum` is what the operator returns: x1, or the very x that was given
  Normed(const at::Tensor& given, const Optional<at::Tensor>& given_gate, const Optional<at::Tensor>& given_y, const Optional<at::Tensor>& given_shift,
         const Optional<at::Tensor>& given_scale, double eps, at::ScalarType dtype)
      : gate(or_empty(given_gate)), y(or_empty(given_y)), shift(or_empty(given_shift)), scale(or_empty(given_scale)) {
    at::Tensor x = rows_of(given);
    if (y.defined()) y = rows_of(y);
    x1 = y.defined() ? at::empty_like(x) : x;
    sum = y.defined() ? x1 : given;
    n = at::empty(x.sizes(), x.options().dtype(dtype));
    add_norm_cuda(x, gate, y, shift, scale, eps, x1, n);
  }
  // First of what is saved for gradients_of_norm; `more` follows.
  variable_list saved(const variable_list& more) const {
    variable_list all = {x1, gate, y, shift, scale};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
};

// The gradients of x, gate, y, shift and scale, and eps has none. The norm comes to lie where its gradient `dn` was read: the kernel has an element's
// own before it writes there.
variable_list gradients_of_norm(const variable_list& saved, const at::Tensor& given_dx1, double eps, at::Tensor& dn) {
  auto x1 = saved[0], gate = saved[1], y = saved[2], shift = saved[3], scale = saved[4];
  at::Tensor dx1 = given_dx1.defined() ? rows_of(given_dx1) : at::Tensor();
  at::Tensor dx = at::empty_like(x1), dy, dgate, dshift, dscale;
  if (y.defined()) dy = at::empty_like(y);
  add_norm_gradient_cuda(x1, gate, y, shift, scale, dx1, dn, eps, dx, dy, dgate, dshift, dscale, dn);
  return {dx, dgate, dy, dshift, dscale, at::Tensor()};
}

// rows weight^T.
at::Tensor product(const at::Tensor& rows, const at::Tensor& weight) {
  if (!product_fits(rows, weight)) return at::linear(rows, weight);
  at::Tensor out = at::empty({rows.size(0), rows.size(1), weight.size(0)}, rows.options());
  product_cuda(rows, weight, out);
  return out;
}

struct AddNormLinear : torch::autograd::Function<AddNormLinear> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const Optional<at::Tensor>& gate, const Optional<at::Tensor>& y,
                               const Optional<at::Tensor>& shift, const Optional<at::Tensor>& scale, double eps, const at::Tensor& weight) {
    Normed normed(x, gate, y, shift, scale, eps, weight.scalar_type());
    ctx->save_for_backward(normed.saved({weight}));
    ctx->set_materialize_grads(false);
    ctx->saved_data["eps"] = eps;
    return {normed.sum, product(normed.n, weight)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("add_norm_linear");
    auto saved = ctx->get_saved_variables();
    auto weight = saved[5], g = given_gradient(gradients[1], saved[0], weight), n = at::matmul(g, weight);
    variable_list result = gradients_of_norm(saved, gradients[0], ctx->saved_data["eps"].toDouble(), n);
    result.push_back(weight_gradient(g, n));
    return result;
  }
};

// silu(u) w, (B, N, F), of the halves u and w of h = n weight^T, (B, N, 2F), which is given back where it is to be kept.
at::Tensor swiglu_product(const at::Tensor& n, const at::Tensor& weight, bool keep, at::Tensor& h) {
  at::Tensor s = at::empty({n.size(0), n.size(1), weight.size(0) / 2}, n.options());
  if (swiglu_product_fits(n, weight)) {
    if (keep) h = at::empty({n.size(0), n.size(1), weight.size(0)}, n.options());
    swiglu_product_cuda(n, weight, h, s);
    return s;
  }
  at::Tensor product = at::linear(n, weight);
  swiglu_cuda(product, s);
  if (keep) h = product;
  return s;
}

// From the gradient g of a layer's result, weight (out, F), and the h that its input was made of: that input, and in the place of h its gradient.
at::Tensor swiglu_product_gradient(const at::Tensor& g, const at::Tensor& weight, at::Tensor& h) {
  if (swiglu_product_gradient_fits(g, weight)) {
    at::Tensor s = at::empty({g.size(0), g.size(1), weight.size(1)}, g.options());
    swiglu_product_gradient_cuda(g, weight, h, s);
    return s;
  }
  at::Tensor s = at::matmul(g, weight);
  swiglu_gradient_cuda(h, s, h, s);
  return s;
}

struct AddNormMlp : torch::autograd::Function<AddNormMlp> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const Optional<at::Tensor>& gate, const Optional<at::Tensor>& y,
                               const Optional<at::Tensor>& shift, const Optional<at::Tensor>& scale, double eps, const at::Tensor& gate_up,
                               const at::Tensor& down) {
    Normed normed(x, gate, y, shift, scale, eps, gate_up.scalar_type());
    at::Tensor h, s = swiglu_product(normed.n, gate_up, true, h);
    normed.n.reset();  // the layer that follows needs memory too
    ctx->save_for_backward(normed.saved({gate_up, down, h}));
    ctx->set_materialize_grads(false);
    ctx->saved_data["eps"] = eps;
    return {normed.sum, product(s, down)};
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("add_norm_mlp");
    // h, which nobody else has, is two fifths of what a block keeps: its gradient is written over it.
    TORCH_CHECK(!ctx->saved_data.count("consumed"), "add_norm_mlp: one backward pass only; what a second one would need has been written over");
    auto saved = ctx->get_saved_variables();
    auto gate_up = saved[5], down = saved[6], h = saved[7], g = given_gradient(gradients[1], saved[0], down);
    ctx->saved_data["consumed"] = true;
    at::Tensor s = swiglu_product_gradient(g, down, h), ddown = weight_gradient(g, s);
    s.reset();
    at::Tensor n = at::matmul(h, gate_up);
    variable_list result = gradients_of_norm(saved, gradients[0], ctx->saved_data["eps"].toDouble(), n);
    result.push_back(weight_gradient(h, n));
    result.push_back(ddown);
    return result;
  }
};

#endif

void check_weight(const char* name, const at::Tensor& weight, const at::Tensor& x, int64_t width) {
  TORCH_CHECK(x.is_cuda(), name, ": runs on CUDA, found a tensor on ", x.device());
  TORCH_CHECK(weight.dim() == 2 && weight.size(1) == width, name, ": the weight must be (out, ", width, "), found ", weight.sizes());
  TORCH_CHECK(weight.device() == x.device(), name, ": the weight is on ", weight.device(), ", its input on ", x.device());
}

void check_gate_up(const char* name, const at::Tensor& gate_up, const at::Tensor& x) {
  check_weight(name, gate_up, x, x.size(2));
  TORCH_CHECK(gate_up.size(0) > 0 && gate_up.size(0) % 2 == 0, name, ": the rows of gate_up must be even in number, found ", gate_up.sizes());
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

std::tuple<at::Tensor, at::Tensor> add_norm_mlp(const at::Tensor& x, Optional<at::Tensor> gate, const Optional<at::Tensor>& y, Optional<at::Tensor> shift,
                                                Optional<at::Tensor> scale, double eps, const at::Tensor& gate_up, const at::Tensor& down) {
  check_add_norm("add_norm_mlp", x, gate, y, shift, scale);
  check_gate_up("add_norm_mlp", gate_up, x);
  check_weight("add_norm_mlp", down, x, gate_up.size(0) / 2);
  TORCH_CHECK(gate_up.scalar_type() == down.scalar_type(), "add_norm_mlp: gate_up is ", gate_up.scalar_type(), ", down ", down.scalar_type());
#ifdef DSD_CUDA
  auto out = AddNormMlp::apply(x, gate, y, shift, scale, eps, gate_up, down);
  return {out[0], out[1]};
#else
  return {};
#endif
}

void check_unrecorded(const char* name) { TORCH_CHECK(!c10::GradMode::is_enabled(), name, ": has no gradient: call it within noGrad"); }

std::tuple<at::Tensor, at::Tensor> add_norm_swiglu(const at::Tensor& x, Optional<at::Tensor> gate, const Optional<at::Tensor>& y, Optional<at::Tensor> shift,
                                                   Optional<at::Tensor> scale, double eps, const at::Tensor& gate_up) {
  check_unrecorded("add_norm_swiglu");
  check_add_norm("add_norm_swiglu", x, gate, y, shift, scale);
  check_gate_up("add_norm_swiglu", gate_up, x);
#ifdef DSD_CUDA
  Normed normed(x, gate, y, shift, scale, eps, gate_up.scalar_type());
  at::Tensor h, s = swiglu_product(normed.n, gate_up, false, h);
  return {normed.sum, s};
#else
  return {};
#endif
}

at::Tensor unrecorded_product(const at::Tensor& rows, const at::Tensor& weight) {
  check_unrecorded("product");
  TORCH_CHECK(rows.dim() == 3, "product: rows must be (B, N, in), found ", rows.sizes());
  check_weight("product", weight, rows, rows.size(2));
#ifdef DSD_CUDA
  return product(rows, weight);
#else
  return {};
#endif
}

// Refuses what is not x (B, N, d), rows (B, N, in), weight (d, in) and gate (B, d), on one GPU.
void check_linear_add(const char* name, const at::Tensor& x, const at::Tensor& gate, const at::Tensor& rows, const at::Tensor& weight) {
  TORCH_CHECK(x.dim() == 3 && rows.dim() == 3, name, ": x must be (B, N, d) and rows (B, N, in), found ", x.sizes(), " and ", rows.sizes());
  check_weight(name, weight, rows, rows.size(2));
  TORCH_CHECK(x.size(0) == rows.size(0) && x.size(1) == rows.size(1) && x.size(2) == weight.size(0), name, ": x must be (", rows.size(0), ", ", rows.size(1),
              ", ", weight.size(0), "), found ", x.sizes());
  TORCH_CHECK(gate.dim() == 2 && gate.size(0) == x.size(0) && gate.size(1) == x.size(2), name, ": gate must be (", x.size(0), ", ", x.size(2), "), found ",
              gate.sizes());
  TORCH_CHECK(x.device() == rows.device() && gate.device() == rows.device(), name, ": x is on ", x.device(), ", gate on ", gate.device(), ", rows on ",
              rows.device());
}

bool linear_add_supported(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& rows, const at::Tensor& weight) {
  check_linear_add("linear_add_supported", x, gate, rows, weight);
#ifdef DSD_CUDA
  return x.numel() > 0 && product_add_fits(rows, weight, x, gate);
#else
  return false;
#endif
}

at::Tensor linear_add(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& rows, const at::Tensor& weight) {
  check_unrecorded("linear_add");
  TORCH_CHECK(linear_add_supported(x, gate, rows, weight), "linear_add: not for these tensors, found x ", x.sizes(), ", gate ", gate.sizes(), ", rows ",
              rows.sizes(), ", weight ", weight.sizes());
#ifdef DSD_CUDA
  at::Tensor out = at::empty_like(x);
  product_add_cuda(rows, weight, x, gate, out);
  return out;
#else
  return {};
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("add_norm_linear(Tensor x, Tensor? gate, Tensor? y, Tensor? shift, Tensor? scale, float eps, Tensor weight) -> (Tensor, Tensor)",
              &add_norm_linear);
  library.def(
      "add_norm_mlp(Tensor x, Tensor? gate, Tensor? y, Tensor? shift, Tensor? scale, float eps, Tensor gate_up, Tensor down) -> (Tensor, Tensor)",
      &add_norm_mlp);
  library.def("add_norm_swiglu(Tensor x, Tensor? gate, Tensor? y, Tensor? shift, Tensor? scale, float eps, Tensor gate_up) -> (Tensor, Tensor)",
              &add_norm_swiglu);
  library.def("product(Tensor rows, Tensor weight) -> Tensor", &unrecorded_product);
  library.def("linear_add(Tensor x, Tensor gate, Tensor rows, Tensor weight) -> Tensor", &linear_add);
  library.def("linear_add_supported(Tensor x, Tensor gate, Tensor rows, Tensor weight) -> bool", &linear_add_supported);
}

}  // namespace dsd
