/**
 * What the encoder knows of classes without having been asked: its tokens, averaged over places, told apart by their nearest neighbours and by a
 * linear classifier. The tokens are the trunk's last, which the classification head also takes; the encoder itself is not trained on.
 */
import { UsageError } from '../core/errors.js';
import type { ImageSource } from '../data/source.js';
import { fromPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { meanPool } from '../nn/layers.js';
import { cat, type Device, type DType, noGrad, oneHot, scope, type Tensor, tensor, zeros } from '../torch/index.js';
import { classify, fitLogistic } from './logistic.js';
import { batches, pictures, spread } from './pictures.js';
import { checkFeatures, pieces, wide } from './rows.js';

export interface ProbeInput {
  readonly coder: Model;
  readonly data: { readonly train: ImageSource; readonly heldOut: ImageSource };
  readonly device: Device;
  /** Type that token-wise layers compute in. */
  readonly dtype: DType;
  readonly batch: number;
  /** The most pictures of each part, evenly spread over it. */
  readonly most: number;
  /** Pictures encoded, then steps of the linear probe; what it throws stops the measurement. */
  readonly progress?: (stage: 'encoding' | 'probe', done: number, total: number) => void;
}

export interface Probes {
  /** Share of held-out pictures whose class most of their nearest training pictures have. */
  readonly nearest: number;
  /** Share that a linear classifier of training pictures gets right. */
  readonly linear: number;
  /** Share of held-out pictures in the most frequent class of the training pictures: what one gets without looking. */
  readonly blind: number;
  readonly protocol: {
    readonly features: string;
    readonly dimension: number;
    readonly train: { readonly source: string; readonly count: number };
    readonly heldOut: { readonly source: string; readonly count: number };
    readonly nearest: { readonly k: number; readonly similarity: 'cosine'; readonly vote: string };
    /** Columns are brought to mean 0 and deviation 1 by the training pictures. */
    readonly linear: { readonly penalty: number; readonly steps: number; readonly gradient: number };
  };
}

export const NEAREST = 20;
const PENALTY = 1e-3;

/** @throws UsageError for data of one class; FailureError for features that are not finite; PictureError */
export async function probe(input: ProbeInput): Promise<Probes> {
  const { coder, data, most, progress } = input;
  const { train, heldOut } = data;
  const K = train.classes.length;
  if (K < 2) throw new UsageError(`a probe tells classes apart, and ${train.name} has one`);
  const places = [train, heldOut].map((source) => spread(source.length, Math.min(most, source.length)));
  const [known, asked] = places as [number[], number[]];
  const labels = { train: known.map((i) => train.label(i)), heldOut: asked.map((i) => heldOut.label(i)) };
  const total = known.length + asked.length;
  const a = await encode(input, train, known, (done) => progress?.('encoding', done, total));
  try {
    const b = await encode(input, heldOut, asked, (done) => progress?.('encoding', known.length + done, total));
    try {
      checkFeatures(a, 'the training pictures');
      checkFeatures(b, 'the held-out pictures');
      const k = Math.min(NEAREST, known.length);
      const right = (found: readonly number[]): number => found.filter((label, i) => label === labels.heldOut[i]).length / asked.length;
      const linear = linearProbe(a, b, labels.train, K, (step, steps) => progress?.('probe', step, steps));
      const frequent = commonest(labels.train, K);
      return {
        ...{
          nearest: right(nearestClasses(a, labels.train, b, k, K)),
          linear: right(linear.found),
          blind: right(asked.map(() => frequent)),
        },
        protocol: {
          features: "the encoder's last tokens, normalised, averaged over places",
          dimension: coder.config.width,
          train: { source: train.name, count: known.length },
          heldOut: { source: heldOut.name, count: asked.length },
          nearest: { k, similarity: 'cosine', vote: 'most neighbours; of equals the more similar' },
          linear: { penalty: PENALTY, steps: linear.steps, gradient: linear.gradient },
        },
      };
    } finally {
      b.dispose();
    }
  } finally {
    a.dispose();
  }
}

/** Features (M, d) float32 of pictures of a source. */
async function encode(
  { coder, device, dtype, batch }: ProbeInput,
  source: ImageSource,
  indices: readonly number[],
  progress: (done: number) => void,
): Promise<Tensor> {
  const rows = zeros([indices.length, coder.config.width], { device });
  let at = 0;
  try {
    for (const part of batches(indices, batch)) {
      const pixels = await pictures(source, part, device);
      noGrad(() =>
        scope(() => {
          rows.narrow(0, at, part.length).copy_(meanPool(coder.in(dtype).encode(fromPixels(pixels)).tokens));
        }),
      );
      pixels.dispose();
      at += part.length;
      progress(at);
    }
    return rows;
  } catch (error) {
    rows.dispose();
    throw error;
  }
}

/** The class of most of the k most similar of known rows (M, D), for each of rows (P, D). Similarity is the cosine of the angle, in float64. */
export function nearestClasses(known: Tensor, labels: readonly number[], rows: Tensor, k: number, classes: number): number[] {
  return noGrad(() =>
    scope(() => {
      const unit = (x: Tensor): Tensor => x.div(x.norm(2, 1, true).clamp(1e-300));
      const { device } = rows;
      const label = tensor(BigInt64Array.from(labels, BigInt), [labels.length], { dtype: 'int64', device });
      const parts = [...pieces(rows.shape[0] ?? 0)].map(([at, take]) =>
        scope(() => {
          const a = unit(wide(rows, at, take));
          // The best so far beside each piece of the known: memory grows with a piece, not with the set.
          let best: { values: Tensor; found: Tensor } | undefined;
          for (const [from, width] of pieces(known.shape[0] ?? 0)) {
            const similar = a.matmul(unit(wide(known, from, width)).transpose(0, 1));
            const own = label.narrow(0, from, width).unsqueeze(0).expand(take, width);
            const values: Tensor = best ? cat([best.values, similar], 1) : similar;
            const found: Tensor = best ? cat([best.found, own], 1) : own;
            const [top, place] = values.topk(Math.min(k, values.shape[1] ?? 0), 1);
            best = { values: top, found: found.gather(1, place) };
          }
          const { values, found } = best as { values: Tensor; found: Tensor };
          const votes = oneHot(found, classes).to({ dtype: 'float64' }); // (take, k, classes)
          // A whole vote each; what decides between equals is at most a quarter of one in all.
          const weights = values
            .div(4 * k)
            .add(1)
            .unsqueeze(2);
          return votes.mul(weights).sum(1).argmax(1);
        }),
      );
      return Array.from(cat(parts).toArray() as BigInt64Array, Number);
    }),
  );
}

function linearProbe(
  known: Tensor,
  rows: Tensor,
  labels: readonly number[],
  classes: number,
  progress: (step: number, steps: number) => void,
): { found: number[]; steps: number; gradient: number } {
  return noGrad(() =>
    scope(() => {
      const x = known.to({ dtype: 'float64' });
      const mean = x.mean(0);
      const deviation = x.std(0).clamp(1e-12);
      const even = (values: Tensor): Tensor => values.to({ dtype: 'float64' }).sub(mean).div(deviation);
      const { weights, steps, gradient } = fitLogistic(even(known), labels, classes, { penalty: PENALTY, progress });
      return { found: classify(weights, even(rows)), steps, gradient };
    }),
  );
}

function commonest(labels: readonly number[], classes: number): number {
  const counts = new Array<number>(classes).fill(0);
  for (const label of labels) counts[label] = (counts[label] as number) + 1;
  return counts.indexOf(Math.max(...counts));
}
