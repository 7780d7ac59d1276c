/** Operators on whole lists of tensors: one call for all parameters, never one each. None of them waits for the device or is recorded. */
import { h, Op, optional } from './call.js';
import type { Tensor } from './tensor.js';

const ADAMW = new Op('dsd::adamw_');
const NORM = new Op('dsd::grad_norm');
const LERP = new Op('dsd::lerp_list_');
const ZERO = new Op('aten::_foreach_zero_');

export interface AdamWStep {
  /** 0-d, read on the device. */
  readonly lr: Tensor;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  readonly weightDecay: number;
  /** 0-d float32: gradients are divided by it. */
  readonly gradScale?: Tensor;
  /** 0-d float32: where it is 1, nothing changes, `step` neither. */
  readonly foundInf?: Tensor;
}

/**
 * One step of AdamW in place (Loshchilov and Hutter, arXiv 1711.05101). Lists are of equal length; where a gradient is null the parameter is
 * left as it is. `step` is a 0-d float32 tensor, the number of steps taken, and is advanced.
 */
export function adamw_(
  parameters: readonly Tensor[],
  gradients: readonly (Tensor | null | undefined)[],
  first: readonly Tensor[],
  second: readonly Tensor[],
  step: Tensor,
  options: AdamWStep,
): void {
  const { length } = parameters;
  if (gradients.length !== length || first.length !== length || second.length !== length)
    throw new TypeError(
      `adamw_: lists of ${length}, ${gradients.length}, ${first.length} and ${second.length} tensors; they must be equally long`,
    );
  const given = [...gradients.keys()].filter((i) => gradients[i]);
  const pick = (of: readonly (Tensor | null | undefined)[]) => given.map((i) => h(of[i] as Tensor));
  const { lr, beta1, beta2, eps, weightDecay, gradScale, foundInf } = options;
  ADAMW.call(
    pick(parameters),
    pick(gradients),
    pick(first),
    pick(second),
    h(step),
    h(lr),
    beta1,
    beta2,
    eps,
    weightDecay,
    optional(gradScale),
    optional(foundInf),
  );
}

/** The Euclidean norm of all gradients together (null ones left out): 0-d, on their device, float32 (float64 for float64). */
export function gradNorm(gradients: readonly (Tensor | null | undefined)[]): Tensor {
  return NORM.one(gradients.filter((gradient) => gradient !== null && gradient !== undefined).map(h));
}

/** targets += weight (sources - targets), each in place; the weight is 0-d, read on the device. */
export function lerpList_(targets: readonly Tensor[], sources: readonly Tensor[], weight: Tensor): void {
  LERP.call(targets.map(h), sources.map(h), h(weight));
}

/** Sets every tensor to zero. */
export function zeroList_(tensors: readonly Tensor[]): void {
  if (tensors.length > 0) ZERO.call(tensors.map(h));
}
