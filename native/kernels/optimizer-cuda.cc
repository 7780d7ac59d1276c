// The optimizer on CUDA: what native/kernels/cuda/optimizer.cu computes, launched. Addresses go along as arguments, in as many launches as it takes,
// which costs nothing beside the memory that they walk, and leaves nothing that a graph could find gone when it repeats them.
#include "optimizer.h"

#ifdef DSD_CUDA

#include "cuda.h"

#include <ATen/ops/empty.h>

#include <cmath>

namespace dsd {
namespace {

// As in optimizer.cu.
using Address = unsigned long long;
constexpr int64_t block_piece = 8192, block_span = 16384;
struct Spans {
  Address data[192], count[192];
  unsigned begin[192], size;
};
struct ParameterAddresses {
  void* weight;
  Address gradient;
  void *first, *second, *target, *average, *copy, *target_copy;
};
struct Parameters {
  ParameterAddresses at[48];
  Address count[48];
  float scale[48];
  unsigned begin[48], size;
};
struct Matrices {
  Address gradient[256];
};
// What a kernel may have of arguments on any GPU, less some for the others.
static_assert(sizeof(Spans) <= 4000 && sizeof(Parameters) <= 4000 && sizeof(Matrices) <= 4000, "arguments");


void* address(const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }
// The lowest bit says that it is bfloat16, which never lies at an odd address.
Address marked(const at::Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<Address>(tensor.data_ptr()) | (tensor.scalar_type() == at::kBFloat16 ? 1 : 0) : 0;
}
unsigned blocks_of(int64_t elements, int64_t each) { return static_cast<unsigned>((elements + each - 1) / each); }

void launch_kernel(const char* kernel, const at::Tensor& where, unsigned blocks, unsigned threads, std::initializer_list<const void*> arguments) {
  if (blocks == 0) return;
  Grid grid;
  grid.x = blocks;
  grid.threads = threads;
  std::vector<void*> pointers;
  for (const void* argument : arguments) pointers.push_back(const_cast<void*>(argument));
  launch("optimizer", kernel, where.device(), grid, pointers.data());
}

}  // namespace

at::Tensor grad_norm_cuda(const std::vector<at::Tensor>& gradients) {
  unsigned total = 0;
  for (const auto& gradient : gradients) total += blocks_of(gradient.numel(), block_span);
  const auto options = gradients[0].options();
  auto sums = at::empty({std::max<int64_t>(1, total)}, options.dtype(at::kDouble)), norm = at::empty({}, options.dtype(at::kFloat));
  unsigned done = 0;
  Spans all;
  all.size = 0;
  unsigned blocks = 0;
  auto flush = [&] {
    double* to = sums.data_ptr<double>() + done;
    launch_kernel("dsd_squares", sums, blocks, 256, {&all, &to});
    done += blocks;
    all.size = blocks = 0;
  };
  for (const auto& gradient : gradients) {
    if (gradient.numel() == 0) continue;
    all.data[all.size] = marked(gradient);
    all.count[all.size] = static_cast<Address>(gradient.numel());
    all.begin[all.size] = blocks;
    blocks += blocks_of(gradient.numel(), block_span);
    if (++all.size == sizeof(all.begin) / sizeof(unsigned)) flush();
  }
  flush();
  const double* from = sums.data_ptr<double>();
  float* to = norm.data_ptr<float>();
  launch_kernel("dsd_root", sums, 1, 1024, {&from, &total, &to});
  return norm;
}

void step_numbers_cuda(const at::Tensor& norm, const at::Tensor& step, const at::Tensor& rates, double clip, double beta1, double beta2,
                       double weight_decay, at::Tensor& numbers) {
  TORCH_CHECK(norm.scalar_type() == at::kFloat, "step_numbers: on CUDA the norm must be float32, found ", norm.scalar_type());
  void *n = norm.data_ptr(), *t = step.data_ptr(), *r = rates.data_ptr(), *to = numbers.data_ptr();
  int rates_are_double = rates.scalar_type() == at::kDouble;
  float most = static_cast<float>(clip);
  launch_kernel("dsd_numbers", numbers, 1, 1, {&n, &t, &r, &rates_are_double, &most, &beta1, &beta2, &weight_decay, &to});
}

void update_cuda(const std::vector<Parameter>& parameters, const at::Tensor& numbers, double beta1, double beta2, double eps) {
  void* n = numbers.data_ptr();
  float beta1_rest = static_cast<float>(1 - beta1), b2 = static_cast<float>(beta2), beta2_rest = static_cast<float>(1 - beta2),
        epsilon = static_cast<float>(eps);
  Parameters all;
  all.size = 0;
  unsigned blocks = 0;
  auto flush = [&] {
    launch_kernel("dsd_update", numbers, blocks, 256, {&all, &n, &beta1_rest, &b2, &beta2_rest, &epsilon});
    all.size = blocks = 0;
  };
  for (const auto& one : parameters) {
    if (one.weight.numel() == 0) continue;
    all.at[all.size] = {address(one.weight), marked(one.gradient), address(one.first), address(one.second),
                        address(one.target), address(one.average), address(one.copy), address(one.target_copy)};
    all.count[all.size] = static_cast<Address>(one.weight.numel());
    all.scale[all.size] = static_cast<float>(one.scale);
    all.begin[all.size] = blocks;
    blocks += blocks_of(one.weight.numel(), block_piece);
    if (++all.size == sizeof(all.begin) / sizeof(unsigned)) flush();
  }
  flush();
}

void muon_direction_cuda(const std::vector<at::Tensor>& gradients, at::Tensor& momentum, const at::Tensor& numbers, double keep, at::Tensor& out) {
  const int64_t matrices = momentum.size(0);
  Address elements = static_cast<Address>(momentum.size(1) * momentum.size(2));
  unsigned parts = blocks_of(static_cast<int64_t>(elements), block_piece);
  auto sums = at::empty({matrices * parts}, numbers.options());
  float follow = static_cast<float>(1 - keep), rest = 1.0f - static_cast<float>(keep);
  int is_narrow = out.scalar_type() == at::kBFloat16;
  void* n = numbers.data_ptr();
  const int64_t out_bytes = static_cast<int64_t>(out.element_size() * elements);
  Matrices all;
  unsigned size = 0;
  int64_t done = 0;
  auto flush = [&] {
    float* m = momentum.data_ptr<float>() + done * static_cast<int64_t>(elements);
    double* s = sums.data_ptr<double>() + done * parts;
    void* to = static_cast<char*>(out.data_ptr()) + done * out_bytes;
    launch_kernel("dsd_momentum", momentum, size * parts, 256, {&all, &m, &n, &follow, &rest, &elements, &parts, &s});
    launch_kernel("dsd_direction", momentum, size * parts, 256, {&all, &m, &n, &rest, &elements, &parts, &s, &to, &is_narrow});
    done += size;
    size = 0;
  };
  for (const auto& gradient : gradients) {
    const Address step = static_cast<Address>(gradient.element_size()) * elements;
    for (int64_t i = 0; i < gradient.numel() / static_cast<int64_t>(elements); i++) {
      all.gradient[size] = marked(gradient) + static_cast<Address>(i) * step;
      if (++size == sizeof(all.gradient) / sizeof(Address)) flush();
    }
  }
  flush();
}

void quintic_cuda(at::Tensor& square, const at::Tensor& x, double a, double b, double c) {
  void *to = square.data_ptr(), *from = x.data_ptr();
  int is_narrow = square.scalar_type() == at::kBFloat16;
  unsigned k = static_cast<unsigned>(square.size(1)), rows = static_cast<unsigned>(square.size(0)) * k;
  float on_diagonal = static_cast<float>(a), linear = static_cast<float>(b), squared = static_cast<float>(c);
  launch_kernel("dsd_quintic", square, (rows + 7) / 8, 256, {&to, &from, &is_narrow, &rows, &k, &on_diagonal, &linear, &squared});
}

}  // namespace dsd

#endif
