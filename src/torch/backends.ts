/**
 * libtorch's own kernels for attention on CUDA, each by its name: what a benchmark compares with. Which of them scaledDotProductAttention takes is
 * libtorch's choice.
 */
import { h, Op, wrap } from './call.js';
import type { Handle, Value } from './native.js';
import type { Tensor } from './tensor.js';

export interface AttentionKernel {
  readonly name: string;
  /** softmax(q k^T / sqrt(D)) v, (B, h, N, D) each; it has a gradient. @throws Error where the kernel does not take such tensors */
  readonly attend: (q: Tensor, k: Tensor, v: Tensor) => Tensor;
}

/** A result's first tensor is the output; the others are for the gradient. */
const kernel = (name: string, ...more: readonly Value[]): AttentionKernel & { readonly op: Op } => {
  const op = new Op(`aten::_scaled_dot_product_${name}_attention`);
  return { name, op, attend: (q, k, v) => wrap((op.call(h(q), h(k), h(v), ...more) as Handle[])[0] as Handle) };
};

// Behind q, k and v come, where there are any: a mask, and whether to keep what the gradient needs.
const KERNELS = [kernel('flash'), kernel('cudnn', null, true), kernel('efficient', null, true)];

/** Those that this libtorch has; whether they run on a device shows when they are called. */
export const attentionKernels = (): AttentionKernel[] => KERNELS.filter(({ op }) => op.exists);
