/** Operators on whole lists of tensors: one call for all parameters, never one each. None of them waits for the device or is recorded. */
import { h, Op, optional } from './call.js';
import { type DType, dtypeCode } from './dtype.js';
import type { Tensor } from './tensor.js';

const NORM = new Op('dsd::grad_norm');
const NUMBERS = new Op('dsd::step_numbers');
const UPDATE = new Op('dsd::update_');
const DIRECTION = new Op('dsd::muon_direction');
const QUINTIC = new Op('dsd::quintic_');

/** The Euclidean norm of all gradients together (null ones left out): 0-d, on their device, float32 (float64 for float64). */
export function gradNorm(gradients: readonly (Tensor | null | undefined)[]): Tensor {
  return NORM.one(gradients.filter((gradient) => gradient !== null && gradient !== undefined).map(h));
}

export interface StepOptions {
  /** Gradient norm above which gradients are scaled down to it. */
  readonly clip: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly weightDecay: number;
}

/**
 * What a step's operators below read in place of numbers of the host: whether the gradient's `norm` (0-d) is finite, by what gradients are divided, the
 * learning rate with AdamW's corrections, the shares of the averages. `step`, 0-d float32, is the number of steps taken; it is advanced unless
 * the norm is not finite. `rates` (3): learning rate, share of the target, share of the average.
 */
export function stepNumbers(norm: Tensor, step: Tensor, rates: Tensor, { clip, beta1, beta2, weightDecay }: StepOptions): Tensor {
  return NUMBERS.one(h(norm), h(step), h(rates), clip, beta1, beta2, weightDecay);
}

/** A parameter with all that an update of it touches; each is of the weight's shape and, unless it says otherwise, type. */
export interface Updated {
  readonly weight: Tensor;
  /** Of AdamW's moments, which a parameter of another optimizer does not have. */
  readonly moments?: readonly [first: Tensor, second: Tensor] | undefined;
  /** For a parameter without moments: what its direction is multiplied by, beside the learning rate. */
  readonly scale?: number | undefined;
  /** Averages, moved towards the new weight. */
  readonly target?: Tensor | undefined;
  readonly average?: Tensor | undefined;
  /** Copies in bfloat16 of the new weight and of the new target. */
  readonly copy?: Tensor | undefined;
  readonly targetCopy?: Tensor | undefined;
}

/**
 * One step of all parameters in place, each number read once and written once: AdamW (Loshchilov and Hutter, arXiv 1711.05101) where there are
 * moments, else weight -= rate (scale direction + decay weight); then averages and copies. The gradient (or direction) is of the weight's type or,
 * for float32, bfloat16. Where it is null, or the norm was not finite, the weight stays, and averages move as always.
 * @param numbers what stepNumbers returned
 */
export function update_(
  parameters: readonly Updated[],
  gradients: readonly (Tensor | null | undefined)[],
  numbers: Tensor,
  { beta1, beta2, eps }: { readonly beta1: number; readonly beta2: number; readonly eps: number },
): void {
  if (gradients.length !== parameters.length)
    throw new TypeError(`update_: ${gradients.length} gradients for ${parameters.length} parameters`);
  const handles = (of: (parameter: Updated) => Tensor | undefined) => parameters.map((parameter) => optional(of(parameter)) ?? null);
  UPDATE.call(
    parameters.map(({ weight }) => h(weight)),
    gradients.map((gradient) => optional(gradient) ?? null),
    handles(({ moments }) => moments?.[0]),
    handles(({ moments }) => moments?.[1]),
    handles(({ target }) => target),
    handles(({ average }) => average),
    handles(({ copy }) => copy),
    handles(({ targetCopy }) => targetCopy),
    parameters.map(({ scale = 1 }) => scale),
    h(numbers),
    beta1,
    beta2,
    eps,
  );
}

/**
 * Moves `momentum` (M, r, q), in place, by 1 - keep towards the gradients, which are its matrices one after the other, and returns Nesterov's direction
 * gradient + keep (momentum - gradient), each matrix divided by its norm, in `dtype`; zeros where the gradient's norm was not finite.
 */
export function muonDirection(gradients: readonly Tensor[], momentum: Tensor, numbers: Tensor, keep: number, dtype: DType): Tensor {
  return DIRECTION.one(gradients.map(h), h(momentum), h(numbers), keep, dtypeCode(dtype));
}

/** square = a I + b x + c square, in place, for matrices (M, k, k); computed in float32 or wider. */
export function quintic_(square: Tensor, x: Tensor, a: number, b: number, c: number): void {
  QUINTIC.call(h(square), h(x), a, b, c);
}
