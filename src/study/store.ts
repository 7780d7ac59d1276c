/** What a study keeps: one file for each finished run, whole or absent, so that an interrupted study goes on where it was. */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { FailureError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import type { RunConfig } from '../train/config.js';
import type { Curve } from './train-case.js';

/** Where a run was computed. */
export interface Machine {
  readonly device: string;
  readonly compute: string;
  readonly threads: number;
  readonly libtorch: string;
  readonly processor: string;
}

/** A finished run. */
export interface RunResult {
  /** Of StudyData. */
  readonly data: string;
  readonly case: string;
  readonly seed: number;
  readonly config: RunConfig;
  readonly measured: number;
  /** Deviation that the untrained latent was brought to; 0: left as it was. */
  readonly scale: number;
  /** L1 of the held-out pictures against the training pictures' median (blank.ts). */
  readonly blank: number;
  readonly machine: Machine;
  /** ISO 8601, in UTC. */
  readonly finished: string;
  readonly curve: Curve;
}

const point = z.object({
  images: z.number(),
  effectiveRank: z.number(),
  deviation: z.number(),
  latentDeviation: z.number(),
  predictionRank: z.number(),
  l1: z.number(),
  denoise: z.number().exactOptional(),
});
const schema = z.object({
  data: z.string(),
  case: z.string(),
  seed: z.number(),
  config: z.unknown(),
  measured: z.number(),
  scale: z.number(),
  blank: z.number(),
  machine: z.object({ device: z.string(), compute: z.string(), threads: z.number(), libtorch: z.string(), processor: z.string() }),
  finished: z.string(),
  curve: z.object({
    points: z.array(point).min(1),
    diverged: z.string().exactOptional(),
    skipped: z.number(),
    seconds: z.number(),
  }),
});

/** The folder of results in a study's. */
export const RESULTS = 'results';
/** Far above what a run writes. */
const LIMIT = 2 ** 24;

/** The results in a study's folder. */
export class ResultStore {
  private readonly folder: string;

  constructor(study: string) {
    this.folder = join(study, RESULTS);
  }

  private path({ data, case: name, seed }: Pick<RunResult, 'data' | 'case' | 'seed'>): string {
    return join(this.folder, `${data}.${name}.${seed}.json`);
  }

  save(result: RunResult): void {
    disk.mkdir(this.folder);
    disk.writeFileAtomic(this.path(result), `${JSON.stringify(result)}\n`);
  }

  /**
   * The finished run of this case, seed and settings; undefined if there is none yet.
   * @throws UsageError when there is one of other settings, which this study must not mix with its own; FailureError when it cannot be read
   */
  find(
    wanted: Pick<RunResult, 'data' | 'case' | 'seed' | 'config' | 'measured' | 'scale'> & { readonly compute: string },
  ): RunResult | undefined {
    const path = this.path(wanted);
    if (!disk.exists(path)) return undefined;
    const found = read(path);
    // Through JSON, as the one on disk went.
    const config: unknown = JSON.parse(JSON.stringify(wanted.config));
    const settings = (of: RunResult['config'] | unknown, { measured, scale }: Pick<RunResult, 'measured' | 'scale'>, compute: string) => ({
      ...{ measured, scale, compute },
      config: of,
    });
    const other = difference(settings(found.config, found, found.machine.compute), settings(config, wanted, wanted.compute));
    if (other !== undefined)
      throw new UsageError(`'${path}' is of other settings: ${other}. Choose another --out, or remove that file to have it computed again`);
    return found;
  }
}

function read(path: string): RunResult {
  const bad = (reason: string, cause?: unknown): FailureError =>
    new FailureError(`'${path}' is no result of a study: ${reason}. Remove it to have it computed again`, { cause });
  let tree: unknown;
  try {
    tree = JSON.parse(new TextDecoder().decode(disk.readFile(path, LIMIT)));
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause;
    throw bad('it is not JSON', cause);
  }
  const result = schema.safeParse(tree);
  if (!result.success) throw bad(result.error.issues.map(({ path: at, message }) => `${at.join('.')}: ${message}`).join('; '));
  // What the configuration says is compared as a whole with one that was checked.
  return { ...result.data, config: result.data.config as RunConfig };
}

/** The first setting in which two configurations differ, with both values. */
function difference(found: unknown, wanted: unknown, path = ''): string | undefined {
  if (isDeepStrictEqual(found, wanted)) return undefined;
  const isTree = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
  if (!isTree(found) || !isTree(wanted)) return `${path} ${JSON.stringify(found)}, wanted ${JSON.stringify(wanted)}`;
  for (const key of new Set([...Object.keys(found), ...Object.keys(wanted)])) {
    const below = difference(found[key], wanted[key], path === '' ? key : `${path}.${key}`);
    if (below !== undefined) return below;
  }
  return undefined;
}
