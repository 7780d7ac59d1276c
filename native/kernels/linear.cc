// dsd::linear on the CPU: a linear layer without bias. As libtorch has it, but that in bfloat16 the gradient of the weight, a sum over all tokens, is made by
// products of ours where the processor has them: a third faster than the library's, which are made for sums that are short.
#include "linear.h"

#include "bf16.h"
#include "rows.h"

#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>

namespace dsd {
namespace {

#ifdef DSD_BF16

bool fits(const at::Tensor& x, const at::Tensor& weight) {
  auto is = [](const at::Tensor& given) { return given.is_cpu() && given.scalar_type() == at::kBFloat16; };
  return is(x) && is(weight) && x.dim() > 0 && weight.dim() == 2 && x.size(-1) == weight.size(1) && weight.size(0) % 32 == 0 && weight.size(1) % 32 == 0 &&
         x.numel() > 0 && has_bf16_products();
}

struct Linear : torch::autograd::Function<Linear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given, const at::Tensor& weight) {
    auto x = given.contiguous();
    ctx->save_for_backward({x, weight});
    return at::linear(x, weight);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("linear");
    auto saved = ctx->get_saved_variables();
    auto x = saved[0], weight = saved[1], up = gradients[0].contiguous();
    at::Tensor dx, dweight;
    if (ctx->needs_input_grad(0)) dx = at::matmul(up, weight);
    if (ctx->needs_input_grad(1)) {
      dweight = at::empty(weight.sizes(), weight.options());
      WeightGradient w{data<c10::BFloat16>(up), data<c10::BFloat16>(x), data<c10::BFloat16>(dweight), x.numel() / x.size(-1), weight.size(0), weight.size(1)};
      for_rows(w.out / 32, w.rows * 32, [&](int64_t begin, int64_t end) {
        auto memory = at::empty({weight_gradient_memory((end - begin) * 32, w.in)}, at::kInt);
        weight_gradient_bf16(w, begin * 32, end * 32, data<uint32_t>(memory));
      });
    }
    return {dx, dweight};
  }
};

#endif

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
#ifdef DSD_BF16
  if (fits(x, weight)) return Linear::apply(x, weight);
#endif
  return at::linear(x, weight);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) { library.def("linear(Tensor x, Tensor weight) -> Tensor", &linear); }

}  // namespace dsd
