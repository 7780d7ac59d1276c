/** A set of real pictures as features, against which other sets are measured. Knows no extractor: whoever has features can use it. */
import type { Tensor } from '../torch/index.js';
import { frechet } from './frechet.js';
import { Manifold } from './manifold.js';
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

  /** @param features (M, D) of real pictures; they stay the caller's and must outlive this. @param k neighbours that make a ball's radius */
  constructor(
    private readonly features: Tensor,
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
      return {
        frechet: frechet(own, this.statistics),
        precision: this.manifold.covers(features),
        recall: manifold.covers(this.features),
        count: own.count,
      };
    } finally {
      manifold.dispose();
    }
  }

  /** Why a Frechet distance of `count` pictures would be untrustworthy, or undefined. */
  warning(count: number): string | undefined {
    const D = this.features.shape[1] ?? 0;
    const fewest = Math.min(count, this.count);
    if (fewest > D) return undefined;
    return `${fewest} pictures for ${D} features give a singular covariance: the Frechet distance is far too large; compare it only with others at the same counts`;
  }

  dispose(): void {
    this.manifold.dispose();
  }
}
