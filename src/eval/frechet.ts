/**
 * Frechet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), from statistics in float64. Dowson and Landau 1982;
 * Heusel et al. 2017 (arXiv 1706.08500) for its use.
 *
 * With S = F F^T the trace of (S1 S2)^1/2 is the sum of the singular values of F1^T F2. The factors come from symmetric eigendecompositions, so
 * all is real by construction, where a general square root turns complex on singular covariances; and nothing is squared on the way, so
 * directions of little variance, of which deep features have hundreds, keep their digits: the eigenvalues of S1^1/2 S2 S1^1/2, which
 * are squares, would lose all below 1e-8 of the largest.
 *
 * The name says the features: FD-classifier, FD-nsfwjs-mixed7. "FID" is the one on the 2015 Inception's and no other.
 * ARCHITECTURE.md, The method: evaluation.
 */
import { FailureError } from '../core/errors.js';
import { keep, noGrad, scope, svdvals, type Tensor, tensor } from '../torch/index.js';
import { eigen } from './eigen.js';
import type { Statistics } from './moments.js';
import { checkWidths } from './rows.js';

/** An eigenvalue below minus this share of the largest is no rounding, not even of a covariance in float32. */
const NEGATIVE = 1e-5;

/** A Gaussian that others are measured against: what is costly about it, the decomposition of its covariance, is done once. */
export class FrechetReference {
  /** (D, r), kept; null for a covariance of 0. Made when it is first asked for. */
  private root: Tensor | null | undefined;

  constructor(private readonly statistics: Statistics) {}

  /**
   * Never negative; 0 for equal statistics, up to rounding of the traces.
   * @throws UsageError when the two have other numbers of features, FailureError for a matrix that is no covariance
   */
  distance(other: Statistics): number {
    const { mean, covariance } = this.statistics;
    const D = other.mean.length;
    checkWidths(D, mean.length, 'a Frechet distance');
    let distance = 0;
    for (let i = 0; i < D; i++) {
      const difference = (other.mean[i] as number) - (mean[i] as number);
      distance += difference * difference + (other.covariance[i * D + i] as number) + (covariance[i * D + i] as number);
    }
    const common = noGrad(() =>
      scope(() => {
        const [one, own] = [factor(other), this.factor()];
        return one && own ? Number(svdvals(one.transpose(0, 1).matmul(own)).sum().item()) : 0;
      }),
    );
    return Math.max(0, distance - 2 * common);
  }

  private factor(): Tensor | null {
    if (this.root === undefined) {
      const made = scope(() => factor(this.statistics));
      this.root = made ? keep(made) : null;
    }
    return this.root;
  }

  dispose(): void {
    this.root?.dispose();
    this.root = undefined;
  }
}

/** The distance of two Gaussians. @throws as FrechetReference.distance */
export function frechet(a: Statistics, b: Statistics): number {
  const reference = new FrechetReference(b);
  try {
    return reference.distance(a);
  } finally {
    reference.dispose();
  }
}

/** (D, r) float64 whose product with its transpose is the covariance; undefined where that is 0. */
function factor({ mean: { length: D }, covariance, count }: Statistics): Tensor | undefined {
  const { values, vectors } = eigen(covariance);
  const least = values[0] as number;
  const most = values[D - 1] as number;
  if (!(least >= -NEGATIVE * most))
    throw new FailureError(`a covariance of ${D} features has an eigenvalue of ${least}, and the largest is ${most}: it is none`);
  // n rows span n - 1 dimensions about their mean. What stands in the others is rounding, and its root would be 1e-8 in each.
  const rank = Math.max(0, Math.min(values.filter((value) => value > 0).length, count - 1));
  if (rank === 0) return undefined;
  const roots = tensor(values.subarray(D - rank).map(Math.sqrt), [rank], { dtype: 'float64' });
  return vectors.narrow(1, D - rank, rank).mul(roots);
}
