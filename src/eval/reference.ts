/** A set of real pictures as features, against which other sets are measured. Knows no extractor: whoever has features can use it. */
import type { Tensor } from '../torch/index.js';
import { frechet, frechetWarning } from './frechet.js';
import { Manifold, precisionRecall } from './manifold.js';
import { type Statistics, statistics } from './moments.js';

/** How far a set of pictures is from the reference. */
export interface Distances {
  /** Frechet distance of the features: FD-<extractor>, lower is better; 0 only for the reference itself. */
  readonly frechet: number;
  /** Share of the set inside the reference's manifold: how many look real. */
  readonly precision: number;
  /** Share of the reference inside the set's manifold: how much of what is real is covered. */
  readonly recall: number;
  /** Pictures in the set. */
  readonly count: number;
}

export class Reference {
  readonly count: number;
  private readonly statistics: Statistics;
  private readonly manifold: Manifold;

  /** @param features (M, D) of real pictures; they stay the caller's and must not change. @param k neighbours that make a ball's radius */
  constructor(
    features: Tensor,
    private readonly k = 3,
  ) {
    this.count = features.shape[0] ?? 0;
    this.statistics = statistics(features);
    this.manifold = new Manifold(features, k);
  }

  /** Measures a set by its features (P, D). @throws FailureError for features that are not finite, UsageError for too few */
  measure(features: Tensor): Distances {
    const own = statistics(features);
    const manifold = new Manifold(features, this.k);
    try {
      return { frechet: frechet(own, this.statistics), ...precisionRecall(this.manifold, manifold), count: own.count };
    } finally {
      manifold.dispose();
    }
  }

  /** Why a Frechet distance of `count` pictures would be untrustworthy, and how biased, or undefined. */
  warning(count: number): string | undefined {
    return frechetWarning(this.statistics, count);
  }

  dispose(): void {
    this.manifold.dispose();
  }
}
