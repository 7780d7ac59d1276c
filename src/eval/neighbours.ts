/**
 * Nearest training pictures of samples, by a network's features: what a model has learnt by heart stands beside what it draws. Distances are
 * Euclidean, as those of precision and recall.
 */

import { grid, type Picture } from '../data/picture.js';
import { type ImageSource, stack } from '../data/source.js';
import { cat, noGrad, scope, type Tensor } from '../torch/index.js';
import { median } from './median.js';
import { checkFeatures, checkWidths, pieces, wide } from './rows.js';

/** Training pictures beside each sample. */
export const SHOWN = 5;

export interface Neighbours {
  /** Of each sample the places of its nearest known rows, the nearest first. */
  readonly places: readonly (readonly number[])[];
  /** Their distances. */
  readonly distances: readonly (readonly number[])[];
}

/**
 * The k nearest of known rows (M, D) for each of rows (P, D), in float64; all of them where they are fewer. Waits for the device.
 * @throws UsageError for rows of another width, FailureError for what is not finite
 */
export function nearestRows(known: Tensor, rows: Tensor, k: number): Neighbours {
  const [M, D] = checkFeatures(known, 'the training pictures');
  const [P, width] = checkFeatures(rows, 'the samples');
  checkWidths(D, width, 'a search for neighbours');
  const few = Math.min(k, M);
  const { values, places } = noGrad(() =>
    scope(() => {
      const parts = [...pieces(P)].map(([at, take]) => nearestOf(known, wide(rows, at, take), few));
      return {
        values: cat(parts.map(([squared]) => squared))
          .sqrt()
          .toArray() as Float64Array,
        places: cat(parts.map(([, found]) => found)).toArray() as BigInt64Array,
      };
    }),
  );
  const row = <T>(all: ArrayLike<T>, i: number): T[] => Array.from({ length: few }, (_, j) => all[i * few + j] as T);
  return {
    places: Array.from({ length: P }, (_, i) => row(places, i).map(Number)),
    distances: Array.from({ length: P }, (_, i) => row(values, i)),
  };
}

/** Squared distances and places, (take, k) each. */
function nearestOf(known: Tensor, a: Tensor, k: number): [squared: Tensor, places: Tensor] {
  return scope(() => {
    const norms = a.square().sum(1).unsqueeze(1);
    const parts = [...pieces(known.shape[0] ?? 0)].map(([from, width]) =>
      scope(() => {
        const b = wide(known, from, width);
        const squared = norms
          .add(b.square().sum(1))
          .sub(a.matmul(b.transpose(0, 1)).mul(2))
          .clamp(0);
        const [least, place] = squared.topk(Math.min(k, width), 1, false);
        return [least, place.add(from)] as const;
      }),
    );
    const [squared, places] = [
      cat(
        parts.map(([least]) => least),
        1,
      ),
      cat(
        parts.map(([, place]) => place),
        1,
      ),
    ];
    const [least, at] = squared.topk(k, 1, false);
    return [least, places.gather(1, at)];
  });
}

/** The middle of the distances to the nearest. */
export const medianNearest = ({ distances }: Neighbours): number => median(distances.map(([nearest]) => nearest as number));

/**
 * Rows of a sample, a gap, and its neighbours, the nearest first; several rows beside each other where there are many.
 * @param samples pictures one after another, of the source's size and channels
 * @param indices of each sample its neighbours in the source, the same number of each
 */
export async function drawNeighbours(samples: Uint8Array, source: ImageSource, indices: readonly (readonly number[])[]): Promise<Picture> {
  const { size, channels } = source;
  const each = size * size * channels;
  const beside = indices.length > 8 ? 2 : 1;
  const columns = 2 + (indices[0]?.length ?? 0) + (beside - 1); // cells that stay white set a sample apart, and rows beside each other
  const cells = new Uint8Array(indices.length * columns * each).fill(255);
  for (const [i, row] of indices.entries()) {
    const first = i * columns * each;
    cells.set(samples.subarray(i * each, (i + 1) * each), first);
    cells.set(await stack(source, row), first + 2 * each);
  }
  return grid(cells, indices.length * columns, size, channels, columns * beside, { scale: Math.max(1, Math.round(64 / size)) });
}
