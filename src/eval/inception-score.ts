/**
 * Inception Score: exp of the mean Kullback-Leibler divergence of a picture's class probabilities from their mean. Salimans et al. 2016 (arXiv
 * 1606.03498): over ten splits, of which the mean and the deviation are reported.
 *
 * Read it with care: it sees no real picture, and says something only about pictures like ImageNet's. The first program for it, and all that are
 * to agree with it, take the logits of the 2015 network's 1,008 classes *without the bias* of its last layer.
 */
import { UsageError } from '../core/errors.js';
import { cat, noGrad, scope, type Tensor } from '../torch/index.js';
import { checkFeatures, pieces, wide } from './rows.js';

export interface InceptionScore {
  /** Mean over splits: from 1 to the number of classes. */
  readonly mean: number;
  /** Standard deviation over splits, over their number. */
  readonly deviation: number;
  readonly splits: number;
}

/**
 * Of logits (N, K) of any float type, in float64. Split s is pictures floor(s N / splits) to floor((s + 1) N / splits), in the order given:
 * pictures that come class by class must be shuffled first. Waits for the device.
 * @throws UsageError for fewer pictures than splits, FailureError for logits that are not finite
 */
export function inceptionScore(logits: Tensor, splits = 10): InceptionScore {
  const [N] = checkFeatures(logits, 'the set');
  if (!Number.isInteger(splits) || splits < 1 || N < splits)
    throw new UsageError(`an Inception Score over ${splits} splits needs at least as many pictures, got ${N}`);
  const start = (s: number) => Math.floor((s * N) / splits);
  const scores = noGrad(() =>
    scope(() => {
      const values = Array.from({ length: splits }, (_, s) =>
        divergence(logits, start(s), start(s + 1) - start(s))
          .exp()
          .unsqueeze(0),
      );
      return [...(cat(values).toArray() as Float64Array)];
    }),
  );
  const mean = scores.reduce((sum, value) => sum + value, 0) / splits;
  const variance = scores.reduce((sum, value) => sum + (value - mean) ** 2, 0) / splits;
  return { mean, deviation: Math.sqrt(variance), splits };
}

/** Mean divergence of `count` pictures from place `first` on: 0-d. It is the mean of sum p log p, less that sum for the mean p. */
function divergence(logits: Tensor, first: number, count: number): Tensor {
  return scope(() => {
    const sums: Tensor[] = []; // of p, (K) each
    const negentropies: Tensor[] = []; // of sum p log p, 0-d each
    for (const [at, take] of pieces(count)) {
      const logP = wide(logits, first + at, take).logSoftmax(1);
      const p = logP.exp();
      sums.push(p.sum(0));
      negentropies.push(p.mul(logP).sum().unsqueeze(0));
    }
    const p = total(sums).div(count);
    const own = p.mul(p.clamp(1e-300).log()).sum(); // a class of probability 0 counts 0
    return total(negentropies).squeeze(0).div(count).sub(own);
  });
}

const total = (parts: readonly Tensor[]): Tensor => parts.reduce((sum, part) => sum.add(part));
