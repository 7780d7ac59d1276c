// The element-wise parts of a transformer block on CUDA: see block.cc for what they compute, cuda/block.cu for how.
#include "block.h"

#ifdef DSD_CUDA

#include "cuda.h"
#include "kernels.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <string>

namespace dsd {
namespace {

// A kernel's row lies in the registers of four warps at most.
constexpr int64_t widest = 1024;
// By the types of stream, branch and result, then by how many warps take a row.
using Names = const char* const[5][4];
#define DSD_WIDTHS(name) {name "_1", name "_2", name "_3", name "_4"}
#define DSD_NAMES(name) {DSD_WIDTHS(name "_fff"), DSD_WIDTHS(name "_fbb"), DSD_WIDTHS(name "_fbf"), DSD_WIDTHS(name "_bbb"), DSD_WIDTHS(name "_bbf")}
Names add_norm_kernels = DSD_NAMES("dsd_add_norm");
Names gradient_kernels = DSD_NAMES("dsd_add_norm_gradient");

bool is_aligned(const at::Tensor& tensor) { return reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 16 == 0; }

void check(const char* name, const at::Tensor& tensor) {
  TORCH_CHECK(is_aligned(tensor), name, ": rows must begin at multiples of 16 bytes, found a view of shape ", tensor.sizes(), " that does not");
}

// A vector a picture, as kernels take it: its first element and how far apart the pictures lie.
struct PerPicture {
  const float* first = nullptr;
  long long stride = 0;
  PerPicture(at::Tensor& held, const at::Tensor& given) {
    if (!given.defined()) return;
    held = is_aligned(given) && given.stride(0) % 4 == 0 ? given : given.clone(at::MemoryFormat::Contiguous);
    first = static_cast<const float*>(held.data_ptr());
    stride = held.stride(0);
  }
};

void* data(const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

const char* kernel_for(Names& names, const at::Tensor& x, const at::Tensor& y, const at::Tensor& n) {
  for (const at::Tensor& each : {x, y, n}) {
    if (each.defined()) {
      TORCH_CHECK(each.scalar_type() == at::kBFloat16 || each.scalar_type() == at::kFloat, "add_norm: on CUDA it takes float32 and bfloat16, found ",
                  each.scalar_type());
    }
  }
  auto is_narrow = [](const at::Tensor& tensor) { return tensor.scalar_type() == at::kBFloat16; };
  bool stream = is_narrow(x), result = is_narrow(n), branch = y.defined() ? is_narrow(y) : stream || result;
  TORCH_CHECK(branch || (!stream && !result), "add_norm: a float32 branch needs a float32 stream and result, found ", x.scalar_type(), " and ",
              n.scalar_type());
  int64_t d = x.size(2);
  TORCH_CHECK(d % 8 == 0 && d > 0 && d <= widest, "add_norm: on CUDA the width must be a multiple of 8 up to ", widest, ", found ", d);
  return names[!branch ? 0 : (stream ? 3 : 1) + (result ? 0 : 1)][(d - 1) / 256];
}

// How many blocks a picture may be given to, beside that each group of a block's has a row.
struct Share {
  int fewest, most;
};

// How many rows of a picture a block takes that has `groups` groups of warps, of which the device works on `at_once` at a time: as long as few pass by idle
// while the last are at work. A block begins and ends in about the time of two turns of its groups.
int rows_of_block(int64_t B, int N, int groups, int64_t at_once, Share share) {
  const int most = std::min(share.most, (N + groups - 1) / groups);
  int best = N;
  int64_t least = INT64_MAX;
  for (int blocks = std::min(share.fewest, most); blocks <= most; blocks++) {
    const int rows = (N + blocks - 1) / blocks;
    const int64_t turns = (B * ((N + rows - 1) / rows) + at_once - 1) / at_once * ((rows + groups - 1) / groups + 2);
    if (turns < least) least = turns, best = rows;
  }
  return best;
}

// The blocks of add_norm's kernels, of `rows` rows of a picture each, and whose groups keep `vectors` sums as long as a row: see cuda/block.cu.
struct Blocks {
  int rows;
  Grid grid;
  Blocks(const char* kernel, const at::Tensor& x, int vectors, Share share) {
    constexpr int groups_of[] = {8, 4, 5, 4};
    const int N = static_cast<int>(x.size(1)), warps = static_cast<int>(x.size(2) + 255) / 256, groups = groups_of[warps - 1];
    grid.threads = static_cast<unsigned>(groups * warps * 32);
    grid.shared_bytes = static_cast<unsigned>(groups * (vectors * warps * 256 + 8) * sizeof(float));
    rows = rows_of_block(x.size(0), N, groups, blocks_at_once("block", kernel, x.device(), grid), share);
    grid.x = static_cast<unsigned>((N + rows - 1) / rows), grid.y = static_cast<unsigned>(x.size(0));
  }
};
// Four blocks a picture have been measured to be quicker than fewer, and as quick as more.
constexpr Share forward_share = {4, 256};
// Two, even where one a picture keeps the device busy; not so many that their sums are a work of their own.
constexpr Share gradient_share = {2, 16};

}  // namespace

void add_norm_cuda(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& shift, const at::Tensor& scale, double eps,
                   at::Tensor& x1, at::Tensor& n) {
  const char* kernel = kernel_for(add_norm_kernels, x, y, n);
  if (x.numel() == 0) return;
  for (const at::Tensor& each : {x, y, x1, n}) {
    if (each.defined()) check("add_norm", each);
  }
  at::Tensor held[3];
  PerPicture g(held[0], gate), h(held[1], shift), s(held[2], scale);
  void *from = data(x), *branch = data(y), *sum = data(x1), *result = data(n);
  int N = static_cast<int>(x.size(1)), d = static_cast<int>(x.size(2));
  Blocks blocks(kernel, x, 0, forward_share);
  float epsilon = static_cast<float>(eps);
  void* args[] = {&from, &g.first, &g.stride, &branch, &h.first, &h.stride, &s.first, &s.stride, &sum, &result, &N, &d, &epsilon, &blocks.rows};
  launch("block", kernel, x.device(), blocks.grid, args);
}

void add_norm_gradient_cuda(const at::Tensor& x1, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& shift, const at::Tensor& scale,
                            const at::Tensor& dx1, const at::Tensor& dn, double eps, at::Tensor& dx, at::Tensor& dy, at::Tensor& dgate,
                            at::Tensor& dshift, at::Tensor& dscale, at::Tensor& n) {
  const char* kernel = kernel_for(gradient_kernels, x1, y, dn);
  const int B = static_cast<int>(x1.size(0)), d = static_cast<int>(x1.size(2));
  at::Tensor total;  // (B, 3, d)
  if (x1.numel() == 0) {
    total = at::zeros({B, 3, d}, x1.options().dtype(at::kFloat));
  } else {
    for (const at::Tensor& each : {x1, y, dx1, dn, dx, dy, n}) {
      if (each.defined()) check("add_norm", each);
    }
    Blocks of_rows(kernel, x1, 3, gradient_share);
    int N = static_cast<int>(x1.size(1)), width = d, blocks = static_cast<int>(of_rows.grid.x), columns = 3 * d;
    auto sums = at::empty({B, blocks, 3, d}, x1.options().dtype(at::kFloat));
    at::Tensor held[3];
    PerPicture g(held[0], gate), h(held[1], shift), s(held[2], scale);
    void *stream = data(x1), *branch = data(y), *up1 = data(dx1), *up = data(dn), *to = data(dx), *to_branch = data(dy), *partial = data(sums), *again = data(n);
    float epsilon = static_cast<float>(eps);
    void* args[] = {&stream, &g.first, &g.stride, &branch,    &h.first, &h.stride, &s.first, &s.stride, &up1,
                    &up,     &again,   &to,       &to_branch, &partial, &N,        &width,   &epsilon,  &of_rows.rows};
    launch("block", kernel, x1.device(), of_rows.grid, args);
    total = sums.select(1, 0);
    if (blocks > 1 && (y.defined() || scale.defined())) {
      total = at::empty({B, 3, d}, sums.options());
      void* result = data(total);
      void* of_sums[] = {&partial, &result, &blocks, &columns};
      launch("block", "dsd_add_norm_sums", x1.device(), {static_cast<unsigned>((columns + 1023) / 1024), static_cast<unsigned>(B)}, of_sums);
    }
  }
  if (y.defined()) dgate = total.select(1, 0);
  if (scale.defined()) dshift = total.select(1, 1), dscale = total.select(1, 2);
}

namespace {

struct Chunks {
  unsigned count, blocks;
  int F;
};
Chunks chunks_of(const at::Tensor& h) {
  int64_t F = h.size(-1) / 2, count = h.numel() / 16;
  TORCH_CHECK(F % 8 == 0, "swiglu: on CUDA the width must be a multiple of 16, found ", 2 * F);
  TORCH_CHECK(h.scalar_type() == at::kFloat || h.scalar_type() == at::kBFloat16, "swiglu: on CUDA in float32 or bfloat16, found ", h.scalar_type());
  TORCH_CHECK(count <= 0xFFFFFFFFll, "swiglu: too large: ", h.sizes());
  return {static_cast<unsigned>(count), static_cast<unsigned>(std::min<int64_t>((count + 255) / 256, 65535)), static_cast<int>(F)};
}

}  // namespace

void swiglu_cuda(const at::Tensor& h, at::Tensor& out) {
  auto chunks = chunks_of(h);
  if (chunks.count == 0) return;
  check("swiglu", h);
  void *from = data(h), *to = data(out);
  void* args[] = {&from, &to, &chunks.count, &chunks.F};
  launch("block", h.scalar_type() == at::kFloat ? "dsd_swiglu_f" : "dsd_swiglu_b", h.device(), {chunks.blocks}, args);
}

void swiglu_gradient_cuda(const at::Tensor& h, const at::Tensor& g, at::Tensor& dh, at::Tensor& out) {
  auto chunks = chunks_of(h);
  if (chunks.count == 0) return;
  for (const at::Tensor& each : {h, g}) check("swiglu", each);
  void *from = data(h), *up = data(g), *to = data(dh), *again = data(out);
  void* args[] = {&from, &up, &to, &again, &chunks.count, &chunks.F};
  launch("block", h.scalar_type() == at::kFloat ? "dsd_swiglu_gradient_f" : "dsd_swiglu_gradient_b", h.device(), {chunks.blocks}, args);
}

}  // namespace dsd

#endif
