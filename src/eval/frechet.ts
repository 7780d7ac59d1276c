/**
 * Frechet distance of two Gaussians, |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2), from statistics in float64. Dowson and Landau 1982;
 * Heusel et al. 2017 (arXiv 1706.08500) for its use.
 *
 * The trace of (S1 S2)^1/2 is the sum of the roots of the eigenvalues of S1^1/2 S2 S1^1/2, which is symmetric: two symmetric
 * eigendecompositions, real by construction, where a general square root turns complex on singular covariances.
 *
 * The name says the features: FD-classifier, FD-nsfwjs-mixed7. "FID" is the one on the 2015 Inception's and no other.
 * ARCHITECTURE.md, The method: evaluation.
 */
import { UsageError } from '../core/errors.js';
import { scope, tensor } from '../torch/index.js';
import { eigen, eigenvalues } from './eigen.js';
import type { Statistics } from './moments.js';

/** @throws UsageError when the two have other numbers of features */
export function frechet(a: Statistics, b: Statistics): number {
  const D = a.mean.length;
  if (b.mean.length !== D)
    throw new UsageError(`a Frechet distance needs statistics of one extractor: one has ${D} features, the other ${b.mean.length}`);
  let distance = 0;
  for (let i = 0; i < D; i++) {
    const difference = (a.mean[i] as number) - (b.mean[i] as number);
    distance += difference * difference + (a.covariance[i * D + i] as number) + (b.covariance[i * D + i] as number);
  }
  const product = scope(() => {
    const { values, vectors } = eigen(a.covariance);
    const roots = tensor(
      values.map((value) => Math.sqrt(Math.max(0, value))),
      [D],
      { dtype: 'float64' },
    );
    const root = vectors.mul(roots).matmul(vectors.transpose(0, 1)); // S1^1/2
    return root
      .matmul(tensor(b.covariance, [D, D], { dtype: 'float64' }))
      .matmul(root)
      .toArray() as Float64Array;
  });
  for (const value of eigenvalues(product)) distance -= 2 * Math.sqrt(Math.max(0, value));
  return distance;
}
