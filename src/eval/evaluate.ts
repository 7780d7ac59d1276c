/**
 * Evaluates a model, or pictures that came from anywhere: samples by several networks' features against real pictures, and of a model its
 * reconstructions and latents. Every figure comes with the protocol it was taken by. ARCHITECTURE.md, The method: evaluation.
 */

import { UsageError } from '../core/errors.js';
import type { DataSet } from '../data/source.js';
import type { SamplerOptions } from '../dsd/sampler.js';
import { mostRank } from '../dsd/sizes.js';
import type { Device, DType, Tensor } from '../torch/index.js';
import type { ClassifierProtocol } from './classifier.js';
import { Describer, disposeAll } from './describe.js';
import { checkDraw, type DrawInput, drawn } from './draw.js';
import { type JudgeProtocol, Jury, type Scores } from './jury.js';
import type { JuryInput, Stage as JuryStage } from './jury-input.js';
import { Memorised, type NeighbourOptions, type NeighbourReport } from './memorised.js';
import { PCA_FITTED, pcaPsnr } from './pca.js';
import { subset } from './pictures.js';
import { type Probes, probe } from './probes.js';
import { measureReconstruction, type Reconstruction } from './reconstruction.js';
import { type Distances, NEIGHBOURS } from './reference.js';
import { writeReference } from './references.js';
import { inChannels, inColours, type PictureSet } from './sets.js';

/** What is the same for a model and for pictures. */
export interface JudgeInput extends Omit<JuryInput, 'searched' | 'progress'> {
  /** Called between pieces of the work; what it throws stops it. */
  readonly progress?: ((stage: Stage, done: number, total: number) => void) | undefined;
  /** Writes the reference's statistics there: one file for each network, by its name. */
  readonly writeReference?: ReadonlyMap<string, string> | undefined;
  /** Finds the nearest training pictures of samples; wants data. */
  readonly neighbours?: NeighbourOptions | undefined;
}

export interface EvaluateInput extends JudgeInput, DrawInput {
  readonly data: Pick<DataSet, 'train' | 'heldOut'>;
  /** Which weights these are. */
  readonly weights: 'average' | 'raw';
  /** One set of samples is drawn for each, from the same noise. */
  readonly settings: readonly SamplerOptions[];
  /** Samples drawn at a time; it changes nothing but speed and memory. */
  readonly batch: number;
  /** Measures what the encoder knows of classes, on at most so many pictures of each part; wants two classes. */
  readonly probed?: number | undefined;
  /** Sees samples first, first + 1, ... of a set as they will be judged: uint8 pixels (B, H, H, ch). */
  readonly onSamples?: (set: number, first: number, pixels: Tensor) => void;
}

/** What takes time. */
export type Stage = JuryStage | 'encoding' | 'probe';

/** One set of a model's samples. */
export interface SampleScores extends Scores {
  readonly sampler: SamplerOptions;
}

/** What a number can be repeated and compared by. */
export interface Protocol {
  readonly samples: number;
  readonly seed: number;
  readonly device: Device;
  /** What a sample is when it is judged. */
  readonly pictures: string;
  readonly frechet: string;
  readonly kernel: string;
  readonly neighbours: number;
  /** By network. */
  readonly judges: readonly JudgeProtocol[];
  /** Present where it judged. */
  readonly classifier?: ClassifierProtocol;
}

export interface ModelProtocol extends Protocol {
  readonly weights: 'average' | 'raw';
  readonly labels: string;
  readonly noise: string;
  readonly precision: DType;
  readonly reconstruction: { readonly source: string; readonly count: number; readonly pcaFittedOn: number };
}

export interface JudgeReport {
  /**
   * What real pictures that are not in the reference score against it (where all are, one part of them against the other) at the samples' count, as far as
   * there are so many, spread evenly over their source. Of a file without features it is not known which pictures are in it: a warning says so. A
   * classifier was trained on training pictures, so some of their distance by it is its overfitting. Absent where there is no data.
   */
  readonly floor?: readonly Distances[];
  /** Share of real held-out pictures that the classifier gets right. */
  readonly realAccuracy?: number;
  /** Where it was asked for. */
  readonly neighbours?: NeighbourReport;
  /** What a reader must know before trusting the figures. */
  readonly warnings: readonly string[];
}

export interface PicturesReport extends JudgeReport {
  readonly name: string;
  readonly samples: Scores;
  readonly protocol: Protocol;
}

export interface EvaluationReport extends JudgeReport {
  readonly reconstruction: Reconstruction & {
    /** PSNR of per-patch PCA with as many components as the latent has channels. */
    readonly pcaPsnr: number;
    /** The highest effective rank that the latent can have: LayerNorm takes a dimension away. */
    readonly mostRank: number;
    /** rFD: Frechet distances of reconstructions from the very pictures that they are of. */
    readonly frechet: readonly { readonly extractor: string; readonly name: string; readonly frechet: number }[];
  };
  /** What the encoder knows of classes. */
  readonly probes?: Probes;
  /** In the order of the settings. */
  readonly samples: readonly SampleScores[];
  readonly protocol: ModelProtocol;
}

/**
 * Judges a set of pictures.
 * @throws UsageError when pictures, data and settings do not fit each other; FailureError for values that are not finite; PictureError, NpzError, DiskError
 */
export async function judgePictures(input: JudgeInput, set: PictureSet): Promise<PicturesReport> {
  const { data } = input;
  checkSize(data, set.height, set.width, set.name);
  const fitting = data ? inChannels(set, data.train.channels) : set;
  const jury = await Jury.open({ ...input, searched: input.neighbours?.searched });
  try {
    await store(jury, input.writeReference);
    const memorised = data && input.neighbours ? new Memorised(jury, data, input.neighbours) : undefined;
    const descriptions = await jury.describe(fitting, { onPictures: (first, pixels) => memorised?.see(first, pixels) });
    try {
      const samples = jury.score(descriptions, set.labels);
      const neighbours = await memorised?.find(descriptions);
      const shared = { ...common(jury, set.count), ...(neighbours ? { neighbours } : {}) };
      return { name: set.name, samples, ...shared, protocol: protocolOf(input, jury, set.count) };
    } finally {
      disposeAll(descriptions);
    }
  } finally {
    jury.dispose();
  }
}

/**
 * Evaluates a model. Deterministic on a CPU; on CUDA up to the classifier's training (see Classifier.train).
 * @throws UsageError when model, data and settings do not fit each other; FailureError for values that are not finite; PictureError
 */
export async function evaluate(input: EvaluateInput): Promise<EvaluationReport> {
  check(input);
  const jury = await Jury.open({ ...input, searched: input.neighbours?.searched });
  try {
    await store(jury, input.writeReference);
    return await evaluateBy(jury, input);
  } finally {
    jury.dispose();
  }
}

/** As `evaluate`, by a jury that was opened for this input but for the model: so several models are judged by the very same. */
export async function evaluateBy(jury: Jury, input: EvaluateInput): Promise<EvaluationReport> {
  check(input);
  const { data, coder, device, dtype, batch, probed, progress } = input;
  const probes =
    probed === undefined ? undefined : await probe({ coder, data, device, dtype, batch, most: probed, ...(progress ? { progress } : {}) });
  const reconstruction = await reconstruct(input, jury);
  const samples: SampleScores[] = [];
  let neighbours: NeighbourReport | undefined;
  for (const [i, sampler] of input.settings.entries()) {
    const set = drawn(input, sampler);
    // Of several sets the last: by custom the one with most guidance, which is nearest to its training pictures.
    const memorised = input.neighbours && i === input.settings.length - 1 ? new Memorised(jury, data, input.neighbours) : undefined;
    const onPictures = (first: number, pixels: Tensor) => {
      input.onSamples?.(i, first, pixels);
      memorised?.see(first, pixels);
    };
    try {
      const descriptions = await jury.describe(set, { batch: input.batch, onPictures });
      try {
        samples.push({ sampler, ...jury.score(descriptions, set.labels) });
        neighbours = await memorised?.find(descriptions);
      } finally {
        disposeAll(descriptions);
      }
    } finally {
      set.close();
    }
  }
  return {
    ...{ reconstruction, samples, ...common(jury, input.count) },
    ...(probes ? { probes } : {}),
    ...(neighbours ? { neighbours } : {}),
    protocol: modelProtocol(input, jury, reconstruction.pictures),
  };
}

/** The held-out pictures that the jury has described, through the model and described again. */
async function reconstruct(input: EvaluateInput, jury: Jury): Promise<EvaluationReport['reconstruction']> {
  const { coder, data, device, dtype, batch, progress } = input;
  const held = jury.heldOut as NonNullable<Jury['heldOut']>; // there is data
  const count = held.indices.length;
  const describer = new Describer(jury.networks, count, device);
  try {
    const told = (done: number, total: number) => progress?.('reconstruction', done, total);
    const found = await measureReconstruction(coder, subset(data.heldOut, held.indices), {
      ...{ device, dtype, batch, ssim: true, progress: told },
      onPictures: (pixels) => describer.add(pixels),
    });
    const descriptions = describer.read();
    try {
      const frechet = jury.distancesTo(held, descriptions);
      const floor = await pcaPsnr(data.train, subset(data.heldOut, held.indices), {
        ...{ patch: coder.config.patch, components: coder.config.latent, device },
        progress: (done, total) => progress?.('components', done, total),
      });
      return { ...found, mostRank: mostRank(coder.config), pcaPsnr: floor, frechet };
    } finally {
      disposeAll(descriptions);
    }
  } finally {
    describer.dispose();
  }
}

async function store(jury: Jury, files: ReadonlyMap<string, string> | undefined): Promise<void> {
  for (const { extractor, reference } of jury.judges) {
    const path = files?.get(extractor.name);
    if (path === undefined) continue;
    const content = reference.content();
    // ADM's evaluator takes features of the pictures, too, and those of no other network.
    const wanted = extractor.name === 'inception-2015';
    const samples = wanted ? await inColours(jury.referencePictures) : undefined;
    if (wanted && !samples)
      jury.warn(
        `${path} has statistics without pictures, since these take more than 1 GiB: ADM's evaluator wants them; take fewer with --real`,
      );
    writeReference(path, { ...content, samples });
  }
}

function common(jury: Jury, count: number): JudgeReport {
  const floors = jury.judges.flatMap(({ floor }) => floor ?? []);
  return {
    ...(floors.length > 0 ? { floor: floors } : {}),
    ...(jury.realAccuracy === undefined ? {} : { realAccuracy: jury.realAccuracy }),
    warnings: jury.warningsFor(count),
  };
}

function checkSize(data: JudgeInput['data'], height: number, width: number, name: string): void {
  if (!data) return;
  const { size } = data.heldOut;
  if (height !== size || width !== size)
    throw new UsageError(`${name} has pictures of ${width} x ${height} px, and those of ${data.heldOut.name} were opened at ${size} px`);
}

function check(input: EvaluateInput): void {
  const { denoiser, data, settings, batch, labels } = input;
  const { image, channels, classes } = denoiser.config;
  const { size, channels: found, classes: names, name } = data.heldOut;
  if (size !== image || found !== channels)
    throw new UsageError(
      `the model was made for pictures of ${image} px with ${channels} channels, and ${name} has ${size} px with ${found}`,
    );
  checkDraw(input, settings);
  if (labels === 'balanced' && classes !== names.length)
    throw new UsageError(`the model knows ${classes} classes, and ${name} has ${names.length}: evaluate on the data set it was trained on`);
  if (!Number.isInteger(batch) || batch < 1) throw new UsageError(`the batch must be a whole number from 1, got ${batch}`);
}

function protocolOf({ seed, device }: JudgeInput, jury: Jury, samples: number): Protocol {
  return {
    ...{ samples, seed, device },
    pictures: 'uint8, as they are saved',
    frechet: 'float64, covariances over n - 1',
    kernel: 'unbiased, (x . y / D + 1)^3, float64',
    neighbours: NEIGHBOURS,
    judges: jury.judges.map(({ protocol }) => protocol),
    ...(jury.classifierProtocol ? { classifier: jury.classifierProtocol } : {}),
  };
}

function modelProtocol(input: EvaluateInput, jury: Jury, reconstructed: number): ModelProtocol {
  const { weights, count, dtype, data, labels } = input;
  return {
    ...protocolOf(input, jury, count),
    pictures: 'clamped to [-1, 1], rounded to uint8',
    weights,
    labels: labels === 'none' ? 'none: the null class' : 'balanced: sample i has class i mod K',
    noise: "normal numbers of (seed, 'sample', i)",
    precision: dtype,
    reconstruction: { source: data.heldOut.name, count: reconstructed, pcaFittedOn: Math.min(PCA_FITTED, data.train.length) },
  };
}
