/**
 * The one file that asks libtorch what it has: operators that newer versions added are composed from older ones where they are missing, and
 * kernels that a version lacks for a dtype are gone round.
 */
import { h, Op, optional } from './call.js';
import { type Reduction, reductionCode } from './reduction.js';
import { scope } from './scope.js';
import type { Tensor } from './tensor.js';

const RMS_NORM = new Op('aten::rms_norm');
const ATTENTION = new Op('aten::scaled_dot_product_attention');
const SIZE = new Op('aten::size.int');

/** Asked once. */
const known = new Map<Op, boolean>();
function has(op: Op): boolean {
  let answer = known.get(op);
  if (answer === undefined) {
    answer = op.exists;
    known.set(op, answer);
  }
  return answer;
}

/** x / sqrt(mean(x^2) + eps) over the last dimension, times the weight (d) where given. */
export function rmsNorm(x: Tensor, weight?: Tensor | null, eps = 1e-6): Tensor {
  if (has(RMS_NORM)) return RMS_NORM.one(h(x), [x.size(-1)], optional(weight), eps);
  const scale = x.square().mean(-1, true).add(eps).rsqrt();
  const normed = x.mul(scale);
  return weight ? normed.mul(weight) : normed;
}

/**
 * softmax(q k^T / sqrt(d)) v, for q (..., n, d), k and v (..., m, d).
 * @throws TypeError when k and v differ in length: libtorch 2.11 takes that on a CPU, and reads beyond v's end
 */
export function scaledDotProductAttention(q: Tensor, k: Tensor, v: Tensor): Tensor {
  if (SIZE.call(h(k), -2) !== SIZE.call(h(v), -2))
    throw new TypeError(
      `aten::scaled_dot_product_attention: keys and values must be as many, got k of shape ${k.shape} and v of shape ${v.shape}`,
    );
  if (has(ATTENTION)) return ATTENTION.one(h(q), h(k), h(v));
  // The scale goes on q, the smallest of the factors, before the product: it then stays in range for half precision too.
  return q
    .mul(q.size(-1) ** -0.5)
    .matmul(k.transpose(-2, -1))
    .softmax(-1)
    .matmul(v);
}

/** The mean of squared differences. 1.13 has no bfloat16 kernel of mse_loss on a CPU; this composition is as fast. */
export function mseLoss(x: Tensor, target: Tensor, reduction: Reduction = 'mean'): Tensor {
  reductionCode('mseLoss', reduction);
  return scope(() => {
    const squares = x.sub(target).square();
    return reduction === 'mean' ? squares.mean() : reduction === 'sum' ? squares.sum() : squares;
  });
}
