/** A fused operator held against its composition. */
import assert from 'node:assert/strict';
import { plain } from '../../src/torch/fused.js';
import { type Device, type DType, grad, linear, type Modulation, randn, type Stream, type Tensor } from '../../src/torch/index.js';

let drawn = 0;
/** The next leaves have the numbers that they had when this was called with the same argument. */
export function drawFrom(number: number): void {
  drawn = number;
}

/** Leaves of normal numbers, each with others. */
export const leavesOn =
  (device: Device) =>
  (dtype: DType, ...shape: number[]): Tensor => {
    const values = randn({ lo: drawn++, hi: 0 }, 0, [1, ...shape], { dtype: 'float64' });
    return values
      .view(...shape)
      .to({ dtype, device })
      .detach()
      .requiresGrad_(true);
  };

export type Result = readonly Tensor[];
const wide = (x: Tensor): Tensor => x.detach().to({ dtype: 'float64' });

export function near(actual: Tensor, expected: Tensor, tolerance: number, what: string): void {
  assert.deepEqual(actual.shape, expected.shape, `${what}: shape`);
  assert.equal(actual.dtype, expected.dtype, `${what}: dtype`);
  const error = Number(wide(actual).sub(wide(expected)).norm().item()) / Math.max(1e-6, Number(wide(expected).norm().item()));
  assert.ok(error <= tolerance, `${what}: relative error ${error.toExponential(2)} is over ${tolerance}`);
}

/** The operator and its composition on the same leaves: values, then gradients of a projection that weighs every element differently. */
export function same(
  fused: (...leaves: Tensor[]) => Result,
  composed: (...leaves: Tensor[]) => Result,
  leaves: Tensor[],
  tolerance: number,
): void {
  const [actual, expected] = [fused(...leaves), composed(...leaves)];
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => {
    near(value, expected[i] as Tensor, tolerance, `result ${i}`);
  });
  const up = expected.map((value) => leavesOn(value.device)(value.dtype, ...value.shape).detach());
  const [mine, theirs] = [actual, expected].map((results) => grad(results, leaves, up)) as [Tensor[], Tensor[]];
  leaves.forEach((_, i) => {
    near(mine[i] as Tensor, theirs[i] as Tensor, tolerance, `gradient of input ${i}`);
  });
}

/**
 * An operator on a stream as a function of its leaves: x (B, N, d), then gate and y where there is a branch, then where there is a modulation (B, 2 or
 * more, d), of which shift and scale are views, then weights.
 */
export const onStream =
  (of: (stream: Stream, modulation: Modulation | undefined, ...weights: Tensor[]) => Result, branch = true, modulation = true) =>
  (...leaves: Tensor[]): Result => {
    const rest = [...leaves];
    const next = (): Tensor => rest.shift() as Tensor;
    const x = next();
    const stream = branch ? { x, branch: { gate: next(), y: next() } } : { x };
    if (!modulation) return of(stream, undefined, ...rest);
    const [shift, scale] = next().unbind(1) as [Tensor, Tensor];
    return of(stream, { shift, scale }, ...rest);
  };

/** A stream with its branch: x and y. */
export const unsettled = ({ x, branch }: Stream): Result => [x, (branch as NonNullable<Stream['branch']>).y];

/** What addNormLinear and addNormMlp are, in operators of libtorch. */
export const composed = {
  addNormLinear(stream: Stream, modulation: Modulation | undefined, eps: number, weight: Tensor): [x: Tensor, out: Tensor] {
    const [x, normed] = plain.addNorm(stream, modulation, eps, weight.dtype);
    return [x, linear(normed, weight)];
  },
  addNormMlp(stream: Stream, modulation: Modulation | undefined, eps: number, gateUp: Tensor, down: Tensor): [x: Tensor, out: Tensor] {
    const [x, hidden] = composed.addNormLinear(stream, modulation, eps, gateUp);
    return [x, linear(plain.swiglu(hidden), down)];
  },
};
