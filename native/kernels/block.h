// What the files of a block's parts call of each other.
#pragma once

#include "../optional.h"

#include <ATen/core/Tensor.h>

namespace dsd {

inline at::Tensor or_empty(const Optional<at::Tensor>& given) { return given ? *given : at::Tensor(); }

// Refuses what does not fit; makes rows of gate, shift and scale (B, d) contiguous.
void check_add_norm(const char* name, const at::Tensor& x, Optional<at::Tensor>& gate, const Optional<at::Tensor>& y, Optional<at::Tensor>& shift,
                    Optional<at::Tensor>& scale);

#ifdef DSD_CUDA

// On CUDA, in block-cuda.cc.
// Tensors that are not defined stand for a branch or a modulation that is not there, or for a result that is not wanted. Results are allocated by the
// caller, but for the gradients of gate, shift and scale.
void add_norm_cuda(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& shift, const at::Tensor& scale, double eps,
                   at::Tensor& x1, at::Tensor& n);
// `shift` is read, and `n` made again, only where `n` is wanted.
void add_norm_gradient_cuda(const at::Tensor& x1, const at::Tensor& gate, const at::Tensor& y, const at::Tensor& shift, const at::Tensor& scale,
                            const at::Tensor& dx1, const at::Tensor& dn, double eps, at::Tensor& dx, at::Tensor& dy, at::Tensor& dgate,
                            at::Tensor& dshift, at::Tensor& dscale, at::Tensor& n);
void swiglu_cuda(const at::Tensor& h, at::Tensor& out);
// `dh` may be h, and `out`, which is made again where it is wanted, g.
void swiglu_gradient_cuda(const at::Tensor& h, const at::Tensor& g, at::Tensor& dh, at::Tensor& out);

// In swiglu-hopper.cc, SwiGLU and the product before it as one kernel: n or, for the gradient, g (..., d), in rows one after another; gate_up (2F, d), down (d, F).
bool swiglu_product_fits(const at::Tensor& n, const at::Tensor& gate_up);
bool swiglu_product_gradient_fits(const at::Tensor& g, const at::Tensor& down);
// s (..., F), and where it is defined h (..., 2F), are written.
void swiglu_product_cuda(const at::Tensor& n, const at::Tensor& gate_up, at::Tensor& h, at::Tensor& s);
// Of s = g down, SwiGLU's gradient at h is written over h; s is what h's SwiGLU was.
void swiglu_product_gradient_cuda(const at::Tensor& g, const at::Tensor& down, at::Tensor& h, at::Tensor& s);
// rows (..., K) times the transpose of weight (N, K): whether out (..., N) may be asked of product_cuda, which then is faster than cuBLAS.
bool product_fits(const at::Tensor& rows, const at::Tensor& weight);
void product_cuda(const at::Tensor& rows, const at::Tensor& weight, at::Tensor& out);
// Likewise out = x + (1 + gate) (rows weight^T): rows (B, N, K), x and out (B, N, d), gate (B, d).
bool product_add_fits(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& x, const at::Tensor& gate);
void product_add_cuda(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& x, const at::Tensor& gate, at::Tensor& out);

#endif

}  // namespace dsd
