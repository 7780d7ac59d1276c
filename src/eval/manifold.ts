/**
 * Precision and recall of generated pictures: Kynkaanniemi et al. 2019 (arXiv 1904.06991), k = 3.
 *
 * A set of features stands for a manifold: the union of the balls about each point, each as wide as the distance to its k-th nearest other
 * point. Precision is the share of the generated inside the real manifold, recall the share of the real inside the generated one.
 *
 * Distances are computed in float64, in tiles of fixed size, so that memory grows with the set and not with its square.
 */
import { UsageError } from '../core/errors.js';
import { cat, full, keep, minimum, noGrad, scope, type Tensor } from '../torch/index.js';
import { checkFeatures, checkWidths, pieces, wide } from './rows.js';

/** Features of one picture, described in batches of other sizes, are no further apart than this share of their norms about the centre. */
const SAME = 1e-4;

export class Manifold {
  readonly count: number;
  readonly dimension: number;
  private readonly features: Tensor; // (M, D) as given
  private readonly centre: Tensor; // (D)
  private readonly norms: Tensor; // (M) squared, about the centre
  private readonly radii: Tensor; // (M) squared

  /**
   * @param features (M, D) of any float type. The manifold reads them where they are, in the memory that they have, until `dispose`: they may be
   *   disposed before, and must not be changed
   * @throws UsageError for k points or fewer, FailureError for features that are not finite
   */
  constructor(features: Tensor, k = 3) {
    [this.count, this.dimension] = checkFeatures(features, 'a set');
    const M = this.count;
    if (M <= k) throw new UsageError(`precision and recall with k = ${k} need more than ${k} pictures in each set, got ${M}`);
    this.features = keep(features.detach());
    const { centre, norms } = noGrad(() =>
      scope(() => {
        const centre = [...pieces(M)]
          .map(([at, take]) => scope(() => wide(features, at, take).sum(0)))
          .reduce((sum, part) => sum.add(part))
          .div(M);
        const parts = [...pieces(M)].map(([at, take]) => scope(() => wide(features, at, take).sub(centre).square().sum(1)));
        return { centre, norms: cat(parts) };
      }),
    );
    this.centre = keep(centre);
    this.norms = keep(norms);
    this.radii = keep(noGrad(() => scope(() => this.kthNearest(k))));
  }

  /** Share of points (P, D) that lie in the manifold. Waits for the device. @throws UsageError for points of another width, FailureError as above */
  covers(points: Tensor): number {
    return this.share(points, (distances, _, from, width) => distances.sub(this.radii.narrow(0, from, width)));
  }

  /** Share of points (P, D) that are the set's own, up to the rounding of float32 features. Waits for the device. @throws as `covers` */
  contains(points: Tensor): number {
    return this.share(points, (distances, norms, from, width) =>
      distances.sub(
        norms
          .unsqueeze(1)
          .add(this.norms.narrow(0, from, width))
          .mul(SAME ** 2),
      ),
    );
  }

  /** @param excess of squared distances (rows, width) to points from, from + 1, ... of the set over what counts, for points of these squared norms (rows) */
  private share(points: Tensor, excess: (distances: Tensor, norms: Tensor, from: number, width: number) => Tensor): number {
    const [P, D] = checkFeatures(points, 'the points');
    checkWidths(this.dimension, D, 'precision and recall');
    const inside = noGrad(() =>
      scope(() => {
        const counts = [...pieces(P)].map(([at, take]) =>
          scope(() => {
            const a = wide(points, at, take).sub(this.centre);
            const norms = a.square().sum(1);
            const least = full([take], Number.POSITIVE_INFINITY, { dtype: 'float64', device: points.device });
            for (const [from, width] of pieces(this.count))
              scope(() => {
                const over = excess(this.distances(a, norms, from, width), norms, from, width);
                least.copy_(minimum(least, over.amin(1)));
              });
            return least.le(0).sum().unsqueeze(0);
          }),
        );
        return P === 0 ? 0 : Number(cat(counts).sum().item());
      }),
    );
    return inside / P;
  }

  /**
   * Share of another set's points that lie in this manifold, and of this set's that lie in the other's: each distance is computed once for both.
   * Waits for the device. @throws UsageError for manifolds of another width
   */
  shares(other: Manifold): { readonly inThis: number; readonly inOther: number } {
    checkWidths(this.dimension, other.dimension, 'precision and recall');
    const [inThis, inOther] = noGrad(() =>
      scope(() => {
        const unknown = (length: number) => full([length], Number.POSITIVE_INFINITY, { dtype: 'float64', device: this.norms.device });
        const [theirs, ours] = [unknown(other.count), unknown(this.count)]; // how far outside, squared; at most 0 is inside
        for (const [at, take] of pieces(other.count))
          scope(() => {
            const a = wide(other.features, at, take).sub(this.centre);
            const norms = a.square().sum(1);
            const row = theirs.narrow(0, at, take);
            const radii = other.radii.narrow(0, at, take).unsqueeze(1);
            for (const [from, width] of pieces(this.count))
              scope(() => {
                const distances = this.distances(a, norms, from, width);
                const column = ours.narrow(0, from, width);
                row.copy_(minimum(row, distances.sub(this.radii.narrow(0, from, width)).amin(1)));
                column.copy_(minimum(column, distances.sub(radii).amin(0)));
              });
          });
        return [theirs, ours].map((least) => Number(least.le(0).sum().item())) as [number, number];
      }),
    );
    return { inThis: inThis / other.count, inOther: inOther / this.count };
  }

  dispose(): void {
    for (const tensor of [this.features, this.centre, this.norms, this.radii]) tensor.dispose();
  }

  /** The squared distance of each point to its k-th nearest other one: (M). */
  private kthNearest(k: number): Tensor {
    const M = this.count;
    // The nearest of all is the point itself, or one equal to it, so the k-th other one is number k + 1.
    const device = this.norms.device;
    const nearest = full([M, k + 1], Number.POSITIVE_INFINITY, { dtype: 'float64', device });
    const improve = (at: number, distances: Tensor) => {
      const best = nearest.narrow(0, at, distances.shape[0] as number);
      const few = Math.min(k + 1, distances.shape[1] as number);
      best.copy_(cat([best, distances.topk(few, 1, false)[0]], 1).topk(k + 1, 1, false)[0]);
    };
    for (const [at, take] of pieces(M))
      scope(() => {
        const a = wide(this.features, at, take).sub(this.centre);
        // Distances are symmetric: each tile off the diagonal serves the points of its rows and those of its columns.
        for (const [from, width] of pieces(M)) {
          if (from < at) continue;
          scope(() => {
            const distances = this.distances(a, this.norms.narrow(0, at, take), from, width);
            improve(at, distances);
            if (from > at) improve(from, distances.transpose(0, 1));
          });
        }
      });
    return nearest.select(1, k).contiguous();
  }

  /** Squared distances of centred points (rows, D) with these squared norms to points from, from + 1, ... of the manifold: (rows, width). */
  private distances(a: Tensor, norms: Tensor, from: number, width: number): Tensor {
    const b = wide(this.features, from, width).sub(this.centre);
    // |a|^2 + |b|^2 - 2ab loses least where the norms are small, hence the centre. What is left is rounding where the points are equal: a
    // bound of the error of the product. It must be 0 there, or a point would lie outside of a ball of radius 0 about itself.
    const sum = norms.unsqueeze(1).add(this.norms.narrow(0, from, width));
    const squared = sum.sub(a.matmul(b.transpose(0, 1)).mul(2));
    const noise = (this.dimension + 4) * Number.EPSILON;
    return squared.maskedFill(squared.le(sum.mul(noise)), 0);
  }
}

/** Precision and recall of the generated pictures that the second manifold is of. @throws UsageError for manifolds of another width */
export function precisionRecall(real: Manifold, fake: Manifold): { readonly precision: number; readonly recall: number } {
  const { inThis, inOther } = real.shares(fake);
  return { precision: inThis, recall: inOther };
}
