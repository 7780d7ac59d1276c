/** The engine, as the rest of the program sees it. */
export * from './autograd.js';
export { type AttentionKernel, attentionKernels } from './backends.js';
export { mseLoss, rmsNorm, scaledDotProductAttention } from './compat.js';
export { type Device, type DType, dtypeBytes, isFloating, type TensorOptions } from './dtype.js';
export {
  addLinear,
  addNorm,
  addNormLinear,
  addNormMlp,
  type HeadNorms,
  kernelProblem,
  type MlpWeights,
  type Modulation,
  qkvAttention,
  type Stream,
  settled,
  swiglu,
  tokenLinear,
} from './fused.js';
export { Graph, Replayed } from './graph.js';
export * from './lists.js';
export * from './machine.js';
export type { TypedArray } from './native.js';
export * from './ops.js';
export { type KernelTime, type Profile, profile } from './profile.js';
export * from './random.js';
export type { Reduction } from './reduction.js';
export { isGradEnabled, keep, noGrad, scope } from './scope.js';
export { type Dims, type Scalar, Tensor } from './tensor.js';
