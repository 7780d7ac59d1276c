// The product of a block's MLP with SwiGLU behind it, its gradient, other products of many tiles, and one that leaves added to the stream, on GPUs of compute
// capability 9.0: see cuda/swiglu-hopper.cu, cuda/swiglu-gradient-hopper.cu and cuda/product-add-hopper.cu, whose maps and shared memory this tells of.
#include "block.h"

#ifdef DSD_CUDA

#include "cuda.h"

#include <c10/util/Exception.h>

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace dsd {
namespace {

// What the driver makes of a tensor for the copy engine.
struct alignas(64) TensorMap {
  std::array<uint64_t, 16> opaque;
};
using Encode = int(TensorMap*, int type, uint32_t rank, void* first, const uint64_t* size, const uint64_t* strides, const uint32_t* box,
                   const uint32_t* element_strides, int interleave, int swizzle, int promotion, int fill);

// Drivers before CUDA 12 have none.
Encode* encoder() {
  static Encode* const encode = [] {
    void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    return library ? reinterpret_cast<Encode*>(dlsym(library, "cuTensorMapEncodeTiled")) : nullptr;
  }();
  return encode;
}

// A contiguous tensor in bfloat16 and the boxes that are moved of it, the contiguous dimension first.
template <size_t rank>
TensorMap tensor_map(const at::Tensor& tensor, const std::array<int64_t, rank>& size, const std::array<uint32_t, rank>& box) {
  constexpr int bfloat16 = 9, no_interleave = 0, swizzle_128 = 3, from_memory_128 = 2, zeros_outside = 0;
  std::array<uint64_t, rank> sizes;
  std::array<uint64_t, rank - 1> strides;  // in bytes
  std::array<uint32_t, rank> ones;
  uint64_t stride = 2;
  for (size_t i = 0; i < rank; i++) {
    sizes[i] = static_cast<uint64_t>(size[i]), ones[i] = 1, stride *= sizes[i];
    if (i + 1 < rank) strides[i] = stride;
  }
  TensorMap map;
  const int status = encoder()(&map, bfloat16, rank, tensor.data_ptr(), sizes.data(), strides.data(), box.data(), ones.data(), no_interleave, swizzle_128,
                               from_memory_128, zeros_outside);
  TORCH_CHECK(status == 0, "the driver made no tensor map of ", tensor.sizes(), " (", status, ")");
  return map;
}

// What the copy engine can begin at.
bool movable(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kBFloat16 && tensor.is_contiguous() && reinterpret_cast<uintptr_t>(tensor.data_ptr()) % 16 == 0;
}

bool fits(const at::Tensor& rows, const at::Tensor& weight, int64_t d, int64_t F) {
  return movable(rows) && movable(weight) && rows.numel() > 0 && d % 8 == 0 && F % 8 == 0 && F > 0 && rows.numel() / d < INT32_MAX - 256 && encoder() &&
         device_limits(rows.device()).capability == 90;
}

constexpr const char *PRODUCTS = "swiglu-hopper", *PLAIN = "dsd_product_hopper";
constexpr const char *ADDED = "product-add-hopper", *ADD = "dsd_product_add_hopper";

constexpr int GATES = 2048;  // bytes: those of two tiles, as the text asserts

// Stages, boxes and barriers, which the texts assert of theirs, and what else a kernel wants.
Grid of_tiles(int more_bytes = 0) {
  Grid grid;
  grid.threads = 384;
  grid.shared_bytes = 229632 + more_bytes;
  return grid;
}

// Tiles have 128 rows and `width` of the F columns; a block takes one after another. The blocks of a cluster take tiles below each other: where only some of
// these are there, the others read zeros and write nothing. The kernel's arguments are the maps, what `more` points to, the number of rows, F and d.
void launch_tiles(const char* module, const char* kernel, int64_t cluster, const at::Tensor& rows, int64_t d, int64_t F, int64_t width,
                  const std::array<TensorMap, 4>& maps, const std::vector<void*>& more = {}, int more_bytes = 0) {
  int sizes[] = {static_cast<int>(rows.numel() / d), static_cast<int>(F), static_cast<int>(d)};
  Grid grid = of_tiles(more_bytes);
  const int64_t clusters = (int64_t{sizes[0]} + 128 * cluster - 1) / (128 * cluster) * ((F + width - 1) / width);
  TORCH_CHECK(clusters <= INT32_MAX / 2, kernel, ": too large: ", rows.sizes(), " and F = ", F);
  const int64_t at_once = std::max<int64_t>(1, blocks_at_once(module, kernel, rows.device(), grid) / cluster);
  grid.x = static_cast<unsigned>(std::min(clusters, at_once) * cluster);
  std::vector<void*> args;
  for (const TensorMap& map : maps) args.push_back(const_cast<TensorMap*>(&map));
  args.insert(args.end(), more.begin(), more.end());
  for (int& size : sizes) args.push_back(&size);
  launch(module, kernel, rows.device(), grid, args.data());
}

// cuBLAS cuts fewer rows into smaller tiles than 128 by 256: a fifth of the blocks' turns, no more, may find no tile.
bool turns_are_full(const char* module, const char* kernel, const Grid& grid, const at::Tensor& rows, int64_t K, int64_t N) {
  const int64_t tiles = (rows.numel() / K + 127) / 128 * (N / 256), blocks = blocks_at_once(module, kernel, rows.device(), grid);
  return 5 * tiles >= 4 * ((tiles + blocks - 1) / blocks * blocks);
}

}  // namespace

bool swiglu_product_fits(const at::Tensor& n, const at::Tensor& gate_up) { return fits(n, gate_up, gate_up.size(1), gate_up.size(0) / 2); }

bool swiglu_product_gradient_fits(const at::Tensor& g, const at::Tensor& down) { return fits(g, down, down.size(0), down.size(1)); }

bool product_fits(const at::Tensor& rows, const at::Tensor& weight) {
  const int64_t K = weight.size(1), N = weight.size(0);
  if (N % 256 != 0 || !fits(rows, weight, K, N)) return false;
  return turns_are_full(PRODUCTS, PLAIN, of_tiles(), rows, K, N);
}

void swiglu_product_cuda(const at::Tensor& n, const at::Tensor& gate_up, at::Tensor& h, at::Tensor& s) {
  const int64_t d = gate_up.size(1), F = gate_up.size(0) / 2, M = n.numel() / d;
  const TensorMap to = tensor_map<2>(s, {F, M}, {64, 16});
  // Of the two kernels, the one that leaves h alone is given a map all the same.
  const TensorMap kept = h.defined() ? tensor_map<3>(h, {F, 2, M}, {64, 1, 16}) : to;
  launch_tiles(PRODUCTS, h.defined() ? "dsd_swiglu_product_hopper" : "dsd_swiglu_product_hopper_alone", h.defined() ? 1 : 2, n, d, F, 128,
               {tensor_map<2>(n, {d, M}, {64, 128}), tensor_map<3>(gate_up, {d, F, 2}, {64, 128, 1}), kept, to});
}

void product_cuda(const at::Tensor& rows, const at::Tensor& weight, at::Tensor& out) {
  const int64_t K = weight.size(1), half = weight.size(0) / 2, M = rows.numel() / K;
  const TensorMap to = tensor_map<3>(out, {half, 2, M}, {64, 1, 16});
  launch_tiles(PRODUCTS, PLAIN, 2, rows, K, half, 128,
               {tensor_map<2>(rows, {K, M}, {64, 128}), tensor_map<3>(weight, {K, half, 2}, {64, 128, 1}), to, to});
}

bool product_add_fits(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& x, const at::Tensor& gate) {
  const int64_t K = weight.size(1), N = weight.size(0);
  // Fewer than 193 columns are fewer than four steps, beside which the boxes of a tile leave and its gates come. A tile has the gates of one picture.
  return N % 256 == 0 && K > 192 && rows.size(1) % 128 == 0 && fits(rows, weight, K, N) && movable(x) && gate.scalar_type() == at::kFloat &&
         gate.stride(1) == 1 && gate.stride(0) % 4 == 0 && gate.size(0) * gate.stride(0) < INT32_MAX &&
         reinterpret_cast<uintptr_t>(gate.data_ptr()) % 16 == 0 && turns_are_full(ADDED, ADD, of_tiles(GATES), rows, K, N);
}

void product_add_cuda(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& x, const at::Tensor& gate, at::Tensor& out) {
  const int64_t K = weight.size(1), half = weight.size(0) / 2, M = rows.numel() / K;
  const float* gates = static_cast<const float*>(gate.data_ptr());
  auto stride = static_cast<unsigned>(gate.stride(0));
  int tokens = static_cast<int>(rows.size(1));
  launch_tiles(ADDED, ADD, 2, rows, K, half, 128,
               {tensor_map<2>(rows, {K, M}, {64, 128}), tensor_map<3>(weight, {K, half, 2}, {64, 128, 1}), tensor_map<3>(x, {half, 2, M}, {64, 1, 16}),
                tensor_map<3>(out, {half, 2, M}, {64, 1, 16})},
               {&gates, &stride, &tokens}, GATES);
}

void swiglu_product_gradient_cuda(const at::Tensor& g, const at::Tensor& down, at::Tensor& h, at::Tensor& s) {
  const int64_t d = down.size(0), F = down.size(1), M = g.numel() / d;
  launch_tiles("swiglu-gradient-hopper", "dsd_swiglu_gradient_hopper", 1, g, d, F, 256,
               {tensor_map<2>(g, {d, M}, {64, 128}), tensor_map<2>(down, {F, d}, {64, 64}), tensor_map<3>(h, {F, 2, M}, {64, 1, 64}),
                tensor_map<2>(s, {F, M}, {64, 64})});
}

}  // namespace dsd

#endif
