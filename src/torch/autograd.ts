/** Gradients. */
import { engine, h, wrap } from './call.js';
import type { Handle } from './native.js';
import type { Tensor } from './tensor.js';

export interface GradOptions {
  /** One for each output, of its shape; left out for scalars. */
  readonly gradOutputs?: readonly (Tensor | null)[] | undefined;
  /** Give null for inputs that the outputs do not depend on, instead of throwing. */
  readonly allowUnused?: boolean;
  readonly retainGraph?: boolean;
  /** Record the computation of the gradients, for second derivatives. */
  readonly createGraph?: boolean;
}

const maybe = (tensors: readonly (Tensor | null)[] | null | undefined): (Handle | null)[] | null =>
  tensors ? tensors.map((tensor) => (tensor ? h(tensor) : null)) : null;

/** Adds d(output)/d(leaf) to the gradient of every leaf. @throws Error when it has no history, is no scalar, or was gone through before. */
export function backward(output: Tensor, options: { gradient?: Tensor; retainGraph?: boolean } = {}): void {
  engine().backward([h(output)], options.gradient ? [h(options.gradient)] : null, options.retainGraph ?? false);
}

/** d(outputs)/d(inputs), without touching `.grad`. The outputs' gradients may be given third, as in PyTorch, or among the options. */
export function grad(outputs: readonly Tensor[], inputs: readonly Tensor[], options?: GradOptions): (Tensor | null)[];
export function grad(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  gradOutputs: readonly (Tensor | null)[] | null | undefined,
  options?: GradOptions,
): (Tensor | null)[];
export function grad(
  outputs: readonly Tensor[],
  inputs: readonly Tensor[],
  third: readonly (Tensor | null)[] | GradOptions | null | undefined,
  fourth: GradOptions = {},
): (Tensor | null)[] {
  const isList = Array.isArray(third);
  const options = isList || !third ? fourth : (third as GradOptions);
  const given = isList ? (third as readonly (Tensor | null)[]) : options.gradOutputs;
  const { retainGraph = false, createGraph = false, allowUnused = false } = options;
  return engine()
    .grad(outputs.map(h), inputs.map(h), maybe(given), retainGraph, createGraph, allowUnused)
    .map((handle) => (handle === null ? null : wrap(handle)));
}

/** The gradients of leaves in one call; null where there is none. */
export function gradients(tensors: readonly Tensor[]): (Tensor | null)[] {
  return engine()
    .gradients(tensors.map(h))
    .map((handle) => (handle === null ? null : wrap(handle)));
}

/** Sets the gradients of leaves to null. */
export function clearGradients(tensors: readonly Tensor[]): void {
  engine().clearGradients(tensors.map(h));
}
