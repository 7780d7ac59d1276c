/**
 * A run's folder: the only thing that a trainer writes and that everything else reads (design decision 7).
 *
 *     config.json            the resolved configuration and the names of the classes
 *     metrics.jsonl          a line at each log cadence (kind "train") and held-out measurement (kind "evaluate")
 *     weights.safetensors    the averaged weights, with the configuration inside
 *     grids/                 reconstructions-*.png and samples-*.png, from fixed pictures, noise and labels
 */
import { join } from 'node:path';
import { UsageError } from '../core/errors.js';
import { type Disk, disk as realDisk } from '../io/disk.js';
import type { RunConfig } from './config.js';
import { WEIGHTS_FILE } from './weights.js';

export class RunFolder {
  private constructor(
    readonly path: string,
    private readonly disk: Disk,
  ) {}

  /** @throws UsageError when something is there already: a run is never written over; DiskError when it could not be written. */
  static check(path: string, disk: Disk = realDisk): void {
    if (disk.exists(path) && (disk.stat(path).kind !== 'folder' || disk.list(path).length > 0)) {
      throw new UsageError(`'${path}' exists and is not empty; a run is never written over: choose another --out, or remove it`);
    }
    disk.checkWritable(path);
  }

  /** Makes the folder. @throws UsageError as `check` */
  static create(path: string, disk: Disk = realDisk): RunFolder {
    RunFolder.check(path, disk);
    disk.mkdir(join(path, 'grids'));
    return new RunFolder(path, disk);
  }

  /** runs/NAME, or runs/NAME-2, -3, ...: the first that is not there. */
  static free(name: string, disk: Disk = realDisk): string {
    for (let n = 1; ; n++) {
      const path = join('runs', n === 1 ? name : `${name}-${n}`);
      if (!disk.exists(path)) return path;
    }
  }

  get weights(): string {
    return join(this.path, WEIGHTS_FILE);
  }

  grid(kind: 'samples' | 'reconstructions', images: number): string {
    return join(this.path, 'grids', `${kind}-${String(images).padStart(9, '0')}.png`);
  }

  saveConfig(config: RunConfig, classes: readonly string[]): void {
    this.disk.writeFileAtomic(join(this.path, 'config.json'), `${JSON.stringify({ ...config, classes }, null, 2)}\n`);
  }

  log(line: object): void {
    this.disk.append(join(this.path, 'metrics.jsonl'), `${JSON.stringify(line)}\n`);
  }
}
