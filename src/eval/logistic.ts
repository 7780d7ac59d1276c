/**
 * Multinomial logistic regression, fitted to convergence: the classifier of a linear probe. The mean cross-entropy plus half the penalty times
 * the squared weights (of the bias none) is convex, so that the fit does not depend on how it was found: L-BFGS over all rows, in float64,
 * deterministic. Liu and Nocedal, "On the limited memory BFGS method", 1989.
 */
import { FailureError } from '../core/errors.js';
import { cat, noGrad, oneHot, ones, scope, type Tensor, tensor, zeros } from '../torch/index.js';

export interface LogisticOptions {
  readonly penalty: number;
  /** Steps at most; 500 if not given. */
  readonly steps?: number;
  /** It ends when no entry of the gradient is larger; 1e-5 if not given. */
  readonly tolerance?: number;
  /** Called before each step; what it throws stops the fit. */
  readonly progress?: (step: number, steps: number) => void;
}

export interface Logistic {
  /** (D + 1, K) float64, the bias in the last row. The caller's to dispose. */
  readonly weights: Tensor;
  readonly steps: number;
  /** The largest entry of the gradient at the end. */
  readonly gradient: number;
}

/** Pairs of steps and changes of the gradient that stand for the curvature. */
const MEMORY = 10;
/** Armijo's: a step must gain this share of what the slope promises. */
const GAIN = 1e-4;
const HALVINGS = 40;

/** Fits rows (N, D) float64 of classes in [0, classes). @throws FailureError for values that are not finite */
export function fitLogistic(rows: Tensor, labels: readonly number[], classes: number, options: LogisticOptions): Logistic {
  const { penalty, steps = 500, tolerance = 1e-5, progress } = options;
  return noGrad(() =>
    scope(() => {
      const x = withBias(rows);
      const { device } = x;
      const wanted = oneHot(tensor(BigInt64Array.from(labels, BigInt), [labels.length], { dtype: 'int64', device }), classes).to({
        dtype: 'float64',
      });
      const [N, width] = x.shape as [number, number];
      const at = (w: Tensor): { value: number; gradient: Tensor } =>
        scope(() => {
          const penalised = cat([w.narrow(0, 0, width - 1).mul(penalty), zeros([1, classes], { dtype: 'float64', device })]);
          const logP = x.matmul(w).logSoftmax(1);
          const value = wanted.mul(logP).sum().div(-N).add(penalised.mul(w).sum().mul(0.5));
          const gradient = x.transpose(0, 1).matmul(logP.exp().sub(wanted)).div(N).add(penalised);
          return { value: Number(value.item()), gradient };
        });
      let w = zeros([width, classes], { dtype: 'float64', device });
      let here = at(w);
      if (!Number.isFinite(here.value)) throw new FailureError('features of a probe hold values that are not finite');
      const memory: { s: Tensor; y: Tensor; sy: number }[] = [];
      let step = 0;
      for (; step < steps && largest(here.gradient) > tolerance; step++) {
        progress?.(step, steps);
        const direction = scope(() => descent(here.gradient, memory));
        const slope = dot(direction, here.gradient);
        // The first step has no curvature to go by: no longer than a unit.
        let length = memory.length === 0 ? Math.min(1, 1 / Math.sqrt(dot(direction, direction))) : 1;
        let next: { w: Tensor; value: number; gradient: Tensor } | undefined;
        for (let i = 0; i < HALVINGS && !next; i++, length /= 2) {
          const tried = scope(() => {
            const moved = w.add(direction.mul(length));
            return { w: moved, ...at(moved) };
          });
          if (tried.value <= here.value + GAIN * length * slope) next = tried;
          else for (const each of [tried.w, tried.gradient]) each.dispose();
        }
        direction.dispose();
        if (!next) break; // as low as rounding lets it be
        const [s, y] = [next.w.sub(w), next.gradient.sub(here.gradient)];
        const sy = dot(s, y);
        if (sy > 0) memory.push({ s, y, sy });
        else for (const each of [s, y]) each.dispose();
        for (const old of memory.splice(0, Math.max(0, memory.length - MEMORY))) for (const each of [old.s, old.y]) each.dispose();
        for (const old of [w, here.gradient]) old.dispose();
        w = next.w;
        here = next;
      }
      return { weights: w, steps: step, gradient: largest(here.gradient) };
    }),
  );
}

/** The most likely class of each row. */
export function classify(weights: Tensor, rows: Tensor): number[] {
  return noGrad(() => scope(() => Array.from(withBias(rows).matmul(weights).argmax(1).toArray() as BigInt64Array, Number)));
}

function withBias(rows: Tensor): Tensor {
  return cat([rows, ones([rows.shape[0] ?? 0, 1], { dtype: 'float64', device: rows.device })], 1);
}

/** Minus the gradient times an estimate of the inverse curvature: the two loops of L-BFGS. */
function descent(gradient: Tensor, memory: readonly { readonly s: Tensor; readonly y: Tensor; readonly sy: number }[]): Tensor {
  let q = gradient;
  const shares: number[] = [];
  for (const { s, y, sy } of [...memory].reverse()) {
    const share = dot(s, q) / sy;
    shares.unshift(share);
    q = q.sub(y.mul(share));
  }
  const last = memory.at(-1);
  if (last) q = q.mul(last.sy / dot(last.y, last.y));
  for (const [i, { s, y, sy }] of memory.entries()) q = q.add(s.mul((shares[i] as number) - dot(y, q) / sy));
  return q.neg();
}

const dot = (a: Tensor, b: Tensor): number => scope(() => Number(a.mul(b).sum().item()));
const largest = (a: Tensor): number => scope(() => Number(a.abs().max().item()));
