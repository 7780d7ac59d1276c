// The optimizer's passes over memory: the norm of all gradients; AdamW or a given direction, with both averages and the bfloat16 copies, element by
// element; Muon's momentum; and the polynomial of its iteration. None of them is recorded for gradients.
//
// On the CPU a piece goes through several loops while it lies in the nearest cache, which is one pass over memory.
#include "optimizer.h"
#include "rows.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

namespace dsd {
namespace {

using MaybeTensors = c10::List<Optional<at::Tensor>>;

struct Piece {
  size_t tensor;
  int64_t begin;
  int64_t length;
};

// Calls each(piece, its number), by threads.
template <typename Lengths, typename Each>
void for_each_piece(const Lengths& lengths, Each each) {
  std::vector<Piece> pieces;
  for (size_t i = 0; i < lengths.size(); i++) {
    for (int64_t begin = 0; begin < lengths[i]; begin += piece) pieces.push_back({i, begin, std::min(piece, lengths[i] - begin)});
  }
  at::parallel_for(0, static_cast<int64_t>(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) each(pieces[i], i);
  });
}

void changed(const at::Tensor& tensor) {
  if (tensor.defined()) tensor.unsafeGetTensorImpl()->bump_version();
}

template <typename T>
T* pointer(const at::Tensor& tensor, int64_t at) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) + at : nullptr;
}

bool is_bfloat16(const at::Tensor& tensor) { return tensor.defined() && tensor.scalar_type() == at::kBFloat16; }

const double* read_numbers(const char* name, const at::Tensor& numbers, at::Device device) {
  TORCH_CHECK(numbers.sizes() == at::IntArrayRef({kNumbers}) && numbers.scalar_type() == at::kDouble && numbers.is_contiguous(), name,
              ": numbers must be what step_numbers gives, found ", numbers.scalar_type(), " ", numbers.sizes());
  TORCH_CHECK(numbers.device() == device, name, ": numbers are on ", numbers.device(), ", expected ", device);
  return numbers.is_cpu() ? numbers.data_ptr<double>() : nullptr;
}

// --- The norm of all gradients

template <typename T>
DSD_INLINE double squares_loop(const T* x, int64_t n) {
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
DSD_VECTOR double squares(const float* x, int64_t n) { return squares_loop(x, n); }
DSD_VECTOR double squares(const double* x, int64_t n) { return squares_loop(x, n); }

// What lies in the nearest cache while the loops below go over it.
constexpr int64_t strip = 1024;

DSD_INLINE void widen(const c10::BFloat16* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; i += lanes<float>) store<float>(to + i, load<float>(from + i, n - i), n - i);
}
DSD_INLINE void narrow(const float* from, c10::BFloat16* to, int64_t n) {
  for (int64_t i = 0; i < n; i += lanes<float>) store<float>(to + i, load<float>(from + i, n - i), n - i);
}
DSD_VECTOR double squares(const c10::BFloat16* x, int64_t n) {
  float wide[strip];
  double sum = 0;
  for (int64_t i = 0; i < n; i += strip) {
    widen(x + i, wide, std::min(strip, n - i));
    sum += squares_loop(wide, std::min(strip, n - i));
  }
  return sum;
}

at::Tensor grad_norm(at::TensorList given) {
  c10::NoGradGuard no_grad;
  if (given.empty()) return at::zeros({}, at::TensorOptions().dtype(at::kFloat));
  bool is_double = false;
  std::vector<at::Tensor> grads;
  std::vector<int64_t> lengths;
  for (const auto& grad : given) {
    auto dtype = grad.scalar_type();
    TORCH_CHECK(at::isFloatingType(dtype), "grad_norm: gradients must be floating point, found ", dtype);
    TORCH_CHECK(grad.device() == given[0].device(), "grad_norm: gradients are on ", given[0].device(), " and ", grad.device());
    is_double = is_double || dtype == at::kDouble;
    bool as_it_is = dtype == at::kFloat || dtype == at::kBFloat16 || (dtype == at::kDouble && grad.is_cpu());
    grads.push_back((as_it_is ? grad : grad.to(at::kFloat)).contiguous());
    lengths.push_back(grad.numel());
  }
#ifdef DSD_CUDA
  if (given[0].is_cuda()) return grad_norm_cuda(grads);
#endif
  TORCH_CHECK(given[0].is_cpu(), "grad_norm: is for the CPU and CUDA, found ", given[0].device());
  std::vector<double> sums;
  for (int64_t length : lengths) sums.resize(sums.size() + (length + piece - 1) / piece);
  for_each_piece(lengths, [&](const Piece& part, int64_t at) {
    const auto& grad = grads[part.tensor];
    auto sum = [&](auto type) { return squares(pointer<decltype(type)>(grad, part.begin), part.length); };
    sums[at] = grad.scalar_type() == at::kDouble ? sum(double()) : is_bfloat16(grad) ? sum(c10::BFloat16()) : sum(float());
  });
  double sum = 0;
  for (double part : sums) sum += part;
  auto result = at::empty({}, at::TensorOptions().dtype(is_double ? at::kDouble : at::kFloat));
  return result.fill_(std::sqrt(sum));
}

// --- The numbers of a step

at::Tensor step_numbers(const at::Tensor& norm, at::Tensor step, const at::Tensor& rates, double clip, double beta1, double beta2,
                        double weight_decay) {
  c10::NoGradGuard no_grad;
  auto is_real = [](const at::Tensor& tensor) { return tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kDouble; };
  TORCH_CHECK(norm.numel() == 1 && is_real(norm), "step_numbers: norm must be one float32 or float64");
  TORCH_CHECK(step.numel() == 1 && step.scalar_type() == at::kFloat, "step_numbers: step must be one float32");
  TORCH_CHECK(rates.sizes() == at::IntArrayRef({3}) && is_real(rates) && rates.is_contiguous(),
              "step_numbers: rates must be three of float32 or float64, found ", rates.scalar_type(), " ", rates.sizes());
  for (const auto* tensor : {&norm, &rates}) {
    TORCH_CHECK(tensor->device() == step.device(), "step_numbers: step is on ", step.device(), ", and norm or rates on ", tensor->device());
  }
  auto numbers = at::empty({kNumbers}, step.options().dtype(at::kDouble));
#ifdef DSD_CUDA
  if (step.is_cuda()) return step_numbers_cuda(norm, step, rates, clip, beta1, beta2, weight_decay, numbers), numbers;
#endif
  double* to = numbers.data_ptr<double>();
  bool is_double = norm.scalar_type() == at::kDouble;
  // In the norm's own type, and 1e-6, as in PyTorch.
  double divisor = is_double ? std::max(1.0, (norm.item().toDouble() + 1e-6) / clip)
                             : std::max(1.f, (norm.item().toFloat() + 1e-6f) / static_cast<float>(clip));
  auto wide = rates.to(at::kDouble);
  const double* rate = wide.data_ptr<double>();
  to[kFinite] = std::isfinite(norm.item().toDouble());
  if (to[kFinite] != 0) step.add_(1);
  double t = step.item().toDouble();
  to[kDivisor] = divisor;
  to[kRate] = rate[0];
  to[kDecay] = rate[0] * weight_decay;
  to[kSize] = rate[0] / (1 - std::pow(beta1, t));
  to[kRoot] = 1 / std::sqrt(1 - std::pow(beta2, t));
  to[kTargetShare] = rate[1];
  to[kAverageShare] = rate[2];
  return numbers;
}

// --- The pass over all parameters

template <typename T>
struct Constants {
  bool finite;
  T inverse, keep, size, root, b1, b2, rest2, eps, target, average, decay;
  double rate;
  Constants(const double* n, double beta1, double beta2, double epsilon)
      : finite(n[kFinite] != 0), inverse(T(1 / n[kDivisor])), keep(T(1 - n[kDecay])), size(T(n[kSize])), root(T(n[kRoot])), b1(T(1 - beta1)),
        b2(T(beta2)), rest2(T(1 - beta2)), eps(T(epsilon)), target(T(n[kTargetShare])), average(T(n[kAverageShare])), decay(T(n[kDecay])),
        rate(n[kRate]) {}
};

template <typename T>
DSD_INLINE void adamw(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v, int64_t n, const Constants<T>& a) {
  for (int64_t i = 0; i < n; i++) {
    T grad = g[i] * a.inverse;
    T first = m[i] + a.b1 * (grad - m[i]);
    T second = a.b2 * v[i] + a.rest2 * grad * grad;
    m[i] = first;
    v[i] = second;
    p[i] = a.keep * p[i] - a.size * first / (std::sqrt(second) * a.root + a.eps);
  }
}
template <typename T>
DSD_INLINE void go(T* __restrict p, const T* __restrict direction, int64_t n, T size, T decay) {
  for (int64_t i = 0; i < n; i++) p[i] += size * direction[i] - decay * p[i];
}
template <typename T>
DSD_INLINE void lerp(T* __restrict x, const T* __restrict to, int64_t n, T share) {
  for (int64_t i = 0; i < n; i++) x[i] += share * (to[i] - x[i]);
}
DSD_INLINE const float* wide(const float* x, bool is_bfloat16, float* space, int64_t n) {
  if (!is_bfloat16) return x;
  widen(reinterpret_cast<const c10::BFloat16*>(x), space, n);
  return space;
}
DSD_INLINE const double* wide(const double* x, bool, double*, int64_t) { return x; }
DSD_INLINE void narrow(const double*, c10::BFloat16*, int64_t) {}

template <typename T>
DSD_VECTOR void update_piece(const Parameter& all, int64_t begin, int64_t end, const Constants<T>& a) {
  T space[strip];
  const bool narrow_gradient = is_bfloat16(all.gradient);
  for (int64_t at = begin; at < end; at += strip) {
    const int64_t n = std::min(strip, end - at);
    T *p = pointer<T>(all.weight, at), *target = pointer<T>(all.target, at), *average = pointer<T>(all.average, at);
    if (all.gradient.defined() && a.finite) {
      const T* given = narrow_gradient ? reinterpret_cast<const T*>(pointer<c10::BFloat16>(all.gradient, at)) : pointer<T>(all.gradient, at);
      const T* g = wide(given, narrow_gradient, space, n);
      if (all.first.defined()) {
        adamw(p, g, pointer<T>(all.first, at), pointer<T>(all.second, at), n, a);
      } else {
        go(p, g, n, T(-a.rate * all.scale), a.decay);
      }
    }
    if (target) lerp(target, p, n, a.target);
    if (average) lerp(average, p, n, a.average);
    if (all.copy.defined()) narrow(p, pointer<c10::BFloat16>(all.copy, at), n);
    if (target && all.target_copy.defined()) narrow(target, pointer<c10::BFloat16>(all.target_copy, at), n);
  }
}

// Kernels write through plain pointers.
void check_one(const char* what, size_t i, const at::Tensor& weight, const at::Tensor& tensor, at::ScalarType dtype) {
  if (!tensor.defined()) return;
  TORCH_CHECK(tensor.sizes() == weight.sizes(), "update_: ", what, "[", i, "] has shape ", tensor.sizes(), ", expected ", weight.sizes());
  TORCH_CHECK(tensor.scalar_type() == dtype, "update_: ", what, "[", i, "] has dtype ", tensor.scalar_type(), ", expected ", dtype);
  TORCH_CHECK(tensor.device() == weight.device(), "update_: ", what, "[", i, "] is on ", tensor.device(), ", expected ", weight.device());
  TORCH_CHECK(tensor.is_contiguous(), "update_: ", what, "[", i, "] is not contiguous");
}

void update(at::TensorList weights, const MaybeTensors& gradients, const MaybeTensors& first, const MaybeTensors& second,
            const MaybeTensors& target, const MaybeTensors& average, const MaybeTensors& copies, const MaybeTensors& target_copies,
            c10::ArrayRef<double> scales, const at::Tensor& numbers, double beta1, double beta2, double eps) {
  c10::NoGradGuard no_grad;
  for (const auto* list : {&gradients, &first, &second, &target, &average, &copies, &target_copies}) {
    TORCH_CHECK(list->size() == weights.size(), "update_: lists of ", list->size(), " and ", weights.size(), " tensors");
  }
  TORCH_CHECK(scales.size() == weights.size(), "update_: ", scales.size(), " scales for ", weights.size(), " weights");
  if (weights.empty()) return;
  std::vector<Parameter> all;
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < weights.size(); i++) {
    auto of = [&](const MaybeTensors& list) {
      Optional<at::Tensor> tensor = list.get(i);
      return tensor ? *tensor : at::Tensor();
    };
    const auto& w = weights[i];
    Parameter one{w, of(gradients), of(first), of(second), of(target), of(average), of(copies), of(target_copies), scales[i]};
    auto dtype = w.scalar_type();
    TORCH_CHECK(dtype == at::kFloat || (dtype == at::kDouble && w.is_cpu()), "update_: weights[", i, "] must be float32, or float64 on the CPU, found ", dtype);
    TORCH_CHECK(w.is_contiguous(), "update_: weights[", i, "] is not contiguous");
    TORCH_CHECK(w.device() == weights[0].device(), "update_: weights are on ", weights[0].device(), " and ", w.device());
    TORCH_CHECK(one.first.defined() == one.second.defined(), "update_: weights[", i, "] has one moment of two");
    if (one.gradient.defined()) one.gradient = one.gradient.contiguous();
    bool narrow_gradient = is_bfloat16(one.gradient) && dtype == at::kFloat;
    check_one("gradients", i, w, one.gradient, narrow_gradient ? at::kBFloat16 : dtype);
    check_one("first moments", i, w, one.first, dtype);
    check_one("second moments", i, w, one.second, dtype);
    check_one("target", i, w, one.target, dtype);
    check_one("average", i, w, one.average, dtype);
    TORCH_CHECK(dtype == at::kFloat || !(one.copy.defined() || one.target_copy.defined()), "update_: only float32 weights have copies");
    check_one("copies", i, w, one.copy, at::kBFloat16);
    check_one("copies of the target", i, w, one.target_copy, at::kBFloat16);
    lengths.push_back(w.numel());
    all.push_back(std::move(one));
  }
  const double* n = read_numbers("update_", numbers, weights[0].device());
#ifdef DSD_CUDA
  if (weights[0].is_cuda()) {
    update_cuda(all, numbers, beta1, beta2, eps);
  } else
#endif
  {
    TORCH_CHECK(n, "update_: is for the CPU and CUDA, found ", weights[0].device());
    Constants<float> single(n, beta1, beta2, eps);
    Constants<double> wide(n, beta1, beta2, eps);
    for_each_piece(lengths, [&](const Piece& part, int64_t) {
      const auto& one = all[part.tensor];
      if (one.weight.scalar_type() == at::kFloat) update_piece<float>(one, part.begin, part.begin + part.length, single);
      else update_piece<double>(one, part.begin, part.begin + part.length, wide);
    });
  }
  for (const auto& one : all) {
    for (const auto* tensor : {&one.weight, &one.first, &one.second, &one.target, &one.average, &one.copy, &one.target_copy}) changed(*tensor);
  }
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("grad_norm(Tensor[] grads) -> Tensor", &grad_norm);
  library.def("step_numbers(Tensor norm, Tensor(a!) step, Tensor rates, float clip, float beta1, float beta2, float weight_decay) -> Tensor",
              &step_numbers);
  library.def(
      "update_(Tensor(a!)[] weights, Tensor?[] gradients, Tensor(b!)?[] first, Tensor(c!)?[] second, Tensor(d!)?[] target, Tensor(e!)?[] average, "
      "Tensor(f!)?[] copies, Tensor(g!)?[] target_copies, float[] scales, Tensor numbers, float beta1, float beta2, float eps) -> ()",
      &update);
}

}  // namespace dsd
