/**
 * The collapse study: every case with every seed, each from its first values to the same number of pictures. Within a seed all cases begin with the
 * same weights and see the same pictures in the same order with the same draws. Prints nothing; reports.
 */
import { basename, join, resolve } from 'node:path';
import { InterruptedError } from '../core/errors.js';
import { openData } from '../data/open.js';
import type { DataSet } from '../data/source.js';
import type { ModelConfig } from '../dsd/sizes.js';
import { sweepBundles } from '../io/bundle.js';
import { acquireLock } from '../io/lock.js';
import type { Device, DType } from '../torch/index.js';
import { modelConfig, type RunConfig, type RunSettings, resolveConfig } from '../train/config.js';
import { blankError } from './blank.js';
import type { StudyCase } from './cases.js';
import type { StudyPreset } from './presets.js';
import { type Machine, RESULTS, ResultStore, type RunResult } from './store.js';
import { type Point, trainCase } from './train-case.js';

export interface CollapsePlan {
  readonly preset: Pick<StudyPreset, 'data' | 'measured' | 'scale'>;
  readonly cases: readonly StudyCase[];
  readonly seeds: readonly number[];
  /** Laid over the preset's settings, under the cases' switches. */
  readonly settings: readonly RunSettings[];
  /** A LayerNorm on the latent in every case, not only in the last. */
  readonly norm: boolean;
}

/** One run of the plan. */
export interface PlannedRun {
  /** What its set of pictures is called: 'openmoji-16px'. */
  readonly data: string;
  readonly case: StudyCase;
  readonly seed: number;
  readonly config: RunConfig;
}

/** How far the study is. */
export interface StudyProgress {
  readonly run: PlannedRun;
  /** Of this run. */
  readonly images: number;
  readonly last: Point;
  /** Runs before this one, and of how many. */
  readonly done: number;
  readonly of: number;
  /** Pictures of all runs of the plan trained on by this process, and still to be. */
  readonly trained: number;
  readonly left: number;
}

export interface CollapseOptions {
  /** The study's folder, which exists. */
  readonly out: string;
  readonly device: Device;
  readonly compute: DType;
  readonly machine: Machine;
  readonly signal: AbortSignal;
  /** Once, before the first run: what was finished already. */
  readonly onFound: (finished: readonly RunResult[]) => void;
  readonly onData: (name: string) => void;
  readonly onProgress: (progress: StudyProgress) => void;
  /** After each run that was computed now, with all that are finished, in the plan's order. */
  readonly onResult: (result: RunResult, finished: readonly RunResult[]) => void | Promise<void>;
}

/** All runs, seeds outermost: whoever stops early has whole comparisons. @throws UsageError for settings that do not fit */
export function planRuns({ preset, cases, seeds, settings, norm }: CollapsePlan): PlannedRun[] {
  return preset.data.flatMap((base) =>
    seeds.flatMap((seed) =>
      cases.map((each) => {
        const config = resolveConfig(base, ...settings, each.settings, { train: { seed } }, norm ? { model: { latentNorm: true } } : {});
        return { data: nameOf(config), case: each, seed, config };
      }),
    ),
  );
}

/** Of file names: the last part of the path of its pictures, and their size. */
const nameOf = ({ data: { source, image } }: RunConfig): string => `${basename(resolve(source)).replaceAll(/[^\w-]+/g, '_')}-${image}px`;

/**
 * Computes what is not there yet and returns all results, in the plan's order. What is finished stays whatever happens.
 * @throws InterruptedError when the signal comes, with the run in hand given up; UsageError, FailureError, DiskError, LockedError
 */
export async function collapse(plan: CollapsePlan, options: CollapseOptions): Promise<RunResult[]> {
  const lock = acquireLock(options.out, 'dsd study collapse');
  try {
    for (const folder of [options.out, join(options.out, RESULTS)]) sweepBundles(folder); // what a kill left
    return await runAll(planRuns(plan), plan.preset, options);
  } finally {
    lock.release();
  }
}

async function runAll(
  runs: readonly PlannedRun[],
  { measured, scale }: Pick<StudyPreset, 'measured' | 'scale'>,
  options: CollapseOptions,
): Promise<RunResult[]> {
  const { out, compute, device, machine, signal, onResult } = options;
  const store = new ResultStore(out);
  const slots = runs.map((run) => store.find({ ...identity(run), measured, scale, compute: machine.compute }));
  const finished = (): RunResult[] => slots.filter((slot) => slot !== undefined);
  options.onFound(finished());
  let trained = 0;
  let open: { readonly of: string; readonly data: DataSet; readonly blank: number } | undefined;
  for (const [i, run] of runs.entries()) {
    if (slots[i]) continue;
    if (open?.of !== run.data) {
      options.onData(run.data);
      const { source, image, workers, broken } = run.config.data;
      const data = await openData(source, { size: image, workers, broken, onProgress: () => stopIf(signal) });
      open = { of: run.data, data, blank: await blankError(data.train, data.heldOut, measured) };
    }
    const { data, blank } = open;
    const model = networkOf(run.config, data);
    const left = runs.reduce((sum, { config }, j) => sum + (slots[j] ? 0 : config.train.images), 0);
    const progress = (images: number, last: Point): void =>
      options.onProgress({ run, images, last, done: finished().length, of: runs.length, trained: trained + images, left: left - images });
    stopIf(signal);
    const curve = await trainCase({
      ...{ config: run.config, model, data, device, compute, measured, scale, signal, onProgress: progress },
    });
    trained += run.config.train.images;
    const result: RunResult = { ...identity(run), measured, scale, blank, machine, finished: new Date().toISOString(), curve };
    store.save(result);
    slots[i] = result;
    await onResult(result, finished());
  }
  return finished();
}

const stopIf = (signal: AbortSignal): void => {
  if (signal.aborted) throw new InterruptedError('stopped');
};

const identity = (run: PlannedRun): Pick<RunResult, 'data' | 'case' | 'seed' | 'config'> => ({
  ...{ data: run.data, case: run.case.name, seed: run.seed, config: run.config },
});

const networkOf = (config: RunConfig, { train }: DataSet): ModelConfig =>
  modelConfig(config, { channels: train.channels, classes: train.classes.length });
