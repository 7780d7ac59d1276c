// What Muon does beside its products of matrices: momentum and the direction of each matrix, and the polynomial of the iteration.
#include "optimizer.h"
#include "rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

namespace dsd {
namespace {

bool is_type(at::ScalarType dtype, at::ScalarType wide) { return dtype == wide || (dtype == at::kBFloat16 && wide == at::kFloat); }

// Calls each(matrix, begin, end) for pieces of every matrix, by threads.
template <typename Each>
void for_each_piece(int64_t matrices, int64_t elements, Each each) {
  int64_t parts = (elements + piece - 1) / piece;
  at::parallel_for(0, matrices * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) each(i / parts, i % parts * piece, std::min(elements, (i % parts + 1) * piece));
  });
}

// m += (1 - keep) (g - m); direction = g + keep (m - g), which is Nesterov's. Returns the sum of its squares.
template <typename T, typename G>
DSD_VECTOR double momentum_piece(const G* g, T* m, T* direction, int64_t n, T inverse, T follow, T rest) {
  Vector<T> squares = {};
  for (int64_t i = 0; i < n; i += lanes<T>) {
    const int64_t left = n - i;
    Vector<T> gradient = load<T>(g + i, left) * inverse, before = load<T>(m + i, left);
    Vector<T> next = before + follow * (gradient - before), now = next - (next - gradient) * rest;
    store<T>(m + i, next, left);
    store<T>(direction + i, now, left);
    squares += now * now;
  }
  return total<T>(squares);
}

template <typename T, typename S>
DSD_VECTOR void scale_piece(const T* x, S* y, int64_t n, T by) {
  for (int64_t i = 0; i < n; i += lanes<T>) store<T>(y + i, load<T>(x + i, n - i) * by, n - i);
}

template <typename T, typename G, typename S>
void direction_cpu(const std::vector<const G*>& gradients, at::Tensor& momentum, const double* numbers, double keep, at::Tensor& out) {
  const int64_t matrices = momentum.size(0), elements = momentum.size(1) * momentum.size(2);
  const int64_t parts = (elements + piece - 1) / piece;
  auto wide = at::empty_like(momentum);
  T *m = data<T>(momentum), *u = data<T>(wide);
  std::vector<double> squares(matrices * parts);
  for_each_piece(matrices, elements, [&](int64_t i, int64_t begin, int64_t end) {
    const int64_t at = i * elements + begin;
    squares[i * parts + begin / piece] =
        momentum_piece<T, G>(gradients[i] + begin, m + at, u + at, end - begin, T(1 / numbers[kDivisor]), T(1 - keep), T(1) - T(keep));
  });
  for_each_piece(matrices, elements, [&](int64_t i, int64_t begin, int64_t end) {
    const int64_t at = i * elements + begin;
    double sum = 0;
    for (int64_t part = i * parts; part < (i + 1) * parts; part++) sum += squares[part];
    scale_piece<T, S>(u + at, data<S>(out) + at, end - begin, T(1 / (std::sqrt(sum) + 1e-7)));
  });
}

at::Tensor muon_direction(at::TensorList given, at::Tensor momentum, const at::Tensor& numbers, double keep, at::ScalarType dtype) {
  c10::NoGradGuard no_grad;
  const auto wide = momentum.scalar_type();
  TORCH_CHECK(momentum.dim() == 3 && momentum.is_contiguous(), "muon_direction: momentum must be (M, r, q) and contiguous, found ", momentum.sizes());
  TORCH_CHECK(wide == at::kFloat || (wide == at::kDouble && momentum.is_cpu()), "muon_direction: momentum must be float32, or float64 on the CPU, found ", wide);
  TORCH_CHECK(is_type(dtype, wide), "muon_direction: from ", wide, " to ", dtype);
  TORCH_CHECK(numbers.sizes() == at::IntArrayRef({kNumbers}) && numbers.scalar_type() == at::kDouble && numbers.is_contiguous() &&
                  numbers.device() == momentum.device(),
              "muon_direction: numbers must be what step_numbers gives, on ", momentum.device());
  const int64_t elements = momentum.size(1) * momentum.size(2);
  std::vector<at::Tensor> gradients;
  int64_t found = 0;
  for (const auto& gradient : given) {
    TORCH_CHECK(is_type(gradient.scalar_type(), wide) && gradient.scalar_type() == given[0].scalar_type() && gradient.device() == momentum.device(),
                "muon_direction: gradients must be of one type, ", wide, " or bfloat16, on ", momentum.device(), "; found ", gradient.scalar_type(),
                " on ", gradient.device());
    TORCH_CHECK(elements > 0 && gradient.numel() % elements == 0, "muon_direction: a gradient of shape ", gradient.sizes(), " is no whole number of ",
                momentum.size(1), " by ", momentum.size(2));
    found += gradient.numel();
    gradients.push_back(gradient.contiguous());
  }
  TORCH_CHECK(found == momentum.numel() && found > 0, "muon_direction: gradients have ", found, " elements, momentum ", momentum.numel());
  auto out = at::empty(momentum.sizes(), momentum.options().dtype(dtype));
#ifdef DSD_CUDA
  if (momentum.is_cuda()) {
    muon_direction_cuda(gradients, momentum, numbers, keep, out);
    momentum.unsafeGetTensorImpl()->bump_version();
    return out;
  }
#endif
  TORCH_CHECK(momentum.is_cpu(), "muon_direction: is for the CPU and CUDA, found ", momentum.device());
  const double* n = numbers.data_ptr<double>();
  if (n[kFinite] == 0) return out.zero_();
  auto by_gradient = [&](auto t, auto g, auto s) {
    using T = decltype(t);
    using G = decltype(g);
    std::vector<const G*> matrices;
    for (const auto& gradient : gradients) {
      for (int64_t at = 0; at < gradient.numel(); at += elements) matrices.push_back(data<G>(gradient) + at);
    }
    direction_cpu<T, G, decltype(s)>(matrices, momentum, n, keep, out);
  };
  using Half = c10::BFloat16;
  const bool half_in = gradients[0].scalar_type() == at::kBFloat16, half_out = dtype == at::kBFloat16;
  if (wide == at::kDouble) by_gradient(double(), double(), double());
  else if (half_in && half_out) by_gradient(float(), Half(), Half());
  else if (half_in) by_gradient(float(), Half(), float());
  else if (half_out) by_gradient(float(), float(), Half());
  else by_gradient(float(), float(), float());
  momentum.unsafeGetTensorImpl()->bump_version();
  return out;
}

template <typename T, typename S>
DSD_VECTOR void quintic_rows(S* square, const S* x, int64_t begin, int64_t end, int64_t k, T a, T b, T c) {
  for (int64_t row = begin; row < end; row++) {
    S *out = square + row * k, *diagonal = out + row % k;
    const T on_diagonal = a + b * T(x[row * k + row % k]) + c * T(*diagonal);
    for (int64_t i = 0; i < k; i += lanes<T>) store<T>(out + i, b * load<T>(x + row * k + i, k - i) + c * load<T>(out + i, k - i), k - i);
    *diagonal = S(on_diagonal);
  }
}

void quintic(at::Tensor square, const at::Tensor& x, double a, double b, double c) {
  c10::NoGradGuard no_grad;
  TORCH_CHECK(square.dim() == 3 && square.size(1) == square.size(2) && square.sizes() == x.sizes(),
              "quintic_: both must be (M, k, k), found ", square.sizes(), " and ", x.sizes());
  TORCH_CHECK(square.scalar_type() == x.scalar_type() && square.device() == x.device(), "quintic_: one type and device, found ", square.scalar_type(),
              " on ", square.device(), " and ", x.scalar_type(), " on ", x.device());
  TORCH_CHECK(square.is_contiguous() && x.is_contiguous(), "quintic_: both must be contiguous");
  const auto dtype = square.scalar_type();
#ifdef DSD_CUDA
  if (square.is_cuda()) {
    TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "quintic_: on CUDA float32 or bfloat16, found ", dtype);
    quintic_cuda(square, x, a, b, c);
    square.unsafeGetTensorImpl()->bump_version();
    return;
  }
#endif
  TORCH_CHECK(square.is_cpu(), "quintic_: is for the CPU and CUDA, found ", square.device());
  const int64_t k = square.size(1);
  by_type("quintic_", wide_of(dtype), dtype, [&](auto wide, auto narrow) {
    using T = decltype(wide);
    using S = decltype(narrow);
    for_rows(square.size(0) * k, k, [&](int64_t begin, int64_t end) { quintic_rows<T, S>(data<S>(square), data<S>(x), begin, end, k, T(a), T(b), T(c)); });
  });
  square.unsafeGetTensorImpl()->bump_version();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("muon_direction(Tensor[] gradients, Tensor(a!) momentum, Tensor numbers, float keep, ScalarType dtype) -> Tensor", &muon_direction);
  library.def("quintic_(Tensor(a!) square, Tensor x, float a, float b, float c) -> ()", &quintic);
}

}  // namespace dsd
