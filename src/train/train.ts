/** The loop: batches in, steps, and at their cadences metrics, held-out measurements, grids and weights. Prints nothing; reports. */
import { setImmediate as turn } from 'node:timers/promises';
import { FailureError, InterruptedError } from '../core/errors.js';
import { key } from '../core/random.js';
import type { Broken } from '../data/folder.js';
import { Loader } from '../data/loader.js';
import { openData } from '../data/open.js';
import { grid, pairGrid, writePng } from '../data/picture.js';
import { type ImageSource, stack } from '../data/source.js';
import { generate, toPixels } from '../dsd/generate.js';
import type { Model } from '../dsd/model.js';
import { countParameters, forwardFlops, type ModelConfig } from '../dsd/sizes.js';
import { pcaPsnr } from '../eval/pca.js';
import { spread } from '../eval/pictures.js';
import { measureReconstruction } from '../eval/reconstruction.js';
import { type Device, type DType, isOutOfMemory, memory, noGrad, randn, scope, type Tensor, tensor } from '../torch/index.js';
import { modelConfig, type RunConfig, samplerOptions } from './config.js';
import { Accumulator, type LogLine } from './metrics.js';
import { RunFolder } from './run.js';
import { due, learningRate, passes } from './schedule.js';
import { Stepper, toPictures } from './step.js';
import { decodes, saveWeights } from './weights.js';

/** A measurement on held-out pictures with the averaged weights. */
export interface Evaluation {
  readonly kind: 'evaluate';
  readonly images: number;
  /** Of reconstructions, by pooled squared error, dB. NaN in a run without decoder. */
  readonly psnr: number;
  readonly effectiveRank: number;
  readonly latentDeviation: number;
}

/** What the run is, known before its first step. */
export interface Start {
  readonly kind: 'start';
  readonly folder: string;
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly parameters: { readonly model: number; readonly heads: number };
  readonly classes: readonly string[];
  readonly pictures: { readonly train: number; readonly heldOut: number };
  /** Held-out PSNR of per-patch PCA with as many components as the latent has channels: what a linear code reaches. dB. */
  readonly pcaPsnr: number;
  readonly device: Device;
  readonly compute: DType;
}

export interface Saved {
  readonly kind: 'saved';
  readonly images: number;
  readonly weights: string;
  readonly grids: readonly string[];
}

export type TrainEvent = Start | LogLine | Evaluation | Saved;

export interface TrainOptions {
  readonly out: string;
  readonly device: Device;
  readonly compute: DType;
  /** Aborted: the step in hand is finished, weights are saved, and InterruptedError thrown. Before the first step nothing is written. */
  readonly signal: AbortSignal;
  readonly report: (event: TrainEvent) => void;
  /** Called while pictures are read before the first step, and while the floor is measured on them. */
  readonly onSetUp?: (what: 'pictures' | 'floor', done: number, of: number) => void;
  /** Called once for each picture that cannot be read and is skipped. */
  readonly onBroken?: (broken: Broken) => void;
}

/** After so many steps in a row whose gradient was not finite, a run stops. */
const MOST_SKIPPED = 10;
/** Pictures in a grid of reconstructions, and in a batch of held-out measurement. */
const SHOWN = 32;
const EVALUATION_BATCH = 128;
/** At most so many held-out pictures are measured at a cadence; the end of a run measures all. */
const EVALUATED = 512;

/**
 * Trains a run from its configuration into a new folder and returns its last evaluation.
 * @throws UsageError, FailureError (out of memory, a picture that cannot be read, non-finite gradients), InterruptedError.
 */
export async function train(config: RunConfig, options: TrainOptions): Promise<Evaluation> {
  const { data: wanted, train: plan, objective } = config;
  const { device, compute, report, signal } = options;
  RunFolder.check(options.out);
  const setUp = (what: 'pictures' | 'floor') => (done: number, of: number) => {
    if (signal.aborted) throw new InterruptedError('stopped before the first step; nothing was written');
    options.onSetUp?.(what, done, of);
  };
  const data = await openData(wanted.source, {
    size: wanted.image,
    workers: wanted.workers,
    broken: wanted.broken,
    onProgress: setUp('pictures'),
    ...(options.onBroken ? { onBroken: options.onBroken } : {}),
  });
  const { channels, classes } = data.train;
  const model = modelConfig(config, { channels, classes: classes.length });
  const stepper = new Stepper(config, model, device, compute);
  const floor = await pcaPsnr(data.train, data.heldOut, { patch: model.patch, components: model.latent, progress: setUp('floor') });
  // Made last, so that a start that fails leaves nothing behind.
  const folder = RunFolder.create(options.out);
  folder.saveConfig(config, classes);
  report({
    kind: 'start',
    folder: folder.path,
    config,
    model,
    parameters: countParameters(model),
    classes,
    pictures: { train: data.train.length, heldOut: data.heldOut.length },
    pcaPsnr: floor,
    device,
    compute,
  });

  const evaluate = async (images: number, most: number): Promise<Evaluation> => {
    const { psnr, latent, rawLatent } = await measureReconstruction(coderOf(stepper), data.heldOut, {
      device,
      dtype: compute,
      batch: EVALUATION_BATCH,
      count: most,
    });
    const event: Evaluation = {
      kind: 'evaluate',
      images,
      psnr: decodes(config) ? psnr : Number.NaN,
      effectiveRank: latent.effectiveRank,
      latentDeviation: rawLatent.deviation,
    };
    folder.log(event);
    report(event);
    return event;
  };
  let saved = false;
  const save = async (images: number): Promise<void> => {
    saveWeights(folder.weights, stepper.average.weights, stepper.frozen, { config, classes, images, kind: 'average' });
    saved = true;
    const grids = await drawGrids(stepper, config, folder, data.heldOut, images, compute, device);
    report({ kind: 'saved', images, weights: folder.weights, grids });
  };

  const loader = new Loader(data.train, { batch: plan.batch, seed: plan.seed, flip: wanted.flip, workers: wanted.workers, prefetch: 4 });
  const accumulator = new Accumulator();
  const perPicture = forwardFlops(model) * passes(objective);
  let images = 0;
  let [since, sinceImages, waited] = [performance.now(), 0, 0];
  const log = (): void => {
    const { rank, rawRank, deviation, row, ...read } = accumulator.read();
    const seconds = (performance.now() - since) / 1000;
    const imagesPerSecond = (images - sinceImages) / seconds;
    const line: LogLine = {
      kind: 'train',
      images,
      ...read,
      learningRate: learningRate(plan, images - plan.batch),
      effectiveRank: rank,
      effectiveRankRaw: rawRank,
      latentDeviation: deviation,
      imagesPerSecond,
      flopsPerSecond: imagesPerSecond * perPicture,
      passes: passes(objective),
      dataWait: waited / 1000 / seconds,
      memoryMiB: (device === 'cpu' ? process.memoryUsage.rss() : memory().cudaPeak) / 2 ** 20,
      secondsLeft: Math.max(0, plan.images - images) / imagesPerSecond,
    };
    folder.log(line);
    report(line);
    if (row >= MOST_SKIPPED)
      throw new FailureError(
        `the gradient was not finite in ${row} steps in a row, at ${images} pictures; none was applied. ${saved ? `The weights saved last are in '${folder.weights}'` : 'No weights had been saved yet'}. Lower train.learningRate, or use --dtype float32`,
      );
    [since, sinceImages, waited] = [performance.now(), images, 0];
  };
  /** Time that is not training does not count in its rate. */
  const aside = async <T>(work: () => Promise<T>): Promise<T> => {
    const begun = performance.now();
    const result = await work();
    since += performance.now() - begun;
    return result;
  };

  try {
    do {
      const batch = await loader.next();
      waited += batch.waitedMs;
      accumulator.add(runStep(stepper, batch, images, config));
      const before = images;
      images += plan.batch;
      const last = images >= plan.images;
      if (due(config.log.every, before, images) || last) log();
      if (due(config.log.evaluate, before, images) && !last) await aside(() => evaluate(images, EVALUATED));
      if (due(config.log.save, before, images) && !last) await aside(() => save(images));
      await turn(); // lets signal handlers run
    } while (images < plan.images && !signal.aborted);
  } finally {
    await loader.close();
  }
  await save(images);
  if (signal.aborted)
    throw new InterruptedError(
      `stopped after ${images.toLocaleString('en')} of ${plan.images.toLocaleString('en')} pictures; the averaged weights are in '${folder.weights}'`,
    );
  return await evaluate(images, data.heldOut.length);
}

function runStep(stepper: Stepper, batch: Parameters<Stepper['step']>[0], images: number, config: RunConfig): ReturnType<Stepper['step']> {
  try {
    return stepper.step(batch, images);
  } catch (error) {
    if (isOutOfMemory(error)) {
      const { batch: size, microBatch } = config.train;
      const now = microBatch || size;
      const smaller = Array.from({ length: now - 1 }, (_, i) => i + 1).findLast((part) => size % part === 0 && part <= now / 2);
      const mend = smaller
        ? `try --set train.microBatch=${smaller}, which leaves the result of the batch of ${size} the same, or a smaller model`
        : 'a smaller model is needed: see model.width and model.depth';
      throw new FailureError(`out of memory in a training step with ${now} picture${now === 1 ? '' : 's'} at a time: ${mend}`, {
        cause: error,
      });
    }
    throw error;
  }
}

/** The model that encodes and decodes: with a frozen autoencoder, that. */
const coderOf = (stepper: Stepper): Model => stepper.frozen ?? stepper.averaged;

/** Pixels (uint8) of what `make` returns, read back. */
function read(make: () => Tensor): Uint8Array {
  const out = noGrad(() => scope(() => toPixels(make())));
  const pixels = out.toArray() as Uint8Array;
  out.dispose();
  return pixels;
}

/** Grids from fixed pictures, fixed noise and fixed labels: what changes between two of them is the network. */
async function drawGrids(
  stepper: Stepper,
  config: RunConfig,
  folder: RunFolder,
  heldOut: ImageSource,
  images: number,
  compute: DType,
  device: Device,
): Promise<string[]> {
  if (!decodes(config)) return [];
  const { image: size, channels, classes: K } = stepper.averaged.config;
  const coder = coderOf(stepper);
  const paths: string[] = [];

  const shown = spread(heldOut.length, Math.min(SHOWN, heldOut.length));
  const originals = await stack(heldOut, shown);
  const rebuilt = read(() => coder.in(compute).reconstruct(toPictures(originals, coder.config, device)));
  const reconstructions = folder.grid('reconstructions', images);
  await writePng(reconstructions, pairGrid(originals, rebuilt, shown.length, size, channels, 8, { gap: 2, scale: 2 }));
  paths.push(reconstructions);

  if (config.objective.weights.denoise === 0 || config.objective.input === 'clean') return paths;
  // Without labels no class embedding was trained, so there is nothing to draw but the null class, and nothing to guide to.
  const { labels: labelled } = config.objective;
  const columns = labelled ? Math.max(1, Math.min(K, 10)) : 10;
  const total = columns * config.sample.rows;
  const pixels = read(() => {
    const noise = randn(key(config.train.seed, 'grid'), 0, stepper.averaged.latentShape(total), { device });
    const labels = tensor(
      BigInt64Array.from({ length: total }, (_, i) => BigInt(labelled ? i % columns : K)),
      [total],
      { device },
    );
    return generate(stepper.averaged.in(compute), coder.in(compute), { noise, labels, options: samplerOptions(config) });
  });
  const samples = folder.grid('samples', images);
  await writePng(samples, grid(pixels, total, size, channels, columns, { gap: 2, scale: 2 }));
  paths.push(samples);
  return paths;
}
