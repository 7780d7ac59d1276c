// dsd::qkv_attention: all of attention between its two linear layers as one operator on CUDA. splitHeads and attention of src/torch/fused.ts, one
// after the other, say what it computes; cuda/attention.cu and cuda/attention-gradient.cu how, and attention-hopper.cu and attention-gradient-hopper.cu
// where they can. Queries and keys are prepared again in the backward: what is kept for it is what is there anyway, and a number a token and head.
#include "rows.h"

#include "cuda.h"

#include <ATen/ops/sum.h>

namespace dsd {
namespace {

// (B, N, 3 h D)
struct Heads {
  int B, N, h, D;
  Heads(const at::Tensor& qkv, int64_t heads)
      : B(static_cast<int>(qkv.size(0))), N(static_cast<int>(qkv.size(1))), h(static_cast<int>(heads)), D(static_cast<int>(qkv.size(2) / (3 * heads))) {}
  unsigned tiles() const { return static_cast<unsigned>(N + 31) / 32; }
  // Keys and values.
  unsigned forward_bytes() const { return tiles() * 32 * static_cast<unsigned>(2 * D * 2); }
  // Queries, gradients and keys; the gradients of the scores; two numbers a token.
  unsigned backward_bytes() const { return tiles() * 32 * static_cast<unsigned>(3 * D * 2 + 2 * 4) + tiles() * tiles() * 2048; }
  // Queries, gradients, keys and values; the gradients of the scores of 64 queries, twice; two numbers a token.
  unsigned hopper_backward_bytes() const { return tiles() * 32 * (6 * 128 + 2 * 4); }
};

bool qkv_attention_supports(const at::Tensor& qkv, int64_t heads) {
#ifdef DSD_CUDA
  if (!qkv.is_cuda() || qkv.scalar_type() != at::kBFloat16 || qkv.dim() != 3 || heads <= 0 || qkv.size(2) % (3 * heads) != 0) return false;
  int64_t N = qkv.size(1), D = qkv.size(2) / (3 * heads);
  if ((D != 32 && D != 64) || N % 16 != 0 || N < 16 || N > 256 || qkv.size(0) * heads * N > INT32_MAX || !cuda_kernels(qkv.device())) return false;
  auto limits = device_limits(qkv.device());
  return limits.capability >= 80 && Heads(qkv, heads).backward_bytes() <= limits.shared_bytes;
#else
  return false;
#endif
}

#ifdef DSD_CUDA

// Whether the kernels for the products of four warps do it.
bool on_hopper(const Heads& s, c10::Device device) { return s.D == 64 && s.N % 64 == 0 && device_limits(device).capability == 90; }

struct QkvAttention : torch::autograd::Function<QkvAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& given, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm,
                            const at::Tensor& cosine, const at::Tensor& sine, double eps) {
    variable_list in = {rows_of(given), rows_of(q_norm), rows_of(k_norm), rows_of(cosine), rows_of(sine)};
    Heads s(in[0], heads);
    auto out = at::empty({s.B, s.N, s.h * s.D}, in[0].options()), lse = at::empty({s.B, s.h, s.N}, q_norm.options());
    if (s.B > 0) {
      void *pointers[] = {data<void>(in[0]), data<void>(in[1]), data<void>(in[2]), data<void>(in[3]), data<void>(in[4]), data<void>(out), data<void>(lse)};
      float epsilon = static_cast<float>(eps);
      void* args[] = {&pointers[0], &pointers[1], &pointers[2], &pointers[3], &pointers[4], &pointers[5], &pointers[6], &s.N, &s.h, &epsilon};
      Grid grid;
      grid.x = static_cast<unsigned>(s.B * s.h);
      if (on_hopper(s, out.device())) {
        grid.threads = std::min(256u, 64 * s.tiles());
        grid.shared_bytes = s.forward_bytes() + 64 * grid.threads;
        launch("attention-hopper", "dsd_attention_hopper", out.device(), grid, args);
      } else {
        grid.threads = 32 * std::min(4u, s.tiles());
        grid.shared_bytes = s.forward_bytes();
        launch("attention", s.D == 64 ? "dsd_attention_64" : "dsd_attention_32", out.device(), grid, args);
      }
    }
    in.push_back(out);
    in.push_back(lse);
    ctx->save_for_backward(in);
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["eps"] = eps;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gradients) {
    only_first_derivatives("qkv_attention");
    auto saved = ctx->get_saved_variables();
    auto grad = rows_of(gradients[0].to(at::kBFloat16)), dqkv = at::empty_like(saved[0]);
    Heads s(saved[0], ctx->saved_data["heads"].toInt());
    int all = s.B * s.h;
    auto dnorm = at::empty({all, 2, s.D}, saved[1].options());
    if (all > 0) {
      void* pointers[] = {data<void>(saved[0]), data<void>(saved[1]), data<void>(saved[2]), data<void>(saved[3]), data<void>(saved[4]),
                          data<void>(saved[5]), data<void>(grad),     data<void>(saved[6]), data<void>(dqkv),     data<void>(dnorm)};
      float epsilon = static_cast<float>(ctx->saved_data["eps"].toDouble());
      bool hopper = on_hopper(s, dqkv.device());
      const char* module = hopper ? "attention-gradient-hopper" : "attention-gradient";
      const char* kernel = hopper ? "dsd_attention_gradient_hopper" : s.D == 64 ? "dsd_attention_gradient_64" : "dsd_attention_gradient_32";
      Grid grid;
      grid.threads = (hopper ? 64 : 32) * s.tiles();
      grid.shared_bytes = hopper ? s.hopper_backward_bytes() : s.backward_bytes();
      int at_once = static_cast<int>(blocks_at_once(module, kernel, dqkv.device(), grid));
      grid.x = static_cast<unsigned>(hopper ? all : std::min(all, at_once));
      void* args[] = {&pointers[0], &pointers[1], &pointers[2], &pointers[3], &pointers[4], &pointers[5], &pointers[6], &pointers[7],
                      &pointers[8], &pointers[9], &s.N,         &s.h,         &all,         &epsilon,     &at_once};  // the last one hopper's only
      launch(module, kernel, dqkv.device(), grid, args);
    }
    auto norms = at::sum(dnorm, 0);
    return {dqkv, at::Tensor(), norms.select(0, 0), norms.select(0, 1), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

#endif

at::Tensor qkv_attention(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cosine,
                         const at::Tensor& sine, double eps) {
  if (qkv.is_cpu()) return qkv_attention_cpu(qkv, heads, q_norm, k_norm, cosine, sine, eps);
  TORCH_CHECK(qkv_attention_supports(qkv, heads), "qkv_attention: needs a CUDA device of compute capability 8.0, and qkv (B, N, 3 h D) in bfloat16 with N a ",
              "multiple of 16 up to 256 and D 32 or 64 (a device with little shared memory takes less); found ", qkv.sizes(), " of ", qkv.scalar_type(), " on ",
              qkv.device(), " and h = ", heads);
#ifdef DSD_CUDA
  check_qkv_attention(qkv, heads, q_norm, k_norm, cosine, sine);
  return QkvAttention::apply(qkv, heads, q_norm, k_norm, cosine, sine, eps);
#else
  return at::Tensor();  // not reached: without CUDA nothing is supported
#endif
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("qkv_attention(Tensor qkv, int heads, Tensor q_norm, Tensor k_norm, Tensor cos, Tensor sin, float eps) -> Tensor", &qkv_attention);
  library.def("qkv_attention_supported(Tensor qkv, int heads) -> bool", &qkv_attention_supports);
}

}  // namespace dsd
