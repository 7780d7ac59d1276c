/** The loop: batches in, steps, and at their cadences metrics, held-out measurements, weights with grids, checkpoints. Prints nothing; reports. */
import { DivergedError, FailureError, InterruptedError } from '../core/errors.js';
import { type Batch, type Loader, pictureNumbers } from '../data/loader.js';
import type { DataSet } from '../data/source.js';
import type { ModelConfig } from '../dsd/sizes.js';
import { measureReconstruction } from '../eval/reconstruction.js';
import { DiskError } from '../io/disk.js';
import { type Device, type DType, isOutOfMemory, memory, synchronize } from '../torch/index.js';
import { modelCard } from './card.js';
import type { CheckpointState } from './checkpoints.js';
import type { RunConfig } from './config.js';
import { coderOf, drawGrids } from './grids.js';
import type { Accumulator, Evaluation, LogLine } from './metrics.js';
import type { Origin } from './origin.js';
import { deviceWaited, pace } from './pace.js';
import type { RunFolder } from './run.js';
import { SaveError, Saver, type Written } from './saver.js';
import { due, flopsPerPicture, learningRate, passes } from './schedule.js';
import { checkFinite, NotFiniteError, takeSnapshot } from './snapshot.js';
import type { Stepper } from './step.js';
import { decodes, saveWeights } from './weights.js';

export interface Saved {
  readonly kind: 'saved';
  readonly images: number;
  readonly weights: string;
  readonly grids: readonly string[];
}

/** A step that was not applied because its gradient was not finite. */
export interface Skipped {
  readonly kind: 'skipped';
  /** Pictures trained on when it was read, at the next line of metrics. */
  readonly images: number;
  /** Global number of the batch's first picture. */
  readonly firstImage: number;
  /** The batch: numbers of pictures in the training part, and where the first few came from. */
  readonly pictures: readonly number[];
  readonly paths: readonly string[];
}

export interface Checkpointed extends Written {
  readonly kind: 'checkpoint';
  /** Milliseconds that training stood still for it. */
  readonly held: number;
}

/** Something went wrong that training can live with. */
export interface Problem {
  readonly kind: 'problem';
  readonly message: string;
}

export type LoopEvent = LogLine | Evaluation | Saved | Skipped | Checkpointed | Problem;

/** After so many steps in a row whose gradient was not finite, a run stops. */
const MOST_SKIPPED = 10;
/** At most so many skipped steps are told of between two lines of metrics, and so many paths of each. */
const MOST_TOLD = 20;
const MOST_PATHS = 8;
const EVALUATION_BATCH = 128;
/** At most so many held-out pictures are measured at a cadence; the end of a run measures all. */
const EVALUATED = 512;

export interface Parts {
  readonly config: RunConfig;
  readonly model: ModelConfig;
  readonly data: DataSet;
  readonly folder: RunFolder;
  readonly stepper: Stepper;
  readonly accumulator: Accumulator;
  /** Its first batch is the one after `from.images`. */
  readonly loader: Pick<Loader, 'next'>;
  readonly device: Device;
  readonly compute: DType;
  /** Of the machine: libtorch's version, threads, the names of what computes. */
  readonly machine: Pick<CheckpointState['ranOn'], 'libtorch' | 'threads' | 'device' | 'processor' | 'blas'>;
  /** What a resumed run is to find again. */
  readonly origin?: Origin;
  readonly pcaPsnr: number;
  /** Aborted: the step in hand is finished, a checkpoint is made, and InterruptedError thrown. */
  readonly signal: AbortSignal;
  readonly report: (event: LoopEvent) => void;
  /** Where a resumed run stands. */
  readonly from?: Pick<CheckpointState, 'images' | 'skipped' | 'row' | 'evaluation'>;
}

export class TrainingLoop {
  private images: number;
  private skipped: number;
  private row: number;
  private evaluation: Evaluation | undefined;
  private readonly saver: Saver;
  /** When the rates of the next line begin to count: milliseconds, pictures, milliseconds waited for data. */
  private since = performance.now();
  private sinceImages: number;
  private waited = 0;
  private checkpointed = performance.now();
  private held = 0;
  private readonly perPicture: number;

  constructor(private readonly parts: Parts) {
    const { from, folder, config, model } = parts;
    this.images = from?.images ?? 0;
    this.sinceImages = this.images;
    this.skipped = from?.skipped ?? 0;
    this.row = from?.row ?? 0;
    this.evaluation = from?.evaluation ? fromJson(from.evaluation) : undefined;
    this.saver = new Saver(folder.path, config.checkpoint.keep);
    this.perPicture = flopsPerPicture(config.objective, model, parts.stepper.frozen?.config);
  }

  /**
   * Trains to the end and returns the last evaluation; of a run that is at its end, that which it had.
   * @throws FailureError, DiskError, PictureError, InterruptedError
   */
  async run(): Promise<Evaluation> {
    const { config, signal } = this.parts;
    const { images: length } = config.train;
    try {
      if (this.images >= length && this.evaluation?.images === this.images) return this.evaluation;
      while (this.images < length && !signal.aborted) await this.step();
      if (signal.aborted && this.images < length) await this.interrupted();
      const last = await this.withRoom(() => this.evaluate(Number.POSITIVE_INFINITY));
      await this.withRoom(() => this.save());
      await this.checkpointNow();
      return last;
    } finally {
      await this.saver.close();
    }
  }

  private async step(): Promise<void> {
    const { config, stepper, accumulator } = this.parts;
    const { log, train } = config;
    const batch = await this.nextBatch();
    this.waited += deviceWaited(batch);
    const { micro, uncaptured } = stepper;
    accumulator.add(stepper.step(batch, this.images));
    batch.release?.();
    if (stepper.micro !== micro)
      this.problem(`memory ran out with ${micro} pictures at a time: going on with ${stepper.micro}, which gives the same to rounding`);
    if (stepper.uncaptured !== uncaptured)
      this.problem(`steps are slower than they could be, since they cannot be captured in a CUDA graph: ${stepper.uncaptured}`);
    const before = this.images;
    this.images += train.batch;
    const last = this.images >= train.images;
    if (due(log.every, before, this.images) || last) await this.log();
    if (due(log.evaluate, before, this.images) && !last) await this.aside(() => this.evaluate(EVALUATED));
    if (due(log.save, before, this.images) && !last) await this.aside(() => this.sound('weights and grids', () => this.save()));
    await this.checkpointIfDue(last);
    await pace();
  }

  /** Where there is none (a broken picture, mostly), what was trained up to here is kept before the run ends. */
  private async nextBatch(): Promise<Batch> {
    try {
      return await this.parts.loader.next();
    } catch (error) {
      try {
        if (this.images > (this.parts.from?.images ?? 0)) await this.checkpointNow();
      } catch (second) {
        this.problem(`checkpoint: ${second instanceof Error ? second.message : second}`);
      }
      throw error;
    }
  }

  /** Time that is not training does not count in its rate. What the device is still at when it begins is training. */
  private async aside<T>(work: () => Promise<T>): Promise<T> {
    if (this.parts.device !== 'cpu') synchronize();
    const begun = performance.now();
    const result = await this.withRoom(work);
    this.since += performance.now() - begun;
    return result;
  }

  /** Does what is not a step. Where memory runs out beside a captured step, which keeps all of its own, that one is freed and the work tried once more. */
  private async withRoom<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isOutOfMemory(error) || !this.parts.stepper.release()) throw error;
      return await work();
    }
  }

  /** Does what writes, by the run's policy for errors of it. */
  private async writing(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      const passing = error instanceof DiskError || error instanceof SaveError;
      if (!passing || this.parts.config.checkpoint.onError === 'stop') throw error;
      this.problem(`${what}: ${error.message}. Training goes on and tries again`);
    }
  }

  private problem(message: string): void {
    this.parts.report({ kind: 'problem', message });
  }

  private async log(): Promise<void> {
    const { accumulator, config, device, folder, report } = this.parts;
    const { rank, rawRank, deviation, bad, ...means } = accumulator.read();
    const seconds = (performance.now() - this.since) / 1000;
    const imagesPerSecond = (this.images - this.sinceImages) / seconds;
    const stuck = this.tell(bad);
    const line: LogLine = {
      kind: 'train',
      images: this.images,
      ...means,
      learningRate: learningRate(config.train, this.images - config.train.batch),
      effectiveRank: rank,
      effectiveRankRaw: rawRank,
      latentDeviation: deviation,
      imagesPerSecond,
      flopsPerSecond: imagesPerSecond * this.perPicture,
      passes: passes(config.objective),
      dataWait: this.waited / 1000 / seconds,
      memoryMiB: (device === 'cpu' ? process.memoryUsage.rss() : memory().cudaPeak) / 2 ** 20,
      secondsLeft: Math.max(0, config.train.images - this.images) / imagesPerSecond,
      skipped: this.skipped,
    };
    [this.since, this.sinceImages, this.waited] = [performance.now(), this.images, 0];
    report(line);
    folder.log(line);
    await this.writing('metrics', async () => folder.flushLog());
    if (stuck) {
      // One that is being written will stand: the message is to name it.
      this.reportWritten(await this.saver.settle().catch(() => undefined));
      throw new DivergedError(this.stuckMessage());
    }
  }

  /** Counts and tells the steps that were not applied. Returns whether there were too many in a row. */
  private tell(bad: readonly boolean[]): boolean {
    const { config, data, folder, report } = this.parts;
    const { batch, seed } = config.train;
    let told = 0;
    let stuck = false;
    for (const [i, flag] of bad.entries()) {
      this.row = flag ? this.row + 1 : 0;
      if (this.row >= MOST_SKIPPED) stuck = true;
      if (!flag) continue;
      this.skipped++;
      if (told++ >= MOST_TOLD) continue;
      const firstImage = this.images - (bad.length - i) * batch;
      const pictures = pictureNumbers(data.train.length, seed, firstImage, batch);
      const paths = [...new Set(pictures)].slice(0, MOST_PATHS).map((number) => data.train.path(number));
      const event: Skipped = { kind: 'skipped', images: this.images, firstImage, pictures, paths };
      report(event);
      folder.log(event);
    }
    return stuck;
  }

  private stuckMessage(): string {
    const { compute, folder } = this.parts;
    const newest = folder.checkpoints.standing();
    const precise = compute === 'float32' ? '' : `, or ${newest ? 'go on from it with' : 'use'} --dtype float32`;
    const kept = newest
      ? `The checkpoint of ${newest.images.toLocaleString('en')} pictures is in '${newest.path}'`
      : 'No checkpoint had been made yet';
    return `the gradient was not finite in ${MOST_SKIPPED} steps in a row, at ${this.images} pictures; none was applied. ${kept}. Lower train.learningRate${newest ? ', which is for a new run' : ''}${precise}`;
  }

  private async evaluate(most: number): Promise<Evaluation> {
    const { config, data, device, compute, folder, report, stepper } = this.parts;
    const { psnr, latent, rawLatent } = await measureReconstruction(coderOf(stepper), data.heldOut, {
      ...{ device, dtype: compute, batch: EVALUATION_BATCH },
      count: Math.min(most, data.heldOut.length),
    });
    const event: Evaluation = {
      kind: 'evaluate',
      images: this.images,
      psnr: decodes(config) ? psnr : Number.NaN,
      effectiveRank: latent.effectiveRank,
      latentDeviation: rawLatent.deviation,
    };
    this.evaluation = event;
    report(event);
    folder.log(event);
    await this.writing('metrics', async () => folder.flushLog());
    return event;
  }

  /** What is for others to use: weights, card, grids. */
  private async save(draw = true): Promise<void> {
    const { config, compute, data, device, folder, report, stepper } = this.parts;
    const { images } = this;
    const { classes } = data.train;
    checkFinite('the average', stepper.average.weights.tensors);
    saveWeights(folder.weights, stepper.average.weights, stepper.frozen, { config, classes, images, kind: 'average' });
    folder.saveCard(this.card());
    const grids = draw ? await drawGrids(stepper, config, folder, data.heldOut, images, compute, device) : [];
    report({ kind: 'saved', images, weights: folder.weights, grids });
  }

  private card(): string {
    const { config, data, model, pcaPsnr } = this.parts;
    const pictures = { train: data.train.length, heldOut: data.heldOut.length };
    const { images, evaluation } = this;
    return modelCard({ config, model, classes: data.train.classes, pictures, credit: data.credit, images, pcaPsnr, evaluation });
  }

  // Checkpoints.

  private async checkpointIfDue(last: boolean): Promise<void> {
    await this.writing('checkpoint', async () => this.reportWritten(this.saver.take()));
    const { minutes } = this.parts.config.checkpoint;
    if (last || this.saver.busy || performance.now() - this.checkpointed < minutes * 60_000) return;
    this.checkpointed = performance.now();
    await this.aside(() => this.sound('checkpoint', async () => this.begin()));
  }

  /** As `writing`, of what must not be written when a weight is no number: of the steps that follow none is sound either, and that stops the run, with what stands. */
  private async sound(what: string, work: () => Promise<void>): Promise<void> {
    try {
      await this.writing(what, work);
    } catch (error) {
      if (!(error instanceof NotFiniteError)) throw error;
      this.problem(`${what}: ${error.message}`);
    }
  }

  /** Copies the run's state and begins to write it. */
  private begin(): void {
    const { accumulator, folder, stepper } = this.parts;
    const began = performance.now();
    folder.syncLog();
    const snapshot = takeSnapshot(stepper, accumulator, this.state());
    this.held = performance.now() - began;
    this.saver.save(snapshot);
  }

  private reportWritten(written: Written | undefined): void {
    if (written) this.parts.report({ kind: 'checkpoint', ...written, held: this.held });
  }

  /** Makes one and waits for it: there is no later one to hope for, so an error is one. */
  private async checkpointNow(): Promise<void> {
    await this.writing('checkpoint', async () => this.reportWritten(await this.saver.settle()));
    if (this.parts.folder.checkpoints.list().some(({ images, problem }) => images === this.images && problem === undefined)) return;
    await this.withRoom(async () => this.begin());
    this.reportWritten(await this.saver.settle());
  }

  private async interrupted(): Promise<never> {
    const { config, folder } = this.parts;
    const reached = `stopped after ${this.images.toLocaleString('en')} of ${config.train.images.toLocaleString('en')} pictures`;
    try {
      await this.checkpointNow();
    } catch (cause) {
      const newest = folder.checkpoints.standing();
      throw new FailureError(
        `${reached}, and no checkpoint could be made: ${cause instanceof Error ? cause.message : cause}. ${newest ? `The one of ${newest.images.toLocaleString('en')} pictures stands` : 'There is none'}`,
        { cause },
      );
    }
    // The checkpoint is what counts; whoever asked to stop may not wait for more than the weights.
    await this.writing('weights', () => this.save(false));
    throw new InterruptedError(`${reached}; nothing is lost`);
  }

  private state(): CheckpointState {
    const { accumulator, config, data, compute, machine, origin, pcaPsnr, stepper } = this.parts;
    return {
      images: this.images,
      steps: stepper.steps,
      skipped: this.skipped,
      row: this.row,
      unlogged: accumulator.steps * config.train.batch,
      classes: [...data.train.classes],
      pictures: { train: data.train.length, heldOut: data.heldOut.length },
      ...(origin ? { origin } : {}),
      pcaPsnr: orNull(pcaPsnr),
      evaluation: this.evaluation ? toJson(this.evaluation) : null,
      ranOn: { ...machine, compute: compute === 'bfloat16' ? 'bfloat16' : 'float32', micro: stepper.micro },
      saved: new Date().toISOString(),
      config,
    };
  }
}

const orNull = (value: number): number | null => (Number.isFinite(value) ? value : null);

function toJson({ images, psnr, effectiveRank, latentDeviation }: Evaluation): NonNullable<CheckpointState['evaluation']> {
  return { images, psnr: orNull(psnr), effectiveRank: orNull(effectiveRank), latentDeviation: orNull(latentDeviation) };
}

function fromJson({ images, psnr, effectiveRank, latentDeviation }: NonNullable<CheckpointState['evaluation']>): Evaluation {
  const read = (value: number | null): number => value ?? Number.NaN;
  return { kind: 'evaluate', images, psnr: read(psnr), effectiveRank: read(effectiveRank), latentDeviation: read(latentDeviation) };
}
