/** Computes a study's runs, one after another. Prints nothing; reports. */
import { join } from 'node:path';
import { InterruptedError } from '../core/errors.js';
import { openData } from '../data/open.js';
import { sweepBundles } from '../io/bundle.js';
import { acquireLock } from '../io/lock.js';
import { RESULTS, ResultStore } from './store.js';
import type { Bench, Identity, PlannedRun, RunResult, Study, Workplace } from './study.js';

/** How far a study is. */
export interface StudyProgress<D> {
  readonly run: Identity;
  /** As of Bench; undefined while what its runs share is made ready. */
  readonly share: number | undefined;
  readonly detail: D;
  /** Runs before this one, and of how many. */
  readonly done: number;
  readonly of: number;
  /** Cost of what this process has computed, and of what is left. */
  readonly spent: number;
  readonly left: number;
}

export interface RunnerOptions<S, O, D> extends Workplace {
  /** Once, before the first run: what was finished already. */
  readonly onFound: (finished: readonly RunResult<S, O>[]) => void;
  readonly onData: (name: string) => void;
  readonly onProgress: (progress: StudyProgress<D>) => void;
  /** After each run that was computed now, with all that are finished, in the plan's order. */
  readonly onResult: (result: RunResult<S, O>, finished: readonly RunResult<S, O>[]) => void | Promise<void>;
}

/**
 * Computes what is not there yet and returns all results, in the plan's order. What is finished stays whatever happens.
 * @throws InterruptedError when the signal comes; UsageError, FailureError, DiskError, LockedError
 */
export async function runStudy<S extends object, O extends object, D>(
  study: Study<S, O, D>,
  options: RunnerOptions<S, O, D>,
): Promise<RunResult<S, O>[]> {
  const lock = acquireLock(options.out, `dsd study ${study.name}`);
  const bench = new Benches(study, options);
  try {
    for (const folder of [options.out, join(options.out, RESULTS)]) sweepBundles(folder); // what a kill left
    return await runAll(study, options, bench);
  } finally {
    bench.close();
    lock.release();
  }
}

async function runAll<S extends object, O extends object, D>(
  study: Study<S, O, D>,
  options: RunnerOptions<S, O, D>,
  benches: Benches<S, O, D>,
): Promise<RunResult<S, O>[]> {
  const { out, machine, signal } = options;
  const { runs } = study;
  const store = new ResultStore<S, O>(out, study.outcome);
  const slots = runs.map((run) => store.find(run, machine.compute));
  const finished = (): RunResult<S, O>[] => slots.filter((slot) => slot !== undefined);
  options.onFound(finished());
  let spent = 0;
  for (const [i, run] of runs.entries()) {
    if (slots[i]) continue;
    const left = runs.reduce((sum, { cost }, j) => sum + (slots[j] ? 0 : cost), 0);
    const told = (share: number | undefined, detail: D): void => {
      const now = (share ?? 0) * run.cost;
      options.onProgress({ run, share, detail, done: finished().length, of: runs.length, spent: spent + now, left: left - now });
    };
    const bench = await benches.for(run, (detail) => told(undefined, detail));
    stopIf(signal);
    const outcome = await bench.compute(run, told);
    spent += run.cost;
    const { data, case: name, seed, settings } = run;
    const result = { data, case: name, seed, ...settings, ...outcome, machine, finished: new Date().toISOString() };
    store.save(result);
    slots[i] = result;
    await options.onResult(result, finished());
  }
  return finished();
}

/** The set of pictures that is open: one at a time, as sets may be large. */
class Benches<S extends object, O extends object, D> {
  private open: { readonly of: string; readonly bench: Bench<S, O, D> } | undefined;

  constructor(
    private readonly study: Study<S, O, D>,
    private readonly options: RunnerOptions<S, O, D>,
  ) {}

  async for(run: PlannedRun<S>, onProgress: (detail: D) => void): Promise<Bench<S, O, D>> {
    if (this.open?.of === run.data) return this.open.bench;
    this.close();
    const { signal, onData } = this.options;
    onData(run.data);
    const { source, image, workers, broken } = run.pictures;
    const data = await openData(source, { size: image, workers, broken, onProgress: () => stopIf(signal) });
    const bench = await this.study.open(data, run, this.options, onProgress);
    this.open = { of: run.data, bench };
    return bench;
  }

  close(): void {
    this.open?.bench.close();
    this.open = undefined;
  }
}

/** @throws InterruptedError */
export function stopIf(signal: AbortSignal): void {
  if (signal.aborted) throw new InterruptedError('stopped');
}
