/** A reference set as features of one network, against which other sets are measured. */
import { UsageError } from '../core/errors.js';
import { key, permutation } from '../core/random.js';
import { keep, noGrad, scope, type Tensor, tensor } from '../torch/index.js';
import type { Description } from './describe.js';
import type { Extractor } from './features.js';
import { FrechetReference } from './frechet.js';
import { frechetWarning } from './frechet-bias.js';
import { type InceptionScore, inceptionScore } from './inception-score.js';
import { KID_SIZE, type Kid, kid } from './kid.js';
import { Manifold, precisionRecall } from './manifold.js';
import { type Statistics, statistics } from './moments.js';
import type { ReferenceContent, ReferenceStatistics } from './references.js';
import { checkFeatures } from './rows.js';

/** How far a set of pictures is from the reference, by one network. What a reference without pictures cannot give is absent. */
export interface Distances {
  /** The network. */
  readonly extractor: string;
  /** What its Frechet distance is called: FID for the 2015 Inception alone. */
  readonly name: string;
  /** Frechet distance: lower is better; 0 only for the reference itself. */
  readonly frechet: number;
  /** Kernel distance. */
  readonly kid?: Kid;
  /** Share of the set inside the reference's manifold: how many look real. */
  readonly precision?: number;
  /** Share of the reference inside the set's manifold: how much of what is real is covered. */
  readonly recall?: number;
  /** Frechet distance of the spatial features, where the network has some: sFID. */
  readonly spatialFrechet?: number;
  /** Where the network has logits. It does not look at the reference. */
  readonly inceptionScore?: InceptionScore;
  /** Pictures in the set. */
  readonly count: number;
}

export interface ReferenceOptions {
  /** Fixes the subsets of kernel distances, and the order of the Inception Score's splits. */
  readonly seed: number;
  /** Neighbours that make a ball's radius. */
  readonly k?: number;
}

/** Neighbours of precision and recall. */
export const NEIGHBOURS = 3;
/** Splits of the Inception Score. */
const SPLITS = 10;

export class Reference {
  /** Decomposed once, however many sets are measured. */
  private readonly gaussian: FrechetReference;
  private readonly spatialGaussian: FrechetReference | undefined;

  private constructor(
    private readonly extractor: Pick<Extractor, 'name' | 'distance'>,
    private readonly pooled: Statistics,
    private readonly spatial: Statistics | undefined,
    /** Pooled features of pictures of the set, kept, where there are some. */
    private readonly features: Tensor | undefined,
    private readonly manifold: Manifold | undefined,
    private readonly options: ReferenceOptions,
  ) {
    this.gaussian = new FrechetReference(pooled);
    this.spatialGaussian = spatial && new FrechetReference(spatial);
  }

  /** Of pictures; their description stays the caller's, and must not change. @throws UsageError for too few, FailureError for what is not finite */
  static ofPictures(
    extractor: Pick<Extractor, 'name' | 'distance'>,
    { pooled, spatial }: Description,
    options: ReferenceOptions,
  ): Reference {
    checkFeatures(pooled, 'the reference');
    const manifold = new Manifold(pooled, options.k ?? NEIGHBOURS);
    const features = keep(noGrad(() => pooled.detach()));
    try {
      return new Reference(extractor, statistics(pooled), spatial && statistics(spatial), features, manifold, options);
    } catch (error) {
      for (const owned of [manifold, features]) owned.dispose();
      throw error;
    }
  }

  /**
   * Of a file's statistics. Kernel distance, precision and recall want features: the file's, or those of the pictures that lie in it.
   * @param described of those pictures; stays the caller's
   */
  static ofFile(
    extractor: Pick<Extractor, 'name' | 'distance'>,
    { pooled, spatial, features }: ReferenceStatistics,
    described: Description | undefined,
    options: ReferenceOptions & { readonly device: Tensor['device'] },
  ): Reference {
    const rows = noGrad(() =>
      scope(() => (features ? tensor(features.data, [...features.shape], { device: options.device }) : described?.pooled.detach())),
    );
    const kept = rows && keep(rows);
    try {
      const manifold = kept && new Manifold(kept, options.k ?? NEIGHBOURS);
      return new Reference(extractor, pooled, spatial, kept, manifold, options);
    } catch (error) {
      kept?.dispose();
      throw error;
    }
  }

  /** Pictures; Infinity where a file does not say. */
  get count(): number {
    return this.pooled.count;
  }

  /** Measures a set by its features. @throws FailureError for features that are not finite, UsageError for too few */
  measure({ pooled, spatial, logits }: Description): Distances {
    const { extractor, options } = this;
    const [count] = checkFeatures(pooled, 'the pictures that are judged');
    const own = statistics(pooled);
    return {
      ...{ extractor: extractor.name, name: extractor.distance, count, frechet: this.gaussian.distance(own) },
      ...(this.features ? { kid: this.kernel(this.features, pooled) } : {}),
      ...(this.manifold ? this.shares(this.manifold, pooled) : {}),
      ...(spatial && this.spatialGaussian ? { spatialFrechet: this.spatialGaussian.distance(statistics(spatial)) } : {}),
      ...(logits && count >= SPLITS ? { inceptionScore: shuffledScore(logits, options.seed) } : {}),
    };
  }

  private kernel(reference: Tensor, features: Tensor): Kid {
    const sizes = [reference.shape[0] ?? 0, features.shape[0] ?? 0];
    const whole = sizes.every((size) => size === sizes[0] && size <= KID_SIZE); // every subset would be all of both
    return kid(reference, features, { seed: this.options.seed, ...(whole ? { subsets: 1 } : {}) });
  }

  private shares(manifold: Manifold, features: Tensor): { readonly precision: number; readonly recall: number } {
    const other = new Manifold(features, this.options.k ?? NEIGHBOURS);
    try {
      return precisionRecall(manifold, other);
    } finally {
      other.dispose();
    }
  }

  /** Share of pictures that are the reference's own; undefined where it has no features of its pictures. @throws as measure */
  contains({ pooled }: Description): number | undefined {
    return this.manifold?.contains(pooled);
  }

  /** Why a Frechet distance of `count` pictures would be untrustworthy, and how biased, or undefined. */
  warning(count: number): string | undefined {
    const problem = frechetWarning(this.pooled, count);
    return problem && `${this.extractor.distance}: ${problem}`;
  }

  /** What a file of this reference holds. @throws UsageError where it came from a file itself */
  content(): ReferenceContent {
    const { features, pooled, spatial, extractor } = this;
    if (!features) throw new UsageError('a reference that was read from a file is not written again');
    const shape = features.shape as [number, number];
    return { extractor: extractor.name, pooled, spatial, features: { shape, data: features.toArray() as Float32Array } };
  }

  dispose(): void {
    for (const owned of [this.manifold, this.features, this.gaussian, this.spatialGaussian]) owned?.dispose();
  }
}

/** In an order of our own: samples may come class by class, and then each split would hold a few classes only. */
function shuffledScore(logits: Tensor, seed: number): InceptionScore {
  const count = logits.shape[0] ?? 0;
  return noGrad(() =>
    scope(() => {
      const order = BigInt64Array.from(permutation(key(seed, 'inception-score'), 0, count), BigInt);
      return inceptionScore(logits.indexSelect(0, tensor(order, [count], { dtype: 'int64', device: logits.device })), SPLITS);
    }),
  );
}
