// dsd::rand and dsd::randn: numbers that are a function of (key, image, element). Philox 4x32-10 of Salmon et al., "Parallel Random
// Numbers: As Easy as 1, 2, 3" (SC 2011). src/core/random.ts and cuda/draw.cu compute the same function.
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>
#include <torch/library.h>

#include <cmath>

namespace dsd {
namespace {

struct Words {
  uint32_t w[4];
};

inline Words philox(uint32_t block, uint64_t image, uint32_t k0, uint32_t k1) {
  uint32_t c0 = block, c1 = 0, c2 = static_cast<uint32_t>(image), c3 = static_cast<uint32_t>(image >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = uint64_t(0xD2511F53u) * c0, p1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

constexpr double unit = 1.0 / 16777216.0;  // 2^-24
constexpr double two_pi = 6.283185307179586476925286766559;

inline void uniform(const Words& words, float* out) {
  for (int i = 0; i < 4; i++) out[i] = static_cast<float>(words.w[i] >> 8) * static_cast<float>(unit);
}

// Box and Muller, in double: a draw then depends on the last bit of no processor's float library.
inline void normal(const Words& words, float* out) {
  for (int i = 0; i < 4; i += 2) {
    double r = std::sqrt(-2.0 * std::log(((words.w[i] >> 8) + 1) * unit));
    double angle = two_pi * ((words.w[i + 1] >> 8) * unit);
    out[i] = static_cast<float>(r * std::cos(angle));
    out[i + 1] = static_cast<float>(r * std::sin(angle));
  }
}

void fill_cpu(bool is_normal, uint32_t k0, uint32_t k1, int64_t first, int64_t images, int64_t elements, float* out) {
  int64_t blocks = (elements + 3) / 4;
  at::parallel_for(0, images * blocks, 2048, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      int64_t image = i / blocks, block = i % blocks;
      Words words = philox(static_cast<uint32_t>(block), static_cast<uint64_t>(first + image), k0, k1);
      float four[4];
      is_normal ? normal(words, four) : uniform(words, four);
      int64_t count = std::min<int64_t>(4, elements - block * 4);
      for (int64_t j = 0; j < count; j++) out[image * elements + block * 4 + j] = four[j];
    }
  });
}

at::Tensor draw(bool is_normal, int64_t key_lo, int64_t key_hi, int64_t first_image, at::IntArrayRef size, at::ScalarType dtype,
                c10::Device device, const Optional<at::Tensor>& base) {
  c10::NoGradGuard no_grad;
  const char* name = is_normal ? "randn" : "rand";
  TORCH_CHECK(!size.empty(), name, ": shape must have at least one dimension, the images");
  TORCH_CHECK(at::isFloatingType(dtype), name, ": dtype must be a floating point one");
  TORCH_CHECK(key_lo >= 0 && key_lo <= 0xFFFFFFFFll && key_hi >= 0 && key_hi <= 0xFFFFFFFFll, name, ": a key is two uint32");
  TORCH_CHECK(first_image >= 0, name, ": the first image must not be negative, got ", first_image);
  int64_t images = size[0], elements = 1;
  for (size_t i = 1; i < size.size(); i++) elements *= size[i];
  auto k0 = static_cast<uint32_t>(key_lo), k1 = static_cast<uint32_t>(key_hi);
  if (base) {
    TORCH_CHECK(base->numel() == 1 && base->scalar_type() == at::kLong, name, ": the first image must be one int64");
    TORCH_CHECK(base->device().type() == device.type(), name, ": the first image is on ", base->device(), ", the draw on ", device);
  }
#ifdef DSD_CUDA
  if (device.is_cuda()) {
    auto result = at::empty(size, at::TensorOptions().dtype(at::kFloat).device(device));
    TORCH_CHECK((elements + 3) / 4 <= 0xFFFFFFFFll, name, ": more than 2^34 elements in one image");
    if (draw_cuda(is_normal, k0, k1, first_image, base ? *base : at::Tensor(), images, elements, result)) return result.to(dtype);
  }
#endif
  auto result = at::empty(size, at::TensorOptions().dtype(at::kFloat).device(at::kCPU));
  TORCH_CHECK((elements + 3) / 4 <= 0xFFFFFFFFll, name, ": more than 2^34 elements in one image");
  int64_t first = first_image + (base ? base->item().toLong() : 0);
  if (result.numel() > 0) fill_cpu(is_normal, k0, k1, first, images, elements, static_cast<float*>(result.data_ptr()));
  return result.to(device, dtype);
}

at::Tensor rand(int64_t key_lo, int64_t key_hi, int64_t first_image, at::IntArrayRef size, at::ScalarType dtype, c10::Device device,
                const Optional<at::Tensor>& base) {
  return draw(false, key_lo, key_hi, first_image, size, dtype, device, base);
}
at::Tensor randn(int64_t key_lo, int64_t key_hi, int64_t first_image, at::IntArrayRef size, at::ScalarType dtype, c10::Device device,
                 const Optional<at::Tensor>& base) {
  return draw(true, key_lo, key_hi, first_image, size, dtype, device, base);
}

bool has_cuda_kernels(c10::Device device) {
#ifdef DSD_CUDA
  return device.is_cuda() && cuda_kernels(device);
#else
  return false;
#endif
}

}  // namespace

// The base, a tensor on the device, is added to the first image when the kernel runs: a CUDA graph replays it with another value.
TORCH_LIBRARY_FRAGMENT(dsd, library) {
  library.def("cuda_kernels(Device device) -> bool", &has_cuda_kernels);
  library.def("rand(int key_lo, int key_hi, int first_image, int[] size, ScalarType dtype, Device device, Tensor? base=None) -> Tensor", &rand);
  library.def("randn(int key_lo, int key_hi, int first_image, int[] size, ScalarType dtype, Device device, Tensor? base=None) -> Tensor", &randn);
}

}  // namespace dsd
