/**
 * The checkpoints of a run, newest first: folders `checkpoints/000000012800`, by pictures trained on, each whole or not there (io/bundle.ts). Knows no
 * engine, so that a thread of its own can write them.
 *
 *     online, target, average, optimizer .safetensors    all tensors that change from step to step
 *     state.json                                         where the run is, its configuration, and what it ran on
 *     manifest.json                                      sizes and SHA-256 of the others, written last
 */
import { join } from 'node:path';
import { z } from 'zod';
import { FailureError } from '../core/errors.js';
import { BundleError, discardBundle, readManifest, sweepBundles, verifyBundle, writeBundle } from '../io/bundle.js';
import { type Content, type Disk, disk as realDisk } from '../io/disk.js';
import { checkConfig, type RunConfig } from './config.js';

const FORMAT = 'dsd-checkpoint-1';
const STATE = 'state.json';
/** The most bytes of a state: a hundred times what one has. */
const STATE_LIMIT = 2 ** 24;
const count = z.int().min(0);

const schema = z.strictObject({
  format: z.literal(FORMAT),
  /** Pictures trained on. */
  images: count,
  /** Updates tried, skipped ones counted; the two averages warm up by it. */
  steps: count,
  /** Steps not applied because their gradient was not finite: in all, and in a row up to now. */
  skipped: count,
  row: count,
  /** Pictures since the last line of metrics, whose sums are among the tensors. */
  unlogged: count,
  classes: z.array(z.string()),
  pictures: z.strictObject({ train: count, heldOut: count }),
  /** Hashes of what the run was made from and does not hold (origin.ts). Those of the first runs have none. */
  origin: z.strictObject({ pictures: z.string(), perceptual: z.string().optional() }).optional(),
  /** Held-out PSNR of per-patch PCA, dB. Of pictures that it loses nothing of it is no number. */
  pcaPsnr: z.number().nullable(),
  /** The last measurement on held-out pictures; numbers that are none are null. */
  evaluation: z
    .strictObject({
      images: count,
      psnr: z.number().nullable(),
      effectiveRank: z.number().nullable(),
      latentDeviation: z.number().nullable(),
    })
    .nullable(),
  /** What it ran on: the same bits can be had only on the same. */
  ranOn: z.strictObject({
    libtorch: z.string(),
    device: z.string(),
    compute: z.enum(['float32', 'bfloat16']),
    threads: count,
    micro: count,
    /** Of a run on the CPU: what multiplies. */
    processor: z.string().optional(),
    blas: z.string().optional(),
  }),
  saved: z.string(),
  config: z.unknown(),
});

export type CheckpointState = Omit<z.infer<typeof schema>, 'config' | 'format'> & { readonly config: RunConfig };

/** All of a checkpoint in memory, ready to be written: files by name, in pieces. */
export interface Snapshot {
  readonly images: number;
  readonly files: ReadonlyMap<string, readonly Uint8Array[]>;
}

export const stateFile = (state: CheckpointState): [name: string, pieces: readonly Uint8Array[]] => [
  STATE,
  [new TextEncoder().encode(`${JSON.stringify({ format: FORMAT, ...state }, null, 2)}\n`)],
];

/** A checkpoint in its folder. */
export interface Found {
  readonly path: string;
  readonly images: number;
  readonly bytes: number;
  /** Why it cannot be used, where it cannot: seen without reading the tensors. */
  readonly problem?: string;
}

/** What a checkpoint says of itself. @throws BundleError, FailureError when it is not one that this version knows */
export function readState(path: string, disk: Disk = realDisk): CheckpointState {
  readManifest(path, disk);
  let tree: unknown;
  try {
    tree = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(disk.readFile(join(path, STATE), STATE_LIMIT)));
  } catch (cause) {
    if (cause instanceof FailureError) throw cause;
    throw new FailureError(`checkpoint '${path}': its ${STATE} is no JSON`, { cause });
  }
  const result = schema.safeParse(tree);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new FailureError(
      `checkpoint '${path}' is not one that this version of dsd knows: ${STATE}, ${issue?.path.join('.') || 'all of it'}: ${issue?.message}`,
    );
  }
  const { format: _, config, ...state } = result.data;
  return { ...state, config: checkConfig(config) };
}

export class Checkpoints {
  readonly folder: string;

  /** @param run the run's folder */
  constructor(
    run: string,
    private readonly disk: Disk = realDisk,
  ) {
    this.folder = join(run, 'checkpoints');
  }

  path(images: number): string {
    return join(this.folder, String(images).padStart(12, '0'));
  }

  /** Those there are, newest first, whole or not. */
  list(): Found[] {
    if (!this.disk.exists(this.folder)) return [];
    const names = this.disk.list(this.folder).filter((name) => /^\d{12,}$/.test(name));
    return names.flatMap((name) => this.look(name) ?? []).sort((a, b) => b.images - a.images);
  }

  /** Undefined if it is gone: the thread that saves prunes while others look, and so does another process. */
  private look(name: string): Found | undefined {
    const [path, images] = [join(this.folder, name), Number(name)];
    try {
      const bytes = [...readManifest(path, this.disk).files.values()].reduce((sum, { size }) => sum + size, 0);
      return { path, images, bytes };
    } catch (error) {
      if (!this.disk.exists(path)) return undefined;
      if (error instanceof BundleError) return { path, images, bytes: 0, problem: error.reason };
      throw error;
    }
  }

  /**
   * The newest whose every byte is as it was written, or undefined.
   * @param onDamaged told of each newer one that is not
   */
  newest(onDamaged: (found: Found) => void = () => {}, onProgress?: (bytes: number, of: number) => void): Found | undefined {
    for (const found of this.list()) {
      const problem = found.problem ?? this.problem(found.path, onProgress);
      if (problem === undefined) return found;
      onDamaged({ ...found, problem });
    }
    return undefined;
  }

  /** The newest that has all its files in their sizes: what stands, for messages. */
  standing(): Found | undefined {
    return this.list().find(({ problem }) => problem === undefined);
  }

  /** What reading every byte finds wrong with a checkpoint; undefined if nothing. */
  problem(path: string, onProgress?: (bytes: number, of: number) => void): string | undefined {
    try {
      verifyBundle(path, this.disk, onProgress);
      return undefined;
    } catch (error) {
      if (error instanceof BundleError) return error.reason;
      throw error;
    }
  }

  /** Writes one; when it is whole, all but the `keep` newest go. Returns its path. @throws DiskError, and then the others are as they were */
  write(snapshot: Snapshot, keep: number): string {
    this.disk.mkdir(this.folder);
    const path = this.path(snapshot.images);
    const files = new Map<string, Content>(snapshot.files);
    writeBundle(path, files, this.disk);
    this.prune(keep);
    return path;
  }

  /**
   * Removes all but the `keep` newest whole ones, and what is damaged and older than those. At least one whole one stays. Returns what went.
   * @param isWhole a closer look at one whose sizes are right, before others go in trust of it
   */
  prune(keep: number, isWhole: (path: string) => boolean = () => true): string[] {
    const gone: string[] = [];
    let whole = 0;
    for (const { path, problem } of this.list()) {
      const wanted = problem === undefined && whole < Math.max(1, keep);
      if (wanted && isWhole(path)) whole++;
      // A damaged one is of use to nobody, but what is newer than all whole ones is left for its owner to look at.
      else if (whole > 0) {
        discardBundle(path, this.disk);
        gone.push(path);
      }
    }
    return gone;
  }

  /** Puts a damaged one out of the way, so that its place can be written again. */
  setAside(path: string): string {
    const aside = `${path}.damaged`;
    this.disk.remove(aside);
    this.disk.rename(path, aside);
    return aside;
  }

  /** Removes what a writer that was killed left. For the one writer of the run. */
  sweep(): string[] {
    return this.disk.exists(this.folder) ? sweepBundles(this.folder, this.disk) : [];
  }
}
