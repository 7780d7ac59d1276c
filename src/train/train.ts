/** Sets a run up, new or resumed, and trains it. Prints nothing; reports. */
import { cpus } from 'node:os';
import { basename } from 'node:path';
import { FailureError, InterruptedError, UsageError } from '../core/errors.js';
import type { Broken } from '../data/folder.js';
import { Loader } from '../data/loader.js';
import { openData } from '../data/open.js';
import type { DataSet } from '../data/source.js';
import { countParameters, type ModelConfig } from '../dsd/sizes.js';
import { pcaPsnr } from '../eval/pca.js';
import { type Device, type DType, type EngineInfo, engineInfo, kernelProblem, setDeterministic } from '../torch/index.js';
import type { CheckpointState } from './checkpoints.js';
import { modelConfig, type RunConfig } from './config.js';
import { type LoopEvent, type Parts, TrainingLoop } from './loop.js';
import { Accumulator, type Evaluation } from './metrics.js';
import { type Origin, originOf } from './origin.js';
import { checkStillNewest, differences, type Resume } from './resume.js';
import { RunFolder } from './run.js';
import { restore } from './snapshot.js';
import { Stepper } from './step.js';
import { loadAutoencoder } from './weights.js';

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
  /** Of a resumed run: the pictures it had been trained on, and why it will not equal an uninterrupted one to the bit, if it will not. */
  readonly resumed?: { readonly images: number; readonly differences: readonly string[] };
}

export type TrainEvent = Start | LoopEvent;

export interface TrainOptions {
  /** The run's folder: made, or, resumed, the one that `resume` was found in. */
  readonly out: string;
  readonly device: Device;
  readonly compute: DType;
  /** Aborted: the step in hand is finished, a checkpoint is made, and InterruptedError thrown. Before the first step nothing is written. */
  readonly signal: AbortSignal;
  readonly report: (event: TrainEvent) => void;
  /** The checkpoint to go on from. */
  readonly resume?: Resume;
  /** The pictures of config.data, where they are open already. */
  readonly data?: DataSet;
  /** Does something to a new run's networks before the first step. */
  readonly prepare?: (stepper: Stepper, data: DataSet) => Promise<void>;
  /** Called while pictures are read before the first step, and while the floor is measured on them. */
  readonly onSetUp?: (what: 'pictures' | 'floor', done: number, of: number) => void;
  /** Called once for each picture that cannot be read and is skipped. */
  readonly onBroken?: (broken: Broken) => void;
}

/**
 * Trains a run from its configuration, into a new folder or on from a checkpoint, and returns its last evaluation. Of a run resumed on the same
 * machine, build, device and number of threads every tensor and every logged loss is what it would have been without the interruption, to the
 * bit (on a GPU: with train.deterministic).
 * @throws UsageError, FailureError (out of memory, a picture that cannot be read, non-finite gradients), DiskError, LockedError, InterruptedError.
 */
export async function train(config: RunConfig, options: TrainOptions): Promise<Evaluation> {
  const { resume } = options;
  if (config.train.deterministic) setDeterministic(true);
  const problem = kernelProblem(options.device);
  if (problem !== undefined)
    throw new FailureError(
      `training on ${options.device} needs kernels that cannot be compiled here: ${problem}. A PyTorch for CUDA brings along what compiles them; without, there is --device cpu`,
    );
  if (!resume) RunFolder.check(options.out);
  // A run that goes on is locked first: another trainer must not write while pictures are read.
  const open = resume ? RunFolder.reopen(resume.run) : undefined;
  const held: { folder: RunFolder | undefined; stepper?: Stepper; loader?: Loader; accumulator: Accumulator } = {
    folder: open,
    accumulator: new Accumulator(),
  };
  try {
    if (resume) checkStillNewest(resume);
    return await prepareAndRun(config, options, held);
  } finally {
    await held.loader?.close();
    held.stepper?.dispose();
    held.accumulator.dispose();
    held.folder?.close();
  }
}

async function prepareAndRun(
  config: RunConfig,
  options: TrainOptions,
  held: { folder: RunFolder | undefined; stepper?: Stepper; loader?: Loader; readonly accumulator: Accumulator },
): Promise<Evaluation> {
  const { device, compute, report, signal, resume } = options;
  const { data: wanted, train: plan } = config;
  const setUp = (what: 'pictures' | 'floor') => (done: number, of: number) => {
    if (signal.aborted) throw new InterruptedError(`stopped before the first step; nothing was ${resume ? 'changed' : 'written'}`);
    options.onSetUp?.(what, done, of);
  };
  const data =
    options.data ??
    (await openData(wanted.source, {
      size: wanted.image,
      workers: wanted.workers,
      broken: wanted.broken,
      onProgress: setUp('pictures'),
      ...(options.onBroken ? { onBroken: options.onBroken } : {}),
    }));
  const origin = originOf(config, data);
  if (resume) checkData(resume.state, config, data, origin);
  const { channels, classes } = data.train;
  const model = modelConfig(config, { channels, classes: classes.length });
  const frozen =
    resume && config.objective.targetEncoder === 'frozen'
      ? loadAutoencoder(`${resume.path}/average.safetensors`, model, device)
      : undefined;
  const stepper = new Stepper(config, model, device, compute, frozen);
  held.stepper = stepper;
  if (!resume) await options.prepare?.(stepper, data);
  const floor = resume
    ? (resume.state.pcaPsnr ?? Number.POSITIVE_INFINITY)
    : await pcaPsnr(data.train, data.heldOut, { patch: model.patch, components: model.latent, progress: setUp('floor') });
  // Made last, so that a start that fails leaves nothing behind.
  const folder = held.folder ?? RunFolder.create(options.out);
  held.folder = folder;
  const { accumulator } = held;
  const machine = machineOf(engineInfo(), device);
  if (resume) {
    const { checkpoints } = folder;
    for (const newer of checkpoints.list()) if (newer.images > resume.state.images) checkpoints.setAside(newer.path);
    restore(resume.path, resume.state, stepper, accumulator, device);
    if (plan.microBatch > 0) stepper.micro = plan.microBatch;
    folder.rewindLog(resume.state.images);
  }
  folder.saveConfig(config, classes);
  const ranOn = { ...machine, compute: compute === 'bfloat16' ? ('bfloat16' as const) : ('float32' as const), micro: stepper.micro };
  report({
    kind: 'start',
    ...{ folder: folder.path, config, model, classes, device, compute, pcaPsnr: floor },
    parameters: countParameters(model),
    pictures: { train: data.train.length, heldOut: data.heldOut.length },
    ...(resume ? { resumed: { images: resume.state.images, differences: differences(resume.state.ranOn, ranOn) } } : {}),
  });
  const start = resume?.state.images ?? 0;
  const loader = new Loader(data.train, {
    ...{ batch: plan.batch, seed: plan.seed, flip: wanted.flip, workers: wanted.workers, prefetch: 4, start, lend: true },
  });
  held.loader = loader;
  return new TrainingLoop({
    ...{ config, model, data, folder, stepper, accumulator, loader, device, compute, machine, origin, signal, report },
    pcaPsnr: floor,
    ...(resume ? { from: resume.state } : {}),
  }).run();
}

/** What decides which bits come out, beside the program. */
function machineOf({ version, threads, cuda, blas }: EngineInfo, device: Device): Parts['machine'] {
  if (device !== 'cpu') return { libtorch: version, threads, device: cuda[Number(device.split(':')[1] ?? 0)] ?? device };
  const processor = cpus()[0]?.model;
  return { ...{ libtorch: version, threads, device, blas: basename(blas) }, ...(processor ? { processor } : {}) };
}

/** The pictures' order is a function of their number, so a set that has changed is another set. @throws UsageError */
function checkData(state: CheckpointState, config: RunConfig, data: DataSet, origin: Origin): void {
  if (config.train.images < state.images && config.train.images !== state.config.train.images)
    throw new UsageError(
      `the run has been trained on ${state.images} pictures already, and train.images=${config.train.images} were asked for: ask for no fewer`,
    );
  const now = { train: data.train.length, heldOut: data.heldOut.length };
  if (now.train !== state.pictures.train || now.heldOut !== state.pictures.heldOut)
    throw new UsageError(
      `the run was trained on ${state.pictures.train} + ${state.pictures.heldOut} held-out pictures, and ${data.train.name} has ${now.train} + ${now.heldOut}: a run goes on with the pictures that it began with`,
    );
  if (data.train.classes.join('\n') !== state.classes.join('\n'))
    throw new UsageError(
      `the classes of ${data.train.name} are not those that the run began with: ${data.train.classes.slice(0, 8).join(', ')}; wanted ${state.classes.slice(0, 8).join(', ')}`,
    );
  if (state.origin && state.origin.pictures !== origin.pictures)
    throw new UsageError(
      `the pictures of ${data.train.name} are as many as those that the run began with, and have other names or classes: a run goes on with the pictures that it began with, by their names`,
    );
  if (state.origin?.perceptual && state.origin.perceptual !== origin.perceptual)
    throw new UsageError(
      `the weights in '${config.objective.perceptual}' are not those that the run began with: --set objective.perceptual=PATH of the same ones`,
    );
}
