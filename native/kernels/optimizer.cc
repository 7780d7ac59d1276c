// Operators on whole lists of tensors: AdamW, the norm of all gradients, moving averages. None of them is recorded for gradients.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#if TORCH_VERSION_MAJOR >= 2
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_sub.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/empty_like.h>
#endif

#include <algorithm>
#include <cmath>
#include <vector>

namespace dsd {
namespace {

// A list of tensors cut into pieces of at most this many elements, so that threads share the work evenly and a sum of pieces does not
// depend on the number of threads.
constexpr int64_t piece = 16384;
struct Piece {
  size_t tensor;
  int64_t begin;
  int64_t length;
};

std::vector<Piece> cut(at::TensorList tensors) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < tensors.size(); i++) {
    for (int64_t begin = 0; begin < tensors[i].numel(); begin += piece) {
      pieces.push_back({i, begin, std::min(piece, tensors[i].numel() - begin)});
    }
  }
  return pieces;
}

template <typename Each>
void for_each_piece(const std::vector<Piece>& pieces, Each each) {
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) each(pieces[i], i);
  });
}

bool on_cuda(at::TensorList tensors) { return !tensors.empty() && tensors[0].is_cuda(); }

void check_list(const char* name, const char* what, at::TensorList like, at::TensorList tensors) {
  TORCH_CHECK(tensors.size() == like.size(), name, ": ", tensors.size(), " ", what, " for ", like.size(), " tensors");
  for (size_t i = 0; i < tensors.size(); i++) {
    TORCH_CHECK(tensors[i].sizes() == like[i].sizes(), name, ": ", what, "[", i, "] has shape ", tensors[i].sizes(), ", expected ", like[i].sizes());
    TORCH_CHECK(tensors[i].scalar_type() == like[i].scalar_type(), name, ": ", what, "[", i, "] has dtype ", tensors[i].scalar_type(),
                ", expected ", like[i].scalar_type());
    TORCH_CHECK(tensors[i].device() == like[i].device(), name, ": ", what, "[", i, "] is on ", tensors[i].device(), ", expected ", like[i].device());
  }
}

// Kernels write through plain pointers: everything must be float32 or float64, contiguous, on the CPU.
void check_plain(const char* name, const char* what, at::TensorList tensors) {
  for (size_t i = 0; i < tensors.size(); i++) {
    auto dtype = tensors[i].scalar_type();
    TORCH_CHECK(dtype == at::kFloat || dtype == at::kDouble, name, ": ", what, "[", i, "] must be float32 or float64, found ", dtype);
    TORCH_CHECK(tensors[i].is_cpu(), name, ": ", what, "[", i, "] is on ", tensors[i].device());
    TORCH_CHECK(tensors[i].is_contiguous(), name, ": ", what, "[", i, "] is not contiguous");
  }
}

std::vector<at::Tensor> contiguous(at::TensorList tensors) {
  std::vector<at::Tensor> result;
  for (const auto& tensor : tensors) result.push_back(tensor.contiguous());
  return result;
}

void changed(at::TensorList tensors) {
  for (const auto& tensor : tensors) tensor.unsafeGetTensorImpl()->bump_version();
}

struct Adam {
  double lr, beta1, beta2, eps, weight_decay, inverse_scale, correction1, correction2;
};

// Both moments and the parameter in one pass over memory.
template <typename T>
__attribute__((always_inline)) inline void adamw_loop(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, int64_t n, const Adam& a) {
  const T keep = T(1 - a.lr * a.weight_decay), b1 = T(1 - a.beta1), b2 = T(a.beta2), rest2 = T(1 - a.beta2), inverse = T(a.inverse_scale);
  const T size = T(a.lr / a.correction1), root = T(1 / std::sqrt(a.correction2)), eps = T(a.eps);
  for (int64_t i = 0; i < n; i++) {
    T grad = g[i] * inverse;
    T first = m[i] + b1 * (grad - m[i]);
    T second = b2 * v[i] + rest2 * grad * grad;
    m[i] = first;
    v[i] = second;
    p[i] = keep * p[i] - size * first / (std::sqrt(second) * root + eps);
  }
}
DSD_VECTOR void adamw_float(float* p, const float* g, float* m, float* v, int64_t n, const Adam& a) { adamw_loop(p, g, m, v, n, a); }
DSD_VECTOR void adamw_double(double* p, const double* g, double* m, double* v, int64_t n, const Adam& a) { adamw_loop(p, g, m, v, n, a); }

void adamw_cpu(at::TensorList params, at::TensorList given, at::TensorList exp_avg, at::TensorList exp_avg_sq, at::Tensor step, Adam a,
               const Optional<at::Tensor>& grad_scale, const Optional<at::Tensor>& found_inf) {
  if (found_inf && found_inf->item().toDouble() != 0) return;
  auto grads = contiguous(given);
  check_plain("adamw_", "parameters", params);
  check_plain("adamw_", "gradients", grads);
  check_plain("adamw_", "first moments", exp_avg);
  check_plain("adamw_", "second moments", exp_avg_sq);
  step.add_(1);
  double t = step.item().toDouble();
  a.correction1 = 1 - std::pow(a.beta1, t);
  a.correction2 = 1 - std::pow(a.beta2, t);
  a.inverse_scale = grad_scale ? 1 / grad_scale->item().toDouble() : 1;
  for_each_piece(cut(params), [&](const Piece& part, int64_t) {
    size_t i = part.tensor;
    auto pointer = [&](const at::Tensor& tensor) { return static_cast<char*>(tensor.data_ptr()) + part.begin * tensor.element_size(); };
    char *p = pointer(params[i]), *g = pointer(grads[i]), *m = pointer(exp_avg[i]), *v = pointer(exp_avg_sq[i]);
    if (params[i].scalar_type() == at::kFloat) {
      adamw_float(reinterpret_cast<float*>(p), reinterpret_cast<float*>(g), reinterpret_cast<float*>(m), reinterpret_cast<float*>(v), part.length, a);
    } else {
      adamw_double(reinterpret_cast<double*>(p), reinterpret_cast<double*>(g), reinterpret_cast<double*>(m), reinterpret_cast<double*>(v), part.length, a);
    }
  });
  changed(params);
  changed(exp_avg);
  changed(exp_avg_sq);
}

void adamw(at::TensorList params, at::TensorList grads, at::TensorList exp_avg, at::TensorList exp_avg_sq, at::Tensor step,
           const at::Tensor& lr, double beta1, double beta2, double eps, double weight_decay, const Optional<at::Tensor>& grad_scale,
           const Optional<at::Tensor>& found_inf) {
  c10::NoGradGuard no_grad;
  check_list("adamw_", "gradients", params, grads);
  check_list("adamw_", "first moments", params, exp_avg);
  check_list("adamw_", "second moments", params, exp_avg_sq);
  TORCH_CHECK(step.numel() == 1 && at::isFloatingType(step.scalar_type()), "adamw_: step must be one floating point number");
  for (const auto* scalar : {&grad_scale, &found_inf}) {
    TORCH_CHECK(!*scalar || ((*scalar)->numel() == 1 && (*scalar)->scalar_type() == at::kFloat), "adamw_: gradScale and foundInf must be one float32 each");
  }
  if (params.empty()) return;
  Adam a{0, beta1, beta2, eps, weight_decay, 1, 1, 1};
  if (!on_cuda(params)) a.lr = lr.item().toDouble();
  if (!on_cuda(params)) return adamw_cpu(params, grads, exp_avg, exp_avg_sq, step, a, grad_scale, found_inf);
#if TORCH_VERSION_MAJOR >= 2
  step.add_(1);
  std::vector<at::Tensor> steps(params.size(), step);
  // The fused kernel walks all lists in memory order, and a convolution's gradient may lie in another than its weight.
  std::vector<at::Tensor> laid;
  laid.reserve(grads.size());
  for (size_t i = 0; i < grads.size(); i++) {
    laid.push_back(grads[i].strides() == params[i].strides() ? grads[i] : at::empty_like(params[i]).copy_(grads[i]));
  }
  at::_fused_adamw_(params, laid, exp_avg, exp_avg_sq, {}, steps, lr.to(at::kFloat), beta1, beta2, weight_decay, eps, /*amsgrad=*/false, /*maximize=*/false,
                    grad_scale, found_inf);
  if (found_inf) step.sub_(*found_inf);  // a step that was skipped does not count
#else
  TORCH_CHECK(false, "adamw_: CUDA needs libtorch 2.6 or newer");
#endif
}

template <typename T>
__attribute__((always_inline)) inline double squares_loop(const T* x, int64_t n) {
  // Sixteen sums side by side: the order of additions is fixed, whatever the width of the vectors.
  double sums[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int j = 0; j < 16; j++) sums[j] += double(x[i + j]) * double(x[i + j]);
  }
  double sum = 0;
  for (double part : sums) sum += part;
  for (; i < n; i++) sum += double(x[i]) * double(x[i]);
  return sum;
}
DSD_VECTOR double squares_float(const float* x, int64_t n) { return squares_loop(x, n); }
DSD_VECTOR double squares_double(const double* x, int64_t n) { return squares_loop(x, n); }

at::Tensor grad_norm(at::TensorList given) {
  c10::NoGradGuard no_grad;
  if (given.empty()) return at::zeros({}, at::TensorOptions().dtype(at::kFloat));
  if (on_cuda(given)) {
    auto norms = at::_foreach_norm(given, 2);
    auto all = at::linalg_vector_norm(at::stack(norms));
    return all.scalar_type() == at::kDouble ? all : all.to(at::kFloat);
  }
  bool is_double = false;
  std::vector<at::Tensor> grads;
  for (const auto& grad : given) {
    auto dtype = grad.scalar_type();
    TORCH_CHECK(at::isFloatingType(dtype), "grad_norm: gradients must be floating point, found ", dtype);
    is_double = is_double || dtype == at::kDouble;
    grads.push_back((dtype == at::kFloat || dtype == at::kDouble ? grad : grad.to(at::kFloat)).contiguous());
  }
  check_plain("grad_norm", "gradients", grads);
  auto pieces = cut(grads);
  std::vector<double> sums(pieces.size());
  for_each_piece(pieces, [&](const Piece& part, int64_t at) {
    const auto& grad = grads[part.tensor];
    sums[at] = grad.scalar_type() == at::kFloat ? squares_float(static_cast<const float*>(grad.data_ptr()) + part.begin, part.length)
                                                : squares_double(static_cast<const double*>(grad.data_ptr()) + part.begin, part.length);
  });
  double sum = 0;
  for (double part : sums) sum += part;
  auto result = at::empty({}, at::TensorOptions().dtype(is_double ? at::kDouble : at::kFloat));
  return result.fill_(std::sqrt(sum));
}

template <typename T>
__attribute__((always_inline)) inline void lerp_loop(T* __restrict x, const T* __restrict to, int64_t n, T weight) {
  for (int64_t i = 0; i < n; i++) x[i] += weight * (to[i] - x[i]);
}
DSD_VECTOR void lerp_float(float* x, const float* to, int64_t n, float weight) { lerp_loop(x, to, n, weight); }
DSD_VECTOR void lerp_double(double* x, const double* to, int64_t n, double weight) { lerp_loop(x, to, n, weight); }

void lerp_list(at::TensorList targets, at::TensorList given, const at::Tensor& share) {
  c10::NoGradGuard no_grad;
  check_list("lerp_list_", "sources", targets, given);
  if (targets.empty()) return;
#if TORCH_VERSION_MAJOR >= 2
  if (on_cuda(targets)) {
    auto difference = at::_foreach_sub(given, targets);
    at::_foreach_mul_(difference, share.to(at::kFloat));
    return at::_foreach_add_(targets, difference);
  }
#endif
  double weight = share.item().toDouble();
  auto sources = contiguous(given);
  check_plain("lerp_list_", "targets", targets);
  check_plain("lerp_list_", "sources", sources);
  for_each_piece(cut(targets), [&](const Piece& part, int64_t) {
    void *x = targets[part.tensor].data_ptr(), *to = sources[part.tensor].data_ptr();
    if (targets[part.tensor].scalar_type() == at::kFloat) {
      lerp_float(static_cast<float*>(x) + part.begin, static_cast<float*>(to) + part.begin, part.length, static_cast<float>(weight));
    } else {
      lerp_double(static_cast<double*>(x) + part.begin, static_cast<double*>(to) + part.begin, part.length, weight);
    }
  });
  changed(targets);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def(
      "adamw_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] exp_avg, Tensor(c!)[] exp_avg_sq, Tensor(d!) step, Tensor lr, float beta1, "
      "float beta2, float eps, float weight_decay, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
      &adamw);
  library.def("grad_norm(Tensor[] grads) -> Tensor", &grad_norm);
  library.def("lerp_list_(Tensor(a!)[] targets, Tensor[] sources, Tensor weight) -> ()", &lerp_list);
}

}  // namespace dsd
