/**
 * Kernel Inception distance: the squared maximum mean discrepancy of two sets of features under the kernel (x . y / D + 1)^3, by its
 * unbiased estimate, averaged over random subsets. Binkowski, Sutherland, Arbel and Gretton 2018 (arXiv 1801.01401).
 *
 * Unlike a Frechet distance it has no bias by the number of samples: two sets of one distribution score 0 on average, so a value may be
 * slightly negative. As with the Frechet distance the name says the features: "KID" is the one on the 2015 Inception's.
 */
import { UsageError } from '../core/errors.js';
import { key, permutation } from '../core/random.js';
import { cat, noGrad, scope, type Tensor, tensor } from '../torch/index.js';
import { checkFeatures, checkWidths } from './rows.js';

export interface KidOptions {
  /** Fixes the subsets. */
  readonly seed: number;
  /** Number of subsets; 100 if not given. */
  readonly subsets?: number;
  /** Pictures of each set in a subset, at most as many as there are; 1,000 if not given, or all of the smaller set where it has fewer. */
  readonly size?: number;
}

export interface Kid {
  /** Mean over subsets. */
  readonly mean: number;
  /** Standard deviation over subsets, over their number; not the error of the mean, since subsets share pictures. */
  readonly deviation: number;
  readonly subsets: number;
  readonly size: number;
}

export const KID_SUBSETS = 100;
export const KID_SIZE = 1000;

/**
 * Of features (M, D) and (P, D) on one device, of any float type; in float64. A function of the features in their order and the seed:
 * subset s takes the first places of `permutation(key(seed, 'kid/real'), s, M)`, and of 'kid/fake'. Waits for the device.
 * @throws UsageError for fewer than two pictures in a subset, a subset larger than a set, or features of different width;
 *   FailureError for features that are not finite
 */
export function kid(real: Tensor, fake: Tensor, options: KidOptions): Kid {
  const [M, D] = checkFeatures(real, 'the reference');
  const [P, width] = checkFeatures(fake, 'the set');
  checkWidths(D, width, 'a kernel distance');
  const { seed, subsets = KID_SUBSETS, size = Math.min(KID_SIZE, M, P) } = options;
  if (!Number.isInteger(subsets) || subsets < 1) throw new UsageError(`a kernel distance needs at least one subset, got ${subsets}`);
  if (!Number.isInteger(size) || size < 2 || size > Math.min(M, P))
    throw new UsageError(`a kernel distance of subsets of ${size} needs at least 2 and as many pictures in each set; got ${M} and ${P}`);
  const [realKey, fakeKey] = [key(seed, 'kid/real'), key(seed, 'kid/fake')];
  const values = noGrad(() =>
    scope(() => {
      const estimates: Tensor[] = [];
      for (let s = 0; s < subsets; s++)
        estimates.push(
          scope(() => discrepancy(some(real, permutation(realKey, s, M), size), some(fake, permutation(fakeKey, s, P), size))),
        );
      return [...(cat(estimates).toArray() as Float64Array)];
    }),
  );
  const mean = values.reduce((sum, value) => sum + value, 0) / subsets;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / subsets;
  return { mean, deviation: Math.sqrt(variance), subsets, size };
}

/** The rows in the first places of an order, (size, D) float64. */
function some(features: Tensor, order: Uint32Array, size: number): Tensor {
  const indices = tensor(BigInt64Array.from(order.subarray(0, size), BigInt), [size], { dtype: 'int64', device: features.device });
  return features.detach().indexSelect(0, indices).to({ dtype: 'float64' });
}

/** The unbiased estimate of the squared discrepancy of (m, D) and (m, D): (1). */
function discrepancy(x: Tensor, y: Tensor): Tensor {
  const [m, D] = x.shape as [number, number];
  const kernel = (a: Tensor, b: Tensor) => a.matmul(b.transpose(0, 1)).div(D).add(1).pow(3);
  const others = (k: Tensor) => k.sum().sub(k.diagonal().sum()); // a picture is not compared with itself
  const within = others(kernel(x, x))
    .add(others(kernel(y, y)))
    .div(m * (m - 1));
  return within
    .sub(
      kernel(x, y)
        .sum()
        .mul(2 / (m * m)),
    )
    .unsqueeze(0);
}
