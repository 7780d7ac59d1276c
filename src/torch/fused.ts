/**
 * Parts of a transformer block that would be many passes over memory as single operators, each one operator of ours (native/kernels) with its own
 * gradient on the CPU. `plain` has every one of them as a composition: it says what is computed, runs on other devices and differentiates
 * twice, and the tests hold the operators to it.
 *
 * Shapes: B pictures, N tokens, d width, h heads of D, F hidden width. The `wide` type, of the residual stream and all that modulates it, is float32
 * or float64; a result that enters a matrix product may be bfloat16.
 */
import { h, Op } from './call.js';
import { rmsNorm, scaledDotProductAttention } from './compat.js';
import { type DType, dtypeCode } from './dtype.js';
import { addcmul, cat } from './ops.js';
import type { Tensor } from './tensor.js';

const MODULATED_NORM = new Op('dsd::modulated_norm');
const GATED_ADD = new Op('dsd::gated_add');
const SWIGLU = new Op('dsd::swiglu');
const SPLIT_HEADS = new Op('dsd::split_heads');
const ATTENTION = new Op('dsd::attention');

const onCpu = (x: Tensor): boolean => x.device === 'cpu';

/** RMSNorm of x (B, N, d), times 1 + scale, plus shift, (B, d) each; given in `dtype`. */
export function modulatedNorm(x: Tensor, shift: Tensor, scale: Tensor, eps: number, dtype: DType): Tensor {
  if (!onCpu(x)) return plain.modulatedNorm(x, shift, scale, eps, dtype);
  return MODULATED_NORM.one(h(x), h(shift), h(scale), eps, dtypeCode(dtype));
}

/** x + (1 + gate) y: x (B, N, d), gate (B, d), y (B, N, d) in any precision. */
export function gatedAdd(x: Tensor, gate: Tensor, y: Tensor): Tensor {
  return onCpu(x) ? GATED_ADD.one(h(x), h(gate), h(y)) : plain.gatedAdd(x, gate, y);
}

/** silu(u) w, where u and w are the halves of the last dimension: (..., 2F) -> (..., F). Shazeer, arXiv 2002.05202. */
export function swiglu(x: Tensor): Tensor {
  return onCpu(x) ? SWIGLU.one(h(x)) : plain.swiglu(x);
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
 * Queries, keys and values of all heads, (B, h, N, D) each, from qkv (B, N, 3 h D). Of queries and keys each head is normalised (RMSNorm with
 * weight), then each of its pairs (x[i], x[i + D/2]) is turned by its token's angle.
 */
export function splitHeads(qkv: Tensor, heads: number, norms: HeadNorms, eps: number): [q: Tensor, k: Tensor, v: Tensor] {
  if (!onCpu(qkv)) return plain.splitHeads(qkv, heads, norms, eps);
  const { q, k, cos, sin } = norms;
  return SPLIT_HEADS.many(h(qkv), heads, h(q), h(k), h(cos), h(sin), eps) as [Tensor, Tensor, Tensor];
}

/** softmax(q k^T / sqrt(D)) v of all heads, side by side: (B, h, N, D) each -> (B, N, h D). */
export function attention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  return onCpu(q) ? ATTENTION.one(h(q), h(k), h(v)) : plain.attention(q, k, v);
}

/** The same as compositions. */
export const plain = {
  modulatedNorm(x: Tensor, shift: Tensor, scale: Tensor, eps: number, dtype: DType): Tensor {
    return addcmul(shift.unsqueeze(1), rmsNorm(x, undefined, eps), scale.add(1).unsqueeze(1)).to({ dtype });
  },

  gatedAdd(x: Tensor, gate: Tensor, y: Tensor): Tensor {
    return addcmul(x, gate.add(1).unsqueeze(1), y);
  },

  swiglu(x: Tensor): Tensor {
    const [u, w] = x.chunk(2, -1) as [Tensor, Tensor];
    return u.silu().mul(w);
  },

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

  attention(q: Tensor, k: Tensor, v: Tensor): Tensor {
    return scaledDotProductAttention(q, k, v).transpose(1, 2).flatten(2);
  },
};
