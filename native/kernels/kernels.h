// What the dsd:: operators share.
#pragma once

#include "../optional.h"
#include "../vector-widths.h"

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace dsd {

#ifdef DSD_CUDA
// Whether kernels can be compiled for this device.
bool cuda_kernels(c10::Device device);

// Fills a float32 tensor on a CUDA device; false where kernels cannot be compiled on this machine.
bool draw_cuda(bool is_normal, uint32_t key_lo, uint32_t key_hi, int64_t first_image, const at::Tensor& base, int64_t images,
               int64_t elements, at::Tensor& out);
#endif

// What dsd::qkv_attention takes on any device; c10::Error otherwise.
void check_qkv_attention(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cosine,
                         const at::Tensor& sine);
at::Tensor qkv_attention_cpu(const at::Tensor& qkv, int64_t heads, const at::Tensor& q_norm, const at::Tensor& k_norm, const at::Tensor& cosine,
                             const at::Tensor& sine, double eps);

// Why CUDA kernels are not compiled at run time here; empty if they are, or have not been needed yet.
std::string nvrtc_problem();

}  // namespace dsd
