/**
 * Parts of a transformer block that would be many passes over memory as single operators, each one operator of ours (native/kernels) with its own
 * gradient, or one for passes that record none. `plain` has what they do beside linear layers as compositions: it says what is computed, runs where an
 * operator does not and differentiates twice, and the tests hold the operators to it.
 *
 * Shapes: B pictures, N tokens, d width, h heads of D, F hidden width. The `wide` type, of all that modulates the residual stream and on a CPU of the
 * stream itself, is float32 or float64; a result that enters a matrix product may be bfloat16.
 */
import { h, Op, optional } from './call.js';
import { rmsNorm, scaledDotProductAttention } from './compat.js';
import { type Device, type DType, dtypeCode } from './dtype.js';
import { engineInfo } from './machine.js';
import { addcmul, cat, empty, linear } from './ops.js';
import { isGradEnabled, scope } from './scope.js';
import type { Tensor } from './tensor.js';

const ADD_NORM = new Op('dsd::add_norm');
const ADD_NORM_LINEAR = new Op('dsd::add_norm_linear');
const ADD_NORM_MLP = new Op('dsd::add_norm_mlp');
const ADD_NORM_SWIGLU = new Op('dsd::add_norm_swiglu');
const LINEAR_ADD = new Op('dsd::linear_add');
const LINEAR_ADD_SUPPORTED = new Op('dsd::linear_add_supported');
const PRODUCT = new Op('dsd::product');
const SWIGLU = new Op('dsd::swiglu');
const LINEAR = new Op('dsd::linear');
const QKV_ATTENTION = new Op('dsd::qkv_attention');
const QKV_ATTENTION_SUPPORTED = new Op('dsd::qkv_attention_supported');
const CUDA_KERNELS = new Op('dsd::cuda_kernels');

let composed = false;
/** Has all of these go by their compositions, to be compared with. Returns what was set before. */
export function useCompositions(on: boolean): boolean {
  const before = composed;
  composed = on;
  return before;
}

const onCpu = (x: Tensor): boolean => !composed && x.device === 'cpu';

/** Asked once: whether kernels of ours can be compiled for the GPU. */
let kernels: boolean | undefined;
/** Why the kernels that training on this device needs cannot be compiled; undefined where they can, or it needs none. Compiles one to see. */
export function kernelProblem(device: Device): string | undefined {
  if (device === 'cpu') return undefined;
  const numbered = scope(() => empty([1], { device }).device);
  return CUDA_KERNELS.call(numbered) ? undefined : (engineInfo().kernelProblem ?? 'the engine does not say why');
}

/** On CUDA the operators take rows in eights, of float32 or bfloat16; everything else goes by the compositions. */
function onCuda(x: Tensor, width: number): boolean {
  if (composed || width % 8 !== 0 || (x.dtype !== 'float32' && x.dtype !== 'bfloat16')) return false;
  kernels ??= CUDA_KERNELS.call(x.device) as unknown as boolean;
  return kernels;
}
/** The widest stream that addNorm takes on CUDA, where a row lies in the registers of four warps at most. */
const WIDEST = 1024;
/** The most pictures: as many rows of blocks as a launch may have. */
const MOST_PICTURES = 65_535;

/**
 * The residual stream: x (B, N, d) and, where a branch is still to be added to it, x + (1 + gate) y with gate (B, d) and y (B, N, d) in any precision.
 * On CUDA x may be bfloat16 too.
 */
export interface Stream {
  readonly x: Tensor;
  readonly branch?: { readonly gate: Tensor; readonly y: Tensor };
}

/** What a norm is followed by: times 1 + scale, plus shift, (B, d) each. */
export interface Modulation {
  readonly shift: Tensor;
  readonly scale: Tensor;
}

const parts = ({ x, branch }: Stream, modulation: Modulation | undefined) =>
  [h(x), optional(branch?.gate), optional(branch?.y), optional(modulation?.shift), optional(modulation?.scale)] as const;

const addNormFits = (x: Tensor): boolean => x.size(-1) <= WIDEST && x.size(0) <= MOST_PICTURES && onCuda(x, x.size(-1));

/** The stream with its branch added, (B, N, d), and the RMSNorm of that, modulated where asked, in `dtype`: what the next branch begins with. */
export function addNorm(stream: Stream, modulation: Modulation | undefined, eps: number, dtype: DType): [x: Tensor, normed: Tensor] {
  if (!onCpu(stream.x) && !addNormFits(stream.x)) return plain.addNorm(stream, modulation, eps, dtype);
  return ADD_NORM.many(...parts(stream, modulation), eps, dtypeCode(dtype)) as [Tensor, Tensor];
}

/**
 * addNorm, and of the norm a linear layer without bias, weight (out, d) -> (B, N, out). On CUDA the layer's input is not kept for the weight's
 * gradient but made again: it is a sixth of what a block would keep.
 */
export function addNormLinear(stream: Stream, modulation: Modulation, eps: number, weight: Tensor): [x: Tensor, out: Tensor] {
  if (!onCpu(stream.x) && addNormFits(stream.x))
    return ADD_NORM_LINEAR.many(...parts(stream, modulation), eps, h(weight)) as [Tensor, Tensor];
  const [x, normed] = addNorm(stream, modulation, eps, weight.dtype);
  return [x, tokenLinear(normed, weight)];
}

/**
 * A linear layer without bias for every token: x (..., in), weight (out, in) -> (..., out), of one type. On the CPU in bfloat16 the weight's gradient is a
 * product of ours.
 */
export function tokenLinear(x: Tensor, weight: Tensor): Tensor {
  return onCpu(x) ? LINEAR.one(h(x), h(weight)) : linear(x, weight);
}

/** The stream as one tensor (B, N, d). */
export const settled = (stream: Stream): Tensor => plain.add(stream);

/** silu(u) w, where u and w are the halves of the last dimension: (..., 2F) -> (..., F). Shazeer, arXiv 2002.05202. */
export function swiglu(x: Tensor): Tensor {
  return onCpu(x) || onCuda(x, x.size(-1) / 2) ? SWIGLU.one(h(x)) : plain.swiglu(x);
}

/** The weights of a SwiGLU MLP without biases: gateUp (2F, d), of which the first F rows make u and the others w, and down (out, F). */
export interface MlpWeights {
  readonly gateUp: Tensor;
  readonly down: Tensor;
}

/**
 * The stream with a branch that ends with a linear layer without bias, of x (B, N, in), weight (d, in); gate (B, d). Where no gradient is recorded some
 * GPUs add it as the product leaves; else it is added where the stream is read next.
 */
export function addLinear(stream: Tensor, gate: Tensor, x: Tensor, weight: Tensor): Stream {
  if (stream.device !== 'cpu' && !isGradEnabled() && onCuda(stream, x.size(-1))) {
    const given = [h(stream), h(gate), h(x), h(weight)] as const;
    if (LINEAR_ADD_SUPPORTED.call(...given) === true) return { x: LINEAR_ADD.one(...given) };
    return { x: stream, branch: { gate, y: PRODUCT.one(h(x), h(weight)) } };
  }
  return { x: stream, branch: { gate, y: tokenLinear(x, weight) } };
}

/**
 * The stream after a branch of addNorm and a SwiGLU MLP; gate (B, d). On CUDA only what gateUp made is kept, and its gradient is written over it: there is
 * one backward pass, also where a graph is retained.
 */
export function addNormMlp(stream: Stream, modulation: Modulation, eps: number, { gateUp, down }: MlpWeights, gate: Tensor): Stream {
  if (onCpu(stream.x) || !addNormFits(stream.x) || !onCuda(stream.x, down.size(1))) {
    const [x, hidden] = addNormLinear(stream, modulation, eps, gateUp);
    return addLinear(x, gate, swiglu(hidden), down);
  }
  if (isGradEnabled()) {
    const [x, y] = ADD_NORM_MLP.many(...parts(stream, modulation), eps, h(gateUp), h(down)) as [Tensor, Tensor];
    return { x, branch: { gate, y } };
  }
  const [x, s] = ADD_NORM_SWIGLU.many(...parts(stream, modulation), eps, h(gateUp)) as [Tensor, Tensor];
  return addLinear(x, gate, s, down);
}

/** What turns and scales queries and keys. */
export interface HeadNorms {
  /** Weights of the RMSNorms, (D) each. */
  readonly q: Tensor;
  readonly k: Tensor;
  /** Of the rotary angles, (N, D/2) each. */
  readonly cos: Tensor;
  readonly sin: Tensor;
}

/**
 * What attention makes of qkv (B, N, 3 h D): of queries and keys each head is normalised (RMSNorm with weight), then each of its pairs (x[i], x[i + D/2]) is
 * turned by its token's angle; softmax(q k^T / sqrt(D)) v; the heads side by side, (B, N, h D).
 */
export function qkvAttention(qkv: Tensor, heads: number, norms: HeadNorms, eps: number): Tensor {
  const fits = onCpu(qkv) || (onCuda(qkv, 8) && QKV_ATTENTION_SUPPORTED.call(h(qkv), heads) === true);
  if (!fits) return plain.qkvAttention(qkv, heads, norms, eps);
  const { q, k, cos, sin } = norms;
  return QKV_ATTENTION.one(h(qkv), heads, h(q), h(k), h(cos), h(sin), eps);
}

/** The same as compositions. */
export const plain = {
  add({ x, branch }: Stream): Tensor {
    return branch ? addcmul(x, branch.gate.add(1).unsqueeze(1), branch.y).to({ dtype: x.dtype }) : x;
  },

  addNorm(stream: Stream, modulation: Modulation | undefined, eps: number, dtype: DType): [x: Tensor, normed: Tensor] {
    const x = plain.add(stream);
    const normed = rmsNorm(x.dtype === 'bfloat16' ? x.to({ dtype: 'float32' }) : x, undefined, eps);
    if (!modulation) return [x, normed.to({ dtype })];
    const { shift, scale } = modulation;
    return [x, addcmul(shift.unsqueeze(1), normed, scale.add(1).unsqueeze(1)).to({ dtype })];
  },

  swiglu(x: Tensor): Tensor {
    const [u, w] = x.chunk(2, -1) as [Tensor, Tensor];
    return u.silu().mul(w);
  },

  /** Queries, keys and values of all heads, (B, h, N, D) each, from qkv (B, N, 3 h D). */
  splitHeads(qkv: Tensor, heads: number, norms: HeadNorms, eps: number): [q: Tensor, k: Tensor, v: Tensor] {
    const [B, N, wide] = qkv.shape as [number, number, number];
    const [q, k, v] = qkv
      .view(B, N, 3, heads, wide / 3 / heads)
      .permute(2, 0, 3, 1, 4)
      .unbind(0) as [Tensor, Tensor, Tensor];
    const turn = (x: Tensor, weight: Tensor): Tensor => {
      const [a, b] = rmsNorm(x.to({ dtype: weight.dtype }), weight, eps).chunk(2, -1) as [Tensor, Tensor]; // (B, h, N, D/2) each
      const { cos, sin } = norms;
      return cat([a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos))], -1).to({ dtype: x.dtype });
    };
    return [turn(q, norms.q), turn(k, norms.k), v];
  },

  /** (B, h, N, D) each -> (B, N, h D). */
  attention(q: Tensor, k: Tensor, v: Tensor): Tensor {
    return scaledDotProductAttention(q, k, v).transpose(1, 2).flatten(2);
  },

  qkvAttention(qkv: Tensor, heads: number, norms: HeadNorms, eps: number): Tensor {
    return plain.attention(...plain.splitHeads(qkv, heads, norms, eps));
  },
};
