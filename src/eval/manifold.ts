/**
 * Precision and recall of generated pictures: Kynkaanniemi et al. 2019 (arXiv 1904.06991), k = 3.
 *
 * A set of features stands for a manifold: the union of the balls about each point, each as wide as the distance to its k-th nearest other
 * point. Precision is the share of the generated inside the real manifold, recall the share of the real inside the generated one.
 */
import { UsageError } from '../core/errors.js';
import { cat, keep, noGrad, scope, type Tensor } from '../torch/index.js';

/** Distances are computed in slabs of so many at once, each of 8 bytes, so that memory does not grow with the square of the set. */
const SLAB = 2 ** 23;

export class Manifold {
  private readonly centre: Tensor; // (D)
  private readonly points: Tensor; // (M, D) less the centre
  private readonly norms: Tensor; // (M) squared
  private readonly radii: Tensor; // (M) squared

  /**
   * @param features (M, D) of any float type; the manifold lives on their device, in float64, until `dispose`
   * @throws UsageError for k points or fewer
   */
  constructor(features: Tensor, k = 3) {
    const M = features.shape[0] ?? 0;
    if (M <= k) throw new UsageError(`precision and recall with k = ${k} need more than ${k} pictures in each set, got ${M}`);
    const made = noGrad(() =>
      scope(() => {
        const wide = features.detach().to({ dtype: 'float64' });
        const centre = wide.mean(0);
        const points = wide.sub(centre); // |a|^2 + |b|^2 - 2ab loses least where the norms are small
        return { centre, points, norms: points.square().sum(1) };
      }),
    );
    this.centre = keep(made.centre);
    this.points = keep(made.points);
    this.norms = keep(made.norms);
    this.radii = keep(
      noGrad(() =>
        scope(() => {
          // The nearest of all is the point itself, or one equal to it, so the k-th other one is number k + 1.
          const slabs = this.slabs(this.points, (distances) => distances.topk(k + 1, 1, false)[0].select(1, k));
          return cat(slabs);
        }),
      ),
    );
  }

  /** Share of points (P, D) that lie in the manifold. Waits for the device. */
  covers(points: Tensor): number {
    const inside = noGrad(() =>
      scope(() => {
        const centred = points.detach().to({ dtype: 'float64' }).sub(this.centre);
        const counts = this.slabs(centred, (distances) => distances.sub(this.radii).amin(1).le(0).sum().unsqueeze(0));
        return Number(cat(counts).sum().item());
      }),
    );
    return inside / (points.shape[0] ?? 0);
  }

  /** What `use` makes of the squared distances (rows, M) of the centred points to the manifold's, slab by slab. */
  private slabs(centred: Tensor, use: (distances: Tensor) => Tensor): Tensor[] {
    const rows = Math.max(1, Math.floor(SLAB / (this.points.shape[0] as number)));
    const results: Tensor[] = [];
    for (let at = 0; at < (centred.shape[0] ?? 0); at += rows) {
      results.push(
        scope(() => {
          const part = centred.narrow(0, at, Math.min(rows, (centred.shape[0] as number) - at));
          const own = part.square().sum(1).unsqueeze(1);
          return use(part.matmul(this.points.transpose(0, 1)).mul(-2).add(own).add(this.norms).clamp(0));
        }),
      );
    }
    return results;
  }

  dispose(): void {
    for (const tensor of [this.centre, this.points, this.norms, this.radii]) tensor.dispose();
  }
}
