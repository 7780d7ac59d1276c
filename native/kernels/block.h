// The parts of a block on CUDA (block-cuda.cc), as block.cc calls them.
#pragma once

#ifdef DSD_CUDA

#include <ATen/core/Tensor.h>

namespace dsd {

// Tensors that are not defined stand for a branch or a modulation that is not there. Results are allocated by the caller, but for the gradients
// of gate, shift and scale.
void add_norm_cuda(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& shift, const at::Tensor& scale, double eps,
                   at::Tensor& x1, at::Tensor& n);
void add_norm_gradient_cuda(const at::Tensor& x1, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& scale, const at::Tensor& dx1,
                            const at::Tensor& dn, double eps, at::Tensor& dx, at::Tensor& dy, at::Tensor& dgate, at::Tensor& dshift, at::Tensor& dscale);
void swiglu_cuda(const at::Tensor& h, at::Tensor& out);
void swiglu_gradient_cuda(const at::Tensor& h, const at::Tensor& g, at::Tensor& dh);

}  // namespace dsd

#endif
