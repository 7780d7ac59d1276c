/** How an interrupted run goes on: which checkpoint, with which settings. Nothing here ever starts afresh. */
import { basename, dirname, join, resolve } from 'node:path';
import { DsdError, FailureError, UsageError } from '../core/errors.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import { type CheckpointState, Checkpoints, type Found, readState } from './checkpoints.js';
import { checkConfig, merge, type RunConfig, type RunSettings, settingNames } from './config.js';

const CONFIG_FILE = 'config.json';

export interface Resume {
  /** The run's folder. */
  readonly run: string;
  /** The checkpoint's. */
  readonly path: string;
  readonly state: CheckpointState;
}

export interface ResumeOptions {
  /** The run that `latest` is looked for in. */
  readonly run?: string;
  /** Told of each checkpoint that is newer than the one taken and is damaged. */
  readonly onDamaged?: (found: Found) => void;
  /** Bytes checked so far, and of how many. */
  readonly onProgress?: (bytes: number, of: number) => void;
}

/**
 * The checkpoint meant by `latest`, by a run's folder (its newest whole one), or by a checkpoint's own folder; every byte of it is checked.
 * @throws UsageError when there is no such run, or newer checkpoints stand in the way; FailureError when none is whole
 */
export function findResume(what: string, options: ResumeOptions = {}, disk: Disk = realDisk): Resume {
  if (what !== 'latest' && disk.exists(join(what, 'state.json'))) return oneOf(what, options, disk);
  const run = what === 'latest' ? options.run : what;
  if (run === undefined) throw new UsageError('--resume latest wants the run to go on with: --out FOLDER');
  if (!disk.exists(run) || disk.stat(run).kind !== 'folder') throw new UsageError(`--resume: there is no run folder '${run}'`);
  const checkpoints = new Checkpoints(run, disk);
  const damaged: Found[] = [];
  const found = checkpoints.newest((bad) => {
    damaged.push(bad);
    options.onDamaged?.(bad);
  }, options.onProgress);
  if (found) return { run, path: found.path, state: readNamed(found.path, disk) };
  if (damaged.length === 0) {
    // To have it removed is advice for what is surely a run.
    const remedy = disk.exists(join(run, CONFIG_FILE)) ? 'train into another --out, or remove it' : "is it a run's folder?";
    throw new FailureError(`'${run}' has no checkpoint to go on from (${checkpoints.folder}). It is not begun anew by itself: ${remedy}`);
  }
  throw new FailureError(
    `'${run}' has no whole checkpoint:\n${damaged.map(({ path, problem }) => `  ${path}: ${problem}`).join('\n')}\nIt is not begun anew by itself: train into another --out, or remove it`,
  );
}

function oneOf(path: string, options: ResumeOptions, disk: Disk): Resume {
  const run = dirname(dirname(resolve(path)));
  const checkpoints = new Checkpoints(run, disk);
  const images = Number(basename(resolve(path)));
  // Elsewhere, the run would be whatever folder is two above.
  if (!(images >= 0) || checkpoints.path(images) !== resolve(path))
    throw new UsageError(
      `'${path}' does not lie where a run has its checkpoints, as RUN/checkpoints/000000012800 does: put it there under its own number, or name the run`,
    );
  const newer = checkpoints.list().filter((other) => other.problem === undefined && other.images > images);
  if (newer.length > 0)
    throw new UsageError(
      `'${path}' is not the newest checkpoint of its run: going on from it would write over ${newer.map((other) => `'${other.path}'`).join(', ')}. Move or remove those, or copy the run's folder`,
    );
  const problem = checkpoints.problem(path, options.onProgress);
  if (problem !== undefined) throw new FailureError(`checkpoint '${path}' is damaged: ${problem}. Another one: dsd checkpoint list ${run}`);
  return { run, path, state: readNamed(path, disk) };
}

/** The state of a checkpoint that has kept its name: by that name others are newer or older. @throws FailureError */
function readNamed(path: string, disk: Disk): CheckpointState {
  const state = readState(path, disk);
  if (state.images !== Number(basename(resolve(path))))
    throw new FailureError(
      `checkpoint '${path}' is of ${state.images} pictures by what is in it: it was given another name. Give it back its own`,
    );
  return state;
}

/**
 * For who has the lock of the run now: that nobody went on with it between the search for the checkpoint and the lock.
 * @throws FailureError when a newer whole one is there
 */
export function checkStillNewest({ run, path, state }: Resume, disk: Disk = realDisk): void {
  const checkpoints = new Checkpoints(run, disk);
  const newer = checkpoints
    .list()
    .find((found) => found.images > state.images && (found.problem ?? checkpoints.problem(found.path)) === undefined);
  if (newer)
    throw new FailureError(
      `'${run}' was gone on with meanwhile: '${path}' was its newest checkpoint, and now '${newer.path}' is. Try again`,
    );
}

/** Settings that may change when a run goes on: how long it is, where its files lie, what it writes, how it fits the machine. */
const FREE = /^(train\.(images|microBatch|dtype|graph)|objective\.perceptual|data\.(source|workers|broken)|(log|checkpoint|sample)\..*)$/;

/**
 * The settings of a run with what the user changes now laid over them.
 * @throws UsageError naming a setting that a run keeps for life
 */
export function resumedConfig(saved: RunConfig, ...over: readonly RunSettings[]): RunConfig {
  const config = checkConfig(over.reduce<RunSettings>((all, one) => merge(all, one) as RunSettings, saved));
  for (const name of settingNames(config)) {
    const [was, is] = [at(saved, name), at(config, name)];
    if (JSON.stringify(was) !== JSON.stringify(is) && !FREE.test(name))
      throw new UsageError(
        `a run that goes on keeps its ${name}, ${JSON.stringify(was)}; asked for was ${JSON.stringify(is)}. To change it, begin a new run`,
      );
  }
  return config;
}

/** The most bytes of a run's config.json: a hundred times what one has. */
const CONFIG_LIMIT = 2 ** 20;

/**
 * The settings that the process before went on with, which may be later than those in its last checkpoint: it may have been killed before it made one,
 * and what it was asked for (a longer run, mostly) must not be forgotten. From the run's config.json, where that is sound and of this run.
 */
export function lastSettings({ run, state }: Resume, disk: Disk = realDisk): RunConfig {
  try {
    const text = new TextDecoder().decode(disk.readFile(join(run, CONFIG_FILE), CONFIG_LIMIT));
    const { classes: _, ...settings } = JSON.parse(text) as Record<string, unknown>;
    return resumedConfig(state.config, checkConfig(settings));
  } catch (error) {
    if (error instanceof DsdError || error instanceof SyntaxError || error instanceof TypeError) return state.config;
    throw error;
  }
}

const at = (config: RunConfig, name: string): unknown =>
  name.split('.').reduce<unknown>((tree, key) => (tree as Record<string, unknown> | undefined)?.[key], config);

/** What is other now than when the checkpoint was made, so that the run will not be the same to the bit; in words. */
export function differences(then: CheckpointState['ranOn'], now: CheckpointState['ranOn']): string[] {
  const said: Record<keyof Required<typeof then>, string> = {
    libtorch: 'libtorch',
    device: 'the device',
    compute: 'the type computed in',
    threads: 'the number of threads',
    micro: 'the micro-batch',
    processor: 'the processor',
    blas: 'the BLAS library',
  };
  return (Object.keys(said) as (keyof typeof then)[])
    .filter((key) => then[key] !== now[key] && then[key] !== undefined && now[key] !== undefined)
    .map((key) => `${said[key]} was ${then[key]} and is ${now[key]}`);
}
