/**
 * Evaluates a model: reconstruction and latents of held-out pictures, and class-conditional samples at several guidance scales, all judged by
 * one classifier. Every figure comes with the protocol it was taken by. ARCHITECTURE.md, The method: evaluation.
 */
import { setImmediate as turn } from 'node:timers/promises';
import { UsageError } from '../core/errors.js';
import { key } from '../core/random.js';
import type { DataSet } from '../data/source.js';
import { generate, toPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import type { SamplerOptions } from '../dsd/sampler.js';
import { type Device, type DType, noGrad, randn, scope, type Tensor, tensor, zeros } from '../torch/index.js';
import { Classifier, type ClassifierOptions, type ClassifierProtocol, describe, FEATURES } from './classifier.js';
import { PCA_FITTED, pcaPsnr } from './pca.js';
import { measureReconstruction, type Reconstruction } from './reconstruction.js';
import { type Distances, Reference } from './reference.js';

export interface EvaluateInput {
  /** Answers the solver, and encodes and decodes: one model, but for latent diffusion. */
  readonly denoiser: Model;
  readonly coder: Model;
  /** Which weights these are. */
  readonly weights: 'average' | 'raw';
  readonly data: Pick<DataSet, 'train' | 'heldOut'>;
  readonly sampler: Omit<SamplerOptions, 'guidance'>;
  /** One set of samples is drawn for each, from the same noise. */
  readonly guidances: readonly number[];
  /** Samples in a set. */
  readonly count: number;
  /** Samples drawn at a time; it changes nothing but speed and memory. */
  readonly batch: number;
  readonly device: Device;
  /** Type that the model's token-wise layers compute in; the classifier is float32, the statistics float64. */
  readonly dtype: DType;
  readonly seed: number;
  /** `balanced`: sample i is of class i mod K. `none`: the null class, for models trained without labels. */
  readonly labels: 'balanced' | 'none';
  readonly classifier?: Pick<ClassifierOptions, 'steps' | 'batch' | 'learningRate' | 'weightDecay'>;
  /** Called between batches; what it throws stops the evaluation. */
  readonly progress?: (stage: Stage, done: number, total: number) => void;
  /** Sees samples first, first + 1, ... of a set as they will be judged: uint8 pixels (B, H, H, ch), and their classes. */
  readonly onSamples?: (guidance: number, first: number, pixels: Uint8Array, labels: readonly number[]) => void;
}

export type Stage = 'classifier' | 'reference' | 'reconstruction' | 'samples';

/** One set of samples. */
export interface SampleScores extends Distances {
  readonly guidance: number;
  /** Share of samples that the classifier puts in the class that was asked for. Not to be read alone: class means score 1. */
  readonly accuracy?: number;
}

/** What a number can be repeated and compared by. */
export interface Protocol {
  readonly weights: 'average' | 'raw';
  readonly sampler: Omit<SamplerOptions, 'guidance'>;
  readonly labels: string;
  readonly noise: string;
  readonly samples: number;
  readonly seed: number;
  readonly precision: DType;
  readonly device: Device;
  /** What a sample is when it is judged. */
  readonly pictures: string;
  readonly frechet: string;
  readonly neighbours: number;
  readonly extractor: ClassifierProtocol;
  readonly reference: { readonly source: string; readonly count: number };
  readonly floor: { readonly source: string; readonly count: number };
  readonly reconstruction: { readonly source: string; readonly count: number; readonly pcaFittedOn: number };
}

export interface EvaluationReport {
  readonly reconstruction: Reconstruction;
  /** PSNR of per-patch PCA with as many components as the latent has channels. */
  readonly pcaPsnr: number;
  /** Share of real held-out pictures that the classifier gets right. */
  readonly realAccuracy: number;
  /**
   * What real pictures score against the reference at the samples' count: training pictures, as far as there are so many, spread evenly over
   * their source. The classifier was trained on those, so some of this distance is its overfitting.
   */
  readonly floor: Distances;
  /** In the order of the guidances. */
  readonly samples: readonly SampleScores[];
  readonly protocol: Protocol;
  /** What a reader must know before trusting the figures. */
  readonly warnings: readonly string[];
}

const NEIGHBOURS = 3;

/**
 * Runs the whole of it. Deterministic on a CPU; on CUDA up to the classifier's training (see Classifier.train).
 * @throws UsageError when model, data and settings do not fit each other; FailureError for values that are not finite; PictureError
 */
export async function evaluate(input: EvaluateInput): Promise<EvaluationReport> {
  check(input);
  const { coder, data, device, dtype, seed, count, batch, progress } = input;
  const { train, heldOut } = data;
  const stage = (name: Stage) => (done: number, total: number) => progress?.(name, done, total);
  const owned: { dispose(): void }[] = [];
  const own = <T extends { dispose(): void }>(thing: T): T => {
    owned.push(thing);
    return thing;
  };
  try {
    const reconstruction = await measureReconstruction(coder, heldOut, { device, dtype, batch, progress: stage('reconstruction') });
    const floorPsnr = await pcaPsnr(train, heldOut, { patch: coder.config.patch, components: coder.config.latent, device });

    const classifier = own(await Classifier.train(train, { ...input.classifier, device, seed, progress: stage('classifier') }));
    const real = await describe(classifier, heldOut, heldOut.length, stage('reference'));
    own(real.features);
    const reference = own(new Reference(real.features, NEIGHBOURS));
    const other = await describe(classifier, train, Math.min(count, train.length), stage('reference'));
    own(other.features);
    const floor = reference.measure(other.features);

    const samples: SampleScores[] = [];
    for (const guidance of input.guidances) samples.push(await score(input, classifier, reference, guidance));
    return {
      reconstruction,
      pcaPsnr: floorPsnr,
      realAccuracy: real.accuracy,
      floor,
      samples,
      protocol: protocol(input, classifier.protocol, floor.count),
      warnings: [reference.warning(count)].filter((warning) => warning !== undefined),
    };
  } finally {
    for (const thing of owned) thing.dispose();
  }
}

/** Draws one set of samples and judges it. */
async function score(input: EvaluateInput, classifier: Classifier, reference: Reference, guidance: number): Promise<SampleScores> {
  const { count, batch, device, progress, onSamples } = input;
  const features = zeros([count, FEATURES], { device });
  let right = 0;
  try {
    for (let first = 0; first < count; first += batch) {
      const labels = Array.from({ length: Math.min(batch, count - first) }, (_, i) => label(input, first + i));
      noGrad(() =>
        scope(() => {
          const wanted = tensor(BigInt64Array.from(labels, BigInt), [labels.length], { dtype: 'int64', device });
          const pixels = draw(input, guidance, first, wanted);
          const part = classifier.features(pixels);
          features.narrow(0, first, labels.length).copy_(part);
          right += Number(classifier.labelsOf(part).eq(wanted).sum().item());
          onSamples?.(guidance, first, pixels.toArray() as Uint8Array, labels);
        }),
      );
      await turn();
      progress?.('samples', Math.min(count, first + batch), count);
    }
    const distances = reference.measure(features);
    return { guidance, ...distances, ...(input.labels === 'none' ? {} : { accuracy: right / count }) };
  } finally {
    features.dispose();
  }
}

/** Samples number first, first + 1, ... as uint8 pixels (B, H, H, ch). Sample i is a function of (weights, seed, i, label). */
function draw({ denoiser, coder, sampler, device, dtype, seed }: EvaluateInput, guidance: number, first: number, labels: Tensor): Tensor {
  return scope(() => {
    const wide = denoiser.weights.get('trunk.role.weight').dtype;
    const noise = randn(key(seed, 'sample'), first, denoiser.latentShape(labels.shape[0] ?? 0), { device, dtype: wide });
    const narrow = denoiser.in(dtype);
    return toPixels(generate(narrow, coder === denoiser ? narrow : coder.in(dtype), { noise, labels, options: { ...sampler, guidance } }));
  });
}

function label({ labels, denoiser }: EvaluateInput, i: number): number {
  const K = denoiser.config.classes;
  return labels === 'none' ? K : i % K;
}

function check({ denoiser, coder, data, guidances, count, batch, labels }: EvaluateInput): void {
  const { image, channels, classes } = denoiser.config;
  const { size, channels: found, classes: names, name } = data.heldOut;
  if (size !== image || found !== channels)
    throw new UsageError(
      `the model was made for pictures of ${image} px with ${channels} channels, and ${name} has ${size} px with ${found}`,
    );
  if (coder.config.image !== image || coder.config.latent !== denoiser.config.latent || coder.config.patch !== denoiser.config.patch)
    throw new UsageError('the model that decodes has another latent than the one that denoises');
  if (labels === 'balanced' && classes !== names.length)
    throw new UsageError(`the model knows ${classes} classes, and ${name} has ${names.length}: evaluate on the data set it was trained on`);
  if (labels === 'none' && guidances.some((scale) => scale !== 1))
    throw new UsageError('guidance needs classes: a model sampled without labels is evaluated at guidance 1');
  // These would be found out after minutes of work.
  if (names.length < 2) throw new UsageError(`samples are judged by a classifier, which needs at least two classes; ${name} has one`);
  for (const part of [data.train, data.heldOut])
    if (part.length <= NEIGHBOURS)
      throw new UsageError(
        `evaluation needs more than ${NEIGHBOURS} pictures in each part, and ${part.name} has ${part.length}: 'dsd reconstruct' needs one`,
      );
  if (!Number.isInteger(count) || count <= NEIGHBOURS)
    throw new UsageError(`evaluation needs more than ${NEIGHBOURS} samples, got ${count}`);
  if (!Number.isInteger(batch) || batch < 1) throw new UsageError(`the batch must be a whole number from 1, got ${batch}`);
}

function protocol(input: EvaluateInput, extractor: ClassifierProtocol, floorCount: number): Protocol {
  const { weights, sampler, count, seed, dtype, device, data } = input;
  const heldOut = { source: data.heldOut.name, count: data.heldOut.length };
  return {
    weights,
    sampler,
    labels: input.labels === 'none' ? 'none: the null class' : 'balanced: sample i has class i mod K',
    noise: "normal numbers of (seed, 'sample', i)",
    samples: count,
    seed,
    precision: dtype,
    device,
    pictures: 'clamped to [-1, 1], rounded to uint8',
    frechet: `FD-${extractor.name}: float64, covariances over n - 1`,
    neighbours: NEIGHBOURS,
    extractor,
    reference: heldOut,
    floor: { source: data.train.name, count: floorCount },
    reconstruction: { ...heldOut, pcaFittedOn: Math.min(PCA_FITTED, data.train.length) },
  };
}
