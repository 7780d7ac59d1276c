/** Features at hand, as rows of a matrix: what must hold before anything is computed from them, and pieces of them in float64. */
import { FailureError, UsageError } from '../core/errors.js';
import { cat, noGrad, scope, type Tensor } from '../torch/index.js';

/**
 * Rows widened at a time. Features stay in the type that they came in: 50,000 rows of 2,048 float32 values take 390 MiB, and a whole
 * copy in float64 with its intermediates would take several times that. A piece takes 32 MiB.
 */
export const PIECE = 2048;

/** Where pieces of `count` rows begin, and how many rows each has. */
export function* pieces(count: number, size = PIECE): Generator<readonly [at: number, take: number]> {
  for (let at = 0; at < count; at += size) yield [at, Math.min(size, count - at)];
}

/** Rows at, at + 1, ... of features, in float64. A view of them where they are so already: not to be changed. */
export function wide(features: Tensor, at: number, take: number): Tensor {
  return features.detach().narrow(0, at, take).to({ dtype: 'float64' });
}

/**
 * Sees to it that features are (M, D) and finite. Waits for the device.
 * @param what names the set in an error: 'the samples'
 * @returns M and D
 * @throws RangeError for another rank, FailureError for a value that is not finite, with the place of the first row that has one
 */
export function checkFeatures(features: Tensor, what: string): readonly [M: number, D: number] {
  const { shape } = features;
  if (shape.length !== 2) throw new RangeError(`features are rows of a matrix, got the shape (${shape.join(', ')})`);
  const [M, D] = shape as [number, number];
  const bad = noGrad(() =>
    scope(() => {
      const sums = [...pieces(M)].map(([at, take]) =>
        features.detach().narrow(0, at, take).isfinite().logicalNot().to({ dtype: 'float32' }).sum(1),
      );
      return sums.length === 0
        ? -1
        : cat(sums)
            .toArray()
            .findIndex((values) => Number(values) > 0);
    }),
  );
  if (bad >= 0)
    throw new FailureError(
      `row ${bad} of the features of ${what} holds values that are not finite: the pictures, or the extractor's weights, are broken`,
    );
  return [M, D];
}

/** @throws UsageError when two sets of features are of different extractors, as far as their width tells */
export function checkWidths(one: number, other: number, what: string): void {
  if (one !== other) throw new UsageError(`${what} needs sets of one extractor: one has ${one} features, the other ${other}`);
}
