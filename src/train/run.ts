/**
 * A run's folder: the only thing that a trainer writes and that everything else reads. ARCHITECTURE.md, A run that cannot lose work.
 *
 *     config.json            the resolved configuration and the names of the classes
 *     metrics.jsonl          lines of kind "train" (at each log cadence), "evaluate" (held-out measurements) and "skipped" (steps not applied)
 *     model.safetensors      the averaged weights, with the configuration inside
 *     README.md              the model's card: what it is, what it was trained on, what was measured
 *     grids/                 reconstructions-*.png and samples-*.png, from fixed pictures, noise and labels
 *     checkpoints/           what an interrupted run goes on from (checkpoints.ts)
 *     lock-*                 who is writing, while one is
 *
 * config.json, model.safetensors and README.md are what model hubs look for.
 */
import { join } from 'node:path';
import { FailureError, UsageError } from '../core/errors.js';
import { sweepBundles } from '../io/bundle.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import { acquireLock, LockedError } from '../io/lock.js';
import { Checkpoints } from './checkpoints.js';
import type { RunConfig } from './config.js';
import { WEIGHTS_FILE } from './weights.js';

const METRICS = 'metrics.jsonl';
/** Lines that wait for a disk that takes nothing; beyond it the oldest are lost. */
const MOST_WAITING = 10_000;

export class RunFolder {
  private waiting: string[] = [];

  private constructor(
    readonly path: string,
    private readonly lock: { release(): void },
    private readonly disk: Disk,
  ) {}

  /** @throws UsageError when something is there already: a run is never written over; DiskError when it could not be written. */
  static check(path: string, disk: Disk = realDisk): void {
    if (disk.exists(path) && (disk.stat(path).kind !== 'folder' || disk.list(path).length > 0)) {
      const resumable = new Checkpoints(path, disk).list().length > 0;
      throw new UsageError(
        `'${path}' exists and is not empty; a run is never written over: choose another --out, ${resumable ? 'go on with it by --resume latest, ' : ''}or remove it`,
      );
    }
    disk.checkWritable(path);
  }

  /** Makes the folder and locks it. @throws UsageError as `check`, LockedError */
  static create(path: string, disk: Disk = realDisk): RunFolder {
    RunFolder.check(path, disk);
    const fresh = !disk.exists(path);
    try {
      disk.mkdir(join(path, 'grids'));
      return new RunFolder(path, acquireLock(path, 'training', disk), disk);
    } catch (error) {
      // An empty run would stand in the way of the next try. One in which there is more is another's, begun meanwhile.
      if (fresh && !(error instanceof LockedError) && disk.exists(path) && disk.list(path).every((name) => name === 'grids'))
        disk.remove(path);
      throw error;
    }
  }

  /** Locks the folder of a run to go on with, and clears away what a killed writer left. @throws LockedError, DiskError */
  static reopen(path: string, disk: Disk = realDisk): RunFolder {
    const folder = new RunFolder(path, acquireLock(path, 'training', disk), disk);
    try {
      disk.mkdir(join(path, 'grids'));
      for (const each of [path, join(path, 'grids')]) sweepBundles(each, disk);
      folder.checkpoints.sweep();
      return folder;
    } catch (error) {
      folder.close();
      throw error;
    }
  }

  /** runs/NAME, or runs/NAME-2, -3, ...: the first that is not there. */
  static free(name: string, disk: Disk = realDisk): string {
    for (let n = 1; ; n++) {
      const path = numbered(name, n);
      if (!disk.exists(path)) return path;
    }
  }

  /** The last of runs/NAME, runs/NAME-2, ... that is there; undefined if none is. */
  static last(name: string, disk: Disk = realDisk): string | undefined {
    let last: string | undefined;
    for (let n = 1; disk.exists(numbered(name, n)); n++) last = numbered(name, n);
    return last;
  }

  get weights(): string {
    return join(this.path, WEIGHTS_FILE);
  }

  get checkpoints(): Checkpoints {
    return new Checkpoints(this.path, this.disk);
  }

  grid(kind: 'samples' | 'reconstructions', images: number): string {
    return join(this.path, 'grids', `${kind}-${String(images).padStart(9, '0')}.png`);
  }

  saveConfig(config: RunConfig, classes: readonly string[]): void {
    this.disk.writeFileAtomic(join(this.path, 'config.json'), `${JSON.stringify({ ...config, classes }, null, 2)}\n`);
  }

  saveCard(text: string): void {
    this.disk.writeFileAtomic(join(this.path, 'README.md'), text);
  }

  /** Takes a line of metrics, for `flushLog` to write. */
  log(line: object): void {
    this.waiting.push(`${JSON.stringify(line)}\n`);
    if (this.waiting.length > MOST_WAITING) this.waiting.shift();
  }

  /** Writes the lines that wait. Those that the disk does not take wait, in order, for the next time. @throws DiskError */
  flushLog(): void {
    if (this.waiting.length === 0) return;
    this.disk.append(join(this.path, METRICS), this.waiting.join(''));
    this.waiting = [];
  }

  /** Makes sure that all lines so far outlive a power cut: a checkpoint must not know more than the metrics. @throws DiskError */
  syncLog(): void {
    this.flushLog();
    const path = join(this.path, METRICS);
    if (!this.disk.exists(path)) return;
    this.disk.sync(path);
    this.disk.syncFolder(this.path); // its name too: the file may be younger than the last checkpoint
  }

  /**
   * Takes back the lines written after the checkpoint at `images`: the run will write them again.
   * @throws FailureError when a line before that is no JSON
   */
  rewindLog(images: number): void {
    const path = join(this.path, METRICS);
    if (!this.disk.exists(path)) return;
    const text = new TextDecoder().decode(this.disk.readFile(path));
    const lines = text.split('\n').filter((line) => line !== '');
    const kept: string[] = [];
    for (const [i, line] of lines.entries()) {
      const at = imagesOf(line);
      if (at === undefined) {
        // A crash can garble what came after the checkpoint, and nothing before it: that was synced.
        if (i === lines.length - 1 || lines.slice(i).every((rest) => (imagesOf(rest) ?? Number.POSITIVE_INFINITY) > images)) break;
        throw new FailureError(
          `'${path}': line ${i + 1} is no JSON, and later lines are from before the checkpoint. Mend or move the file`,
        );
      }
      if (at <= images) kept.push(line);
    }
    const rest = kept.map((line) => `${line}\n`).join('');
    if (rest !== text) this.disk.writeFileAtomic(path, rest);
  }

  /** Lets others write. */
  close(): void {
    this.lock.release();
  }
}

const numbered = (name: string, n: number): string => join('runs', n === 1 ? name : `${name}-${n}`);

/** What a line says of the pictures trained on. */
function imagesOf(line: string): number | undefined {
  try {
    const { images } = JSON.parse(line) as { images?: unknown };
    return typeof images === 'number' ? images : undefined;
  } catch {
    return undefined;
  }
}
